// Everything in a picture: a grid of clicks, and what remains of their answers (tinyseg/predict/everything.py, without
// crops). Numbers are rounded to 32 bits where the Python runtime keeps them so.

import { MASKS, part } from "./core.js";
import { TinysegError } from "./errors.js";

const MAX_CANDIDATES = 2048;
const MAX_PER_SIDE = 256;
const NUMBERS = ["score", "stability", "stability_offset", "confident", "box_overlap", "mask_overlap"];
const COUNTS = { points_per_side: 1, coarse_per_side: 0, sure_margin: 0 }; // and the least that they may be
const BATCH = 16; // clicks a decoder call: bounds the memory that its layers take
const STRIDE = 4;

/**
 * embedding: of the picture. rule: "everything" of model.json. progress: called with (clicks asked, clicks in all).
 * Gives regions, the best scored first: box, bits inside it, area, score, stability, point (the click that found it),
 * logits on the picture's grid.
 */
export async function findRegions(embedding, rule, progress) {
  for (const name of [...NUMBERS, ...Object.keys(COUNTS)]) {
    if (!Number.isFinite(rule?.[name])) throw new TinysegError(`"everything" in model.json states no number ${name}`);
  }
  for (const [name, least] of Object.entries(COUNTS)) {
    if (!Number.isInteger(rule[name]) || rule[name] < least || rule[name] > MAX_PER_SIDE) {
      throw new TinysegError(`${name} of "everything" must be ${least} to ${MAX_PER_SIDE}, but is ${rule[name]}`);
    }
  }
  const { core } = embedding.segmenter;
  const { view } = embedding;
  const grids = sides(rule).map((side) => grid(view, side));
  let done = 0;
  const ask = async (points, all) => {
    const found = [];
    for (let start = 0; start < points.length; start += BATCH) {
      const clicks = points.slice(start, start + BATCH);
      found.push(...passing(core, view, rule, await embedding.clicks(clicks), clicks));
      progress((done += clicks.length), all);
    }
    return best(found);
  };
  let found = [];
  for (const [level, points] of grids.entries()) {
    const sure = sureCells(found, view, Math.fround(rule.confident), rule.sure_margin);
    const open = points.filter((point) => !sure[cellOf(point, view)]);
    // As many as there can be; the finer grids will be asked in part.
    const later = grids.slice(level + 1).reduce((sum, finer) => sum + finer.length, 0);
    found = best([...found, ...(await ask(open, done + open.length + later))]);
  }
  return draw(core, view, clean(core, view, rule, found));
}

/** Clicks a side of the grids that are asked one after the other: the coarse one, twice as many, and last the finest. */
function sides(rule) {
  const all = [];
  for (let side = rule.coarse_per_side; side > 0 && side < rule.points_per_side; side *= 2) all.push(side);
  return [...all, rule.points_per_side];
}

/** Points in the middles of n x n equal cells of the picture, named as prompts name pixels. */
function grid(view, perSide) {
  const [x0, y0, x1, y1] = view.region;
  const points = [];
  for (let row = 0; row < perSide; row++) {
    for (let column = 0; column < perSide; column++) {
      const x = ((column + 0.5) / perSide) * (x1 - x0) + x0 - 0.5;
      const y = ((row + 0.5) / perSide) * (y1 - y0) + y0 - 0.5;
      points.push([Math.min(Math.max(x, x0), x1), Math.min(Math.max(y, y0), y1)]);
    }
  }
  return points;
}

function cellOf([x, y], view) {
  const column = Math.floor(Math.fround((x + 0.5 - view.region[0]) * view.scaleX) / STRIDE);
  const row = Math.floor(Math.fround((y + 0.5 - view.region[1]) * view.scaleY) / STRIDE);
  return Math.min(row, view.rows - 1) * view.columns + Math.min(column, view.columns - 1);
}

/** Where a mask is sure of itself, and all around too: there the finer grids are not asked (sure_cells in everything.py). */
function sureCells(found, view, confident, margin) {
  const sure = new Uint8Array(view.cells);
  for (const { logits } of found) {
    let open = logits.map((v) => (v > confident ? 0 : 1));
    open = spread(open, view.rows, view.columns, view.columns, 1, margin);
    open = spread(open, view.columns, view.rows, 1, view.columns, margin);
    open.forEach((v, i) => v === 0 && (sure[i] = 1));
  }
  return sure;
}

