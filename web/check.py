"""A picture that page and runtime both draw, and the runtime's answer: how a browser's engine is found out (src/check.js)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.graphs.model import Model
from tinyseg.predict.load import load

SIDE = 192
BOX = (44, 38, 148, 142)


def check_picture() -> NDArray[np.uint8]:
    """(192, 192, 3) uint8 RGB: a disk on a ramp."""
    y, x = np.mgrid[:SIDE, :SIDE]
    inside = (x - 96) ** 2 + (y - 90) ** 2 < 52**2
    disk = np.stack([np.full_like(x, 216), 64 + (y >> 2), np.full_like(x, 40)], -1)
    ground = np.stack([60 + (x >> 2), np.full_like(x, 90), 70 + (y >> 2)], -1)
    return np.where(inside[..., None], disk, ground).astype(np.uint8)


def check_answer(model: Model) -> dict[str, Any]:
    """What the runtime answers in fp32: the prompt, the mask's box, and runs (zeros first, row by row) inside it."""
    segmenter = load(model.path, engine="onnxruntime", precision="fp32")
    found = segmenter.embed(check_picture(), color="rgb").predict(box=BOX, multimask=False)
    x0, y0, x1, y1 = (int(v) for v in found.boxes[0])
    flat = found.masks[0, y0:y1, x0:x1].ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [False]]).astype(np.int8)))
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist() if flat.size else []
    return {"prompt": list(BOX), "box": [x0, y0, x1, y1], "runs": runs}
