"""Searches for everything beside the full grid: what every choice of grids keeps of its recall, and what it costs.

Each photo is asked once: a network that remembers its answers stands between the searches and the model, so a search costs
what its own clicks cost when they were first asked. Clicks are counted in clicks on the whole frame; one on a smaller grid
counts for what it took beside them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tinyseg import pixels
from tinyseg.bench.accuracy import MIN_PIXELS
from tinyseg.bench.everything import FULL_GRID, PhotoResult, full_grid_of, overlaps_with, summary
from tinyseg.bench.rows import markdown_table
from tinyseg.dataset import Photo
from tinyseg.engines import CompiledGraph
from tinyseg.errors import DataError
from tinyseg.geometry import Letterbox
from tinyseg.graphs.everything_rule import EverythingRule
from tinyseg.predict.everything import WHOLE_LEVELS, Search, find_regions
from tinyseg.predict.network import Features, Network
from tinyseg.predict.segmenter import Segmenter
from tinyseg.system.progress import progress

# A click's place in a view: the view's numbers and the point.
_Key = tuple[object, float, float]


class Remembering:
    """A network that is asked about one frame by single clicks, each of them once; ``seconds`` is what a search would take.

    The clicks of a call that were not asked before are asked together; a later search is charged what they took then.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._answers: dict[_Key, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._features: dict[object, tuple[Features, float]] = {}
        self._per_click: dict[tuple[int, int], list[float]] = {}
        self._asked: dict[tuple[int, int], int] = {}
        self._encoding = 0.0

    def compiled(self, role: str, view: Letterbox, prompts: int = 1, points: int = 1) -> CompiledGraph:
        return self._network.compiled(role, view, prompts, points)

    def encode(self, frame: pixels.FrameLayout, view: Letterbox) -> Features:
        if view.numbers not in self._features:
            self._network.compiled("encoder", view)
            start = time.perf_counter()
            features = self._network.encode(frame, view)
            self._features[view.numbers] = features, time.perf_counter() - start
        features, seconds = self._features[view.numbers]
        self._encoding += seconds
        return features

    def decode_clicks(
        self, features: Features, view: Letterbox, clicks: NDArray[np.float64], batch: int = 1
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        keys: list[_Key] = [(view.numbers, *click.tolist()) for click in clicks]
        new = np.array([key not in self._answers for key in keys])
        laid_out = max(len(clicks), batch)
        if new.any():
            self._network.compiled("decoder", view, laid_out, 1)
            start = time.perf_counter()
            logits, scores = self._network.decode_clicks(features, view, clicks[new], laid_out)
            self._per_click.setdefault(view.grid, []).append((time.perf_counter() - start) / laid_out)
            for row, i in enumerate(np.flatnonzero(new)):
                self._answers[keys[i]] = logits[row].copy(), scores[row].copy()
        self._asked[view.grid] = self._asked.get(view.grid, 0) + laid_out
        answers = [self._answers[key] for key in keys]
        return np.stack([a for a, _ in answers]), np.stack([s for _, s in answers])

    def cost(self, grid: tuple[int, int]) -> float:
        """What was asked and encoded since the last call, in clicks on a grid (rows, columns)."""
        seconds = {g: float(np.median(times)) for g, times in self._per_click.items()}
        spent = self._encoding + sum(seconds[g] * n for g, n in self._asked.items())
        self._asked, self._encoding = {}, 0.0
        return spent / seconds[grid]


@dataclass(frozen=True)
class SearchRow:
    """A search, and what it keeps of the full grid's: recall at IoU 0.5, AR@1000, clicks."""

    name: str
    recall: float
    average_recall: float
    clicks: float
    regions: float


@dataclass(frozen=True)
class SearchTable:
    """All searches on the same photos."""

    rows: list[SearchRow]
    photos: int
    instances: int

    def to_markdown(self) -> str:
        cells = [["search", "recall", "average recall", "clicks", "regions"]]
        cells += [
            [r.name, f"{r.recall:.3f}", f"{r.average_recall:.3f}", f"{r.clicks:.2f}", f"{r.regions:.0f}"]
            for r in self.rows
        ]
        told = f"{self.photos} photos, {self.instances} objects; recall, average recall and clicks are shares of the full grid's"
        return "\n".join([*markdown_table(cells), "", told])


def alternatives(rule: EverythingRule) -> dict[str, EverythingRule]:
    """The searches that are compared, by what they are called, all with a rule's thresholds."""
    own = replace(rule, points_per_side=32, coarse_per_side=8, close_views=0, whole_side=0)
    tried = [replace(own, confident=4.0, sure_margin=2)]
    tried += [replace(own, confident=3.0, sure_margin=6, close_views=4, close_side=256)]
    small = replace(own, confident=3.0, whole_side=256)
    tried += [replace(small, sure_margin=3, points_per_side=16)]
    tried += [replace(small, sure_margin=2, close_views=3, close_side=192)]
    tried += [replace(small, sure_margin=4, close_views=n, close_side=224) for n in (3, 4)]
    tried += [replace(small, sure_margin=4, close_views=4, close_side=side) for side in (192, 256)]
    found = {name_of(one): one for one in tried}
    found[name_of(rule)] = rule
    return found


def name_of(rule: EverythingRule) -> str:
    """A search in a few words."""
    sides = rule.sides()
    name = ", ".join(str(side) for side in sides)
    if rule.whole_side and len(sides) > 1:
        name += f" in {rule.whole_side} px"
    if rule.close_views and len(sides) > WHOLE_LEVELS:
        name += f", from {sides[WHOLE_LEVELS]} on in {rule.close_views} x {rule.close_views} close views of {rule.close_side} px"
    return f"{name}; sure above {rule.confident:g}, margin {rule.sure_margin}"


def compare_searches(seg: Segmenter, photos: Sequence[Photo], rules: Mapping[str, EverythingRule]) -> SearchTable:
    """What the searches keep of the full grid's recall on photos. Raises DataError where there is nothing to find."""
    full = full_grid_of(seg.everything_rule)
    found: dict[str, list[PhotoResult]] = {name: [] for name in (FULL_GRID, *rules)}
    for photo in progress(photos, "photos"):
        truths = photo.masks()
        truths = truths[np.count_nonzero(truths, axis=(1, 2)) >= MIN_PIXELS]
        if not len(truths):
            continue
        emb = seg.embed(photo.read())
        network = Remembering(seg.network)
        for name, rule in {FULL_GRID: full, **rules}.items():
            features = network.encode(emb.frame, emb.geometry)
            regions = find_regions(network, features, emb.frame, emb.geometry, rule, Search())
            cost = network.cost(emb.geometry.grid)
            found[name].append(PhotoResult("", overlaps_with(regions, truths), cost))
    if not found[FULL_GRID]:
        raise DataError("no photo has an instance that is large enough to be found; give other --data")
    whole = summary("", FULL_GRID, found[FULL_GRID])
    rows = []
    for name in rules:
        one = summary("", name, found[name])
        clicks = sum(r.seconds for r in found[name]) / sum(r.seconds for r in found[FULL_GRID])
        rows.append(
            SearchRow(
                name,
                one.recall50 / max(whole.recall50, 1e-9),
                one.ar1000 / max(whole.ar1000, 1e-9),
                clicks,
                one.regions,
            )
        )
    return SearchTable(rows, whole.photos, whole.instances)
