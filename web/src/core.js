// The runtime's own C++ (native/web.cpp, compiled to WebAssembly): geometry, prompts, second looks, specks, masks.
// What crosses into its memory is copied; nothing that a function returns points into it.

import { TinysegError } from "./errors.js";

/** Masks that the decoder gives for a prompt. */
export const MASKS = 4;
const NO_MEMORY = "the browser has no memory left for this picture; close other tabs, or take a smaller one";
const VIEW_INTS = 10;
const STATS_INTS = 7;

/** How a region of a frame lies in the encoder's input; the ten integers of the core's View. */
export class View {
  constructor(ints) {
    this.ints = ints;
    [this.frameWidth, this.frameHeight] = ints;
    this.region = [...ints.subarray(2, 6)]; // x0, y0, x1, y1 in frame pixels
    this.content = [...ints.subarray(6, 8)]; // width, height in model pixels
    this.input = [...ints.subarray(8, 10)];
    this.rows = this.input[1] / 4; // of the logit grid, padding included
    this.columns = this.input[0] / 4;
    this.cells = this.rows * this.columns;
  }

  get scaleX() {
    return this.content[0] / (this.region[2] - this.region[0]);
  }

  get scaleY() {
    return this.content[1] / (this.region[3] - this.region[1]);
  }
}

export class Core {
  /** source: the bytes of core.wasm, a Response of it, or a promise of either. */
  static async load(source) {
    const given = await source;
    const imports = {
      env: { emscripten_notify_memory_growth() {} },
      wasi_snapshot_preview1: {
        proc_exit() {
          throw new TinysegError(NO_MEMORY);
        },
      },
    };
    try {
      if (given instanceof Response && !given.ok) throw new Error(`the host answered ${given.status}`);
      const bytes = given instanceof Response ? await given.arrayBuffer() : given;
      const { instance } = await WebAssembly.instantiate(bytes, imports);
      instance.exports._initialize();
      return new Core(instance.exports);
    } catch (error) {
      throw new TinysegError(`the core does not load (${error.message}); give tinyseg's core.wasm, of the same version, as core`);
    }
  }

  constructor(exports) {
    this._core = exports;
  }

  letterbox(width, height, longSide, region = [0, 0, width, height], square = false) {
    return this._with((memory) => {
      const out = memory.room(4 * VIEW_INTS);
      this._core.letterbox(width, height, memory.ints(region), longSide, square ? 1 : 0, out);
      return new View(memory.readInts(out, VIEW_INTS));
    });
  }

  /** pixels: RGBA bytes of the whole frame -> the encoder's input, Float32Array (3, height, width). */
  prepare(pixels, view) {
    return this._with((memory) => {
      const [, y0, , y1] = view.region;
      const rows = memory.bytes(pixels.subarray(4 * y0 * view.frameWidth, 4 * y1 * view.frameWidth));
      const size = 3 * view.input[0] * view.input[1];
      const out = memory.room(4 * size);
      this._core.prepare(rows, memory.ints(view.ints), out);
      return memory.readFloats(out, size);
    });
  }

  /** Where to look again for an object in a box, or null where the look that `view` gave is good enough. */
  secondLook(box, view, zoom) {
    return this._with((memory) => {
      const out = memory.room(4 * VIEW_INTS);
      const found = this._core.second_look(
        memory.doubles(box), memory.ints(view.ints), zoom.side, zoom.factor, zoom.below, out,
      );
      return found ? new View(memory.readInts(out, VIEW_INTS)) : null;
    });
  }

  /** The first point outside the view's region, -1 if there is none. */
  outsidePoint(prompt, view) {
    return this._with((memory) =>
      this._core.outside_point(memory.doubles(prompt.points.flat()), prompt.points.length, memory.ints(view.ints)),
    );
  }

  /** A box cut to the view's region; null where nothing remains. */
  cutBox(box, view) {
    return this._with((memory) => {
      const place = memory.doubles(box);
      return this._core.cut_box(place, memory.ints(view.ints)) ? memory.readDoubles(place, 4) : null;
    });
  }

