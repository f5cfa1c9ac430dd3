// From a picture and prompts to masks: what tinyseg/predict does in Python. Everything but the order of the steps is the
// core's (core.js) or the networks'.

import { Core, MASKS, part } from "./core.js";
import { TinysegError } from "./errors.js";
import { findRegions } from "./everything.js";

/** Stability: how much of a mask survives when its threshold moves by this much (SAM, arXiv 2304.02643, appendix B). */
export const STABILITY_OFFSET = 1;
export const MAX_SIDE = 16384;
const MAX_POINTS = 254;
const LEAST_SLOTS = 4;
const MULTIPLE = 32; // of the encoder's input, pixels a side
const MAX_INPUT_SIDE = 4096;
// Tensors that are fed and read by name; between the networks go others, which are the model's own affair.
const TENSORS = { encoder: ["image"], decoder: ["points", "labels", "mask", "has_mask", "logits", "iou"] };

/**
 * A model that is ready: both networks in an onnxruntime-web session, and the core.
 *
 * ort: the module onnxruntime-web. card: a model's model.json. graphs: { encoder, decoder }, bytes of their ONNX files.
 * core: bytes of core.wasm, or a Response. providers: of onnxruntime-web, the first that works is taken.
 */
export class Segmenter {
  static async load({ ort, core, card, graphs, providers = ["wasm"] } = {}) {
    if (!ort?.InferenceSession) throw new TinysegError("ort must be the module onnxruntime-web");
    if (!Array.isArray(providers) || providers.length === 0) throw new TinysegError('providers must be a list such as ["wasm"]');
    checkCard(card);
    const segmenter = new Segmenter(ort, await Core.load(core), card, {});
    try {
      // One after the other: onnxruntime-web starts its module with the first.
      for (const role of ["encoder", "decoder"]) {
        const options = { executionProviders: providers };
        if (providers[0] === "webgpu" && role === "encoder") options.preferredOutputLocation = "gpu-buffer";
        segmenter._sessions[role] = await openGraph(ort, role, graphs?.[role], options);
      }
    } catch (error) {
      await segmenter.free();
      throw error;
    }
    return segmenter;
  }

  constructor(ort, core, card, sessions) {
    this.core = core;
    this.card = card;
    this._ort = ort;
    this._sessions = sessions;
  }

  /** Gives back what the engine holds for the networks, which no garbage collector does; nothing can be asked afterwards. */
  async free() {
    const sessions = Object.values(this._sessions);
    this._sessions = {};
    for (const session of sessions) await session.release();
  }

  /** image: { data, width, height } with RGBA bytes, such as an ImageData. The bytes are kept for second looks. */
  async embed(image) {
    const { data, width, height } = image ?? {};
    if (![width, height].every((side) => Number.isInteger(side) && side >= 1 && side <= MAX_SIDE)) {
      throw new TinysegError(`width and height of a picture must be whole numbers from 1 to ${MAX_SIDE}, but are ${width} and ${height}`);
    }
    if (!ArrayBuffer.isView(data) || data.BYTES_PER_ELEMENT !== 1) {
      throw new TinysegError("the picture's data must be RGBA bytes: a Uint8ClampedArray, as an ImageData has, or a Uint8Array");
    }
    if (data.length !== 4 * width * height) {
      throw new TinysegError(`a picture of ${width} x ${height} has ${4 * width * height} bytes RGBA, not ${data.length}`);
    }
    const view = this.core.letterbox(width, height, this.card.long_side);
    return new Embedding(this, data, view, await this.encode(data, view));
  }

  /** The encoder's maps of a view of a picture; dispose() frees them. */
  async encode(pixels, view) {
    const [width, height] = view.input;
    const image = new this._ort.Tensor("float32", this.core.prepare(pixels, view), [1, 3, height, width]);
    return this._session("encoder").run({ image });
  }

