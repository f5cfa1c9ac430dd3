"""Three photographs that ship with tinyseg and prompts about them: what graphs are tried with before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.geometry import LOGIT_STRIDE, MEAN, STD
from tinyseg.images import read_image
from tinyseg.prompts.layout import LABEL_BOX_BOTTOM_RIGHT, LABEL_BOX_TOP_LEFT, LABEL_PADDING, LABEL_POSITIVE

PHOTOGRAPHS = Path(__file__).parent / "photographs"
# Boxes (x0, y0, x1, y1) and clicks (x, y) as shares of the photograph's width and height.
PROMPTS: dict[str, tuple[tuple[float, ...], ...]] = {
    "astronaut.jpg": (
        (0.05, 0.02, 0.72, 1.0),
        (0.71, 0.0, 0.90, 0.55),
        (0.29, 0.03, 0.60, 0.38),
        (0.55, 0.67, 1.0, 1.0),
    ),
    "coffee.jpg": ((0.28, 0.03, 0.70, 0.72), (0.13, 0.18, 0.80, 0.97), (0.51, 0.33), (0.53, 0.59, 0.69, 0.82)),
    "cat.jpg": ((0.30, 0.28, 0.47, 0.51), (0.0, 0.0, 0.83, 1.0), (0.58, 0.80), (0.64, 0.35, 0.78, 0.56)),
}
PROMPTS_EACH = len(PROMPTS["cat.jpg"])


def input_size(dimensions: Mapping[str, int]) -> tuple[int, int]:
    """(width, height) of the encoder's input that a graph's dimensions belong to."""
    return dimensions["columns4"] * LOGIT_STRIDE, dimensions["rows4"] * LOGIT_STRIDE


def input_image(name: str, dimensions: Mapping[str, int]) -> dict[str, NDArray[np.float32]]:
    """{"image": a photograph stretched to the encoder's input, (1, 3, height, width)}."""
    pixels = cv2.resize(read_image(PHOTOGRAPHS / name), input_size(dimensions), interpolation=cv2.INTER_AREA)
    rgb = (pixels[..., ::-1].astype(np.float32) - MEAN) / STD
    return {"image": np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])}


def prompt_feeds(
    name: str, dimensions: Mapping[str, int], prompts: int, slots: int, first: int = 0
) -> dict[str, NDArray[np.float32]]:
    """A photograph's prompts from number ``first`` on, repeated to ``prompts``, without hints; where there is one slot only,
    a click in the middle of each box."""
    points = np.zeros((prompts, slots, 2), np.float32)
    labels = np.full((prompts, slots), LABEL_PADDING, np.float32)
    for i in range(prompts):
        shares = np.array(PROMPTS[name][(first + i) % PROMPTS_EACH], np.float32).reshape(-1, 2)
        shares = shares.mean(0, keepdims=True) if slots == 1 else shares
        points[i, : len(shares)] = shares * input_size(dimensions)
        labels[i, : len(shares)] = LABEL_POSITIVE if len(shares) == 1 else (LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT)
    mask = np.zeros((prompts, 1, dimensions["rows4"], dimensions["columns4"]), np.float32)
    return {"points": points, "labels": labels, "mask": mask, "has_mask": np.zeros(prompts, np.float32)}