  /** The box that a prompt states by itself, widened to its points; null if only a look can tell. */
  promptedBox(prompt) {
    return this._with((memory) => {
      const out = memory.room(32);
      return this._core.prompted_box(...memory.prompt(prompt), out) ? memory.readDoubles(out, 4) : null;
    });
  }

  /** A placed prompt as the decoder takes it: points (slots, 2) in model pixels and labels (slots,). */
  layOut(prompt, frame, view, slots) {
    return this._with((memory) => {
      const points = memory.room(8 * slots);
      const labels = memory.room(4 * slots);
      this._core.lay_out(
        ...memory.prompt(prompt), memory.ints(frame.ints), memory.ints(view.ints), points, labels, slots,
      );
      return { points: memory.readFloats(points, 2 * slots), labels: memory.readFloats(labels, slots) };
    });
  }

  /** Logits of an earlier answer on the grid of `frame` -> the decoder's hint on the grid of `view`. */
  layOutHint(logits, frame, view) {
    return this._with((memory) => {
      const out = memory.room(4 * view.cells);
      this._core.lay_out_hint(memory.floats(logits), memory.ints(frame.ints), memory.ints(view.ints), out);
      return memory.readFloats(out, view.cells);
    });
  }

  /** Which of the decoder's four masks, logits (4, cells), are the three readings that a user sees. */
  chooseReadings(logits) {
    return this._with((memory) => {
      const out = memory.room(12);
      this._core.choose_readings(memory.floats(logits), logits.length / 4, out);
      return [...memory.readInts(out, 3)];
    });
  }

  /** What two looks say together: the second look's logits with their share of the first look's, on the same grid. */
  addFirstLook(first, second) {
    return this._with((memory) => {
      const out = memory.floats(second);
      this._core.add_first_look(memory.floats(first), out, second.length);
      return memory.readFloats(out, second.length);
    });
  }

  allFinite(values) {
    return this._with((memory) => this._core.all_finite(memory.floats(values), values.length) === 1);
  }

  /** Logits on one view's grid -> logits on another view's grid. */
  resample(logits, source, target) {
    return this._with((memory) => {
      const out = memory.room(4 * target.cells);
      this._core.resample(memory.floats(logits), memory.ints(source.ints), memory.ints(target.ints), out);
      return memory.readFloats(out, target.cells);
    });
  }

  /** Logits (cells) of a view without specks and pinholes; the same array where there are none. */
  withoutSpecks(logits, view, prompt) {
    return this._with((memory) => {
      const place = memory.floats(logits);
      const [points, labels, count] = memory.prompt(prompt);
      const changed = this._core.without_specks(place, memory.ints(view.ints), points, labels, count);
      return changed ? memory.readFloats(place, logits.length) : logits;
    });
  }

  /** The mask of the frame that logits of a view draw, as the part inside its box: bits (box height, box width), 0 or 1. */
  draw(logits, view, offset) {
    return this._with((memory) => {
      const { frameWidth: width, frameHeight: height } = view;
      const mask = memory.room(width * height);
      const stats = memory.room(4 * STATS_INTS);
      this._core.threshold(memory.floats(logits), memory.ints(view.ints), offset, mask, stats);
      const [x0, y0, x1, y1, area, above, below] = memory.readInts(stats, STATS_INTS);
      const bits = new Uint8Array((x1 - x0) * (y1 - y0));
      for (let y = y0; y < y1; y++) bits.set(memory.viewBytes(mask + y * width + x0, x1 - x0), (y - y0) * (x1 - x0));
      return { box: [x0, y0, x1, y1], bits, area, stability: below ? above / below : 0 };
    });
  }

  /** The part of draw()'s mask in a window x0, y0, x1, y1 of the frame, inside the view's region. */
  drawWindow(logits, view, window) {
    return this._with((memory) => {
      const width = window[2] - window[0];
      const size = width * (window[3] - window[1]);
      const mask = memory.room(size);
      const stats = memory.room(4 * STATS_INTS);
      this._core.threshold_window(memory.floats(logits), memory.ints(view.ints), memory.ints(window), mask, stats);
      const [x0, y0, x1, y1, area] = memory.readInts(stats, STATS_INTS);
      const bits = new Uint8Array((x1 - x0) * (y1 - y0));
      for (let y = y0; y < y1; y++) {
        const start = mask + (y - window[1]) * width + x0 - window[0];
        bits.set(memory.viewBytes(start, x1 - x0), (y - y0) * (x1 - x0));
      }
      return { box: [x0, y0, x1, y1], bits, area };
    });
  }

