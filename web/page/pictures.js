// Where pictures come from: a file, the clipboard, something dropped, the camera.

const MOST_SIDE = 3072; // a phone's photo is shrunk to this: its pixels are kept several times while it is worked on
const MOST_BYTES = 64 << 20;

/** A file -> { bitmap, name, note }, upright, at most 3072 pixels a side. Throws Error with what to do. */
export async function readPicture(file) {
  if (file.size > MOST_BYTES) throw new Error(`${file.name} has ${file.size >> 20} MiB; a picture may have ${MOST_BYTES >> 20}`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name || "that"} is no picture that this browser reads; try PNG, JPEG or WebP`);
  }
  const shrink = MOST_SIDE / Math.max(bitmap.width, bitmap.height);
  if (shrink >= 1) return { bitmap, name: file.name, note: "" };
  const shrunk = (side) => Math.max(1, Math.round(side * shrink));
  const size = { resizeWidth: shrunk(bitmap.width), resizeHeight: shrunk(bitmap.height) };
  const small = await createImageBitmap(bitmap, { ...size, resizeQuality: "high" });
  const note = `${bitmap.width} x ${bitmap.height} was shrunk to ${small.width} x ${small.height}`;
  bitmap.close();
  return { bitmap: small, name: file.name, note };
}

/** The pixels of a bitmap: { data (RGBA), width, height }. */
export function pixelsOf(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/** The first picture in a paste or a drop, or null. */
export function pictureIn(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/")) ?? null;
}

/** A camera whose frames are shown until one is taken. */
export class Camera {
  /** show(bitmap): a frame; it belongs to the receiver. */
  constructor(show) {
    this._show = show;
    this._stream = null;
    this._asked = 0; // how often it was started or stopped: a stream that comes after the next time is not wanted
  }

  get running() {
    return this._stream !== null;
  }

  /** Whether it runs; not where it was stopped, or started once more, while the user was asked. Throws Error with what to do. */
  async start() {
    const asked = ++this._asked;
    if (!navigator.mediaDevices) throw new Error("cameras need an https address (or localhost)");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        video: { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: "environment" },
      });
    } catch (error) {
      const why = { NotAllowedError: "it was not allowed", NotFoundError: "there is none" }[error.name] ?? error.message;
      throw new Error(`the camera does not start: ${why}`);
    }
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    video.srcObject = stream;
    try {
      await video.play();
    } catch (error) {
      end(stream);
      throw new Error(`the camera does not start: ${error.message}`);
    }
    if (asked !== this._asked) {
      end(stream);
      return false;
    }
    this._stream = stream;
    this._loop(video, stream);
    return true;
  }

  stop() {
    this._asked++;
    if (this._stream) end(this._stream);
    this._stream = null;
  }

  async _loop(video, stream) {
    while (this._stream === stream) {
      const bitmap = video.videoWidth ? await createImageBitmap(video) : null;
      if (this._stream === stream && bitmap) this._show(bitmap);
      else bitmap?.close();
      await new Promise((resolve) => requestAnimationFrame(resolve));
    }
    video.srcObject = null;
  }
}

function end(stream) {
  for (const track of stream.getTracks()) track.stop();
}