  /** Laid-out prompts (points, labels, hint or null for each) about a view -> logits (B * 4 * cells) and iou (B * 4). */
  async decode(features, view, prompts) {
    const count = prompts.length;
    const slots = prompts[0].labels.length;
    const points = new Float32Array(count * slots * 2);
    const labels = new Float32Array(count * slots);
    const mask = new Float32Array(count * view.cells);
    const hasMask = new Float32Array(count);
    prompts.forEach((prompt, i) => {
      points.set(prompt.points, 2 * slots * i);
      labels.set(prompt.labels, slots * i);
      if (prompt.hint) mask.set(prompt.hint, view.cells * i);
      hasMask[i] = prompt.hint ? 1 : 0;
    });
    const tensor = (data, dims) => new this._ort.Tensor("float32", data, dims);
    const out = await this._session("decoder").run({
      ...features,
      points: tensor(points, [count, slots, 2]),
      labels: tensor(labels, [count, slots]),
      mask: tensor(mask, [count, 1, view.rows, view.columns]),
      has_mask: tensor(hasMask, [count]),
    });
    const logits = out.logits.data;
    if (!this.core.allFinite(logits)) {
      throw new TinysegError("the network answered with values that are no numbers; choose the other engine");
    }
    return { logits, iou: out.iou.data };
  }

  _session(role) {
    if (!this._sessions[role]) throw new TinysegError("this segmenter was freed; load another one");
    return this._sessions[role];
  }
}

/** An encoded picture. Prompts are asked one after the other; free() gives back what an engine holds for it. */
export class Embedding {
  constructor(segmenter, pixels, view, features) {
    this.segmenter = segmenter;
    this.view = view;
    this._pixels = pixels;
    this._features = features;
  }

  free() {
    if (this._features) dispose(this._features);
    this._features = null;
  }

  /**
   * Masks for one prompt: points [[x, y], ...] in pixels with labels 1 (on the object) or 0, box [x0, y0, x1, y1], mask:
   * logits of an earlier answer about this picture; or a mixture of them.
   *
   * multimask: three readings of a click, or the one mask that answers best. zoom: "auto" looks again at small objects.
   * Gives for each mask its box and the bits inside it, area, score, stability, and logits on the picture's grid; zoom is
   * the region that was looked at again, or null. Throws TinysegError.
   */
  async predict(given, options) {
    const { multimask = true, zoom = "auto" } = options ?? {};
    if (zoom !== "auto" && zoom !== "off") throw new TinysegError(`zoom must be "auto" or "off", but is ${zoom}`);
    const { core, card } = this.segmenter;
    const prompt = this._place(given);
    const box = core.promptedBox(prompt);
    let crop = zoom === "auto" && box ? core.secondLook(box, this.view, card.zoom) : null;
    let answer;
    let first = null;
    if (!crop) {
      const whole = await this._ask(prompt, this.view, this._kept());
      const chosen = this._choose(whole.logits, multimask);
      const looks = chosen.map((k) => part(whole.logits, k, MASKS));
      answer = this._masks(prompt, this.view, looks, chosen.map((k) => whole.iou[k]));
      first = whole.logits.slice();
      const best = answer.masks[answer.best];
      if (zoom === "auto" && !box && best.area > 0) crop = core.secondLook(best.box, this.view, card.zoom);
    }
    return crop ? this._lookAgain(prompt, multimask, crop, first) : answer;
  }

  /** Everything in the picture, as regions without names; see everything.js. */
  everything(rule = this.segmenter.card.everything, progress = () => {}) {
    return findRegions(this, rule, progress);
  }

  /** The answers to single clicks [[x, y], ...]: logits (B * 4 * cells) and iou (B * 4). */
  async clicks(points) {
    const prompts = points.map((p) => {
      const prompt = { points: [p], labels: [1], box: null };
      return { ...this.segmenter.core.layOut(prompt, this.view, this.view, LEAST_SLOTS), hint: null };
    });
    return this.segmenter.decode(this._kept(), this.view, prompts);
  }

  _kept() {
    if (!this._features) throw new TinysegError("this picture was freed; embed it again");
    return this._features;
  }

  async _lookAgain(prompt, multimask, crop, first) {
    const { core } = this.segmenter;
    const features = await this.segmenter.encode(this._pixels, crop);
    try {
      const { logits, iou } = await this._ask(prompt, crop, features);
      const chosen = this._choose(logits, multimask);
      let looks = chosen.map((k) => part(logits, k, MASKS));
      if (first && !prompt.mask) {
        // A hint has brought the first look along already.
        looks = looks.map((one, i) => core.addFirstLook(core.resample(part(first, chosen[i], MASKS), this.view, crop), one));
      }
      return this._masks(prompt, crop, looks, chosen.map((k) => iou[k]));
    } finally {
      dispose(features);
    }
  }

  async _ask(prompt, view, features) {
    const { core } = this.segmenter;
    const slots = Math.max(LEAST_SLOTS, prompt.points.length + 2);
    const hint = prompt.mask ? core.layOutHint(prompt.mask, this.view, view) : null;
    return this.segmenter.decode(features, view, [{ ...core.layOut(prompt, this.view, view, slots), hint }]);
  }

