"""Thresholds of "everything", chosen for a model on photos that were held out from its training.

Every photo's grids are asked once, with nearly everything let through, and the choices are made on what was recorded: first
the least predicted IoU and stability that recall most with at most a hundred regions a photo, then how much two masks may
overlap, then from which logit on a mask of a coarser grid is so sure that the finer ones need not ask there.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyseg import pixels
from tinyseg.bench.accuracy import MIN_PIXELS
from tinyseg.bench.everything import matched
from tinyseg.bench.rows import markdown_table
from tinyseg.dataset import Photo
from tinyseg.errors import DataError
from tinyseg.files import write_bytes
from tinyseg.geometry import LOGIT_STRIDE, Letterbox
from tinyseg.graphs.everything_rule import EverythingRule
from tinyseg.predict.everything import (
    WHOLE_LEVELS,
    Asker,
    Candidates,
    Entry,
    Search,
    at,
    close_parts,
    distinct,
    entries,
    in_parts,
    on_view,
    point_grid,
    sure_cells,
    whole_view,
)
from tinyseg.predict.network import Features
from tinyseg.predict.segmenter import Segmenter
from tinyseg.system.progress import progress

# What is recorded: everything that any choice below could keep.
LEAST_SCORE, LEAST_STABILITY = 0.2, 0.3
SCORES = tuple(np.round(np.arange(LEAST_SCORE, 0.81, 0.05), 2).tolist())
STABILITIES = tuple(np.round(np.arange(LEAST_STABILITY, 0.91, 0.1), 2).tolist())
OVERLAPS = (1.0, 0.9, 0.8, 0.7)
SURE = (0.0, 1.0, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0)
# A photo's regions that the thresholds may leave: COCO's middle budget. Letting everything through finds more, in hundreds.
MOST_REGIONS = 100
# Share of the recall at IoU 0.5 that the later choices must keep; the target is 0.98 of the full grid's, on other photos.
KEPT_BY_OVERLAP, KEPT_BY_SURE = 0.985, 0.99
RECALL_AT = 0.5


@dataclass(frozen=True)
class Level:
    """What one grid gave in a view: clicks (N, 2), candidates, and their IoU (masks, instances) with every instance, in cells."""

    view: Letterbox
    clicks: NDArray[np.float64]
    found: Candidates
    overlaps: NDArray[np.float32]


@dataclass(frozen=True)
class Recorded:
    """One photo: what the finest grid of a rule gave in the frame's own view, what the grids that the rule asks of the whole
    view gave there, the finest last, each asked in full, and for each of its close views what the others gave in it."""

    full: Level
    levels: list[Level]
    close: list[list[Level]]


def pick_held_out(photos: Sequence[Photo], count: int, objects: int = 1) -> list[Photo]:
    """``count`` photos with at least so many instances, in an order that depends on their names alone. Raises DataError if
    there is none."""
    usable = sorted(
        (p for p in photos if len(p.instances) >= max(1, objects)), key=lambda p: zlib.crc32(p.name.encode()[::-1])
    )
    if not usable:
        raise DataError("thresholds are chosen on held-out photos with instances, but there are none; give more --data")
    return usable[:count]


def record(seg: Segmenter, photo: Photo, rule: EverythingRule) -> Recorded | None:
    """Ask all grids of a rule about a photo; None where it has no instance to find."""
    truths = photo.masks()
    truths = truths[np.count_nonzero(truths, axis=(1, 2)) >= MIN_PIXELS]
    if not len(truths):
        return None
    embedding = seg.embed(photo.read())
    view = embedding.geometry
    open_rule = replace(rule, score=LEAST_SCORE, stability=LEAST_STABILITY)
    grids = [on_view(point_grid(side), view) for side in rule.sides()]
    full = _asked(seg, embedding.features, view, view, grids[-1], open_rule, truths)
    asked = whole_view(view, rule) if len(grids) > 1 else view
    features = embedding.features if asked is view else seg.network.encode(embedding.frame, asked)
    whole, finer = (grids[:WHOLE_LEVELS], grids[WHOLE_LEVELS:]) if rule.close_views else (grids, [])
    levels = [_asked(seg, features, view, asked, clicks, open_rule, truths) for clicks in whole]
    close = []
    if finer:
        for part, mine in in_parts(finer, close_parts(view, rule)):
            features = seg.network.encode(embedding.frame, part)
            close.append([_asked(seg, features, view, part, clicks, open_rule, truths) for clicks in mine])
    return Recorded(full, levels, close)


def _asked(
    seg: Segmenter, features: Features, frame: Letterbox, view: Letterbox, clicks: NDArray[np.float64],
    rule: EverythingRule, truths: NDArray[np.bool_],
) -> Level:  # fmt: skip
    """What clicks give in a view of a frame with instances (T, H, W)."""
    found = Asker(seg.network, features, frame, view, rule, Search()).ask(clicks, fill=True)
    x0, y0, x1, y1 = view.region
    inside = np.stack([pixels.shrink_mask(truth[y0:y1, x0:x1], view) >= 0.5 for truth in truths])
    outside = np.count_nonzero(truths, axis=(1, 2)) - np.count_nonzero(truths[:, y0:y1, x0:x1], axis=(1, 2))
    cell = view.scale_x * view.scale_y / LOGIT_STRIDE**2  # cells a frame pixel
    return Level(view, clicks, found, grid_overlaps(found.logits > 0, inside, outside * cell))


def grid_overlaps(
    masks: NDArray[np.bool_], truths: NDArray[np.bool_], outside: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float32]:
    """IoU (N, T) of masks (N, h, w) and (T, h, w) on one grid; outside (T,): cells of the latter beyond the grid."""
    a, b = (m.reshape(len(m), masks.shape[1] * masks.shape[2]).astype(np.float32) for m in (masks, truths))
    common = a @ b.T
    return np.asarray(common / np.maximum(a.sum(1)[:, None] + (b.sum(1) + outside)[None] - common, 1), np.float32)


@dataclass(frozen=True)
class Outcome:
    """What a choice of thresholds gives over all photos."""

    recall: float
    ar: float  # mean recall at IoU 0.5, 0.6, ... 0.9
    regions: float  # per photo
    clicks: float  # per photo, all grids; in a smaller view they count by its cells, of the frame's own view's


def outcome(recorded: Sequence[Recorded], rule: EverythingRule, hierarchical: bool) -> Outcome:
    """What the rule would have kept; the whole finest grid alone, in the frame's own view, unless ``hierarchical``."""
    hits, hits_at_all, instances, regions, clicks = 0, 0, 0, 0, 0.0
    for one in recorded:
        whole = _kept(one.levels if hierarchical else [one.full], rule)
        looks = [whole, *(_kept(part, rule, whole.sure) for part in one.close if hierarchical)]
        found: list[Entry] = []
        overlaps = []
        for look in looks:
            rows, columns = pixels.grid_content(look.view)
            inside = look.found.logits[:, :rows, :columns] > 0
            stay = pixels.suppress(look.found.boxes, inside, rule.box_overlap, rule.mask_overlap)
            found += entries(look.view, look.found.take(stay))
            overlaps.append(look.overlaps[stay])
            clicks += look.clicks * np.prod(look.view.grid) / np.prod(one.full.view.grid)
        places = {(id(candidates), row): i for i, (_, candidates, row) in enumerate(found)}
        chosen = distinct(found, rule.box_overlap)
        overlap = np.concatenate(overlaps)[[places[id(candidates), row] for _, candidates, row in chosen]]
        hits += matched(overlap, RECALL_AT)
        hits_at_all += sum(matched(overlap, t) for t in (0.5, 0.6, 0.7, 0.8, 0.9))
        instances += overlap.shape[1]
        regions += len(chosen)
    count = len(recorded)
    return Outcome(hits / instances, hits_at_all / (5 * instances), regions / count, clicks / count)


