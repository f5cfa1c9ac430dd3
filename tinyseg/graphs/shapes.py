"""The shapes that graphs are compiled for: few, so that whatever is asked fits one that is there already."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext

from tinyseg.engines import CompiledGraph
from tinyseg.geometry import LOGIT_STRIDE, Letterbox
from tinyseg.graphs.roles import ROLES, View
from tinyseg.system.progress import tell_if_slow

LOGGER = logging.getLogger("tinyseg.graphs")
# Compiled decoder shapes: prompts and point slots are padded up to one of these.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
SLOT_COUNTS = (1, 4, 16, 64, 256)
# What prompts of all kinds have at least, so that a click, a box and its corrections share a form. The single slot is for grids
# of clicks: tokens of padding took 5% of their time.
PROMPT_SLOTS = 4
# Side of the crop in which one object is followed, pixels; see tinyseg.track.views.
TRACK_SIDE = 320
# What is compiled ahead where nobody says which graphs a model has.
REQUIRED = tuple(role.name for role in ROLES.values() if role.required)
# Compiled shapes kept for each graph; the least recently used goes first. A camera needs two, a folder of photos more.
CACHED_SHAPES = 32
# Memory that they may hold between runs, for each graph, by the estimate of `held_bytes`; the newest stays in any case.
CACHED_BYTES = 1 << 30
# What compiled forms held after their first run, weights apart, on OpenVINO and ONNX Runtime at 512x288 and 512x512.
BYTES_PER_PIXEL = 200  # of the encoder's input
BYTES_PER_PROMPT_CELL = 800  # of the logit grid, for each prompt that the decoder takes at once


def at_least(needed: int, sizes: Sequence[int]) -> int:
    """The first of ascending sizes that holds what is needed."""
    return next(size for size in sizes if size >= needed)


def view_dimensions(view: Letterbox) -> dict[str, int]:
    """The named dimensions that follow from a view: the encoder's input and the maps at strides 4, 8 and 16."""
    width, height = view.input
    rows, columns = view.grid
    return {
        "height": height, "width": width, "rows4": rows, "columns4": columns, "rows8": rows // 2,
        "columns8": columns // 2, "rows16": rows // 4, "columns16": columns // 4,
    }  # fmt: skip


def prompt_dimensions(view: Letterbox, prompts: int, points: int = PROMPT_SLOTS) -> dict[str, int]:
    """A view's dimensions with those of so many prompts of so many points, padded to the next compiled size."""
    return {
        **view_dimensions(view), "prompts": at_least(prompts, BATCH_SIZES), "points": at_least(points, SLOT_COUNTS)
    }  # fmt: skip


def square_view(side: int) -> Letterbox:
    """The view of a square frame of the encoder's own size: the shape that second looks have."""
    return Letterbox(side, side, (0, 0, side, side), (side, side), (side, side))


def graph_shapes(
    view: Letterbox, zoom_side: int, prompts: Sequence[int], graphs: Collection[str] = REQUIRED
) -> dict[str, list[dict[str, int]]]:
    """Dimensions by graph that serve a view and second looks, with so many prompts at once: what to compile ahead.

    graphs: names of those that the model has. Objects are followed one a crop.
    """
    batches = sorted({at_least(n, BATCH_SIZES) for n in prompts if n <= BATCH_SIZES[-1]} or {BATCH_SIZES[-1]})
    asked = {
        View.FRAME: (view, batches), View.SECOND_LOOK: (square_view(zoom_side), [1]), View.CROP: (square_view(TRACK_SIDE), [1])
    }  # fmt: skip
    roles = [role for role in ROLES.values() if role.name in graphs]
    everything = [one for role in roles for one in role.views]
    shapes: dict[str, list[dict[str, int]]] = {}
    for role in roles:
        rows: list[dict[str, int]] = []
        for one in everything if role.feeds_others else role.views:
            place, counts = asked[one]
            for count in counts if "prompts" in role.dimensions else [1]:
                dimensions = prompt_dimensions(place, count)
                rows.append({name: dimensions[name] for name in role.dimensions})
        shapes[role.name] = [dict(pairs) for pairs in dict.fromkeys(tuple(d.items()) for d in rows)]
    return shapes


