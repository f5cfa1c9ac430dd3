"""Everything in a frame: a grid of clicks, and what remains of their answers.

The hierarchical scheme of TinySAM (arXiv 2312.13789, section 3.3), in more than two levels: a coarse grid of clicks first;
well inside what its masks are sure of, the finer ones are not asked. The first grids are asked of the whole frame, encoded
again into a small input, the finest in close views, parts of the frame that are encoded into small inputs too: what is large
is seen as well in the one, what is small in the others, and a click costs less in both. Filtering, suppression and clean-up
(SAM, arXiv 2304.02643, appendix B) happen on the logit grid: a mask is drawn at the frame's size only when somebody looks at
it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg import pixels
from tinyseg.arguments import check_whole, shown
from tinyseg.engines import CompiledGraph
from tinyseg.errors import InputError
from tinyseg.geometry import LOGIT_STRIDE, Letterbox, letterbox
from tinyseg.graphs.everything_rule import EverythingRule
from tinyseg.graphs.shapes import BATCH_SIZES, at_least
from tinyseg.predict.network import Features
from tinyseg.predict.specks import without_specks
from tinyseg.prompts import Prompt
from tinyseg.regions import Regions

# Masks of one view that are kept for suppression, the best scored: bounds memory where a caller lowers all thresholds.
MAX_CANDIDATES = 2048
MAX_CROP_LAYERS = 4
# Clicks a decoder call on a CPU. More of them no longer fit its caches: 64 took 1.5 times as long a click on ONNX Runtime
# (one thread, 512 x 288), and they hold eight times the memory. A GPU wants as many as there are.
CPU_BATCH = 8
WHOLE_LEVELS = 2  # grids that are asked of the whole view where a rule has close views for the finer ones
MOST_STREAMS = 4  # a frame has a few close views; more threads than that serve each of them better
CLOSE_OVERLAP = 0.3  # of a close view's side, shared with its neighbour
SAM_CROP_OVERLAP = 512 / 1500  # of the frame's shorter side, halved with every layer


class Answering(Protocol):
    """What is asked about views of a frame: a :class:`tinyseg.predict.network.Network`, or what stands before one."""

    def compiled(self, role: str, view: Letterbox, prompts: int = 1, points: int = 1) -> CompiledGraph: ...

    def encode(self, frame: pixels.FrameLayout, view: Letterbox) -> Features: ...

    def decode_clicks(
        self, features: Features, view: Letterbox, clicks: NDArray[np.float64], batch: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...


@dataclass(frozen=True)
class Search:
    """Where everything is looked for. Raises InputError for impossible numbers.

    crop_layers: layer i encodes 2^i x 2^i overlapping crops of the frame again, for small objects. crop_overlap: how far
    neighbours overlap in the first layer, as a share of the frame's shorter side. crop_downscale: a layer's grid has so
    many times fewer points a side than the layer before. crop_box_overlap: IoU of boxes above which one of two masks
    from different views goes. min_area: islands and holes with fewer frame pixels are taken out; it acts on the logit
    grid of the view that found a mask, so less than a cell of it does nothing (of a 1280 px frame 10 px squared in an input of 512 px,
    20 px in one of 256, less in a close view).
    grids: for every layer (N, 2) points x, y in [0, 1] to ask instead of the rule's grids. batch: prompts a decoder call,
    64 at most; None: 8 on a CPU, 64 elsewhere.
    """

    crop_layers: int = 0
    crop_overlap: float = SAM_CROP_OVERLAP
    crop_downscale: int = 1
    crop_box_overlap: float = 0.7
    min_area: int = 0
    grids: Sequence[NDArray[np.float64]] | None = field(default=None, compare=False)
    batch: int | None = None

    def __post_init__(self) -> None:
        for name, least, most in (
            ("crop_layers", 0, MAX_CROP_LAYERS), ("crop_downscale", 1, 64), ("min_area", 0, 1 << 30), ("batch", 1, 1 << 30),
        ):  # fmt: skip
            if name != "batch" or self.batch is not None:
                check_whole(name, getattr(self, name), least, most)
        if not isinstance(self.crop_overlap, (int, float)) or not 0 <= self.crop_overlap < 1:
            raise InputError(f"crop_overlap must be a share from 0 up to 1, but is {shown(self.crop_overlap)}")
        if self.grids is not None:
            if len(self.grids) <= self.crop_layers:
                raise InputError(f"grids must be given for the frame and {self.crop_layers} layers of crops")
            for grid in self.grids:
                inside = np.shape(grid)[1:] == (2,) and len(grid) and ((grid >= 0) & (grid <= 1)).all()
                if not inside:
                    raise InputError(
                        f"a grid must hold points (N, 2) with x and y in [0, 1], but has shape {np.shape(grid)}"
                    )


@dataclass(frozen=True)
class Candidates:
    """N masks of one view, on its grid; boxes (N, 4) are in frame pixels, points (N, 2) are the clicks that found them."""

    logits: NDArray[np.float32]
    scores: NDArray[np.float32]
    stability: NDArray[np.float32]
    boxes: NDArray[np.float32]
    points: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Candidates:
        return Candidates(
            self.logits[rows], self.scores[rows], self.stability[rows], self.boxes[rows], self.points[rows]
        )

    @staticmethod
    def join(parts: Sequence[Candidates], view: Letterbox) -> Candidates:
        if parts:
            names = ("logits", "scores", "stability", "boxes", "points")
            return Candidates(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))
        none = np.zeros(0, np.float32)
        return Candidates(
            np.zeros((0, *view.grid), np.float32),
            none,
            none,
            np.zeros((0, 4), np.float32),
            np.zeros((0, 2), np.float32),
        )


def chosen_search(crop_layers: int, min_area: int, search: Search | None) -> Search:
    """What the shorter arguments of ``everything`` ask for, or the search that is given instead. Raises InputError."""
    if search is None:
        return Search(crop_layers=crop_layers, min_area=min_area)
    if crop_layers or min_area:
        raise InputError("give crop_layers and min_area in search=, or without search=")
    return search


# A view, what was found in it, and a row of that.
Entry = tuple[Letterbox, Candidates, int]


def find_regions(
    network: Answering,
    features: Features | None,
    frame: pixels.FrameLayout,
    geometry: Letterbox,
    rule: EverythingRule,
    search: Search,
) -> Regions:
    """Everything in a frame, or in a region of it, and in crops of it if the search says so.

    features: of ``geometry``, if it was encoded already; a rule with a ``whole_side`` needs none.
    A network of several streams answers so many calls at the same time: small inputs leave cores idle one call after the other.
    Raises InputError for a rule that is none.
    """
    if not isinstance(rule, EverythingRule):
        raise InputError(f"rule must be a tinyseg.EverythingRule, but is {shown(rule)}")
    found: list[Entry] = []
    one_grid = search.grids is not None or len(rule.sides(fine_per_side(rule, search, 0))) < 2
    first = geometry if one_grid or features is not None else whole_view(geometry, rule)
    with _pool(network.compiled("encoder", first).info.streams) as pool:
        for layer, view in views(geometry, search):
            if search.grids is not None:
                levels = [on_view(np.asarray(search.grids[layer], np.float64), view)]
            else:
                sides = rule.sides(fine_per_side(rule, search, layer))
                levels = [on_view(point_grid(n), view) for n in sides]
            asked = whole_view(view, rule) if len(levels) > 1 else view
            seen = features if asked is geometry and features is not None else network.encode(frame, asked)
            ask = Asker(network, seen, geometry, asked, rule, search, pool)
            whole, close = (levels[:WHOLE_LEVELS], levels[WHOLE_LEVELS:]) if rule.close_views else (levels, [])
            candidates = ask.all_levels(whole)
            here = entries(asked, ask.clean(candidates))
            if close:
                sure = sure_cells(candidates.logits, rule)
                open_points = [points[~at(sure, points, asked)] for points in close]
                # Those with the most clicks first: streams then end at about the same time.
                looks = sorted(in_parts(open_points, close_parts(view, rule)), key=lambda look: -sum(map(len, look[1])))

                def look_closer(look: tuple[Letterbox, list[NDArray[np.float64]]]) -> list[Entry]:
                    part, grids = look
                    closer = Asker(network, network.encode(frame, part), geometry, part, rule, search)
                    # Every part's calls have the same form, however few clicks are left in it.
                    return entries(part, closer.clean(closer.all_levels(grids, fill=True)))

                for part, _ in looks:
                    network.compiled("encoder", part)
                    open_decoders(network, part, ask.batch())
                for entered in pool.map(look_closer, looks) if pool else map(look_closer, looks):
                    here += entered
                here = distinct(here, rule.box_overlap)
            found += here
    return draw(geometry, distinct(found, search.crop_box_overlap) if search.crop_layers else by_score(found))


@contextmanager
def _pool(streams: int) -> Iterator[Executor | None]:
    """As many threads as a network has streams; None for one, which is the caller."""
    if streams < 2:
        yield None
        return
    with ThreadPoolExecutor(streams, "tinyseg-everything") as pool:
        yield pool


def everything_streams(threads: int) -> int:
    """How many streams to load a segmenter with that searches one frame at a time on so many threads."""
    return max(1, min(threads, MOST_STREAMS))


def call_sizes(size: int) -> list[int]:
    """For how many clicks a call is laid out, ascending: the last one of a part may have few, and half a call costs half."""
    return [size // 2, size] if size > 1 else [1]


def open_decoders(network: Answering, view: Letterbox, size: int) -> None:
    """What calls about a view take, opened by the caller's thread, which is asked how long it waited."""
    for clicks in call_sizes(size):
        network.compiled("decoder", view, clicks, 1)


