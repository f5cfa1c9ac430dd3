// The canvas: a picture, the masks of the same frame over it, and what the user is pointing at.

import { covers, paint } from "./rle.js";

const KEPT_STATES = 90;

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.states = new Map(); // frame -> newest state of it
    this.newest = null;
    this.bitmap = null;
    this.frame = 0; // that is shown
    this.selected = null;
    this.box = null; // [x0, y0, x1, y1] while one is drawn
    this.cross = null; // [x, y] of the keyboard's cross
    this.decoding = false;
    this.pending = null;
    this.masks = new OffscreenCanvas(1, 1);
    this.painted = "";
  }

  /** The state that belongs to the shown picture. */
  get state() {
    return this.states.get(this.frame) ?? this.newest;
  }

  take(state) {
    if (this.newest && state.number < this.newest.number) this.states.clear(); // the server has started anew
    this.newest = state;
    this.states.set(state.frame, state);
    for (const frame of this.states.keys()) {
      if (this.states.size <= KEPT_STATES) break;
      if (frame !== this.frame) this.states.delete(frame);
    }
    if (state.frame === this.frame) this.draw();
  }

  /** A picture has come; one that waits for decoding gives way to a newer one. */
  async show(frame, blob) {
    this.pending = { frame, blob };
    if (this.decoding) return;
    this.decoding = true;
    try {
      while (this.pending) {
        const { frame: number, blob: data } = this.pending;
        this.pending = null;
        const bitmap = await createImageBitmap(data);
        this.bitmap?.close();
        this.bitmap = bitmap;
        this.frame = number;
        this.draw();
      }
    } finally {
      this.decoding = false;
    }
  }

  draw() {
    if (!this.bitmap) return;
    const { width, height } = this.bitmap;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.masks = new OffscreenCanvas(width, height);
      this.painted = "";
    }
    this.context.drawImage(this.bitmap, 0, 0);
    const state = this.state;
    if (state && state.width === width && state.height === height) {
      const key = `${state.number}/${this.selected}`;
      if (key !== this.painted) {
        this.paintMasks(state);
        this.painted = key;
      }
      this.context.drawImage(this.masks, 0, 0);
      this.drawNames(state);
    }
    this.drawPointing(width, height);
  }

  paintMasks(state) {
    const context = this.masks.getContext("2d");
    const image = context.createImageData(state.width, state.height);
    for (const object of state.objects) {
      if (!object.visible) continue;
      const color = [1, 3, 5].map((i) => parseInt(object.color.slice(i, i + 2), 16));
      paint(image.data, state.width, state.height, object, color, object.id === this.selected);
    }
    context.putImageData(image, 0, 0);
  }

  drawNames(state) {
    const size = Math.max(12, Math.round(state.width / 50));
    this.context.font = `600 ${size}px system-ui, sans-serif`;
    this.context.textBaseline = "bottom";
    for (const object of state.objects) {
      if (!object.visible) continue;
      const x = Math.min(object.box[0], state.width - this.context.measureText(object.name).width - 4);
      const y = Math.max(object.box[1] - 3, size + 4);
      this.context.lineWidth = Math.max(3, size / 5);
      this.context.lineJoin = "round";
      this.context.strokeStyle = "rgb(0 0 0 / .8)";
      this.context.strokeText(object.name, Math.max(x, 2), y);
      this.context.fillStyle = "#fff";
      this.context.fillText(object.name, Math.max(x, 2), y);
    }
  }

  drawPointing(width, height) {
    const line = Math.max(2, Math.round(Math.max(width, height) / 400));
    if (this.box) {
      const [x0, y0, x1, y1] = this.box;
      for (const [ink, wide] of [["#000", line + 2], ["#fff", line]]) {
        this.context.strokeStyle = ink;
        this.context.lineWidth = wide;
        this.context.strokeRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
      }
    }
    if (this.cross) {
      const [x, y] = this.cross, long = 12 * line;
      for (const [ink, wide] of [["#000", line + 2], ["#fff", line]]) {
        this.context.strokeStyle = ink;
        this.context.lineWidth = wide;
        this.context.beginPath();
        this.context.moveTo(x - long, y);
        this.context.lineTo(x + long, y);
        this.context.moveTo(x, y - long);
        this.context.lineTo(x, y + long);
        this.context.stroke();
      }
    }
  }

  /** Where an event happened, in pixels of the picture; the canvas may be letterboxed by object-fit. */
  place(event) {
    const area = this.canvas.getBoundingClientRect();
    const scale = Math.min(area.width / this.canvas.width, area.height / this.canvas.height);
    const left = area.left + (area.width - this.canvas.width * scale) / 2;
    const top = area.top + (area.height - this.canvas.height * scale) / 2;
    return this.inside((event.clientX - left) / scale, (event.clientY - top) / scale);
  }

  inside(x, y) {
    return [Math.min(Math.max(x, 0), this.canvas.width - 1), Math.min(Math.max(y, 0), this.canvas.height - 1)];
  }

  /** Whether a place lies in the mask of the selected object, as it is shown. */
  onSelected(x, y) {
    const object = this.state?.objects.find((one) => one.id === this.selected);
    return Boolean(object?.visible) && covers(object, this.state.height, Math.floor(x), Math.floor(y));
  }
}