  _choose(logits, multimask) {
    return multimask ? this.segmenter.core.chooseReadings(logits) : [0];
  }

  _masks(prompt, view, logits, scores) {
    const { core } = this.segmenter;
    const masks = logits.map((one, i) => {
      const clean = core.withoutSpecks(one, view, prompt);
      const onFrame = view === this.view ? clean : core.resample(clean, view, this.view);
      return { ...core.draw(clean, view, STABILITY_OFFSET), score: scores[i], logits: onFrame };
    });
    const best = masks.reduce((k, one, i) => (one.score > masks[k].score ? i : k), 0);
    return { masks, best, zoom: view === this.view ? null : view.region };
  }

  /** A checked prompt, its box cut to the picture. */
  _place(given) {
    const { frameWidth: width, frameHeight: height } = this.view;
    // Of typed arrays too; what is no list has no entries.
    const points = Array.from(given?.points ?? [], (point) => Array.from(point ?? []));
    const labels = given?.labels == null ? null : Array.from(given.labels);
    const box = given?.box == null ? null : Array.from(given.box);
    const mask = given?.mask ?? null;
    if (points.length === 0 && !box && !mask) throw new TinysegError("the prompt is empty; give points, a box or a mask");
    if (points.length > MAX_POINTS) throw new TinysegError(`at most ${MAX_POINTS} points can be given`);
    const numbers = [...points.flat(), ...(box ?? [])];
    if (points.some((p) => p.length !== 2) || (box && box.length !== 4) || !numbers.every(Number.isFinite)) {
      throw new TinysegError("points must be [x, y] and a box [x0, y0, x1, y1], of finite numbers");
    }
    const marks = labels ?? points.map(() => 1);
    if (marks.length !== points.length || !marks.every((v) => v === 0 || v === 1)) {
      throw new TinysegError(`labels must be 1 or 0, one for each of the ${points.length} points`);
    }
    if (mask && mask.length !== this.view.cells) {
      throw new TinysegError(`mask must be the logits of an earlier answer, ${this.view.cells} values, not ${mask.length}`);
    }
    if (mask && !this.segmenter.core.allFinite(mask)) {
      throw new TinysegError("mask must be finite, but holds NaN or infinity");
    }
    const prompt = { points, labels: marks, box, mask };
    const outside = this.segmenter.core.outsidePoint(prompt, this.view);
    if (outside >= 0) {
      throw new TinysegError(`point ${points[outside]} lies outside the picture of ${width} x ${height} pixels`);
    }
    if (box) {
      prompt.box = box[0] < box[2] && box[1] < box[3] ? this.segmenter.core.cutBox(box, this.view) : null;
      if (!prompt.box) throw new TinysegError(`box ${box} has no area inside the picture of ${width} x ${height} pixels`);
    }
    return prompt;
  }
}

/** What a model.json must state, within the bounds that the other runtimes hold it to. Throws TinysegError. */
function checkCard(card) {
  const within = (value, low, high) => Number.isFinite(value) && value >= low && value <= high;
  const side = (value) => Number.isInteger(value) && within(value, MULTIPLE, MAX_INPUT_SIDE);
  const zoom = card?.zoom ?? {};
  const right = {
    long_side: side(card?.long_side),
    "zoom.side": side(zoom.side) && zoom.side % MULTIPLE === 0,
    "zoom.factor": within(zoom.factor, 1, 100),
    "zoom.below": within(zoom.below, 0, 1),
  };
  const wrong = Object.keys(right).find((name) => !right[name]);
  if (wrong) throw new TinysegError(`card is no model's model.json: its ${wrong} is missing or impossible; get the model again`);
}

async function openGraph(ort, role, bytes, options) {
  let session;
  try {
    session = await ort.InferenceSession.create(bytes, options);
  } catch (error) {
    throw new TinysegError(`the ${role} does not load (${error.message}); give the bytes of its ONNX file as graphs.${role}`);
  }
  const names = [...session.inputNames, ...session.outputNames];
  const lacking = TENSORS[role].find((name) => !names.includes(name));
  if (lacking) {
    await session.release();
    throw new TinysegError(`graphs.${role} is no model's ${role}: it has no ${lacking}`);
  }
  return session;
}

function dispose(features) {
  for (const tensor of Object.values(features)) tensor.dispose();
}
