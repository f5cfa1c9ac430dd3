"""The main entry: ``load`` a model, ``embed`` a frame, ``predict`` masks from prompts."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyseg import pixels
from tinyseg.engines import CompiledGraph, GraphSource, Runner, create_engine
from tinyseg.engines.cache import open_cache
from tinyseg.engines.precision import NATIVE
from tinyseg.errors import InputError, WrongDevice
from tinyseg.geometry import LOGIT_STRIDE, Letterbox, letterbox
from tinyseg.graphs.compiled import UNCHECKED, Builder, CompiledFolder, open_compiled
from tinyseg.graphs.model import DEFAULT_MODEL, Model, ZoomRule, digest, open_model, packaged_models
from tinyseg.masks import Masks
from tinyseg.predict.second_look import prompted_box, second_look
from tinyseg.predict.specks import without_specks
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import DecoderInputs, decoder_inputs, place_prompt, point_count

# Compiled decoder shapes: prompts and point slots are padded up to one of these.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
SLOT_COUNTS = (4, 16, 64, 256)
# Compiled shapes kept for each graph; the least recently used goes first. A camera needs two, a folder of photos more.
CACHED_SHAPES = 32
ZOOM_CHOICES = ("auto", "off")


@dataclass(frozen=True)
class SegmenterInfo:
    """What runs, and why."""

    model: str
    model_path: str
    model_sha256: str
    engine: str
    engine_version: str
    precision: str
    threads: int
    streams: int
    device: str
    reason: str
    cache: str  # of built engines: "on", "off" and why, or "not needed"

    def __str__(self) -> str:
        return (
            f"model {self.model} ({self.model_sha256[:12]}) on {self.engine} {self.engine_version}, "
            f"{self.device}, {self.precision}, {self.threads} threads, {self.streams} at a time ({self.reason})"
        )


def load(
    model: str | Path | None = None,
    engine: str = "auto",
    precision: str = "auto",
    *,
    threads: int | None = None,
    streams: int = 1,
) -> Segmenter:
    """Open a model on an engine.

    model: the name of a packaged model (``tinyseg models`` lists them), a model folder or zip, or a folder
    that ``tinyseg compile`` wrote; None for the packaged "base". engine: "auto",
    "onnxruntime" or "openvino". precision: "fp32", "bf16", "fp16" or "int8" as engine and model offer; "auto" is the fastest
    that keeps the masks, by the figures in model.json. threads: CPU threads, None for all cores of this process. streams:
    1 for the lowest latency of one frame; more let as many frames run at the same time, each on a share of the threads,
    for the highest throughput (:class:`tinyseg.Loop`, or your own threads).

    What an engine compiled is compared with the fp32 reference before it is used, and kept in a cache (TINYSEG_CACHE).
    Raises ModelError, UnknownEngine, EngineNotInstalled, PrecisionUnavailable, WrongDevice or CacheError here, ParityError
    and other EngineErrors when a size is first compiled.
    """
    for name, count in (("threads", threads), ("streams", streams)):
        if not (count is None and name == "threads") and (not isinstance(count, int) or count < 1):
            raise InputError(f"{name} must be a positive whole number, but is {count!r}")
    opened = open_model(model)
    folder = open_compiled(opened)
    if folder is not None:
        return _load_compiled(opened, folder, engine, precision, threads, streams)
    choice = create_engine(engine, precision, threads, streams, opened.precision_facts)
    needs_cache = (choice.engine.name, choice.engine.precision) not in UNCHECKED
    cache, told = open_cache() if needs_cache else (None, "not needed")
    builder = Builder(opened, choice.engine, cache)
    return Segmenter(opened, builder, choice.reason, graphs_for(opened, choice.engine.precision), told)


def graphs_for(model: Model, precision: str) -> Mapping[str, GraphSource]:
    """The graphs that an engine is given for a precision: the model's own, or fp32 for the engine to lower."""
    if precision in NATIVE and precision not in model.precisions:
        return model.graphs
    return model.variant(precision)