def describe_shape(dimensions: Mapping[str, object]) -> str:
    """What a graph of these dimensions serves, in a user's words: its input's size, hence the frames' aspect, and prompts."""
    columns, rows = dimensions.get("columns4"), dimensions.get("rows4")
    if "width" in dimensions:
        return f"encoder of {dimensions['width']}x{dimensions.get('height')} inputs"
    if isinstance(columns, int) and isinstance(rows, int) and "prompts" in dimensions:
        size = f"{columns * LOGIT_STRIDE}x{rows * LOGIT_STRIDE}"
        return f"decoder of {size} inputs, {dimensions['prompts']} prompt(s) of up to {dimensions.get('points')} points"
    return " ".join(f"{name}={value}" for name, value in dimensions.items())


def held_bytes(dimensions: Mapping[str, int]) -> int:
    """About how much memory a form compiled for these dimensions holds between runs, which grows with all of them."""
    if "prompts" in dimensions:
        cells = dimensions.get("rows4", 0) * dimensions.get("columns4", 0)
        return dimensions["prompts"] * cells * BYTES_PER_PROMPT_CELL
    return dimensions.get("height", 0) * dimensions.get("width", 0) * BYTES_PER_PIXEL


class ShapeCache:
    """A graph's compiled forms by their dimensions; compiling happens once, whatever number of threads asks.

    Forms that are there are given out while another one is compiled. CACHED_SHAPES of them are kept, and fewer where they
    are large (CACHED_BYTES).
    """

    def __init__(self, build: Callable[[Mapping[str, int]], CompiledGraph]) -> None:
        self._build = build
        self._graphs: OrderedDict[tuple[int, ...], CompiledGraph] = OrderedDict()
        self._bytes: dict[tuple[int, ...], int] = {}
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._awaited: set[tuple[int, ...]] = set()
        self._waited = threading.local()

    @property
    def waited_seconds(self) -> float:
        """How long the calling thread has waited for forms that were not there yet, in all."""
        seconds: float = getattr(self._waited, "seconds", 0.0)
        return seconds

    def get(self, dimensions: Mapping[str, int]) -> CompiledGraph:
        """The graph of these dimensions, compiled now if it is not there. Raises EngineError or ParityError."""
        key = tuple(dimensions.values())
        graph = self._kept(key)
        if graph is not None:
            return graph
        start = time.perf_counter()
        with self._lock:
            tells = key not in self._awaited  # of several threads that wait for the same, one says so
            self._awaited.add(key)
        waiting = (
            f"getting the {describe_shape(dimensions)} ready: a frame shape or number of prompts that is new here "
            "(tinyseg compile and Segmenter.warm_up do it ahead)"
        )
        try:
            with tell_if_slow(waiting) if tells else nullcontext():
                return self._made(dimensions)
        finally:
            if tells:
                with self._lock:
                    self._awaited.discard(key)
            self._waited.seconds = self.waited_seconds + time.perf_counter() - start

    def get_ahead(self, dimensions: Mapping[str, int]) -> None:
        """Compile the graph of these dimensions in a thread of its own, if it is not there: who asks for it waits less.

        Whoever asks is also told what goes wrong, for it is then tried again.
        """

        def work() -> None:
            try:
                self._made(dimensions)
            except Exception as exc:
                LOGGER.debug("getting the %s ready ahead failed: %s", describe_shape(dimensions), exc)

        if self._kept(tuple(dimensions.values())) is None:
            threading.Thread(target=work, name="tinyseg-open").start()

    def some(self) -> CompiledGraph | None:
        """Any form that is there, None if there is none."""
        with self._lock:
            return next(iter(self._graphs.values()), None)

    def _made(self, dimensions: Mapping[str, int]) -> CompiledGraph:
        key = tuple(dimensions.values())
        with self._building:
            graph = self._kept(key)  # another thread may have wanted the same
            if graph is None:
                graph = self._build(dimensions)
                with self._lock:
                    self._graphs[key] = graph
                    self._bytes[key] = held_bytes(dimensions)
                    self._let_go()
            return graph

    def _let_go(self) -> None:
        """Drop the least recently used forms beyond what is kept. Called with the lock held."""
        while len(self._graphs) > CACHED_SHAPES or (len(self._graphs) > 1 and sum(self._bytes.values()) > CACHED_BYTES):
            oldest, _ = self._graphs.popitem(last=False)
            del self._bytes[oldest]

    def _kept(self, key: tuple[int, ...]) -> CompiledGraph | None:
        with self._lock:
            graph = self._graphs.get(key)
            if graph is not None:
                self._graphs.move_to_end(key)
            return graph
