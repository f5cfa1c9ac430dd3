// COCO's compressed run-length encoding (pycocotools' maskApi.c, rleFrString): runs column by column, zeros first.

/** "counts" -> run lengths. */
export function runs(counts) {
  const found = [];
  let at = 0;
  while (at < counts.length) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const code = counts.charCodeAt(at++) - 48;
      value |= (code & 0x1f) << shift;
      shift += 5;
      more = (code & 0x20) !== 0;
      if (!more && code & 0x10) value |= -1 << shift;
    }
    if (found.length > 2) value += found[found.length - 2];
    found.push(value);
  }
  return found;
}

/** Draws an object's mask and its outline into RGBA pixels of a picture of `width` x `height`. */
export function paint(pixels, width, height, object, color, strong) {
  const [x0, y0, x1, y1] = object.box;
  const inside = new Uint8Array(width * height);
  let at = 0, value = 0;
  for (const run of runs(object.counts)) {
    if (value) {
      for (let i = at; i < at + run; i++) inside[(i % height) * width + ((i / height) | 0)] = 1;
    }
    at += run;
    value ^= 1;
  }
  const alpha = strong ? 140 : 105;
  for (let y = y0; y < y1; y++) {
    for (let x = x0; x < x1; x++) {
      const i = y * width + x;
      if (!inside[i]) continue;
      const edge = x === 0 || y === 0 || x === width - 1 || y === height - 1
        || !inside[i - 1] || !inside[i + 1] || !inside[i - width] || !inside[i + width];
      // Over what an earlier object painted: the later one wins, as in the downloads.
      pixels[4 * i] = edge && strong ? 255 : color[0];
      pixels[4 * i + 1] = edge && strong ? 255 : color[1];
      pixels[4 * i + 2] = edge && strong ? 255 : color[2];
      pixels[4 * i + 3] = edge ? 255 : alpha;
    }
  }
  return inside;
}

/** Whether a pixel lies in an object's mask. */
export function covers(object, height, x, y) {
  const index = x * height + y;
  let at = 0, value = 0;
  for (const run of runs(object.counts)) {
    at += run;
    if (index < at) return value === 1;
    value ^= 1;
  }
  return false;
}