def _load_compiled(
    model: Model, folder: CompiledFolder, engine: str, precision: str, threads: int | None, streams: int
) -> Segmenter:
    if engine not in ("auto", folder.engine) or precision not in ("auto", folder.precision):
        raise WrongDevice(
            f"{folder.path} holds engines for {folder.engine} in {folder.precision}, not for {engine} in {precision}; "
            "load the model that it was compiled from"
        )
    opened = create_engine(folder.engine, folder.precision, threads, streams, model.precision_facts).engine
    folder.require_device(opened)
    build = Builder(model, opened, None)

    def compile_graph(graph: GraphSource, dimensions: Mapping[str, int]) -> CompiledGraph:
        # Sizes that the folder was not compiled for are compiled now, and checked, each time the program starts.
        return folder.restore(opened, graph, dimensions) or build(graph, dimensions)

    graphs = graphs_for(model, folder.precision)
    return Segmenter(model, compile_graph, "compiled folder", graphs, "not needed (compiled folder)")


class _ShapeCache:
    """Compiled graphs by their dimensions; compiling happens once, whatever number of threads asks."""

    def __init__(self, build: Callable[[Mapping[str, int]], CompiledGraph]) -> None:
        self._build = build
        self._graphs: OrderedDict[tuple[int, ...], CompiledGraph] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, dimensions: Mapping[str, int]) -> CompiledGraph:
        key = tuple(dimensions.values())
        with self._lock:
            graph = self._graphs.get(key)
            if graph is None:
                graph = self._graphs[key] = self._build(dimensions)
                if len(self._graphs) > CACHED_SHAPES:
                    self._graphs.popitem(last=False)
            self._graphs.move_to_end(key)
            return graph


class Workspace:
    """What one frame in flight needs, made once for each size and used again: for loops, one thread at a time."""

    def __init__(self) -> None:
        self._input: NDArray[np.float32] = np.empty((0, 0, 0, 0), np.float32)
        self._masks: NDArray[np.bool_] = np.empty((0, 0, 0, 0), np.bool_)
        self._runners: OrderedDict[CompiledGraph, Runner] = OrderedDict()
        self._placed: tuple[Sequence[Prompt], Letterbox, list[Prompt]] | None = None
        self._inputs: tuple[list[Prompt], Letterbox, DecoderInputs] | None = None

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

    def placed(self, prompts: Sequence[Prompt], frame: Letterbox, make: Callable[[], list[Prompt]]) -> list[Prompt]:
        """Prompts checked against a frame: those of the last frame if it had the same prompts and size."""
        if self._placed is None or self._placed[0] is not prompts or self._placed[1] != frame:
            self._placed = (prompts, frame, make())
        return self._placed[2]

    def decoder_inputs(self, placed: list[Prompt], view: Letterbox, make: Callable[[], DecoderInputs]) -> DecoderInputs:
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


