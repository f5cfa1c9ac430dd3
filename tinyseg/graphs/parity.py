"""The gate that every compiled graph passes before it is used: its masks against the fp32 reference's.

Three photographs that ship with tinyseg are prompted with boxes, clicks and earlier masks, at the very shapes that the
graph was compiled for. The reference is the model's fp32 graph on ONNX Runtime. An encoder is judged by what the
reference decoder makes of its features, a decoder by what it makes of the reference encoder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.engines import CompiledGraph, create_engine
from tinyseg.errors import ParityError
from tinyseg.geometry import LOGIT_STRIDE, MEAN, STD
from tinyseg.graphs.model import Model
from tinyseg.images import read_image
from tinyseg.prompts.layout import LABEL_BOX_BOTTOM_RIGHT, LABEL_BOX_TOP_LEFT, LABEL_PADDING, LABEL_POSITIVE

FRAMES = Path(__file__).parent / "photographs"
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
LEAST_CELLS = 64  # smaller reference masks say little: one cell would be points of IoU
# Mean mask IoU that is asked for, and the largest mean distance of logits over their standard deviation.
LEAST_IOU = {"fp32": 0.99, "bf16": 0.99, "fp16": 0.99, "int8": 0.97}
MOST_NOISE = {"fp32": 0.01, "bf16": 0.06, "fp16": 0.03, "int8": 0.12}

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Parity:
    """How near a compiled graph is to the reference."""

    graph: str
    precision: str
    mask_iou: float  # mean over masks of at least LEAST_CELLS cells
    noise: float  # mean |logit difference| over the standard deviation of the reference's logits
    masks: int

    @property
    def passed(self) -> bool:
        return (
            self.masks > 0 and self.mask_iou >= LEAST_IOU[self.precision] and self.noise <= MOST_NOISE[self.precision]
        )

    def require(self, what: str) -> None:
        """Raises ParityError unless the graph passed."""
        if not self.passed:
            raise ParityError(
                f"the {self.graph} {what} does not keep the masks in {self.precision}: mean IoU with the fp32 reference "
                f"{self.mask_iou:.3f} (asked: {LEAST_IOU[self.precision]}), logits off by {self.noise:.3f} of their spread "
                f"(allowed: {MOST_NOISE[self.precision]}); use precision='fp32', and see where it goes wrong with: "
                "tinyseg compile --bisect"
            )


class Reference:
    """A model's fp32 graphs on ONNX Runtime, at any shape."""

    def __init__(self, model: Model) -> None:
        engine = create_engine("onnxruntime", "fp32", None).engine
        self.graphs = {name: engine.compile(graph, {}) for name, graph in model.graphs.items()}

    def run(self, graph: str, feeds: Arrays) -> dict[str, NDArray[np.float32]]:
        return self.graphs[graph].run(feeds)


def input_image(name: str, width: int, height: int) -> NDArray[np.float32]:
    """A photograph stretched to the encoder's input, (1, 3, height, width)."""
    pixels = cv2.resize(read_image(FRAMES / name), (width, height), interpolation=cv2.INTER_AREA)
    rgb = (pixels[..., ::-1].astype(np.float32) - MEAN) / STD
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])


def decoder_feeds(
    name: str, width: int, height: int, prompts: int, slots: int, first: int = 0
) -> dict[str, NDArray[np.float32]]:
    """A photograph's prompts from number ``first`` on, repeated to ``prompts``, without hints."""
    points = np.zeros((prompts, slots, 2), np.float32)
    labels = np.full((prompts, slots), LABEL_PADDING, np.float32)
    for i in range(prompts):
        shares = np.array(PROMPTS[name][(first + i) % len(PROMPTS[name])], np.float32).reshape(-1, 2)
        points[i, : len(shares)] = shares * (width, height)
        labels[i, : len(shares)] = LABEL_POSITIVE if len(shares) == 1 else (LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT)
    grid = (height // LOGIT_STRIDE, width // LOGIT_STRIDE)
    return {
        "points": points, "labels": labels, "mask": np.zeros((prompts, 1, *grid), np.float32),
        "has_mask": np.zeros(prompts, np.float32),
    }  # fmt: skip


def measure(
    reference: Reference, graph: str, candidate: CompiledGraph, dimensions: Mapping[str, int], precision: str
) -> Parity:
    """Compare a compiled graph with the reference at the shapes it was compiled for."""
    height, width = dimensions["rows4"] * LOGIT_STRIDE, dimensions["columns4"] * LOGIT_STRIDE
    prompts, slots = dimensions.get("prompts", len(PROMPTS["cat.jpg"])), dimensions.get("points", 4)
    ious: list[float] = []
    noise: list[float] = []
    for name, known in PROMPTS.items():
        image = input_image(name, width, height)
        features = reference.run("encoder", {"image": image})
        others = candidate.run({"image": image}) if graph == "encoder" else {}
        # A decoder of fewer prompts is run several times: what one prompt loses says little.
        for first in range(0, len(known), prompts):
            feeds = decoder_feeds(name, width, height, prompts, slots, first)
            distinct = min(prompts, len(known) - first)  # further prompts repeat these
            expected = reference.run("decoder", {**features, **feeds})
            if graph == "encoder":
                found = reference.run("decoder", {**{k: np.asarray(v) for k, v in others.items()}, **feeds})
                _compare(feeds, expected, found, distinct, ious, noise)
                continue
            _compare(feeds, expected, candidate.run({**features, **feeds}), distinct, ious, noise)
            # A second round, as a correcting user has it: the first answer as hint.
            feeds["mask"] = np.ascontiguousarray(expected["logits"][:, :1])
            feeds["has_mask"] = np.ones(prompts, np.float32)
            expected = reference.run("decoder", {**features, **feeds})
            _compare(feeds, expected, candidate.run({**features, **feeds}), distinct, ious, noise)
    return Parity(graph, precision, float(np.mean(ious)) if ious else 0.0, float(np.mean(noise)), len(ious))


def _compare(
    feeds: Arrays, expected: Arrays, found: Arrays, prompts: int, ious: list[float], noise: list[float]
) -> None:
    """The mask that a user would see of the first ``prompts``: mask 0 for a box, the best scored reading for a click."""
    clicks = feeds["labels"][:prompts, 0] == LABEL_POSITIVE
    rows = zip(expected["logits"], found["logits"], expected["iou"], clicks)  # ends with the shortest
    for a, b, scores, is_click in rows:
        k = 1 + int(scores[1:].argmax()) if is_click else 0
        x, y = a[k] > 0, b[k] > 0
        if np.count_nonzero(x) >= LEAST_CELLS:
            ious.append(np.count_nonzero(x & y) / np.count_nonzero(x | y))
        # NaN would compare as "not larger": a graph that yields it must fail.
        difference = float(np.nan_to_num(np.abs(a[k] - b[k]).mean(dtype=np.float64), nan=np.inf))
        noise.append(difference / max(float(a[k].std()), 1e-6))