  /** Masks (count, cells) counted on the grid: for each a box in cells, the area, and the stability. */
  gridStats(logits, view, offset) {
    const count = logits.length / view.cells;
    return this._with((memory) => {
      const out = memory.room(4 * STATS_INTS * count);
      this._core.grid_stats(memory.floats(logits), count, memory.ints(view.ints), offset, out);
      const numbers = memory.readInts(out, STATS_INTS * count);
      return Array.from({ length: count }, (_, i) => {
        const row = numbers.subarray(STATS_INTS * i, STATS_INTS * (i + 1));
        const stability = Math.fround(row[5] / Math.max(row[6], 1));
        return { box: [...row.subarray(0, 4)], area: row[4], stability };
      });
    });
  }

  /** Greedy suppression of masks in the order given, the best first: which of them stay. boxes: in frame pixels. */
  suppress(boxes, logits, view, boxOverlap, maskOverlap) {
    const count = boxes.length;
    return this._with((memory) => {
      const keep = memory.room(count);
      const joined = memory.room(4 * view.cells * count);
      for (let i = 0; i < count; i++) memory.writeFloats(joined + 4 * view.cells * i, logits[i]);
      this._core.suppress(
        memory.floats(boxes.flat()), joined, count, memory.ints(view.ints), boxOverlap, maskOverlap, keep,
      );
      return [...memory.viewBytes(keep, count)].map((v) => v === 1);
    });
  }

  _with(use) {
    const memory = new Memory(this._core);
    try {
      return use(memory);
    } catch (error) {
      // The core aborts where it gets no memory, and for no other reason.
      if (error instanceof WebAssembly.RuntimeError) throw new TinysegError(NO_MEMORY);
      throw error;
    } finally {
      memory.release();
    }
  }
}

/** Room in the core's memory for the time of one call. Growth replaces the buffer, so it is asked for at every access. */
class Memory {
  constructor(core) {
    this._core = core;
    this._taken = [];
  }

  release() {
    for (const place of this._taken) this._core.release(place);
  }

  room(bytes) {
    const place = this._core.allocate(Math.max(bytes, 1)) >>> 0;
    if (place === 0) {
      throw new TinysegError(NO_MEMORY);
    }
    this._taken.push(place);
    return place;
  }

  _put(values, type) {
    const place = this.room(values.length * type.BYTES_PER_ELEMENT);
    new type(this._core.memory.buffer, place, values.length).set(values);
    return place;
  }

  bytes(values) {
    return this._put(values, Uint8Array);
  }

  ints(values) {
    return this._put(values, Int32Array);
  }

  floats(values) {
    return this._put(values, Float32Array);
  }

  doubles(values) {
    return this._put(values, Float64Array);
  }

  /** points, labels, count and box as the core's functions take them. */
  prompt({ points, labels, box }) {
    return [this.doubles(points.flat()), this.doubles(labels), points.length, box ? this.doubles(box) : 0];
  }

  writeFloats(place, values) {
    new Float32Array(this._core.memory.buffer, place, values.length).set(values);
  }

  viewBytes(place, count) {
    return new Uint8Array(this._core.memory.buffer, place, count);
  }

  readInts(place, count) {
    return new Int32Array(this._core.memory.buffer, place, count).slice();
  }

  readFloats(place, count) {
    return new Float32Array(this._core.memory.buffer, place, count).slice();
  }

  readDoubles(place, count) {
    return [...new Float64Array(this._core.memory.buffer, place, count)];
  }
}

/** One of `count` masks as a copy: the engine may use its memory again. */
export function part(logits, index, count) {
  const cells = logits.length / count;
  return logits.slice(index * cells, (index + 1) * cells);
}