def fine_per_side(rule: EverythingRule, search: Search, layer: int) -> int:
    """How many clicks a side the finest grid of a layer of crops has; layer 0 is the frame itself."""
    return max(1, rule.points_per_side // int(search.crop_downscale**layer))


def point_grid(per_side: int) -> NDArray[np.float64]:
    """(n * n, 2) x, y in the middles of n x n equal cells of [0, 1] x [0, 1] (SAM, appendix B)."""
    middles = (np.arange(per_side) + 0.5) / per_side
    return np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)


def on_view(grid: NDArray[np.float64], view: Letterbox) -> NDArray[np.float64]:
    """Points in [0, 1] of a view's region -> pixel positions in the frame, as prompts name them."""
    x0, y0, x1, y1 = view.region
    edges = grid * (x1 - x0, y1 - y0) + (x0, y0)
    return np.clip(edges - 0.5, (x0, y0), (x1, y1))


def views(geometry: Letterbox, search: Search) -> Iterator[tuple[int, Letterbox]]:
    """(layer, view) of the embedding itself and of every crop (SAM's ``generate_crop_boxes``)."""
    yield 0, geometry
    x0, y0, x1, y1 = geometry.region
    width, height = x1 - x0, y1 - y0
    for layer in range(1, search.crop_layers + 1):
        per_side = 2**layer
        overlap = int(search.crop_overlap * min(width, height) * 2 / per_side)
        w = min(width, -(-(overlap * (per_side - 1) + width) // per_side))
        h = min(height, -(-(overlap * (per_side - 1) + height) // per_side))
        for top in (int((h - overlap) * i) for i in range(per_side)):
            for left in (int((w - overlap) * i) for i in range(per_side)):
                region = (x0 + left, y0 + top, x0 + min(left + w, width), y0 + min(top + h, height))
                if region[0] < region[2] and region[1] < region[3]:
                    long_side = max(geometry.input)
                    yield layer, letterbox(geometry.frame_width, geometry.frame_height, long_side, region)


def whole_view(view: Letterbox, rule: EverythingRule) -> Letterbox:
    """A view's region as the input that the rule's grids are asked in."""
    if not rule.whole_side:
        return view
    return letterbox(view.frame_width, view.frame_height, rule.whole_side, view.region)


def close_parts(view: Letterbox, rule: EverythingRule) -> list[Letterbox]:
    """The rule's ``close_views`` x ``close_views`` overlapping parts of a view's region, each as an input of its own."""
    x0, y0, x1, y1 = view.region
    across, down = (_covering(size, rule.close_views) for size in (x1 - x0, y1 - y0))
    regions = [(x0 + left, y0 + top, x0 + right, y0 + bottom) for top, bottom in down for left, right in across]
    return [letterbox(view.frame_width, view.frame_height, rule.close_side, region) for region in regions]


def _covering(size: int, count: int) -> list[tuple[int, int]]:
    """(start, end) of ``count`` equal spans that cover ``size`` pixels, each sharing CLOSE_OVERLAP of itself with the next."""
    span = min(size, math.ceil(size / (count - (count - 1) * CLOSE_OVERLAP)))
    starts = [round(i * (size - span) / max(count - 1, 1)) for i in range(count)]
    return [(start, start + span) for start in starts]


def in_parts(
    levels: Sequence[NDArray[np.float64]], parts: Sequence[Letterbox]
) -> Iterator[tuple[Letterbox, list[NDArray[np.float64]]]]:
    """The parts that have any of the levels' points (N, 2) in the frame, with theirs: each belongs to the part whose middle
    is nearest."""
    edges = np.array([part.region for part in parts], np.float64)
    middles, sizes = (edges[:, :2] + edges[:, 2:]) / 2, edges[:, 2:] - edges[:, :2]
    owners = [(np.abs(points[:, None] - middles) / sizes).max(2).argmin(1) for points in levels]
    for i, part in enumerate(parts):
        mine = [points[owner == i] for points, owner in zip(levels, owners)]
        if sum(map(len, mine)):
            yield part, mine


def sure_cells(logits: NDArray[np.float32], rule: EverythingRule) -> NDArray[np.bool_]:
    """(h, w): where one of the masks (N, h, w) is above the rule's ``confident``, and so is it all around.

    Near a mask's edge things are that finer clicks find: parts of it, what lies on it, and what touches it. So a sure cell
    counts only if the cells within ``sure_margin`` of it are sure in the same mask; outside of the grid all are.
    """
    out = np.zeros(logits.shape[1:], np.uint8)
    around = np.ones((2 * rule.sure_margin + 1,) * 2, np.uint8)
    for one in logits:
        out |= np.asarray(cv2.erode((one > rule.confident).astype(np.uint8), around), np.uint8)
    return out.astype(np.bool_)


def at(sure: NDArray[np.bool_], points: NDArray[np.float64], view: Letterbox) -> NDArray[np.bool_]:
    """Which points (N, 2) of the frame lie on sure cells (h, w) of a view's grid."""
    cells = np.floor(view.points_to_model(points) / LOGIT_STRIDE).astype(np.intp)
    columns, rows = np.minimum(cells, np.array(sure.shape[::-1]) - 1).T
    return np.asarray(sure[rows, columns], np.bool_)


class Asker:
    """Clicks in one view, decoded in few calls, and what passes the rule."""

    def __init__(
        self,
        network: Answering,
        features: Features,
        frame: Letterbox,
        view: Letterbox,
        rule: EverythingRule,
        search: Search,
        pool: Executor | None = None,
    ) -> None:
        """pool: where several calls go on at the same time; None: one after the other."""
        self._network, self._features, self._frame, self._view = network, features, frame, view
        self._rule, self._search, self._pool = rule, search, pool

    def all_levels(self, levels: Sequence[NDArray[np.float64]], fill: bool = False) -> Candidates:
        """What passes of every level's points; those that an earlier level is sure about are not asked. fill: as in ask."""
        found = self.ask(levels[0], fill)
        # Later calls take the form that is compiled by now, however few clicks are left.
        fill = fill or len(levels[0]) >= self.batch()
        for points in levels[1:]:
            sure = sure_cells(found.logits, self._rule)
            found = self._best(
                Candidates.join([found, self.ask(points[~at(sure, points, self._view)], fill)], self._view)
            )
        return found

    def ask(self, points: NDArray[np.float64], fill: bool = False) -> Candidates:
        """What passes of the answers to single clicks (N, 2), in pixels of the frame.

        fill: a call of fewer clicks than others is filled up, so that no form of the decoder is compiled for it.
        """
        found: list[Candidates] = []
        size = self.batch()
        chunks = [points[start : start + size] for start in range(0, len(points), size)]
        same_form = fill or len(chunks) > 1

        def passing(chunk: NDArray[np.float64]) -> Candidates:
            batch = at_least(len(chunk), call_sizes(size)) if same_form else 1
            logits, scores = self._network.decode_clicks(self._features, self._view, chunk, batch)
            return self._passing(logits, scores, chunk)

        if self._pool is None or len(chunks) < 2:
            answers: Iterator[Candidates] = map(passing, chunks)
        else:
            open_decoders(self._network, self._view, size)
            answers = self._pool.map(passing, chunks)
        for one in answers:
            found.append(one)
            if sum(map(len, found)) > 2 * MAX_CANDIDATES:
                found = [self._best(Candidates.join(found, self._view))]
        return self._best(Candidates.join(found, self._view))

    def batch(self) -> int:
        """Prompts a decoder call."""
        if self._search.batch is not None:
            return min(self._search.batch, BATCH_SIZES[-1])
        on_cpu = self._network.compiled("encoder", self._view).info.device.upper().startswith("CPU")
        return CPU_BATCH if on_cpu else BATCH_SIZES[-1]

    def _passing(
        self, logits: NDArray[np.float32], scores: NDArray[np.float32], points: NDArray[np.float64]
    ) -> Candidates:
        """Of (B, 4, h, w) logits and (B, 4) scores of B clicks what is above the rule's thresholds."""
        good = np.flatnonzero(scores > self._rule.score)
        masks = logits.reshape(-1, *logits.shape[2:])[good]
        stats = pixels.grid_stats(masks, self._view, self._rule.stability_offset)
        boxes = self._in_frame(stats.boxes)
        kept = (stats.stability >= self._rule.stability) & (stats.areas > 0) & ~self._cut_off(stats.boxes)
        clicks = points[good[kept] // logits.shape[1]].astype(np.float32)
        return Candidates(masks[kept], scores.ravel()[good[kept]], stats.stability[kept], boxes[kept], clicks)

    def _in_frame(self, cells: NDArray[np.int32]) -> NDArray[np.float32]:
        x0, y0, x1, y1 = self._view.region
        boxes = self._view.boxes_to_frame(cells * LOGIT_STRIDE)
        return np.clip(boxes, (x0, y0, x0, y0), (x1, y1, x1, y1)).astype(np.float32)

    def _cut_off(self, cells: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which boxes reach an edge of a crop that is not an edge of what the user asked about: half objects."""
        rows, columns = pixels.grid_content(self._view)
        inner = np.array(self._view.region) != np.array(self._frame.region)
        at_edge = np.stack([cells[:, 0] <= 0, cells[:, 1] <= 0, cells[:, 2] >= columns, cells[:, 3] >= rows], axis=1)
        return np.asarray((at_edge & inner).any(1), np.bool_)

    def _best(self, candidates: Candidates) -> Candidates:
        """The best scored first, and no more than are kept."""
        order = np.argsort(-candidates.scores, kind="stable")[:MAX_CANDIDATES]
        return candidates.take(order)

    def clean(self, candidates: Candidates) -> Candidates:
        """Without doubles, and without the specks and holes of those that stay; what became a double by that goes too."""
        candidates = self._suppressed(self._best(candidates))
        if not len(candidates):
            return candidates
        cleaned = [
            without_specks(without_small(one, self._least_cells())[None], Prompt(points=[p], labels=[1]), self._view)[0]
            for one, p in zip(candidates.logits, candidates.points)
        ]
        changed = np.array([not np.array_equal(a, b) for a, b in zip(cleaned, candidates.logits)])
        logits = np.stack(cleaned)
        stats = pixels.grid_stats(logits, self._view, self._rule.stability_offset)
        candidates = Candidates(
            logits, candidates.scores, candidates.stability, self._in_frame(stats.boxes), candidates.points
        )
        # Masks that were whole from the start win over those that had to be mended (SAM, appendix B).
        order = np.lexsort((-candidates.scores, changed))
        return self._best(self._suppressed(candidates.take(order[stats.areas[order] > 0])))

    def _least_cells(self) -> float:
        """The search's min_area in cells of the view's grid."""
        return self._search.min_area * self._view.scale_x * self._view.scale_y / LOGIT_STRIDE**2

    def _suppressed(self, candidates: Candidates) -> Candidates:
        rows, columns = pixels.grid_content(self._view)
        inside = candidates.logits[:, :rows, :columns] > 0
        return candidates.take(
            pixels.suppress(candidates.boxes, inside, self._rule.box_overlap, self._rule.mask_overlap)
        )


def without_small(logits: NDArray[np.float32], least: float) -> NDArray[np.float32]:
    """(h, w) logits whose holes, then islands, of fewer than ``least`` cells have changed sign.

    The largest island stays, whatever its size (SAM's ``remove_small_regions``).
    """
    out = logits
    if least <= 1:
        return out
    for holes in (True, False):
        inside = out > 0
        searched = ~inside if holes else inside
        _, labels, stats, _ = cv2.connectedComponentsWithStats(searched.astype(np.uint8), connectivity=8)
        areas = stats[:, cv2.CC_STAT_AREA]
        small = areas < least
        small[0] = False
        if not holes and len(areas) > 1:
            small[1 + int(areas[1:].argmax())] = False
        if small.any():
            cells = small[labels]
            out = out.copy() if out is logits else out
            out[cells] = -out[cells]
    return out


def entries(view: Letterbox, candidates: Candidates) -> list[Entry]:
    """Every row of a view's candidates."""
    return [(view, candidates, row) for row in range(len(candidates))]


def distinct(found: Sequence[Entry], box_overlap: float) -> list[Entry]:
    """What stays when views are compared by boxes, the best scored first.

    Of doubles the one from the smaller view stays, which saw it in more detail. Those of one view were compared already.
    """
    if len({view.region for view, _, _ in found}) < 2:
        return by_score(found)
    boxes = np.stack([c.boxes[row] for _, c, row in found])
    areas = np.array([(v.region[2] - v.region[0]) * (v.region[3] - v.region[1]) for v, _, _ in found])
    order = np.lexsort((-_scores(found), areas))
    # No masks are compared: the grids of two views do not lie on each other.
    none = np.zeros((len(found), 1, 1), np.bool_)
    return by_score([found[i] for i in order[pixels.suppress(boxes[order], none, box_overlap, 1.0)]])


def by_score(found: Sequence[Entry]) -> list[Entry]:
    """The best scored first."""
    return [found[i] for i in np.argsort(-_scores(found), kind="stable")]


def _scores(found: Sequence[Entry]) -> NDArray[np.float32]:
    return np.array([c.scores[row] for _, c, row in found], np.float32)


def draw(frame: Letterbox, found: Sequence[Entry]) -> Regions:
    """Boxes and areas in frame pixels, one mask at a time; a mask without a pixel in the frame is left out."""
    kept, boxes, areas = [], [], []
    for view, candidates, row in found:
        x0, y0, x1, y1 = candidates.boxes[row].astype(np.float64)
        # Interpolation reaches half a cell beyond the cells that are inside.
        dx, dy = LOGIT_STRIDE / view.scale_x, LOGIT_STRIDE / view.scale_y
        window = (
            max(view.region[0], int(np.floor(x0 - dx))), max(view.region[1], int(np.floor(y0 - dy))),
            min(view.region[2], int(np.ceil(x1 + dx))), min(view.region[3], int(np.ceil(y1 + dy))),
        )  # fmt: skip
        _, stats = pixels.threshold_window(candidates.logits[row], view, window)
        if stats.area > 0:
            kept.append((view, candidates, row))
            boxes.append(stats.box)
            areas.append(stats.area)
    return Regions(
        frame.frame_width, frame.frame_height,
        np.array([c.scores[r] for _, c, r in kept], np.float32),
        np.array([c.stability[r] for _, c, r in kept], np.float32),
        np.array(boxes, np.int32).reshape(-1, 4), np.array(areas, np.int64),
        np.array([c.points[r] for _, c, r in kept], np.float32).reshape(-1, 2),
        tuple(c.logits[r].copy() for _, c, r in kept), tuple(v for v, _, _ in kept),
    )  # fmt: skip
