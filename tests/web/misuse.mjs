// What the package says to those who use it wrongly: every case throws TinysegError with these words. Reads the request of
// answers.mjs; ends with an exit code other than 0 where a case does not.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const request = JSON.parse(readFileSync(0, "utf8"));
const { Segmenter } = await import(pathToFileURL(request.sources));
const ort = await import(pathToFileURL(request.ort));
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "fatal";

const card = JSON.parse(readFileSync(request.card, "utf8"));
const graphs = { encoder: readFileSync(request.encoder), decoder: readFileSync(request.decoder) };
const right = { ort, core: readFileSync(request.core), card, graphs };
const picture = (width, height) => ({ data: new Uint8ClampedArray(4 * width * height).fill(90), width, height });

async function told(expected, action) {
  await assert.rejects(action, (error) => {
    assert.ok(error.name === "TinysegError" && error.message.includes(expected), `${expected}: ${error.stack}`);
    return true;
  });
}

await told("ort must be the module", () => Segmenter.load());
await told("providers must be a list", () => Segmenter.load({ ...right, providers: "wasm" }));
await told("the host answered 404", () => Segmenter.load({ ...right, core: new Response("", { status: 404 }) }));
await told("core.wasm", () => Segmenter.load({ ...right, core: new Uint8Array(9) }));
for (const [expected, wrong] of [
  ["its long_side", null],
  ["its long_side", { ...card, long_side: NaN }],
  ["its long_side", { ...card, long_side: 1e9 }],
  ["its zoom.side", { ...card, zoom: undefined }],
  ["its zoom.side", { ...card, zoom: { ...card.zoom, side: 40 } }],
  ["its zoom.factor", { ...card, zoom: { ...card.zoom, factor: "2" } }],
  ["its zoom.below", { ...card, zoom: { ...card.zoom, below: 2 } }],
]) {
  await told(expected, () => Segmenter.load({ ...right, card: wrong }));
}
await told("the encoder does not load", () => Segmenter.load({ ...right, graphs: undefined }));
await told("the decoder does not load", () => Segmenter.load({ ...right, graphs: { ...graphs, decoder: new Uint8Array(99) } }));
await told("no model's encoder: it has no image", () =>
  Segmenter.load({ ...right, graphs: { encoder: graphs.decoder, decoder: graphs.encoder } }),
);

const segmenter = await Segmenter.load(right);
await told("width and height", () => segmenter.embed());
await told("width and height", () => segmenter.embed({ data: new Uint8Array(12), width: 1.5, height: 2 }));
await told("must be RGBA bytes", () => segmenter.embed({ data: new Float32Array(16), width: 2, height: 2 }));
await told("must be RGBA bytes", () => segmenter.embed({ data: [1, 2, 3, 4], width: 1, height: 1 }));
await told("has 16 bytes RGBA, not 12", () => segmenter.embed({ data: new Uint8Array(12), width: 2, height: 2 }));

const embedding = await segmenter.embed(picture(60, 40));
await told("the prompt is empty", () => embedding.predict());
await told("points must be", () => embedding.predict({ points: new Float32Array([5, 5]) }));
await told("points must be", () => embedding.predict({ points: [, [5, 5]] }));
await told("points must be", () => embedding.predict({ box: { x0: 1 } }));
await told("labels must be", () => embedding.predict({ points: [[5, 5]], labels: 1 }));
await told("mask must be finite", () => embedding.predict({ mask: new Float32Array(embedding.view.cells).fill(NaN) }));
await told('zoom must be "auto" or "off"', () => embedding.predict({ points: [[5, 5]] }, { zoom: "always" }));
await told("points_per_side", () => embedding.everything({ ...card.everything, points_per_side: 1e6 }));
const typed = await embedding.predict({ points: [new Float32Array([5, 5])], labels: new Int8Array([1]), box: null });
assert.equal(typed.masks.length, 3);

embedding.free();
embedding.free();
await told("this picture was freed", () => embedding.predict({ points: [[5, 5]] }));
await segmenter.free();
await segmenter.free();
await told("this segmenter was freed", () => segmenter.embed(picture(4, 4)));
process.exit(0);
