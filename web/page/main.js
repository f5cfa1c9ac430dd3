// Puts the page together. view.js, list.js, pointing.js, rle.js and style.css are the live page's.

import { cocoDocument, cutout, encode, save } from "./downloads.js";
import { Engine } from "./engine.js";
import { isolate } from "./isolate.js";
import { ObjectList } from "./list.js";
import { Objects, joined } from "./objects.js";
import { Camera, pictureIn, pixelsOf, readPicture } from "./pictures.js";
import { watchPointing } from "./pointing.js";
import { View } from "./view.js";

const at = (id) => document.getElementById(id);
const view = new View(at("picture"));
const objects = new Objects();
const camera = new Camera(showFrame);
const figures = new Map();
let engine = null;
let picture = null; // { name, width, height }; null while there is none, or the camera runs
let opened = Promise.resolve(); // when the picture is encoded
let turn = Promise.resolve(); // prompts are answered one after the other: each builds on what is there
let drawn = 0; // how often the objects changed
let listed = []; // what the list shows

function say(text) {
  at("spoken").textContent = text;
}

function complain(error) {
  at("message").textContent = error.message;
}

function figure(name, value) {
  figures.set(name, value);
  at("figures").replaceChildren(
    ...[...figures].map(([key, text]) => {
      const row = document.createElement("div");
      row.append(document.createElement("dt"), document.createElement("dd"));
      row.children[0].textContent = key;
      row.children[1].textContent = text;
      return row;
    }),
  );
}

function status(text, mood) {
  at("link").textContent = text;
  at("link").toggleAttribute("data-bad", mood === "bad");
  at("link").toggleAttribute("data-good", mood === "good");
}

/** Runs what a button or key asks for; what goes wrong is told. */
async function attempt(action) {
  at("message").textContent = "";
  try {
    return await action();
  } catch (error) {
    complain(error);
    return null;
  }
}

function inTurn(action) {
  turn = turn.then(() => attempt(action));
  return turn;
}

// Pictures

function showFrame(bitmap) {
  view.bitmap?.close();
  view.bitmap = bitmap;
  view.draw();
}

async function openFile(file) {
  const { bitmap, name, note } = await readPicture(file);
  stopCamera();
  take(bitmap, name || "picture.png");
  if (note) at("message").textContent = note;
}

/** A bitmap becomes the picture that is asked about. */
function take(bitmap, name) {
  if (view.bitmap !== bitmap) showFrame(bitmap);
  picture = { name, width: bitmap.width, height: bitmap.height };
  objects.forget();
  view.selected = null;
  changed();
  at("hint").textContent = "Click an object, or drag a box around it.";
  at("source").textContent = `${name}, ${bitmap.width} x ${bitmap.height}`;
  const pixels = pixelsOf(bitmap);
  // A picture may come while the network loads.
  opened = started.then(() => engine.open(pixels)).then(({ milliseconds }) => figure("encoded in", `${milliseconds.toFixed(0)} ms`));
  opened.catch(complain);
  say("Picture opened");
}

async function toggleCamera() {
  if (camera.running) return stopCamera();
  if (!(await camera.start())) return null;
  picture = null;
  objects.forget();
  view.selected = null;
  changed();
  at("camera").setAttribute("aria-pressed", "true");
  at("hint").textContent = "Click an object: the picture stops, and is asked.";
  at("source").textContent = "camera";
  return say("Camera on");
}

function stopCamera() {
  camera.stop();
  at("camera").setAttribute("aria-pressed", "false");
}

/** The picture to ask about; a running camera gives the one that is shown. */
function requirePicture() {
  if (camera.running && view.bitmap) {
    stopCamera();
    take(view.bitmap, "camera.png");
  }
  if (!picture) throw new Error("open a picture first");
  return picture;
}

// Objects

