"""The segmenter: ``embed`` a frame to ask about it, or ``run`` whole frames one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyseg import pixels
from tinyseg.arguments import check_whole, shown
from tinyseg.engines import CompiledGraph, GraphSource
from tinyseg.errors import FrameError, InputError, PromptError
from tinyseg.geometry import INPUT_MULTIPLE, Letterbox, letterbox
from tinyseg.graphs.everything_rule import EverythingRule, read_everything_rule
from tinyseg.graphs.model import Model, ZoomRule, digest, shown_place
from tinyseg.graphs.shapes import BATCH_SIZES, PROMPT_SLOTS, SLOT_COUNTS, square_view
from tinyseg.images import ImageInput, open_image
from tinyseg.masks import Masks
from tinyseg.pixels import MAX_SIDE
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.find_defaults import MAX_FOUND, THRESHOLD
from tinyseg.predict.network import Network
from tinyseg.predict.workspace import Workspace
from tinyseg.prompts import Prompt

if TYPE_CHECKING:
    from tinyseg.predict.everything import Search
    from tinyseg.predict.exemplar import Reference
    from tinyseg.regions import Regions
    from tinyseg.track import Tracker

MAX_LONG_SIDE = 2048  # of an encoder input that a caller asks for


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


class Segmenter:
    """A model on an engine. Safe to use from several threads; make one with :func:`tinyseg.load`."""

    def __init__(
        self,
        model: Model,
        compile_graph: Callable[[GraphSource, Mapping[str, int]], CompiledGraph],
        reason: str,
        graphs: Mapping[str, GraphSource] | None = None,
        cache: str = "not needed",
        together: bool = False,
    ) -> None:
        """graphs: the model's graphs in the precision that runs, None for fp32. cache: what to say of it. together: whether
        several graphs may be compiled at the same time.
        """
        self.model = model
        self.everything_rule = read_everything_rule(model.card, model.name)
        self.network = Network(model.graphs if graphs is None else graphs, compile_graph, together)
        self._reason = reason
        self._sha256 = digest(self.network.graphs)
        self._cache = cache
        self._fresh = True  # nothing was embedded yet

    @property
    def info(self) -> SegmenterInfo:
        """What runs, and why; precision and threads are read back from a compiled graph."""
        # Where nothing was asked yet, the second look's decoder, which most programs need anyway.
        known = self.network.some("decoder") or self.network.compiled("decoder", square_view(self.model.zoom.side))
        graph = known.info
        return SegmenterInfo(
            self.model.name, shown_place(self.model.path), self._sha256, graph.engine, graph.version, graph.precision,
            graph.threads, graph.streams, graph.device, self._reason, self._cache,
        )  # fmt: skip

    def with_zoom(self, rule: ZoomRule) -> Segmenter:
        """The same model, sharing everything compiled, with another rule for second looks (``model.zoom`` is its own).

        Raises InputError.
        """
        if not isinstance(rule, ZoomRule):
            raise InputError(f"rule must be a ZoomRule, as Segmenter.model.zoom is, but is {shown(rule)}")
        other = copy.copy(self)
        other.model = replace(self.model, zoom=rule)
        return other

    def view(self, width: int, height: int) -> Letterbox:
        """How a whole frame of this size lies in the encoder's input. Raises FrameError."""
        for name, value in (("width", width), ("height", height)):
            check_whole(f"a frame's {name}", value, 1, MAX_SIDE, FrameError)
        return letterbox(width, height, self.model.long_side)

    def warm_up(self, width: int, height: int, prompts: int = 1, points: int = 1) -> float:
        """Compile ahead what frames of this size need, second looks included; from any thread. Returns the seconds it took.

        prompts: how many are asked at once; points: how many each has, a box counting as two. Raises EngineError,
        FrameError, InputError or ParityError.
        """
        prompts = min(check_whole("prompts", prompts, 1, 1 << 30), BATCH_SIZES[-1])  # more are asked in several calls
        check_whole("points", points, 1, SLOT_COUNTS[-1])
        before = self.network.waited_seconds
        view, crop = self.view(width, height), square_view(self.model.zoom.side)
        points = max(points, PROMPT_SLOTS)
        self.network.compiled("encoder", view)
        self.network.compiled("decoder", view, prompts, points)
        self.network.compiled("encoder", crop)
        self.network.compiled("decoder", crop, 1, points)
        return self.network.waited_seconds - before

    def embed(
        self,
        frame: ImageInput,
        color: str = "bgr",
        region: tuple[int, int, int, int] | None = None,
        long_side: int | None = None,
    ) -> Embedding:
        """Encode a frame once; prompt the result as often as you like.

        frame: uint8, (H, W, 3), (H, W, 4) with alpha ignored, (H, W) or (H, W, 1) grey; any strides, up to 16384
        pixels a side. Or a path, an http(s) address or a ``PIL.Image``, as :func:`tinyseg.images.open_image` takes them.
        color: order of an array's channels, "bgr" (OpenCV), "rgb", "bgra", "rgba" or "gray". The frame is copied for
        second looks, so its buffer may be used again.

        region: (x0, y0, x1, y1) whole pixels of the frame, ends exclusive: encode only this part, in more detail. Prompts
        and masks stay in the frame's pixels; nothing is found outside. long_side: pixels of the encoder input's longer
        side, a multiple of 32, by default the model's own. Each aspect and side compiles a shape of its own.
        Raises FrameError, and DataError for a file or address that cannot be read.
        """
        layout = pixels.check_frame(*open_image(frame, color))
        height, width, _ = layout.pixels.shape
        view = letterbox(width, height, self._long_side(long_side), _checked_region(region, width, height))
        if self._fresh:  # a program starts sooner; later shapes may be asked about in batches, or not at all
            self._fresh = False
            self.network.open_ahead("decoder", view)
        features = self.network.encode(layout, view)
        kept = pixels.FrameLayout(layout.pixels.copy(), layout.bgr)
        kept.pixels.flags.writeable = False
        return Embedding(features, view, kept, self.network, self.model.zoom, self.everything_rule)

    def everything(
        self,
        frame: ImageInput,
        color: str = "bgr",
        rule: EverythingRule | None = None,
        crop_layers: int = 0,
        min_area: int = 0,
        search: Search | None = None,
    ) -> Regions:
        """Everything in a frame, as regions without names: :meth:`tinyseg.Embedding.everything` of the whole frame, which is
        encoded only in the inputs that the rule's grids are asked in.

        frame and color as in :meth:`embed`. A segmenter of several streams (:func:`tinyseg.load`) asks that many calls of
        clicks at the same time. Raises FrameError, DataError or InputError.
        """
        from tinyseg.predict.everything import chosen_search, find_regions  # noqa: PLC0415 - most programs start without it

        layout = pixels.check_frame(*open_image(frame, color))
        height, width, _ = layout.pixels.shape
        return find_regions(
            self.network, None, layout, letterbox(width, height, self.model.long_side),
            self.everything_rule if rule is None else rule, chosen_search(crop_layers, min_area, search),
        )  # fmt: skip

    def __call__(
        self,
        image: ImageInput,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        multimask: bool = True,
        zoom: str = "auto",
        color: str = "bgr",
    ) -> Masks:
        """``embed(image, color).predict(...)`` in one call, for one prompt about one image: ``seg("photo.jpg", box=...)``.

        image and color as in :meth:`embed`, the rest as in :meth:`Embedding.predict`. For several prompts keep the embedding.
        Raises FrameError, DataError and PromptError.
        """
        return self.embed(image, color).predict(points, labels, box, mask, multimask, zoom)

    def run(
        self,
        frame: NDArray[np.uint8],
        prompts: Sequence[Prompt],
        workspace: Workspace,
        color: str = "bgr",
        zoom: str = "off",
    ) -> list[Masks]:
        """One whole step, for loops: a frame and its prompts in, one mask for each prompt out.

        As ``embed(frame, color).predict_batch(prompts, zoom=zoom)``, but nothing is allocated once a workspace has seen
        the frame's size: masks and logits lie in the workspace and are valid until it is used again, and the frame is
        not copied. Prompts that are the very same object as last time are not checked again. One thread a workspace.
        Raises FrameError, PromptError or InputError.
        """
        if not isinstance(workspace, Workspace):
            raise InputError(
                f"workspace must be a tinyseg.Workspace(), kept from frame to frame, but is {shown(workspace)}"
            )
        layout = pixels.check_frame(frame, color)
        height, width, _ = layout.pixels.shape
        view = self.view(width, height)
        workspace.mark("check")
        features = self.network.encode(layout, view, workspace)
        embedding = Embedding(features, view, layout, self.network, self.model.zoom, self.everything_rule)
        return embedding.answer(prompts, False, zoom, workspace)

    def tracker(self) -> Tracker:
        """A tracker, which follows objects through a stream; see :class:`tinyseg.Tracker`."""
        from tinyseg.track.tracker import Tracker  # noqa: PLC0415 - it is made of segmenters

        return Tracker(self)

    def reference(self, *examples: tuple[ImageInput, NDArray[np.bool_] | Prompt], color: str = "bgr") -> Reference:
        """What :meth:`find` looks for, from one or several examples: (frame, bool mask (H, W) or a Prompt that means it).

        frame and color as in :meth:`embed`. Raises FrameError, DataError, PromptError or InputError.
        """
        from tinyseg.predict.exemplar import joined, reference_of  # noqa: PLC0415 - most programs start without it

        for example in examples:
            if not (isinstance(example, tuple) and len(example) == 2):
                raise InputError(
                    f"an example must be a tuple (frame, mask) or (frame, Prompt), as in reference((a, mask_a), (b, mask_b)), "
                    f"but is {shown(example)}"
                )
        model = digest(self.model.graphs)
        return joined([reference_of(self.embed(frame, color), model, what) for frame, what in examples])

    def find(
        self,
        frame: ImageInput,
        like: Reference | tuple[ImageInput, NDArray[np.bool_] | Prompt],
        color: str = "bgr",
        most: int = MAX_FOUND,
        threshold: float = THRESHOLD,
        zoom: str = "auto",
    ) -> Masks:
        """The same thing in another frame, or again in the same one: the same instance or look, not the same category.

        frame and color as in :meth:`embed`. like: (frame, mask or prompt), or what :meth:`reference` made of it, which costs
        nothing again. most: 1 for the most alike alone. threshold: likeness in [0, 1] that is asked for. Returns up to
        ``most`` masks, the most alike first, with likeness as ``scores``; none where nothing is alike. Raises FrameError,
        DataError, PromptError or InputError.
        """
        from tinyseg.predict.exemplar import Reference, search  # noqa: PLC0415 - most programs start without it

        if not isinstance(like, Reference):
            if not (isinstance(like, tuple) and len(like) == 2):
                raise InputError("like must be (frame, mask), (frame, Prompt) or a Reference; see Segmenter.reference")
            like = self.reference(like, color=color)
        self.check_find(like, most, threshold)
        return search(self.embed(frame, color), like, most, threshold, zoom)

    def check_find(self, like: Reference, most: int = MAX_FOUND, threshold: float = THRESHOLD) -> None:
        """Raises PromptError or InputError for what :meth:`find` cannot be asked, whatever the frame."""
        if like.model != digest(self.model.graphs):
            raise PromptError(
                f"the reference was made with another model than {self.model.name}; load that one, or make it again"
            )
        check_whole("most", most, 1, MAX_FOUND)
        if not isinstance(threshold, (int, float, np.floating)) or not 0 <= threshold <= 1:
            raise InputError(f"threshold must be a number in [0, 1], but is {shown(threshold)}")

    def _long_side(self, long_side: int | None) -> int:
        if long_side is None:
            return self.model.long_side
        whole = isinstance(long_side, (int, np.integer)) and not isinstance(long_side, bool)
        if not whole or long_side % INPUT_MULTIPLE or not INPUT_MULTIPLE <= long_side <= MAX_LONG_SIDE:
            raise FrameError(
                f"long_side must be a multiple of {INPUT_MULTIPLE} from {INPUT_MULTIPLE} to {MAX_LONG_SIDE}, but is {shown(long_side)}"
            )
        return int(long_side)


def _checked_region(
    region: tuple[int, int, int, int] | None, width: int, height: int
) -> tuple[int, int, int, int] | None:
    if region is None:
        return None
    try:
        corners = np.asarray(region)
    except Exception as exc:
        raise FrameError(f"region must be four whole numbers (x0, y0, x1, y1), but is {shown(region)}") from exc
    if corners.shape != (4,) or corners.dtype.kind not in "iu":
        raise FrameError(f"region must be four whole numbers (x0, y0, x1, y1), but is {shown(region)}")
    x0, y0, x1, y1 = (int(v) for v in corners)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise FrameError(
            f"region {(x0, y0, x1, y1)} does not lie in the frame of {width} x {height} pixels; "
            "give x0 < x1 and y0 < y1 inside it"
        )
    return x0, y0, x1, y1
