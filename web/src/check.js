// One drawn picture and its answer by the Python runtime, so that an engine that computes something else is found out before
// anybody relies on it. tinyseg/web/check.py draws the same picture.

const SIDE = 192;

/** The picture of the check: { data (RGBA), width, height }. */
export function checkPicture() {
  const data = new Uint8ClampedArray(4 * SIDE * SIDE);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const inside = (x - 96) ** 2 + (y - 90) ** 2 < 52 ** 2;
      data.set(inside ? [216, 64 + (y >> 2), 40, 255] : [60 + (x >> 2), 90, 70 + (y >> 2), 255], 4 * (y * SIDE + x));
    }
  }
  return { data, width: SIDE, height: SIDE };
}

/** IoU of the mask that a segmenter answers with the one that site.json states: { prompt, box, runs }. */
export async function checkOverlap(segmenter, check) {
  const embedding = await segmenter.embed(checkPicture());
  try {
    const answer = await embedding.predict({ box: check.prompt }, { multimask: false });
    return overlap(answer.masks[0], { box: check.box, bits: bitsOf(check.runs) });
  } finally {
    embedding.free();
  }
}

/** Lengths of runs, the first of zeros, row by row -> bits. */
function bitsOf(runs) {
  return runs.flatMap((run, i) => new Array(run).fill(i % 2));
}

function overlap(a, b) {
  const inside = ({ box: [x0, y0, x1, y1], bits }, x, y) =>
    x >= x0 && x < x1 && y >= y0 && y < y1 && bits[(y - y0) * (x1 - x0) + x - x0] === 1;
  let both = 0;
  let either = 0;
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const [p, q] = [inside(a, x, y), inside(b, x, y)];
      both += p && q ? 1 : 0;
      either += p || q ? 1 : 0;
    }
  }
  return either === 0 ? 1 : both / either;
}