function changed() {
  const { width, height } = picture ?? { width: 0, height: 0 };
  const shown = objects.all.map((one) => {
    const mask = one.masks[one.chosen];
    one.counts ??= new Map();
    if (!one.counts.has(one.chosen)) one.counts.set(one.chosen, encode(mask, width, height));
    return {
      id: one.id, name: one.name, color: one.color, visible: true, box: mask.box, score: mask.score,
      counts: one.counts.get(one.chosen), unnamed: one.unnamed,
    };
  });
  if (!objects.find(view.selected)) view.selected = shown.at(-1)?.id ?? null;
  const drawnNames = shown.map((one) => (one.unnamed ? { ...one, name: "" } : one));
  view.take({ number: ++drawn, frame: view.frame, width, height, objects: drawnNames });
  listed = shown;
  select(view.selected);
  at("none").hidden = shown.length > 0;
  at("clear").disabled = at("save-coco").disabled = shown.length === 0;
  at("undo").disabled = !objects.canUndo;
  at("everything").disabled = !picture;
  if (shown.length) at("hint").textContent = "";
}

function select(id) {
  view.selected = id;
  list.show(listed, id);
  const one = objects.find(id);
  at("save-cutout").disabled = !one;
  at("reading").disabled = (one?.masks.length ?? 0) < 2;
  at("reading").textContent = one && one.masks.length > 1 ? `Reading ${one.chosen + 1} of ${one.masks.length}` : "Other reading";
  view.draw();
}

const list = new ObjectList(at("objects"), {
  onSelect: select,
  onEdit: (id, fields) => {
    objects.change(id, fields.name ? { ...fields, unnamed: false } : fields);
    changed();
  },
  onRemove: (id) => {
    objects.remove(id);
    changed();
  },
});

function mode() {
  return document.querySelector("input[name=mode]:checked").value;
}

/** A click or box: a new object, or a correction of the selected one. */
async function point(fields, correct) {
  const asked = requirePicture();
  await opened;
  const before = correct || mode() !== "new" ? objects.find(view.selected) : null;
  if (!before && (correct || mode() !== "new")) throw new Error("select the object to correct first");
  const added = { points: [], labels: [], box: null, ...fields };
  const prompt = before ? joined(before.prompt, added) : added;
  const hint = before ? before.masks[before.chosen].logits : null;
  // One click alone may mean a part, an object or a group: three readings.
  const multimask = !before && prompt.points.length === 1;
  const answer = await engine.ask({ ...prompt, mask: hint }, multimask);
  if (picture !== asked) return; // another picture has been opened since
  figure("answered in", `${answer.milliseconds.toFixed(0)} ms${answer.zoom ? ", with a second look" : ""}`);
  const found = answer.masks[answer.best];
  if (found.area === 0) throw new Error("nothing was found there; try a box");
  if (before) {
    objects.change(before.id, { prompt, masks: [found], chosen: 0, counts: undefined });
    say(`${before.name} corrected`);
  } else {
    const made = objects.add(prompt, answer);
    view.selected = made.id;
    say(`${made.name} found, ${found.area} pixels`);
  }
  changed();
}

async function findEverything() {
  const asked = requirePicture();
  await opened;
  const { regions, milliseconds } = await engine.everything();
  if (picture !== asked) return;
  figure("everything in", `${(milliseconds / 1000).toFixed(1)} s`);
  // Large ones first, so that small ones lie on top.
  regions.sort((a, b) => b.area - a.area);
  objects.replaceAll(
    regions.map((mask) => ({ prompt: { points: [mask.point], labels: [1], box: null }, mask })),
  );
  changed();
  say(`${regions.length} regions found`);
}

function otherReading() {
  const one = objects.find(view.selected);
  if (!one || one.masks.length < 2) return;
  objects.change(one.id, { chosen: (one.chosen + 1) % one.masks.length });
  changed();
  const now = objects.find(one.id);
  say(`reading ${now.chosen + 1}, ${now.masks[now.chosen].area} pixels`);
}

function undo() {
  objects.undo();
  changed();
  say("undone");
}

async function saveCutout() {
  const one = objects.find(view.selected);
  if (!one) return;
  const image = cutout(pixelsOf(view.bitmap), one.masks[one.chosen]);
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  save(await canvas.convertToBlob({ type: "image/png" }), `${one.name.replace(/[^\p{L}\p{N}]+/gu, "-")}.png`);
}

