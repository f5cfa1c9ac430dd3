"""How much of what people labelled "everything" finds, and in what time, beside the full grid through the same decoder.

Recall as in COCO's proposals (Hosang et al., arXiv 1502.05082): the K best scored regions of an image are matched with its
instances, each with one at most, the best scored region first and to the instance that it overlaps most. AR@K is the mean
share of instances matched at IoU 0.50, 0.55, ... 0.95. Images may be labelled in part, so regions without an instance are no
mistakes, and nothing is said about precision.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.bench.accuracy import MIN_PIXELS
from tinyseg.bench.measure import Ratio, Timing, alternate, ratio
from tinyseg.bench.rivals import Rival
from tinyseg.bench.rows import markdown_table
from tinyseg.bench.scenarios import FRAME_HEIGHT, FRAME_WIDTH
from tinyseg.dataset import Photo
from tinyseg.errors import InputError
from tinyseg.graphs.everything_rule import EverythingRule
from tinyseg.predict.everything import WHOLE_LEVELS
from tinyseg.predict.segmenter import Segmenter, SegmenterInfo
from tinyseg.regions import Regions
from tinyseg.system.progress import progress

BUDGETS = (10, 100, 1000)
THRESHOLDS = np.linspace(0.5, 0.95, 10)
SAM_POINTS_PER_SIDE = 32
WARM_UP_PER_SIDE = 9  # more clicks than a decoder call has
FULL_GRID = "full grid"
OWN_RULE = "everything"


@dataclass(frozen=True)
class PhotoResult:
    """One photo under one rule."""

    group: str
    overlaps: NDArray[np.float32]  # (regions, instances) IoU, regions the best scored first
    seconds: float  # embedding and everything


def overlaps_with(regions: Regions, truths: NDArray[np.bool_]) -> NDArray[np.float32]:
    """IoU (K, T) of regions with masks (T, H, W) of the frame, one region at a time."""
    out = np.zeros((len(regions), len(truths)), np.float32)
    areas = np.count_nonzero(truths, axis=(1, 2))
    for i, (x0, y0, x1, y1) in enumerate(regions.boxes):
        window = regions.window(i)
        common = np.count_nonzero(truths[:, y0:y1, x0:x1] & window, axis=(1, 2))
        out[i] = common / np.maximum(areas + regions.areas[i] - common, 1)
    return out


def matched(overlaps: NDArray[np.float32], threshold: float) -> int:
    """How many instances (columns) get a region (rows, the best scored first), as COCO matches them."""
    free = np.ones(overlaps.shape[1], np.bool_)
    for row in overlaps[(overlaps >= threshold).any(1)]:
        candidates = np.where(free, row, -1.0)
        best = int(candidates.argmax())
        if candidates[best] >= threshold:
            free[best] = False
    return int(np.count_nonzero(~free))


@dataclass(frozen=True)
class EverythingRow:
    """A set under a rule; the columns of the table and the keys of the JSON."""

    set: str
    rule: str
    photos: int
    instances: int
    ar10: float
    ar100: float
    ar1000: float
    recall50: float  # at IoU 0.5, of all regions
    recall75: float
    best_iou: float  # mean over instances of the best region's IoU
    regions: float  # per photo
    ms: float  # per photo, median


HEADINGS = {
    "set": "set", "rule": "rule", "photos": "photos", "instances": "objects", "ar10": "AR@10", "ar100": "AR@100",
    "ar1000": "AR@1000", "recall50": "recall 0.5", "recall75": "recall 0.75", "best_iou": "best IoU", "regions": "regions",
    "ms": "ms",
}  # fmt: skip


def summary(name: str, rule: str, results: Sequence[PhotoResult]) -> EverythingRow:
    """Figures of a set of photos; NaN without an instance."""
    instances = sum(r.overlaps.shape[1] for r in results)
    least = max(instances, 1)

    def recall(threshold: float, budget: int | None = None) -> float:
        return sum(matched(r.overlaps[:budget], threshold) for r in results) / least if instances else float("nan")

    ar10, ar100, ar1000 = (float(np.mean([recall(t, k) for t in THRESHOLDS])) for k in BUDGETS)
    best = [r.overlaps.max(0, initial=0.0) for r in results if r.overlaps.shape[1]]
    return EverythingRow(
        set=name, rule=rule, photos=len(results), instances=instances, ar10=ar10, ar100=ar100, ar1000=ar1000,
        recall50=recall(0.5), recall75=recall(0.75), best_iou=float(np.concatenate(best).mean()) if best else float("nan"),
        regions=float(np.mean([len(r.overlaps) for r in results])),
        ms=float(np.median([1e3 * r.seconds for r in results])),
    )  # fmt: skip


@dataclass(frozen=True)
class EverythingReport:
    """Figures by set and rule, and what the own rule keeps of the full grid's recall in what share of its time."""

    rows: list[EverythingRow]
    kept_recall: float | None  # recall at IoU 0.5 over the full grid's
    kept_ar1000: float | None
    share_of_time: float | None  # median over photos of the quotient

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rows": [asdict(r) for r in self.rows]}

    def to_markdown(self) -> str:
        names = [f.name for f in fields(EverythingRow)]
        cells = [[HEADINGS[n] for n in names]]
        for row in self.rows:
            values = asdict(row)
            cells.append([_shown(n, values[n]) for n in names])
        lines = markdown_table(cells)
        if self.kept_recall is not None:
            lines += [
                "",
                f"{self.kept_recall:.3f} of the full grid's recall at IoU 0.5 and {self.kept_ar1000:.3f} of its AR@1000 "
                f"in {self.share_of_time:.2f} of its time (median over photos, one after the other)",
            ]
        return "\n".join(lines)


