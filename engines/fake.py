"""An engine without a network: it draws the prompt itself, so that everything around the network can be tested.

Its encoder returns zeros. Its decoder answers a box with the box, clicks with disks of 24 model pixels (negative ones
are cut out) and an earlier mask with that mask; all four masks are alike, with scores 0.9, 0.8, 0.7 and 0.6. Its tracking
decoder answers with the mask of the frame before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tinyseg.engines.base import Arrays, GraphInfo, GraphSource, concrete_shapes
from tinyseg.errors import EngineError

FAKE_BLOB = b"fake engine "
DISK_RADIUS = 24.0
STEEPNESS = 0.5  # logit per model pixel of distance to the outline


DEVICES = ("cpu",)


def precisions(device: str) -> tuple[str, ...]:
    return ("fp32",)


def create(precision: str, threads: int, streams: int, device: str) -> FakeEngine:
    return FakeEngine(streams)


class FakeEngine:
    name = "fake"
    version = "1"
    precision = "fp32"

    def __init__(self, streams: int) -> None:
        self._streams = streams

    def identity(self) -> dict[str, str]:
        return {"engine": self.name, "version": self.version, "precision": self.precision}

    def compile(self, graph: GraphSource, dimensions: Mapping[str, int]) -> FakeGraph:
        return FakeGraph(graph, dimensions, self._streams)

    def build(self, graph: GraphSource, dimensions: Mapping[str, int]) -> bytes:
        """Its compiled form is a few words, checked when it is restored."""
        return FAKE_BLOB + json.dumps(dict(dimensions), sort_keys=True).encode()

    def restore(self, blob: bytes, graph: GraphSource, dimensions: Mapping[str, int]) -> FakeGraph:
        if blob != self.build(graph, dimensions):
            raise EngineError("this is not an engine that the fake builder made for these shapes")
        return FakeGraph(graph, dimensions, self._streams)


class FakeGraph:
    def __init__(self, graph: GraphSource, dimensions: Mapping[str, int], streams: int) -> None:
        self.info = GraphInfo("fake", "1", "none", "fp32", 1, streams)
        self._inputs = concrete_shapes(graph.inputs, dimensions)
        self._outputs = concrete_shapes(graph.outputs, dimensions)

    def runner(self) -> FakeGraph:
        return self

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.float32]]:
        for name, shape in self._inputs.items():
            if name not in feeds or feeds[name].shape != shape:
                given = feeds[name].shape if name in feeds else "nothing"
                raise EngineError(f"input {name} must have shape {shape}, but {given} was fed")
        if "points" not in feeds:
            return {name: np.zeros(shape, np.float32) for name, shape in self._outputs.items()}
        shape = self._outputs["logits"]
        # A tracking decoder is told the last mask instead of a hint, and the object is said to stay where it was.
        hint = feeds["mask"] if "has_mask" in feeds else feeds["last"]
        hinted = feeds.get("has_mask", np.ones(shape[0], np.float32))
        logits = np.stack([draw_prompt(*one) for one in zip(feeds["points"], feeds["labels"], hint, hinted)])
        scores = np.tile(np.array([0.9, 0.8, 0.7, 0.6], np.float32)[: shape[1]], (shape[0], 1))
        return {"logits": np.ascontiguousarray(np.broadcast_to(logits[:, None], shape)), "iou": scores}


def draw_prompt(
    points: NDArray[np.float32], labels: NDArray[np.float32], mask: NDArray[np.float32], has_mask: np.float32
) -> NDArray[np.float32]:
    """(N, 2), (N,), (1, h, w), () -> (h, w) logits, proportional to the signed distance to the outline."""
    rows, columns = mask.shape[-2:]
    x = (np.arange(columns, dtype=np.float32) + 0.5)[None, :] * 4
    y = (np.arange(rows, dtype=np.float32) + 0.5)[:, None] * 4
    inside = np.full((rows, columns), -np.inf, np.float32)
    if has_mask:
        inside = np.maximum(inside, mask[0] / STEEPNESS)
    if (labels == 2).any():
        (x0, y0), (x1, y1) = points[labels == 2][0], points[labels == 3][0]
        inside = np.maximum(inside, np.minimum(np.minimum(x - x0, x1 - x), np.minimum(y - y0, y1 - y)))
    for (px, py), label in zip(points, labels):
        if label in (0, 1):
            distance = np.hypot(x - px, y - py)
            disk = DISK_RADIUS - distance
            inside = np.maximum(inside, disk) if label == 1 else np.minimum(inside, -disk)
    logits: NDArray[np.float32] = np.clip(inside * STEEPNESS, -20.0, 20.0).astype(np.float32)
    return logits
