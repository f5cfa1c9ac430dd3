"""A model's graphs on an engine: views in, features out; features and prompts in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from tinyseg import pixels
from tinyseg.core import core
from tinyseg.engines import CompiledGraph, GraphSource
from tinyseg.engines.base import concrete_shapes
from tinyseg.errors import EngineError, InputError
from tinyseg.geometry import Letterbox
from tinyseg.graphs.roles import ROLES
from tinyseg.graphs.shapes import BATCH_SIZES, PROMPT_SLOTS, ShapeCache, prompt_dimensions
from tinyseg.predict.workspace import Workspace
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import click_inputs, decoder_inputs, point_count

Features = Mapping[str, NDArray[np.float32]]


class Network:
    """Graphs compiled as shapes are asked for. Safe to use from several threads."""

    def __init__(
        self,
        graphs: Mapping[str, GraphSource],
        compile_graph: Callable[[GraphSource, Mapping[str, int]], CompiledGraph],
        together: bool = False,
    ) -> None:
        """graphs: by role, in the precision that runs. compile_graph: (graph, dimensions) -> compiled and checked.

        together: several graphs may be compiled at the same time. Builders of GPUs time kernels, which others would disturb.
        """
        self.graphs = graphs
        self._together = together
        self._compiled = {name: ShapeCache(partial(compile_graph, graph)) for name, graph in graphs.items()}

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "a loaded model belongs to its process and cannot be pickled or copied; call tinyseg.load() in the other process, and "
            "hand over frames, prompts and masks"
        )

    @property
    def waited_seconds(self) -> float:
        """How long the calling thread has waited for graphs to be compiled, or opened from the cache, in all."""
        return sum(cache.waited_seconds for cache in self._compiled.values())

    def compiled(self, role: str, view: Letterbox, prompts: int = 1, points: int = PROMPT_SLOTS) -> CompiledGraph:
        """The graph of a role that serves a view, for so many prompts of so many points. Raises EngineError, ParityError."""
        return self._compiled[role].get(_named(role, prompt_dimensions(view, prompts, points)))

    def open_ahead(self, role: str, view: Letterbox, prompts: int = 1, points: int = PROMPT_SLOTS) -> None:
        """Begin in another thread what :meth:`compiled` will be asked for, where graphs may be compiled together."""
        if self._together:
            self._compiled[role].get_ahead(_named(role, prompt_dimensions(view, prompts, points)))

    def some(self, role: str) -> CompiledGraph | None:
        """The graph of a role for whatever view, if one was asked for already."""
        return self._compiled[role].some()

    def encode(self, frame: pixels.FrameLayout, view: Letterbox, workspace: Workspace | None = None) -> Features:
        """Features of a view of a frame. With a workspace they are valid until it encodes again."""
        graph = self.compiled("encoder", view)
        if workspace is not None:
            image = pixels.prepare(frame, view, workspace.input(view))
            workspace.mark("resize")
            features = workspace.run(graph, {"image": image})
            workspace.mark("encode")
            return features
        features = graph.run({"image": pixels.prepare(frame, view)})
        for array in features.values():
            if isinstance(array, np.ndarray):  # what stays on a device cannot be written from here
                array.flags.writeable = False
        return features

    def decode(
        self,
        features: Features,
        frame: Letterbox,
        view: Letterbox,
        prompts: Sequence[Prompt],
        workspace: Workspace | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Prompts placed in ``frame``, asked about the features of ``view``, in as few engine calls as possible.

        Returns logits (B, 4, h, w) on the view's grid and predicted IoU (B, 4). Mask 0 answers an unambiguous prompt,
        1 to 3 are readings of an ambiguous one. With a workspace they are valid until it decodes again.
        """
        points = max(PROMPT_SLOTS, *(point_count(p) for p in prompts))
        if len(prompts) > BATCH_SIZES[-1]:
            workspace = None  # a second chunk would overwrite what the first one left there
        logits, scores = [], []
        for start in range(0, len(prompts), BATCH_SIZES[-1]):
            chunk = prompts[start : start + BATCH_SIZES[-1]]
            dimensions = prompt_dimensions(view, len(chunk), points)
            graph = self._compiled["decoder"].get(_named("decoder", dimensions))
            make = partial(decoder_inputs, chunk, frame, view, dimensions["prompts"], dimensions["points"])
            inputs = make() if workspace is None else workspace.decoder_inputs(prompts, view, make)
            feeds = {
                **features, "points": inputs.points, "labels": inputs.labels, "mask": inputs.mask,
                "has_mask": inputs.has_mask,
            }  # fmt: skip
            if workspace is not None:
                workspace.mark("lay out")
            out = graph.run(feeds) if workspace is None else workspace.run(graph, feeds)
            require_answer(out, self.graphs["decoder"], dimensions)
            if workspace is not None:
                workspace.mark("decode")
            logits.append(out["logits"][: len(chunk)])
            scores.append(out["iou"][: len(chunk)])
        if len(logits) == 1:
            return logits[0], scores[0]
        return np.concatenate(logits), np.concatenate(scores)

    def decode_clicks(
        self, features: Features, view: Letterbox, clicks: NDArray[np.float64], batch: int = 1
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As :meth:`decode`, of single clicks (N, 2) on things, N up to 64: x, y in pixels of the frame, inside of the view.

        batch: the call is laid out for at least so many, which saves compiling a form for the few that are left in the end.
        """
        dimensions = prompt_dimensions(view, max(len(clicks), batch), 1)
        graph = self._compiled["decoder"].get(_named("decoder", dimensions))
        inputs = click_inputs(clicks, view, dimensions["prompts"])
        feeds = {
            **features, "points": inputs.points, "labels": inputs.labels, "mask": inputs.mask, "has_mask": inputs.has_mask
        }  # fmt: skip
        out = graph.run(feeds)
        require_answer(out, self.graphs["decoder"], dimensions)
        return out["logits"][: len(clicks)], out["iou"][: len(clicks)]


def _named(role: str, dimensions: Mapping[str, int]) -> dict[str, int]:
    """Those of a view's and prompts' dimensions that a role is compiled for."""
    return {name: dimensions[name] for name in ROLES[role].dimensions}


def require_answer(out: Features, graph: GraphSource, dimensions: Mapping[str, int]) -> None:
    """Raises EngineError where a decoder's answer has other shapes than its model.json says, or is no number."""
    for name, shape in concrete_shapes(graph.outputs, dimensions).items():
        found = out[name]
        if found.shape != shape or found.dtype != np.float32:
            raise EngineError(
                f"the {graph.name} answered {name} of shape {found.shape} and type {found.dtype}, where the model says "
                f"{shape} and float32; the model is damaged or another's: get it again"
            )
        if not core().all_finite(np.ascontiguousarray(found)):
            raise EngineError(
                f"the {graph.name} answered {name} with values that are no finite numbers; use precision='fp32', and see "
                "where they come from with: tinyseg compile --bisect"
            )