@dataclass(frozen=True)
class _Look:
    """What a view's grids leave under a rule, the best scored first, before doubles go; sure: its cells, and the view."""

    view: Letterbox
    found: Candidates
    overlaps: NDArray[np.float32]
    sure: tuple[NDArray[np.bool_], Letterbox]
    clicks: int


def _kept(
    levels: Sequence[Level], rule: EverythingRule, before: tuple[NDArray[np.bool_], Letterbox] | None = None
) -> _Look:
    """The candidates of those clicks that nothing before them was sure about."""
    view = levels[0].view
    sures = [] if before is None else [before]
    parts: list[Candidates] = []
    overlaps: list[NDArray[np.float32]] = []
    clicks = 0
    for level in levels:
        own = [*sures, (sure_cells(np.concatenate([p.logits for p in parts]), rule), view)] if parts else sures
        kept = passing(level.found, rule)
        asked = np.ones(len(level.clicks), np.bool_)
        for cells, seen in own:
            asked &= ~at(cells, level.clicks, seen)
            kept &= ~at(cells, level.found.points.astype(np.float64), seen)
        clicks += int(np.count_nonzero(asked))
        parts.append(level.found.take(kept))
        overlaps.append(level.overlaps[kept])
    found, overlap = Candidates.join(parts, view), np.concatenate(overlaps)
    order = np.argsort(-found.scores, kind="stable")
    return _Look(view, found.take(order), overlap[order], (sure_cells(found.logits, rule), view), clicks)


