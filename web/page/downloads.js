// Masks as other programs take them: COCO's run-length encoding, and cut-outs.

/** The compressed RLE of a mask (pycocotools' maskApi.c): runs column by column, zeros first. */
export function encode({ box, bits }, width, height) {
  const [x0, y0, x1, y1] = box;
  const runs = [];
  let end = 0; // of the last run of ones, in a column-major picture
  for (let x = x0; x < x1; x++) {
    for (let y = y0; y < y1; y++) {
      if (!bits[(y - y0) * (x1 - x0) + x - x0]) continue;
      const at = x * height + y;
      if (at === end && runs.length) runs[runs.length - 1]++;
      else runs.push(at - end, 1);
      end = at + 1;
    }
  }
  if (end < width * height) runs.push(width * height - end);
  return runs.map((run, i) => symbols(i > 2 ? run - runs[i - 2] : run)).join("");
}

function symbols(number) {
  let value = number;
  let text = "";
  for (let more = true; more; ) {
    const low = value & 0x1f;
    value >>= 5;
    more = value !== (low & 0x10 ? -1 : 0);
    text += String.fromCharCode((more ? low | 0x20 : low) + 48);
  }
  return text;
}

/** Objects as a COCO document. */
export function cocoDocument(objects, name, width, height) {
  return {
    images: [{ id: 1, file_name: name, height, width }],
    annotations: objects.map((one) => {
      const { box, area, score } = one.masks[one.chosen];
      return {
        id: one.id, image_id: 1, category_id: one.id, iscrowd: 0, area, score,
        bbox: [box[0], box[1], box[2] - box[0], box[3] - box[1]],
        segmentation: { size: [height, width], counts: encode(one.masks[one.chosen], width, height) },
      };
    }),
    categories: objects.map(({ id, name: text }) => ({ id, name: text })),
  };
}

/** The picture inside a mask's box, everything but the mask transparent. */
export function cutout({ data, width }, { box, bits }) {
  const [x0, y0, x1, y1] = box;
  const image = new ImageData(x1 - x0, y1 - y0);
  for (let y = y0; y < y1; y++) {
    for (let x = x0; x < x1; x++) {
      const i = (y - y0) * (x1 - x0) + x - x0;
      if (!bits[i]) continue;
      const from = 4 * (y * width + x);
      image.data.set(data.subarray(from, from + 3), 4 * i);
      image.data[4 * i + 3] = 255;
    }
  }
  return image;
}

/** Hands a file to the user. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
