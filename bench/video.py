"""How well objects are followed: DAVIS' J, F and J&F, beside two baselines, with frames a second and memory.

The official definitions (davis2017-evaluation): J is the intersection over union of masks, F the F-measure of their
outlines within 0.008 of the frame's diagonal; the first and the last frame do not count; means are over objects.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as List
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.bench.accuracy import iou
from tinyseg.bench.measure import alternate
from tinyseg.bench.rows import markdown_table
from tinyseg.bench.scenarios import MOVING_FRAMES, moving_scene
from tinyseg.bench.sequences import Sequence
from tinyseg.bench.video_sheet import Sheet
from tinyseg.errors import DataError, InputError, PromptError
from tinyseg.masks import most_interior
from tinyseg.predict.segmenter import Segmenter
from tinyseg.system.device import peak_megabytes
from tinyseg.system.progress import progress
from tinyseg.track import Tracker
from tinyseg.track.tracker import MOST_OBJECTS
from tinyseg.track.views import SIDES

BOUNDARY_TOLERANCE = 0.008  # of the frame's diagonal
Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def outline(mask: Mask) -> Mask:
    """(H, W) pixels whose right, lower or lower right neighbour differs (``_seg2bmap`` of davis2017-evaluation)."""
    right, below, across = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1], below[:-1], across[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    edge: Mask = (mask ^ right) | (mask ^ below) | (mask ^ across)
    edge[-1] = mask[-1] ^ right[-1]
    edge[:, -1] = mask[:, -1] ^ below[:, -1]
    edge[-1, -1] = False
    return edge


def boundary_f(answer: Mask, truth: Mask) -> float:
    """F-measure of two masks' outlines; 1 if both are empty, 0 if one is."""
    ours, theirs = outline(answer), outline(truth)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    radius = int(np.ceil(BOUNDARY_TOLERANCE * np.hypot(*truth.shape)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    near_ours, near_theirs = (cv2.dilate(edge.astype(np.uint8), disk).astype(bool) for edge in (ours, theirs))
    precision = np.count_nonzero(ours & near_theirs) / np.count_nonzero(ours)
    recall = np.count_nonzero(theirs & near_ours) / np.count_nonzero(theirs)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


# Frames to come and the objects' masks (n, H, W) in the first -> masks (n, H, W) of every further frame.
Follow = Callable[[Iterator[Picture], NDArray[np.bool_]], Iterator[NDArray[np.bool_]]]


def copy_first(frames: Iterator[Picture], first: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """Baseline: nothing ever moves."""
    next(frames)
    for _ in frames:
        yield first


def optical_flow(frames: Iterator[Picture], first: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """Baseline: the mask is carried along by dense optical flow (DIS, arXiv 1603.03590)."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before = cv2.cvtColor(next(frames), cv2.COLOR_BGR2GRAY)
    soft = [m.astype(np.float32) for m in first]
    rows, columns = np.mgrid[0 : before.shape[0], 0 : before.shape[1]].astype(np.float32)
    for frame in frames:
        now = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        motion = flow.calc(now, before, np.zeros((*now.shape, 2), np.float32))  # where each pixel came from
        across, down = columns + motion[..., 0], rows + motion[..., 1]
        soft = [np.asarray(cv2.remap(m, across, down, cv2.INTER_LINEAR), np.float32) for m in soft]
        yield np.stack([m > 0.5 for m in soft])
        before = now


def tracked(seg: Segmenter, prompt: str, crop: int | None = None) -> Follow:
    """The tracker, started by the true "mask", by its "box", or by one "click" at its most interior pixel.

    crop: side of its crops in model pixels, None for its own choice.
    """

    def follow(frames: Iterator[Picture], first: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
        tracker = Tracker(seg) if crop is None else Tracker(seg, ((MOST_OBJECTS, crop),))
        picture = next(frames)
        for id, mask in enumerate(first):
            with suppress(PromptError):  # nothing is found there: the object scores 0
                _start(tracker, id, mask, picture, prompt)
        for frame in frames:
            results = tracker.step(frame) if len(tracker) else {}
            yield np.stack([results[i].mask if i in results else np.zeros_like(first[i]) for i in range(len(first))])

    return follow


def _start(tracker: Tracker, id: int, mask: Mask, picture: Picture, prompt: str) -> None:
    if prompt == "mask":
        tracker.add(id, mask=mask, frame=picture)
    elif prompt == "box":
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        tracker.add(id, box=(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), frame=picture)
    else:
        tracker.add(id, points=[most_interior(mask)], labels=[1], frame=picture)


@dataclass(frozen=True)
class Scores:
    """One object of one sequence: means over its frames."""

    sequence: str
    object: int
    j: float
    f: float


@dataclass(frozen=True)
class VideoRow:
    """One way to follow objects; the columns of the table and the keys of the JSON."""

    way: str
    objects: int
    frames: int
    j_and_f: float
    j: float
    f: float
    frames_per_second: float  # of the tracker alone, decoding left out
    peak_rss_mb: float | None


@dataclass(frozen=True)
class VideoReport:
    """A row for every way, and the scores of every object."""

    rows: list[VideoRow]
    objects: dict[str, list[Scores]]  # by way

    def to_json(self) -> dict[str, object]:
        return {
            "rows": [asdict(r) for r in self.rows],
            "objects": {way: [asdict(s) for s in scores] for way, scores in self.objects.items()},
        }

    def to_markdown(self) -> str:
        """Means by way, then J&F by object."""
        names = [f.name for f in fields(VideoRow)]
        cells = [["way", "objects", "frames", "J&F", "J", "F", "frames/s", "peak memory MB"]]
        cells += [[_cell(n, getattr(r, n)) for n in names] for r in self.rows]
        ways = list(self.objects)
        detail = [["sequence", *ways]]
        for scores in zip(*(self.objects[w] for w in ways)):
            name = scores[0].sequence + (f", {scores[0].object}" if scores[0].object else "")
            detail.append([name, *(f"{(s.j + s.f) / 2:.3f}" for s in scores)])
        return "\n".join([*markdown_table(cells), "", *markdown_table(detail)])


def _cell(name: str, value: object) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.1f}" if name in ("frames_per_second", "peak_rss_mb") else f"{value:.3f}"


def score_sequence(
    follow: Follow, sequence: Sequence, start: int, every: int, sheet: Sheet | None = None
) -> tuple[list[Scores], float, int]:
    """Scores of a sequence's objects, seconds spent following them, and frames followed.

    start: the frame that is prompted; what lies before it is followed backwards. every: only each such frame is looked at.
    sheet: what its frames are drawn on. Raises DataError where nothing of it can be scored.
    """
    used = list(range(start, len(sequence), every)), list(range(start, -1, -every))
    last = max(used[0][-1], 0)
    if not any(number not in (0, last) for numbers in used for number in numbers[1:]):  # they would score 0
        raise DataError(
            f"sequence {sequence.name} has {len(sequence)} frames, of which none is scored from frame {start} on with every "
            f"{every}: the first and the last do not count; take a smaller --every, or leave it out (--set, --way)"
        )
    colors = sequence.colors(start)
    if not colors:
        raise DataError(
            f"sequence {sequence.name} shows no object in the mask of frame {start}, where it would be prompted; leave it out "
            "(--set, --way)"
        )
    first = sequence.truth(start, colors)
    _require_size(sequence, start, first, sequence.frames[start].image().shape[:2])
    found: list[list[tuple[float, float]]] = [[] for _ in colors]
    seconds, count = 0.0, 0
    if sheet is not None and start in sheet.numbers:
        sheet.draw(start, sequence.frames[start].image(), first[:0], first, "start")
    for numbers in used:
        if len(numbers) < 2:
            continue
        reading = _Reading(sequence, numbers)
        answers = follow(iter(reading), first)
        for number in numbers[1:]:
            begun = time.perf_counter() + reading.seconds
            masks = next(answers)
            seconds += time.perf_counter() + reading.seconds - begun
            count += 1
            counts = number not in (0, last)
            drawn = sheet is not None and number in sheet.numbers
            if not (counts or drawn):
                continue
            truths = sequence.truth(number, colors)
            _require_size(sequence, number, truths, first.shape[1:])
            if sheet is not None and drawn:
                overlaps = " ".join(f"{iou(answer, truth):.2f}" for answer, truth in zip(masks, truths))
                sheet.draw(number, sequence.frames[number].image(), masks, truths, f"J {overlaps}")
            if counts:
                for scores, answer, truth in zip(found, masks, truths):
                    scores.append((iou(answer, truth), boundary_f(answer, truth)))
    means = [np.mean(scores, 0) if scores else np.zeros(2) for scores in found]
    return [Scores(sequence.name, i, float(j), float(f)) for i, (j, f) in enumerate(means)], seconds, count


def _require_size(sequence: Sequence, number: int, masks: NDArray[np.bool_], size: tuple[int, ...]) -> None:
    """Raises DataError where a frame's masks (n, H, W) are not of a size (H, W): what does not fit would score 0."""
    if masks.shape[1:] != size:
        raise DataError(
            f"sequence {sequence.name}: the mask of frame {number} has {masks.shape[2]} x {masks.shape[1]} pixels, and its frames "
            f"have {size[1]} x {size[0]}"
        )


class _Reading:
    """Frames as they are asked for. seconds: minus what reading them took so far."""

    def __init__(self, sequence: Sequence, numbers: List[int]) -> None:
        self._sequence, self._numbers = sequence, numbers
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Picture]:
        for number in self._numbers:
            begun = time.perf_counter()
            picture = self._sequence.frames[number].image()
            self.seconds -= time.perf_counter() - begun
            yield picture


WAYS = ("mask", "box", "click", "middle", "copy", "flow")


def measure_video(
    seg: Segmenter,
    sequences: List[Sequence],
    ways: List[str] = WAYS,
    every: int = 1,
    crop: int | None = None,
    pictures: Path | None = None,
) -> VideoReport:
    """Follow every sequence's objects in several ways.

    ways: "mask", "box" and "click": how the first frame is prompted; "middle": the mask of the middle frame, followed in both
    directions; "copy" and "flow": baselines from the first mask. crop: as of :func:`tracked`. pictures: a folder for a sheet of
    frames of every way and sequence, WAY-SEQUENCE.jpg. Raises InputError, DataError.
    """
    unknown = [w for w in ways if w not in WAYS]
    if unknown:
        raise InputError(f"there is no way {unknown[0]!r} to follow objects; known are {', '.join(WAYS)}")
    rows, objects = [], {}
    for way in ways:
        follow = (
            copy_first
            if way == "copy"
            else optical_flow
            if way == "flow"
            else tracked(seg, "mask" if way == "middle" else way, crop)
        )
        scores: list[Scores] = []
        seconds, frames = 0.0, 0
        for sequence in progress(sequences, way):
            start = len(sequence) // 2 if way == "middle" else 0
            sheet = None if pictures is None else Sheet([*range(start % every, len(sequence), every)])
            of_sequence, spent, count = score_sequence(follow, sequence, start, every, sheet)
            if sheet is not None and pictures is not None:
                sheet.write(pictures / f"{way}-{sequence.name}.jpg")
            scores += of_sequence
            seconds, frames = seconds + spent, frames + count
        j, f = (float(np.mean([getattr(s, name) for s in scores])) for name in ("j", "f"))
        rows.append(
            VideoRow(way, len(scores), frames, (j + f) / 2, j, f, frames / max(seconds, 1e-9), peak_megabytes())
        )
        objects[way] = scores
    return VideoReport(rows, objects)


@dataclass(frozen=True)
class SharedRow:
    """What so many objects that are apart from each other cost, and what the crops that each then gets are worth."""

    objects: int
    crop: int  # model pixels a side
    j_and_f: float  # of one object followed in such crops, the first mask given
    milliseconds: float  # median of a step with so many objects
    frames_per_second: float
    share_of_one: float  # of the frames a second of one object


@dataclass(frozen=True)
class SharedReport:
    """A row for every number of objects."""

    rows: list[SharedRow]

    def to_json(self) -> dict[str, object]:
        return {"rows": [asdict(r) for r in self.rows]}

    def to_markdown(self) -> str:
        cells = [["objects", "crop", "J&F of each", "ms a frame", "frames/s", "rate against one object's"]]
        cells += [
            [
                str(r.objects), str(r.crop), f"{r.j_and_f:.3f}", f"{r.milliseconds:.1f}", f"{r.frames_per_second:.1f}",
                f"{r.share_of_one:.2f}",
            ]
            for r in self.rows
        ]  # fmt: skip
        return "\n".join(markdown_table(cells))


MOST_CROPS = SIDES[-1][0]
TIMED_ROUNDS = 60


def measure_shared(
    seg: Segmenter, sequences: List[Sequence], counts: List[int], every: int = 1, rounds: int = TIMED_ROUNDS
) -> SharedReport:
    """Accuracy beside cost for numbers of objects that are far apart. Raises InputError, DataError.

    The sequences have one object each, so accuracy is that of one object in the crops that it would get among so many. Cost is
    that of a step with so many disks that move in a frame of 1280 x 720, each in its own crop, timed in turn.
    """
    wrong = [n for n in counts if not 1 <= n <= MOST_CROPS]
    if wrong:
        raise InputError(f"so many objects have crops of their own: 1 to {MOST_CROPS}, but {wrong[0]} were asked for")
    crops = {n: next(side for most, side in SIDES if n <= most) for n in counts}
    accuracy = {
        side: measure_video(seg, sequences, ("mask",), every, side).rows[0].j_and_f
        for side in dict.fromkeys(crops.values())
    }
    steps = {str(n): _stepping(seg, n) for n in dict.fromkeys((1, *counts))}
    timed = alternate(steps, rounds)
    one = float(np.median(timed["1"].samples_ms))
    rows = []
    for n in counts:
        spent = float(np.median(timed[str(n)].samples_ms))
        rows.append(SharedRow(n, crops[n], accuracy[crops[n]], spent, 1e3 / spent, one / spent))
    return SharedReport(rows)


def _stepping(seg: Segmenter, count: int) -> Callable[[], object]:
    """A step of a tracker that follows so many moving disks."""
    frames = [moving_scene(i, count) for i in range(MOVING_FRAMES)]
    tracker = seg.tracker()
    for id, box in enumerate(frames[0][1]):
        tracker.add(id, box=box, frame=frames[0][0])
    return lambda: tracker.step(frames[(tracker.frames + 1) % MOVING_FRAMES][0])
