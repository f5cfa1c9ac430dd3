// What web/src answers in Node: reads a request as JSON on standard input, writes answers as JSON on standard output.
// Masks are the bits inside their box, in base64.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const request = JSON.parse(readFileSync(0, "utf8"));
const { Segmenter } = await import(pathToFileURL(request.sources));
const ort = await import(pathToFileURL(request.ort));
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";

const segmenter = await Segmenter.load({
  ort,
  core: readFileSync(request.core),
  card: JSON.parse(readFileSync(request.card, "utf8")),
  graphs: { encoder: readFileSync(request.encoder), decoder: readFileSync(request.decoder) },
});
const plain = ({ box, bits, area, score, stability, logits, point }) => ({
  box, area, score, stability, point, bits: Buffer.from(bits).toString("base64"),
  logits: Buffer.from(logits.buffer, logits.byteOffset, logits.byteLength).toString("base64"),
});

const answers = [];
for (const { image, width, height, prompts, everything } of request.pictures) {
  const embedding = await segmenter.embed({ data: new Uint8ClampedArray(readFileSync(image)), width, height });
  const found = [];
  let logits = null;
  for (const { hint, options, ...prompt } of prompts) {
    try {
      const answer = await embedding.predict({ ...prompt, mask: hint ? logits : null }, options);
      logits = answer.masks[answer.best].logits;
      found.push({ masks: answer.masks.map(plain), best: answer.best, zoom: answer.zoom });
    } catch (error) {
      found.push({ error: error.message, name: error.name });
    }
  }
  answers.push({ prompts: found, regions: everything ? (await embedding.everything()).map(plain) : null });
  embedding.free();
}
process.stdout.write(JSON.stringify(answers), () => process.exit(0));
