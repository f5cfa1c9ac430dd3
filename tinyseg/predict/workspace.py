"""Buffers of one frame in flight, for loops that segment frame after frame without allocating."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tinyseg.engines import CompiledGraph, Runner
from tinyseg.geometry import Letterbox
from tinyseg.graphs.shapes import CACHED_SHAPES
from tinyseg.predict.second_look import Plan
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import DecoderInputs


class Workspace:
    """What one frame in flight needs, made once for each size and used again; one thread at a time.

    Give it to :meth:`tinyseg.Segmenter.run`. A subclass may override :meth:`mark` to time the stages of a frame.
    """

    def __init__(self) -> None:
        self._input: NDArray[np.float32] = np.empty((0, 0, 0, 0), np.float32)
        self._masks: NDArray[np.bool_] = np.empty((0, 0, 0, 0), np.bool_)
        self._runners: OrderedDict[CompiledGraph, Runner] = OrderedDict()
        self._plan: tuple[Sequence[Prompt], Letterbox, str, Plan] | None = None
        self._inputs: tuple[Sequence[Prompt], Letterbox, DecoderInputs] | None = None

    def mark(self, stage: str) -> None:
        """Called when a stage of a frame is done: "check", "resize", "encode", "lay out", "decode" or "masks"."""

    def input(self, view: Letterbox) -> NDArray[np.float32]:
        """(1, 3, h, w) encoder input."""
        shape = (1, 3, view.input[1], view.input[0])
        if self._input.shape != shape:
            self._input = np.empty(shape, np.float32)
        return self._input

    def masks(self, count: int, view: Letterbox) -> NDArray[np.bool_]:
        """(count, 1, H, W) masks."""
        shape = (count, 1, view.frame_height, view.frame_width)
        if self._masks.shape != shape:
            self._masks = np.empty(shape, np.bool_)
        return self._masks

    def plan(self, prompts: Sequence[Prompt], view: Letterbox, zoom: str, make: Callable[[], Plan]) -> Plan:
        """Prompts checked against a view: those of the last frame if it had the same prompts and size."""
        known = self._plan
        if known is None or known[0] is not prompts or known[1] != view or known[2] != zoom:
            known = self._plan = (prompts, view, zoom, make())
        return known[3]

    def decoder_inputs(
        self, placed: Sequence[Prompt], view: Letterbox, make: Callable[[], DecoderInputs]
    ) -> DecoderInputs:
        """Placed prompts laid out for a view: those of the last frame if they are the same."""
        if self._inputs is None or self._inputs[0] is not placed or self._inputs[1] != view:
            self._inputs = (placed, view, make())
        return self._inputs[2]

    def run(self, graph: CompiledGraph, feeds: Mapping[str, NDArray[np.float32]]) -> Mapping[str, NDArray[np.float32]]:
        """Run a graph; the outputs are valid until the same graph runs here again."""
        if graph not in self._runners:
            self._runners[graph] = graph.runner()
            if len(self._runners) > CACHED_SHAPES:
                self._runners.popitem(last=False)
        return self._runners[graph].run(feeds)