def _shown(name: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if name == "ms" else f"{value:.1f}" if name == "regions" else f"{value:.3f}"


def measure_everything(
    seg: Segmenter,
    photos: Sequence[Photo],
    rule: EverythingRule | None = None,
    full_grid: bool = True,
    sides: Sequence[int] = (),
) -> EverythingReport:
    """Recall and time of the model's rule, or another, on labelled photos, and of the full grid with its thresholds.

    sides: also of the rule with so many clicks a side of its finest grid. Raises InputError.
    """
    rules = {OWN_RULE: seg.everything_rule if rule is None else rule}
    rules |= {f"{side} a side": replace(rules[OWN_RULE], points_per_side=side) for side in sides}
    if full_grid:
        rules[FULL_GRID] = full_grid_of(rules[OWN_RULE])
    found: dict[str, list[PhotoResult]] = {name: [] for name in rules}
    warm: set[tuple[int, int]] = set()
    for photo in progress(photos, "photos"):
        image = photo.read()
        truths = photo.masks()
        truths = truths[np.count_nonzero(truths, axis=(1, 2)) >= MIN_PIXELS]
        if not len(truths):
            continue
        if image.shape[:2] not in warm:
            # Compiles what this size needs: a first call and a later one.
            seg.everything(image, rule=replace(rules[OWN_RULE], points_per_side=WARM_UP_PER_SIDE))
        for name, one in rules.items():
            waited, start = seg.network.waited_seconds, time.perf_counter()
            regions = seg.everything(image, rule=one)
            # Forms that this size needs in close views are compiled within it; that is left out.
            seconds = time.perf_counter() - start - (seg.network.waited_seconds - waited)
            found[name].append(PhotoResult(photo.group or "all", overlaps_with(regions, truths), seconds))
        warm.add(image.shape[:2])
    return report_of(found)


def full_grid_of(rule: EverythingRule) -> EverythingRule:
    """SAM's grid, all 32 x 32 clicks of it, with a rule's thresholds: what a rule is compared with."""
    return replace(rule, points_per_side=max(SAM_POINTS_PER_SIDE, rule.points_per_side), coarse_per_side=0)


def report_of(found: dict[str, list[PhotoResult]]) -> EverythingReport:
    """Rows by set and over all of them, the rules side by side."""
    groups = sorted({r.group for results in found.values() for r in results})
    rows = [
        summary(group, name, [r for r in results if r.group == group])
        for group in groups
        for name, results in found.items()
    ]
    if len(groups) > 1:
        rows += [summary("all", name, results) for name, results in found.items()]
    if FULL_GRID not in found or not rows:
        return EverythingReport(rows, None, None, None)
    own, full = (next(r for r in reversed(rows) if r.rule == name) for name in (OWN_RULE, FULL_GRID))
    shares = [a.seconds / b.seconds for a, b in zip(found[OWN_RULE], found[FULL_GRID])]
    return EverythingReport(
        rows, own.recall50 / max(full.recall50, 1e-9), own.ar1000 / max(full.ar1000, 1e-9), float(np.median(shares))
    )


@dataclass(frozen=True)
class EverythingSpeed:
    """Everything in one frame beside a rival's single prompt, in the same rounds; ratios are the rival's time over ours.

    two_grids: the same rule without its grids after the second, for those who cannot wait.
    """

    segmenter: SegmenterInfo
    frame: tuple[int, int]
    regions: int
    ours: Timing
    two_grids: Timing
    full_grid: Timing
    peer: Timing
    times_faster: Ratio
    two_grids_times_faster: Ratio
    share_of_full_grid: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> str:
        lines = [f"{self.frame[0]} x {self.frame[1]} frame, {self.regions} regions; {self.segmenter}"]
        lines += [
            f"  {t.label}: p50 {t.p50_ms:.1f} ms, p90 {t.p90_ms:.1f} ms, {len(t.samples_ms)} rounds"
            for t in (self.ours, self.two_grids, self.full_grid, self.peer)
        ]
        for what, r in (("everything", self.times_faster), ("two grids", self.two_grids_times_faster)):
            lines.append(
                f"  {what}: {1 / r.value:.2f} of the rival's one prompt (median of rounds, 95% interval {1 / r.high:.2f} to "
                f"{1 / r.low:.2f})"
            )
        lines.append(f"  everything: {self.share_of_full_grid:.2f} of the full grid")
        return "\n".join(lines)


def compare_everything(seg: Segmenter, rival: Rival, frame: NDArray[np.uint8], rounds: int) -> EverythingSpeed:
    """Everything in a frame (H, W, 3) BGR, from the frame to boxes and areas, beside a rival's encoder and one prompt.

    How long it takes depends on the frame: where little is sure, much is asked. The rival's resizing, upsampling and
    thresholding are left out, in its favour. Raises InputError.
    """
    if rounds < 3:
        raise InputError(f"--rounds must be at least 3, but is {rounds}")
    full = full_grid_of(seg.everything_rule)
    two = replace(seg.everything_rule, points_per_side=seg.everything_rule.sides()[:WHOLE_LEVELS][-1])

    def peer() -> None:
        rival.encode()
        rival.decode()

    name = f"tinyseg on {seg.info.engine} {seg.info.precision}"
    calls = {
        f"{name}, everything": lambda: seg.everything(frame),
        f"{name}, {two.points_per_side} a side": lambda: seg.everything(frame, rule=two),
        f"{name}, full grid": lambda: seg.everything(frame, rule=full),
        f"{rival.label}, one prompt": peer,
    }  # fmt: skip
    found = alternate(calls, rounds)
    ours, less, grid, theirs = found.values()
    height, width = frame.shape[:2]
    regions = len(seg.everything(frame))
    share = 1 / ratio(grid, ours).value
    return EverythingSpeed(
        seg.info, (width, height), regions, ours, less, grid, theirs, ratio(theirs, ours), ratio(theirs, less), share
    )


def scale_to_bench(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (H, W, 3) at the size that all scenarios have, 1280 x 720, its middle cut out."""
    height, width = image.shape[:2]
    scale = max(FRAME_WIDTH / width, FRAME_HEIGHT / height)
    size = max(FRAME_WIDTH, round(width * scale)), max(FRAME_HEIGHT, round(height * scale))
    large = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (size[0] - FRAME_WIDTH) // 2, (size[1] - FRAME_HEIGHT) // 2
    return np.ascontiguousarray(large[top : top + FRAME_HEIGHT, left : left + FRAME_WIDTH], np.uint8)