function saveCoco() {
  if (!picture) return;
  const document = cocoDocument(objects.all, picture.name, picture.width, picture.height);
  save(new Blob([JSON.stringify(document)], { type: "application/json" }), "masks.json");
}

// What buttons, keys and the pointer do

watchPointing(
  view,
  (x, y, shift) => {
    const corrects = shift || mode() !== "new";
    // Shift alone decides by what was clicked; the modes are for those who have no Shift.
    const off = corrects && (mode() === "cut" || (mode() === "new" && view.onSelected(x, y)));
    return inTurn(() => point({ points: [[x, y]], labels: [off ? 0 : 1] }, shift));
  },
  (box, shift) => inTurn(() => point({ box }, shift)),
);

const buttons = {
  open: () => at("file").click(),
  camera: toggleCamera,
  everything: () => inTurn(findEverything),
  undo,
  reading: otherReading,
  clear: () => {
    objects.clear();
    changed();
  },
  "save-cutout": saveCutout,
  "save-coco": saveCoco,
};
for (const [id, action] of Object.entries(buttons)) at(id).addEventListener("click", () => attempt(action));

at("file").addEventListener("change", () => {
  const [file] = at("file").files;
  if (file) attempt(() => openFile(file));
  at("file").value = "";
});

document.addEventListener("paste", (event) => {
  const file = pictureIn(event.clipboardData);
  if (file) attempt(() => openFile(file));
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("stage").toggleAttribute("data-over", true);
});
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, () => at("stage").removeAttribute("data-over"));
}
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const file = pictureIn(event.dataTransfer);
  attempt(() => {
    if (!file) throw new Error("that is no picture; drop a PNG, JPEG or WebP file");
    return openFile(file);
  });
});

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=text], input[type=color], textarea")) return;
  const key = event.key.toLowerCase();
  const ids = objects.all.map((one) => one.id);
  const here = ids.indexOf(view.selected);
  if ((event.ctrlKey || event.metaKey) && key === "z" && objects.canUndo) undo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (key === "o") buttons.open();
  else if (key === "c") attempt(toggleCamera);
  else if (key === "e") inTurn(findEverything);
  else if (key === "m") otherReading();
  else if (event.key === "Delete" && here >= 0) {
    objects.remove(view.selected);
    changed();
  } else if (event.key === "]" && ids.length) select(ids[(here + 1) % ids.length]);
  else if (event.key === "[" && ids.length) select(ids[(here + ids.length - 1 + (here < 0)) % ids.length]);
  else return;
  event.preventDefault();
});

// Starting

function progress(done, all) {
  at("progress").hidden = false;
  at("progress").max = all;
  at("progress").value = done;
}

async function start() {
  const options = new URLSearchParams(location.search);
  const threads = options.has("threads") ? Math.max(1, Number(options.get("threads")) || 1) : null;
  const lacking = await isolate();
  status("loading");
  engine = new Engine(progress, (busy) => {
    at("stage").toggleAttribute("data-busy", busy);
    if (!busy) at("progress").hidden = true;
  });
  const response = await fetch("site.json");
  if (!response.ok) throw new Error(`site.json does not load: the host answered ${response.status}`);
  const site = await response.json().catch(() => null);
  if (!site?.engines || !site.files) throw new Error("site.json is damaged; put the whole folder on the host again");
  const loaded = await engine.load(site, options.get("engine") ?? "auto", threads);
  const threadsRun = loaded.threads > 1 ? `${loaded.threads} threads` : "1 thread";
  figure("engine", loaded.provider === "webgpu" ? "WebGPU" : `WASM, ${threadsRun}`);
  figure("model", `${site.model}, ${loaded.precision}`);
  status("ready", "good");
  at("message").textContent = loaded.note || lacking;
}

const started = start();
started.catch((error) => {
  status("does not start", "bad");
  complain(error);
});