/** Cells of `lines` lines of `length` that have a marked one within `margin` of them in their line. */
function spread(cells, lines, length, lineStep, step, margin) {
  const out = new Uint8Array(cells.length);
  for (let line = 0; line < lines; line++) {
    let last = -Infinity; // the marked cell that was passed last
    for (let i = 0; i < length + margin; i++) {
      if (i < length && cells[line * lineStep + i * step]) last = i;
      const centre = i - margin;
      if (centre >= 0 && last >= centre - margin) out[line * lineStep + centre * step] = 1;
    }
  }
  return out;
}

/** Of the answers to clicks what is above the rule's thresholds. */
function passing(core, view, rule, { logits, iou }, clicks) {
  const good = [...iou.keys()].filter((i) => iou[i] > Math.fround(rule.score));
  const masks = good.map((i) => part(logits, i, iou.length));
  return counted(core, view, masks, rule.stability_offset)
    .map((one, k) => ({
      ...one, logits: masks[k], score: iou[good[k]], point: clicks[Math.floor(good[k] / MASKS)].map(Math.fround),
    }))
    .filter((one) => one.area > 0 && one.stability >= Math.fround(rule.stability));
}

/** Boxes (in pixels of the picture), areas in cells, and stability of masks on the grid. */
function counted(core, view, masks, offset) {
  const joined = new Float32Array(view.cells * masks.length);
  masks.forEach((one, i) => joined.set(one, view.cells * i));
  const [x0, y0, x1, y1] = view.region;
  const across = (cell) => Math.min(Math.max(Math.fround((cell * STRIDE) / view.scaleX + x0), x0), x1);
  const down = (cell) => Math.min(Math.max(Math.fround((cell * STRIDE) / view.scaleY + y0), y0), y1);
  return core.gridStats(joined, view, offset).map(({ box, area, stability }) => ({
    box: [across(box[0]), down(box[1]), across(box[2]), down(box[3])], area, stability,
  }));
}

function best(found) {
  return [...found].sort((a, b) => b.score - a.score).slice(0, MAX_CANDIDATES);
}

function suppressed(core, view, rule, found) {
  if (found.length === 0) return found;
  const boxes = found.map((one) => one.box);
  const logits = found.map((one) => one.logits);
  const keep = core.suppress(boxes, logits, view, rule.box_overlap, rule.mask_overlap);
  return found.filter((_, i) => keep[i]);
}

/** Without doubles, and without specks and pinholes of those that stay; what became a double by that goes too. */
function clean(core, view, rule, found) {
  const mended = suppressed(core, view, rule, found).map((one) => {
    const prompt = { points: [one.point], labels: [1], box: null };
    const logits = core.withoutSpecks(one.logits, view, prompt);
    return { ...one, logits, changed: logits === one.logits ? 0 : 1 };
  });
  const stats = counted(core, view, mended.map((one) => one.logits), rule.stability_offset);
  const rows = mended.map((one, i) => ({ ...one, box: stats[i].box, area: stats[i].area })).filter((one) => one.area > 0);
  // Masks that were whole from the start win over those that had to be mended (SAM, appendix B).
  rows.sort((a, b) => a.changed - b.changed || b.score - a.score);
  return best(suppressed(core, view, rule, rows));
}

/** What stays, drawn at the picture's size; a mask without a pixel is left out. */
function draw(core, view, found) {
  // Interpolation reaches half a cell beyond the cells that are inside.
  const dx = STRIDE / view.scaleX;
  const dy = STRIDE / view.scaleY;
  const [x0, y0, x1, y1] = view.region;
  return found
    .map(({ box, logits, score, stability, point }) => {
      const window = [
        Math.max(x0, Math.floor(box[0] - dx)), Math.max(y0, Math.floor(box[1] - dy)),
        Math.min(x1, Math.ceil(box[2] + dx)), Math.min(y1, Math.ceil(box[3] + dy)),
      ];
      return { ...core.drawWindow(logits, view, window), score, stability, point, logits };
    })
    .filter((one) => one.area > 0);
}