class Segmenter:
    """A model on an engine. Safe to use from several threads; make one with :func:`load`."""

    def __init__(
        self,
        model: Model,
        compile_graph: Callable[[GraphSource, Mapping[str, int]], CompiledGraph],
        reason: str,
        graphs: Mapping[str, GraphSource] | None = None,
        cache: str = "not needed",
    ) -> None:
        """graphs: the model's graphs in the precision that runs, None for fp32. cache: what to say of it."""
        self.model = model
        used = model.graphs if graphs is None else graphs
        self._encoders = _ShapeCache(lambda d: compile_graph(used["encoder"], d))
        self._decoders = _ShapeCache(lambda d: compile_graph(used["decoder"], d))
        self._reason = reason
        self._sha256 = digest(used)
        self._cache = cache

    @property
    def info(self) -> SegmenterInfo:
        """What runs, and why; precision and threads are read back from a compiled graph."""
        rows = self.model.zoom.side // LOGIT_STRIDE  # the second look's decoder, which most programs need anyway
        graph = self._decoders.get(_decoder_dimensions((rows, rows), 1, SLOT_COUNTS[0])).info
        return SegmenterInfo(
            self.model.name, self._path_shown(), self._sha256, graph.engine, graph.version, graph.precision,
            graph.threads, graph.streams, graph.device, self._reason, self._cache,
        )  # fmt: skip

    def _path_shown(self) -> str:
        """Reports are shared: where a package lies on somebody's disk is nobody's business."""
        names = {path: name for name, path in packaged_models().items()}
        name = names.get(self.model.path)
        return str(self.model.path) if name is None else "packaged" if name == DEFAULT_MODEL else f"packaged: {name}"

    def with_zoom(self, rule: ZoomRule) -> Segmenter:
        """The same model, sharing everything compiled, with another rule for second looks (``model.zoom`` is its own)."""
        other = copy.copy(self)
        other.model = replace(self.model, zoom=rule)
        return other

    def compiled(self, view: Letterbox, prompts: int = 1) -> tuple[CompiledGraph, CompiledGraph]:
        """The encoder and decoder that serve a view, for so many prompts of up to four points: for benchmarks."""
        batch = _at_least(prompts, BATCH_SIZES)
        decoder = self._decoders.get(_decoder_dimensions(view.grid, batch, SLOT_COUNTS[0]))
        return self._encoders.get(_encoder_dimensions(view)), decoder

    def embed(self, frame: NDArray[np.uint8], color: str = "bgr") -> Embedding:
        """Encode a frame once; prompt the result as often as you like.

        frame: uint8, (H, W, 3), (H, W, 4) with alpha ignored, (H, W) or (H, W, 1) grey; any strides, up to 16384
        pixels a side. color: order of its channels, "bgr" (OpenCV), "rgb", "bgra", "rgba" or "gray". The frame is
        copied for second looks, so its buffer may be used again. Raises FrameError.
        """
        layout = pixels.check_frame(frame, color)
        height, width, _ = layout.pixels.shape
        view = letterbox(width, height, self.model.long_side)
        features = self._encode(layout, view)
        kept = pixels.FrameLayout(layout.pixels.copy(), layout.bgr)
        kept.pixels.flags.writeable = False
        return Embedding(features, view, kept, self)

    def _encode(
        self, frame: pixels.FrameLayout, view: Letterbox, workspace: Workspace | None = None
    ) -> Mapping[str, NDArray[np.float32]]:
        """Encode a view of a frame. With a workspace, features are valid until it encodes again."""
        graph = self._encoders.get(_encoder_dimensions(view))
        if workspace is not None:
            return workspace.run(graph, {"image": pixels.prepare(frame, view, workspace.input(view))})
        features = graph.run({"image": pixels.prepare(frame, view)})
        for array in features.values():
            if isinstance(array, np.ndarray):  # what stays on a device cannot be written from here
                array.flags.writeable = False
        return features

    def _decode(
        self,
        features: Mapping[str, NDArray[np.float32]],
        frame: Letterbox,
        view: Letterbox,
        prompts: list[Prompt],
        workspace: Workspace | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """All prompts in as few engine calls as possible -> logits (B, 4, h, w) and predicted IoU (B, 4)."""
        slots = _at_least(max(point_count(p) for p in prompts), SLOT_COUNTS)
        if len(prompts) > BATCH_SIZES[-1]:
            workspace = None  # a second chunk would overwrite what the first one left there
        logits, scores = [], []
        for start in range(0, len(prompts), BATCH_SIZES[-1]):
            chunk = prompts[start : start + BATCH_SIZES[-1]]
            batch = _at_least(len(chunk), BATCH_SIZES)
            graph = self._decoders.get(_decoder_dimensions(view.grid, batch, slots))
            make = partial(decoder_inputs, chunk, frame, view, batch, slots)
            inputs = make() if workspace is None else workspace.decoder_inputs(prompts, view, make)
            feeds = {
                **features, "points": inputs.points, "labels": inputs.labels, "mask": inputs.mask,
                "has_mask": inputs.has_mask,
            }  # fmt: skip
            out = graph.run(feeds) if workspace is None else workspace.run(graph, feeds)
            logits.append(out["logits"][: len(chunk)])
            scores.append(out["iou"][: len(chunk)])
        if len(logits) == 1:
            return logits[0], scores[0]
        return np.concatenate(logits), np.concatenate(scores)


def _at_least(needed: int, sizes: Sequence[int]) -> int:
    return next(size for size in sizes if size >= needed)


def _encoder_dimensions(view: Letterbox) -> dict[str, int]:
    width, height = view.input
    return {"height": height, "width": width, **_feature_dimensions(view.grid)}


def _decoder_dimensions(grid: tuple[int, int], prompts: int, points: int) -> dict[str, int]:
    return {"prompts": prompts, "points": points, **_feature_dimensions(grid)}


def graph_shapes(view: Letterbox, zoom_side: int, prompts: Sequence[int]) -> dict[str, list[dict[str, int]]]:
    """Dimensions by graph that serve a view and second looks, with so many prompts at once: what to compile ahead."""
    look = Letterbox(zoom_side, zoom_side, (0, 0, zoom_side, zoom_side), (zoom_side, zoom_side), (zoom_side, zoom_side))
    batches = sorted({_at_least(n, BATCH_SIZES) for n in prompts if n <= BATCH_SIZES[-1]} or {BATCH_SIZES[-1]})
    shapes: dict[str, list[dict[str, int]]] = {"encoder": [], "decoder": []}
    for one, counts in ((view, batches), (look, [1])):
        shapes["encoder"].append(_encoder_dimensions(one))
        shapes["decoder"] += [_decoder_dimensions(one.grid, n, SLOT_COUNTS[0]) for n in counts]
    return {
        name: [dict(pairs) for pairs in dict.fromkeys(tuple(d.items()) for d in rows)] for name, rows in shapes.items()
    }


def _feature_dimensions(grid: tuple[int, int]) -> dict[str, int]:
    rows, columns = grid
    return {
        "rows4": rows, "columns4": columns, "rows8": rows // 2, "columns8": columns // 2, "rows16": rows // 4,
        "columns16": columns // 4,
    }  # fmt: skip


@dataclass(frozen=True)
class Embedding:
    """An encoded frame. Immutable; prompts may be asked from several threads.

    features: the encoder's outputs by name. geometry: how the frame lies in the encoder's input.
    """

    features: Mapping[str, NDArray[np.float32]]
    geometry: Letterbox
    frame: pixels.FrameLayout
    segmenter: Segmenter

    def predict(
        self,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        multimask: bool = True,
        zoom: str = "auto",
    ) -> Masks:
        """Masks for one prompt; see :class:`tinyseg.Prompt` for its parts.

        multimask: True gives three readings (for a click that may mean a part, an object or a group), False the one
        mask that answers an unambiguous prompt best. zoom: "auto" looks a second time, at a crop, when the object is
        small in the frame (``Masks.zoom`` tells whether it did), "off" never. Raises PromptError.
        """
        return self._answer(Prompt(points, labels, box, mask), multimask, zoom)

    def predict_batch(self, prompts: Sequence[Prompt], multimask: bool = False, zoom: str = "off") -> list[Masks]:
        """Masks for many prompts, decoded in one engine call (64 prompts a call at most).

        multimask and zoom as in :meth:`predict`; here the defaults are one mask each and no second look, which would
        cost an encoder run for every small object. Raises PromptError, naming the prompt.
        """
        return self._answer_batch(prompts, multimask, zoom, None)

    def _answer_batch(
        self, prompts: Sequence[Prompt], multimask: bool, zoom: str, workspace: Workspace | None
    ) -> list[Masks]:
        """predict_batch, with a workspace's buffers if given (one mask for each prompt then)."""
        _check_choices(multimask, zoom)
        make = partial(_place_all, prompts, self.geometry)
        placed = make() if workspace is None else workspace.placed(prompts, self.geometry, make)
        if not placed:
            return []
        logits, scores = self.segmenter._decode(self.features, self.geometry, self.geometry, placed, workspace)
        buffer = None if workspace is None or multimask else workspace.masks(len(placed), self.geometry)
        return [
            self._finish(p, multimask, zoom, logits[i], scores[i], None if buffer is None else buffer[i])
            for i, p in enumerate(placed)
        ]

    def _answer(self, prompt: Prompt, multimask: bool, zoom: str) -> Masks:
        _check_choices(multimask, zoom)
        placed = place_prompt(prompt, self.geometry)
        rule = self.segmenter.model.zoom
        if zoom == "auto" and prompted_box(placed) is not None:
            # A box says by itself how large the object is: the first look is not needed.
            look = second_look(prompted_box(placed), self.geometry, rule)
            if look is not None:
                return self._look_again(placed, multimask, look)
        logits, scores = self.segmenter._decode(self.features, self.geometry, self.geometry, [placed])
        return self._finish(placed, multimask, zoom, logits[0], scores[0])

    def _finish(
        self,
        prompt: Prompt,
        multimask: bool,
        zoom: str,
        logits: NDArray[np.float32],
        scores: NDArray[np.float32],
        buffer: NDArray[np.bool_] | None = None,
    ) -> Masks:
        """logits (4, h, w) and scores (4,) of a first look -> Masks, after a second look if there is to be one."""
        if buffer is not None:
            logits = logits.copy()  # they lie in the engine's memory, which the next frame overwrites
        first = self._masks(self.geometry, prompt, *_choose(logits, scores, multimask), buffer)
        if zoom == "off":
            return first
        box = prompted_box(prompt)
        if box is None:
            found = first.boxes[first.best]
            box = found.astype(np.float64) if first.areas[first.best] > 0 else None
        look = None if box is None else second_look(box, self.geometry, self.segmenter.model.zoom)
        return first if look is None else self._look_again(prompt, multimask, look, buffer)

    def _look_again(
        self, prompt: Prompt, multimask: bool, look: Letterbox, buffer: NDArray[np.bool_] | None = None
    ) -> Masks:
        features = self.segmenter._encode(self.frame, look)
        logits, scores = self.segmenter._decode(features, self.geometry, look, [prompt])
        return self._masks(look, prompt, *_choose(logits[0], scores[0], multimask), buffer)

    def _masks(
        self,
        view: Letterbox,
        prompt: Prompt,
        logits: NDArray[np.float32],
        scores: NDArray[np.float32],
        buffer: NDArray[np.bool_] | None = None,
    ) -> Masks:
        """logits (K, h, w) of a view -> Masks of the frame, in ``buffer`` (K, H, W) if given."""
        logits = without_specks(logits, prompt, view)
        shape = (len(logits), self.geometry.frame_height, self.geometry.frame_width)
        masks = np.empty(shape, np.bool_) if buffer is None else buffer
        stats = [pixels.threshold(one, view, mask) for one, mask in zip(logits, masks)]
        zoom = None
        if view != self.geometry:
            zoom = view.region
            logits = np.stack([pixels.resample_grid(one, view, self.geometry) for one in logits])
        return Masks(
            masks, scores.astype(np.float32), logits, np.array([s.box for s in stats], np.int32),
            np.array([s.area for s in stats], np.int64), np.array([s.stability for s in stats], np.float32), zoom,
        )  # fmt: skip

    def logits_in_frame(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Low-resolution logits (K, h, w) of this frame -> (K, H, W) logits in the frame's pixels."""
        return np.stack([pixels.upsample(one, self.geometry) for one in logits])


def _place_all(prompts: Sequence[Prompt], frame: Letterbox) -> list[Prompt]:
    """All prompts checked against a frame; the error names the prompt."""
    placed = []
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, Prompt):
            raise InputError(f"prompt {i} must be a tinyseg.Prompt, but is a {type(prompt).__name__}")
        try:
            placed.append(place_prompt(prompt, frame))
        except InputError as exc:
            raise type(exc)(f"prompt {i}: {exc}") from exc
    return placed


def _check_choices(multimask: Any, zoom: Any) -> None:
    if not isinstance(multimask, (bool, np.bool_)):
        raise InputError(f"multimask must be True or False, but is {multimask!r}")
    if zoom not in ZOOM_CHOICES:
        raise InputError(f"zoom must be one of {', '.join(ZOOM_CHOICES)}, but is {zoom!r}")


def _choose(
    logits: NDArray[np.float32], scores: NDArray[np.float32], multimask: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mask 0 answers an unambiguous prompt, masks 1 to 3 are three readings of an ambiguous one (SAM, appendix A).

    One reading usually is mask 0 once more, less well: mask 0 was trained on every prompt, each reading on the third that
    it fits best. Mask 0 takes that one's place (1 click: +0.9 points on held-out training photos, on either half of them).
    """
    if not multimask:
        return logits[:1], scores[:1]
    inside = logits.reshape(len(logits), -1) > 0
    overlap = (inside[1:] & inside[0]).sum(1) / np.maximum((inside[1:] | inside[0]).sum(1), 1)
    chosen = [1, 2, 3]
    chosen[int(overlap.argmax())] = 0
    return logits[chosen], scores[chosen]
