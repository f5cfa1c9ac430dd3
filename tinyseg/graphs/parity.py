"""The gate that every compiled graph passes before it is used: its masks against the fp32 reference's.

Three photographs that ship with tinyseg are prompted with boxes, clicks and earlier masks, at the very shapes that the
graph was compiled for. The reference is the model's fp32 graph on ONNX Runtime. What each graph is tried with, and which
masks judge it, is its row in ``roles.py``: an encoder is judged by what the reference decoder makes of its features, a
decoder by what it makes of the reference encoder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinyseg.engines import CompiledGraph, create_engine
from tinyseg.errors import ParityError
from tinyseg.graphs.model import Model
from tinyseg.graphs.roles import ROLES, Arrays, Case
from tinyseg.prompts.layout import LABEL_POSITIVE

LEAST_CELLS = 64  # smaller reference masks say little: one cell would be points of IoU
# Mean mask IoU that is asked for, and the largest mean distance of logits over their standard deviation.
LEAST_IOU = {"fp32": 0.99, "bf16": 0.99, "fp16": 0.99, "int8": 0.97}
MOST_NOISE = {"fp32": 0.01, "bf16": 0.06, "fp16": 0.03, "int8": 0.12}


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

    def run(self, graph: str, feeds: Arrays) -> Arrays:
        """Outputs by name of one of the model's graphs."""
        return self.graphs[graph].run(feeds)


def measure(
    reference: Reference, graph: str, candidate: CompiledGraph, dimensions: Mapping[str, int], precision: str
) -> Parity:
    """Compare a compiled graph with the reference at the shapes it was compiled for."""
    role = ROLES[graph]
    ious: list[float] = []
    noise: list[float] = []
    for case in role.cases(reference.run, dimensions):
        expected = role.masks(reference.run, reference.run(graph, case.feeds), case)
        answered = role.masks(reference.run, candidate.run(case.feeds), case)
        _compare(case, expected, answered, ious, noise)
    return Parity(graph, precision, float(np.mean(ious)) if ious else 0.0, float(np.mean(noise)), len(ious))


def _compare(case: Case, expected: Arrays, candidate: Arrays, ious: list[float], noise: list[float]) -> None:
    """The masks that a user would see of a case: mask 0 for a box, the best scored reading for a click."""
    clicks = case.prompts["labels"][: case.distinct, 0] == LABEL_POSITIVE
    rows = zip(expected["logits"], candidate["logits"], expected["iou"], clicks)  # ends with the shortest
    for a, b, scores, is_click in rows:
        k = 1 + int(scores[1:].argmax()) if is_click else 0
        x, y = a[k] > 0, b[k] > 0
        if np.count_nonzero(x) >= LEAST_CELLS:
            ious.append(np.count_nonzero(x & y) / np.count_nonzero(x | y))
        # NaN would compare as "not larger": a graph that yields it must fail.
        difference = float(np.nan_to_num(np.abs(a[k] - b[k]).mean(dtype=np.float64), nan=np.inf))
        noise.append(difference / max(float(a[k].std()), 1e-6))