def passing(candidates: Candidates, rule: EverythingRule) -> NDArray[np.bool_]:
    return np.asarray((candidates.scores > rule.score) & (candidates.stability >= rule.stability), np.bool_)


@dataclass(frozen=True)
class Calibration:
    """The rule that was chosen, and what the alternatives gave."""

    rule: EverythingRule
    photos: int
    thresholds: list[tuple[float, float, Outcome]]
    overlaps: list[tuple[float, Outcome]]
    sure: list[tuple[float, Outcome]]

    def to_markdown(self) -> str:
        def cells(*values: float, of: Outcome) -> list[str]:
            return [
                *(f"{v:g}" for v in values), f"{of.recall:.3f}", f"{of.ar:.3f}", f"{of.regions:.1f}", f"{of.clicks:.0f}"
            ]  # fmt: skip

        shown = ["recall 0.5", "recall 0.5-0.9", "regions", "clicks"]
        best = sorted(self.thresholds, key=lambda row: row[2].regions)
        useful = [row for row in best if row[2].recall >= 0.9 * max(r[2].recall for r in best)][:12]
        return "\n".join(
            [
                *markdown_table(
                    [["score above", "stability from", *shown], *(cells(s, t, of=o) for s, t, o in useful)]
                ),
                "",
                *markdown_table([["mask overlap", *shown], *(cells(v, of=o) for v, o in self.overlaps)]),
                "",
                *markdown_table([["sure above", *shown], *(cells(v, of=o) for v, o in self.sure)]),
                "",
                f"chosen on {self.photos} photos: {json.dumps(self.rule.to_card())}",
            ]
        )


def calibrate(seg: Segmenter, photos: Sequence[Photo], rule: EverythingRule) -> Calibration:
    """Choose score, stability, mask_overlap and confident of a rule; the rest of it stays. Raises DataError."""
    maybe = [record(seg, p, rule) for p in progress(photos, "photos")]
    recorded = [r for r in maybe if r is not None]
    if not recorded:
        raise DataError("no photo has an instance that is large enough to be found; give other --data")
    grid = [replace(rule, score=s, stability=t, mask_overlap=1.0) for s in SCORES for t in STABILITIES]
    tried = [(r, outcome(recorded, r, False)) for r in progress(grid, "thresholds")]
    few = [row for row in tried if row[1].regions <= MOST_REGIONS] or tried
    chosen = max(few, key=lambda row: (row[1].recall, -row[1].regions, row[0].score, row[0].stability))[0]
    overlaps = [(v, outcome(recorded, replace(chosen, mask_overlap=v), False)) for v in OVERLAPS]
    chosen = replace(chosen, mask_overlap=_last_that_keeps(overlaps, KEPT_BY_OVERLAP * overlaps[0][1].recall))
    full = outcome(recorded, chosen, False)
    sure = [(v, outcome(recorded, replace(chosen, confident=v), True)) for v in reversed(SURE)]
    chosen = replace(chosen, confident=_last_that_keeps(sure, KEPT_BY_SURE * full.recall))
    thresholds = [(r.score, r.stability, o) for r, o in tried]
    return Calibration(chosen, len(recorded), thresholds, overlaps, [*sure, (float("inf"), full)])


def _last_that_keeps(rows: Sequence[tuple[float, Outcome]], recall: float) -> float:
    """The value of the last row (the strictest) that keeps a recall; the first one's where none does."""
    return next((value for value, found in reversed(rows) if found.recall >= recall), rows[0][0])


def write_rule(model: Path, rule: EverythingRule) -> None:
    """Put a rule into a model folder's model.json, and change nothing else in it. Raises DataError."""
    card_file = model / "model.json"
    try:
        card = json.loads(card_file.read_text())
    except (OSError, ValueError) as exc:
        raise DataError(f"{card_file} cannot be read ({exc}); --write takes a model folder") from exc
    card["everything"] = rule.to_card()
    write_bytes(card_file, (json.dumps(card, indent=1) + "\n").encode())
