"""The tracker: objects are added with a prompt, corrected or removed at any time, and followed from frame to frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyseg import pixels
from tinyseg.arguments import check_flag, check_path, check_whole, shown
from tinyseg.errors import DataError, FrameError, InputError, NotReadyError, PromptError
from tinyseg.geometry import INPUT_MULTIPLE, Letterbox, letterbox
from tinyseg.pixels import MAX_SIDE
from tinyseg.predict.specks import without_specks
from tinyseg.predict.workspace import Workspace
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import place_prompt
from tinyseg.track.cuts import KEPT, THUMBNAIL, CutDetector
from tinyseg.track.decoder import decode_hints, has_track_decoder
from tinyseg.track.hints import make_hint
from tinyseg.track.memory import (
    CELL,
    LEAST_DEVIATION,
    PROMPTED_KEPT,
    READ_LIMIT,
    RECENT_KEPT,
    Cells,
    Memory,
    Snapshot,
    coverage,
    view_cells,
)
from tinyseg.track.presence import Presence, candidate_box, to_score
from tinyseg.track.result import ObjectId, TrackResult
from tinyseg.track.state import Arrays, Saved, read_state, write_state
from tinyseg.track.views import SIDES, SharedView, Sides, crop_view, held_look, plan_views

if TYPE_CHECKING:  # it makes us: at run time a segmenter is only handed in
    from tinyseg.predict.segmenter import Segmenter

MOST_OBJECTS = 256
# Sides, frame by frame in turn, of the crop in which a lost object is awaited where it was seen last.
WAIT_FACTORS = (1.6, 3.2)
NOT_ALIKE = -2.0
MOST_SEEN = 1024  # pixels a side of the largest crop that a file may name
MOST_FRAMES = 1 << 53  # that a file may say were stepped
MOST_FEATURE = 1e6  # that a file may say is usual: far from where float32 overflows


@dataclass
class Tracked:
    """One object: where it was seen last, what it looks like, and whether it is there."""

    id: ObjectId
    memory: Memory
    box: NDArray[np.float64]  # x0, y0, x1, y1 in frame pixels, of the last frame in which it was visible
    sure_box: NDArray[np.float64]  # the same of the last frame in which there was no doubt
    presence: Presence
    prompted_at: int  # the tracker's frame count at its last prompt
    points: list[tuple[float, float]] = field(default_factory=list)  # clicks on that frame so far
    labels: list[float] = field(default_factory=list)
    look: NDArray[np.float64] | None = None  # where to look for it next, as box; None for the box itself
    seen: Seen | None = None  # None while it is lost

    @property
    def place(self) -> NDArray[np.float64]:
        """Where to look for it next."""
        return self.box if self.look is None else self.look


@dataclass(frozen=True)
class Seen:
    """Where an object was in the frame before: logits (h, w) on a view's grid."""

    logits: NDArray[np.float32]
    view: Letterbox


@dataclass(frozen=True)
class Reading:
    """What the memory and the decoder say of an object in one view."""

    logits: NDArray[np.float32]  # (h, w) on the view's grid
    own: NDArray[np.float32]  # (n,) margins against prompted frames
    keys: NDArray[np.float32]


@dataclass(frozen=True)
class Detection:
    """A reading made a mask (H, W), whose cells are ``share`` (n,) covered."""

    view: Letterbox
    cells: Cells
    reading: Reading
    mask: NDArray[np.bool_]
    stats: pixels.MaskStats
    share: NDArray[np.float32]
    likeness: float


class Tracker:
    """Follows objects through a stream, from :meth:`tinyseg.Segmenter.tracker`. One thread at a time.

        tracker = seg.tracker()
        tracker.add(1, box=(60, 40, 200, 180), frame=first)
        for frame in frames:
            for id, result in tracker.step(frame).items():
                ...  # result.mask, result.score, result.visible

    Frames only matter in their order: results are the same whether they come from a file or one by one. Nothing of a
    frame is kept but features of the prompted and of a few recent ones (see :class:`tinyseg.track.memory.Memory`), so
    memory does not grow. All frames have one size. What is given between two steps belongs to one frame.
    """

    def __init__(self, segmenter: Segmenter, sides: Sides = SIDES) -> None:
        """sides: (most crops of a frame, model pixels of a crop's side), ascending; see :mod:`tinyseg.track.views`."""
        self.segmenter = segmenter
        self._sides = sides
        self.frames = 0  # steps so far
        self.cut = False  # whether the last step's frame began another scene
        self._objects: dict[ObjectId, Tracked] = {}
        self._size: tuple[int, int] | None = None  # width, height
        self._cuts = CutDetector()
        self._workspace = Workspace()

    @property
    def ids(self) -> tuple[ObjectId, ...]:
        """Objects, in the order in which they were added."""
        return tuple(self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, id: object) -> bool:
        return id in self._objects

    @property
    def memory_bytes(self) -> int:
        """Bytes of all remembered features, at most 1.4 MiB for an object, and of their last logits."""
        seen = sum(o.seen.logits.nbytes for o in self._objects.values() if o.seen is not None)
        return seen + sum(o.memory.nbytes for o in self._objects.values())

    def add(
        self,
        id: ObjectId,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        *,
        frame: NDArray[np.uint8],
        color: str = "bgr",
    ) -> TrackResult:
        """Begin to follow an object, or correct one that is followed already (:meth:`correct`).

        id: a number or string of your choice. points, labels, box: as :class:`tinyseg.Prompt`, in pixels of ``frame``.
        mask: (H, W) bool, the object itself; it cannot be mixed with the others. frame, color: as in
        :meth:`tinyseg.Segmenter.embed`, the frame that the prompt is about: the one that was stepped last, or the next
        one before it is stepped. Returns the object's mask in this frame.

        Raises FrameError; PromptError, also if nothing is found where the prompt points; InputError.
        """
        key = _checked_id(id)
        if key in self._objects:
            return self.correct(key, points, labels, box, mask, frame=frame, color=color)
        if len(self._objects) >= MOST_OBJECTS:
            raise InputError(f"a tracker follows at most {MOST_OBJECTS} objects; remove one first")
        layout = self._checked_frame(frame, color)
        prompt = _checked_prompt(points, labels, box, mask)
        if prompt.mask is not None:
            self._checked_mask(prompt, layout)
            return self._begin(key, layout, np.asarray(prompt.mask, np.bool_), prompt)
        embedding = self.segmenter.embed(frame, color)
        found = embedding.predict(prompt.points, prompt.labels, prompt.box, multimask=prompt.ambiguous)
        best = found.best
        if not found.areas[best]:
            raise PromptError(f"nothing was found where the prompt of object {key!r} points; give a box or a mask")
        return self._begin(key, layout, found.masks[best], prompt)

    def correct(
        self,
        id: ObjectId,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        *,
        frame: NDArray[np.uint8],
        color: str = "bgr",
    ) -> TrackResult:
        """Say where a known object is in a frame; as :meth:`add`, and InputError for an unknown id.

        A mask or a box takes the place of what was found. Clicks correct it: they are added to those given since the last
        step, and the tracker's own answer for this frame is their start. A corrected frame is remembered like the first.
        """
        tracked = self._known(id)
        layout = self._checked_frame(frame, color)
        prompt = _checked_prompt(points, labels, box, mask)
        if prompt.mask is not None:
            self._checked_mask(prompt, layout)
            return self._remember(tracked, layout, np.asarray(prompt.mask, np.bool_), prompt)
        prompt = place_prompt(prompt, self.segmenter.view(*_size(layout)))
        if prompt.points is not None and tracked.prompted_at == self.frames and prompt.box is None:
            given = Prompt(
                [*tracked.points, *np.asarray(prompt.points).tolist()],
                [*tracked.labels, *np.asarray(prompt.labels).tolist()],
            )
            prompt = given
        if prompt.box is not None or not tracked.presence.visible:
            found = self.segmenter.embed(frame, color).predict(
                prompt.points, prompt.labels, prompt.box, multimask=prompt.ambiguous
            )
            corrected = found.masks[found.best]
        else:
            corrected = self._clicked(tracked, layout, prompt)
        if not corrected.any():
            raise PromptError(f"the correction leaves nothing of object {tracked.id!r}; give a box or a mask")
        return self._remember(tracked, layout, corrected, prompt)

    def remove(self, id: ObjectId) -> None:
        """Follow an object no longer. Raises InputError for an unknown id."""
        del self._objects[self._known(id).id]

    def reset(self) -> None:
        """Forget all objects, and the size of frames."""
        self._objects.clear()
        self._size, self._cuts, self.frames, self.cut = None, CutDetector(), 0, False

    def step(self, frame: NDArray[np.uint8], color: str = "bgr") -> dict[ObjectId, TrackResult]:
        """Find all objects in the next frame; results by id, in the order in which objects were added.

        Raises NotReadyError while there is no object, and FrameError, also for a frame of another size than those before.
        """
        if not self._objects:
            raise NotReadyError("the tracker follows no object; call add(id, box=..., frame=frame) first")
        layout = self._checked_frame(frame, color)
        self.frames += 1
        self.cut = self._cuts.see(layout)
        if self.cut:
            for tracked in self._objects.values():
                tracked.presence.lose()
                tracked.memory.forget_recent()
                tracked.seen = None
        results: dict[ObjectId, TrackResult] = {}
        followed = [o for o in self._objects.values() if o.presence.visible]
        lost = [o for o in self._objects.values() if not o.presence.visible]
        width, height = _size(layout)
        for look in plan_views([o.place for o in followed], width, height, self.segmenter.model.long_side, self._sides):
            for tracked, result in self._follow(layout, look, [followed[i] for i in look.members]):
                results[tracked.id] = result
        for tracked, result in self._search(layout, lost):
            results[tracked.id] = result
        return {id: results[id] for id in self._objects}

    def save(self, path: str | Path) -> None:
        """Keep everything in a file, from which :meth:`restore` goes on with the same results. Raises DataError."""
        objects = []
        arrays: Arrays = {}
        for number, tracked in enumerate(self._objects.values()):
            memory, presence = tracked.memory, tracked.presence
            kinds = [*("prompted" for _ in memory.prompted), *("recent" for _ in memory.recent), "last"]
            objects.append(
                {
                    "id": tracked.id, "prompted_at": tracked.prompted_at, "points": tracked.points,
                    "labels": tracked.labels, "visible": presence.visible, "lost_for": presence.lost_for,
                    "doubts": presence.doubts, "area": presence.area, "seen": _seen_facts(tracked.seen),
                    "snapshots": [[kind, s.frame] for kind, s in zip(kinds, memory.snapshots)],
                }
            )  # fmt: skip
            arrays |= {
                f"{number}.mean": memory.mean,
                f"{number}.deviation": memory.deviation,
                f"{number}.box": np.stack([tracked.box, tracked.sure_box, tracked.place]),
            }
            if tracked.seen is not None:
                arrays[f"{number}.seen"] = tracked.seen.logits
            for i, snapshot in enumerate(memory.snapshots):
                arrays |= {f"{number}.{i}.on": snapshot.foreground, f"{number}.{i}.off": snapshot.background}
        if self._cuts.thumbnail is not None:
            arrays["thumbnail"] = self._cuts.thumbnail
        facts = {
            "model": self.segmenter.info.model_sha256, "frames": self.frames, "size": self._size, "objects": objects,
            "usual": list(self._cuts.usual),
        }  # fmt: skip
        write_state(check_path("a tracker's file", path), facts, arrays)

    def restore(self, path: str | Path) -> None:
        """Go on from what :meth:`save` wrote with the same model; what is tracked now is forgotten. Raises DataError."""
        place = check_path("a tracker's file", path)
        saved = read_state(place)
        if saved.facts.get("model") != self.segmenter.info.model_sha256:
            raise DataError(f"{place} was saved with another model than {self.segmenter.model.name}; load that one")
        try:
            restored = self._restored(saved)
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as exc:
            reason = exc if isinstance(exc, InputError) else "its facts are not a tracker's"
            raise DataError(
                f"{place} is damaged, or no tracker wrote it ({reason}); save it again with Tracker.save"
            ) from exc
        self._size, self._cuts, self.frames, objects = restored
        self._objects, self.cut = {tracked.id: tracked for tracked in objects}, False

    def _restored(self, saved: Saved) -> tuple[tuple[int, int] | None, CutDetector, int, list[Tracked]]:
        """What a file holds: size of frames, cuts, frames so far, objects.

        Raises DataError or another InputError that says what is odd; KeyError, ValueError, TypeError, AttributeError or
        OverflowError where a fact is of another kind.
        """
        facts, rows = saved.facts, saved.facts["objects"]
        frames = check_whole("its count of frames", facts["frames"], 0, MOST_FRAMES, DataError)
        size: tuple[int, int] | None = None
        if facts["size"] is not None:
            width, height = (check_whole("a frame's side", side, 1, MAX_SIDE, DataError) for side in facts["size"])
            size = width, height
        if len(rows) > MOST_OBJECTS or (rows and size is None):
            raise DataError(f"it has {len(rows)} objects in frames of {shown(facts['size'])}")
        # Views are of the largest crop or the whole frame, square at most.
        side = max(self.segmenter.model.long_side, *(side for _, side in self._sides))
        channels = int(self.segmenter.model.graphs["encoder"].outputs["embedding"][1])
        objects = []
        for number, row in enumerate(rows):
            assert size is not None
            memory = _restored_memory(saved, number, row["snapshots"], frames, channels, (side // CELL) ** 2)
            tracked = _restored_object(saved, number, row, memory, frames, size)
            if row["seen"] is not None:
                view = self._seen_view(row["seen"], *size)
                tracked.seen = Seen(saved.array(f"{number}.seen", view.grid, np.float32), view)
            objects.append(tracked)
        if len({tracked.id for tracked in objects}) != len(objects):
            raise DataError("two of its objects have the same id")
        cuts = CutDetector()
        if "thumbnail" in saved.arrays:
            cuts.thumbnail = saved.array("thumbnail", THUMBNAIL[::-1], np.float32)
        usual = [float(value) for value in facts["usual"]]
        if len(usual) > KEPT or not all(0 <= value <= 255 for value in usual):
            raise DataError(f"frames cannot differ by {shown(usual)}")
        cuts.usual.extend(usual)
        return size, cuts, frames, objects

    def _seen_view(self, facts: Mapping[str, Any], width: int, height: int) -> Letterbox:
        """The view that a file names. Raises DataError, KeyError, ValueError or TypeError for anything odd."""
        region, side = facts["region"], facts["side"]
        if side is None:
            return self.segmenter.view(width, height)
        x0, y0, x1, y1 = region
        if not all(type(v) is int for v in (*region, side)) or not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise DataError(f"there is no view of {shown(region)} in a frame of {width} x {height}")
        if not INPUT_MULTIPLE <= side <= MOST_SEEN or side % INPUT_MULTIPLE:
            raise DataError(f"there is no view of {shown(side)} pixels")
        return letterbox(width, height, side, (x0, y0, x1, y1), square=True)

    def _follow(
        self, layout: pixels.FrameLayout, shared: SharedView, members: list[Tracked]
    ) -> Iterator[tuple[Tracked, TrackResult]]:
        """Objects that were visible in the frame before, all in one view."""
        cells, readings = self._read(layout, shared.view, members)
        for tracked, reading in zip(members, readings):
            detection = self._detect(tracked, shared.view, cells, reading)
            yield tracked, self._judge(tracked, detection, searching=False)

    def _search(self, layout: pixels.FrameLayout, lost: list[Tracked]) -> Iterator[tuple[Tracked, TrackResult]]:
        """Lost objects: the whole frame, shared by all of them, says where each might be; a crop there says whether it is."""
        if not lost:
            return
        width, height = _size(layout)
        whole, side = self.segmenter.view(width, height), self._sides[0][1]
        cells = view_cells(self.segmenter.network.encode(layout, whole, self._workspace), whole)
        for tracked in lost:
            own = tracked.memory.read(tracked.memory.keys(cells)).prompted
            own[~cells.inside] = -1.0
            box = candidate_box(own.reshape(cells.rows, cells.columns), whole, tracked.box)
            # Where it was seen last it may come back too, larger or smaller.
            views = [crop_view(tracked.box, width, height, side, WAIT_FACTORS[self.frames % len(WAIT_FACTORS)])]
            if box is not None:
                views.append(crop_view(box, width, height, side))
            detections = []
            for view in views:
                in_crop, (reading,) = self._read(layout, view, [tracked])
                detections.append(self._detect(tracked, view, in_crop, reading))
            yield tracked, self._judge(tracked, max(detections, key=lambda f: f.likeness), searching=True)

    def _read(self, layout: pixels.FrameLayout, view: Letterbox, members: list[Tracked]) -> tuple[Cells, list[Reading]]:
        """Encode a view and ask for all its objects in one decoder call."""
        features = self.segmenter.network.encode(layout, view, self._workspace)
        cells = view_cells(features, view)
        reads_last = has_track_decoder(self.segmenter.network)
        hints, keys_of, own_of = [], [], []
        for tracked in members:
            keys = tracked.memory.keys(cells)
            keys_of.append(keys)
            matches = tracked.memory.read(keys)
            own_of.append(matches.prompted)
            seen = tracked.seen
            before = pixels.resample_grid(seen.logits, seen.view, view) if seen is not None and reads_last else None
            hints.append(make_hint(matches, cells, before))
        answers = decode_hints(self.segmenter.network, features, view, hints, self._workspace)
        return cells, [Reading(*row) for row in zip(answers, own_of, keys_of)]

    def _detect(self, tracked: Tracked, view: Letterbox, cells: Cells, reading: Reading) -> Detection:
        """The mask that a reading gives, and how alike it is to the object."""
        mask = np.empty((view.frame_height, view.frame_width), np.bool_)
        stats = pixels.threshold(reading.logits, view, mask)
        share = coverage(np.asarray(1.0 / (1.0 + np.exp(-reading.logits)), np.float32), view)
        likeness = tracked.memory.likeness(reading.keys, share, cells.inside) if stats.area else NOT_ALIKE
        return Detection(view, cells, reading, mask, stats, share, likeness)

    def _judge(self, tracked: Tracked, detection: Detection, searching: bool) -> TrackResult:
        """Decide whether what was found is the object; remember it if so."""
        presence, view, logits = tracked.presence, detection.view, detection.reading.logits
        if not presence.see(detection.likeness, detection.stats.area, searching):
            if presence.lost_for == 1:
                tracked.memory.forget_recent()
                tracked.box, tracked.seen = tracked.sure_box, None
            detection.mask[:] = False
            return self._result(tracked, detection.mask, 0.0, 0, logits, view)
        before = tracked.place
        tracked.box, tracked.seen = np.array(detection.stats.box, np.float64), Seen(logits, view)
        tracked.look = None if searching else held_look(before, tracked.box, view.frame_width, view.frame_height)
        if presence.sure:
            tracked.sure_box = tracked.box
            own, inside = detection.reading.own, detection.cells.inside
            tracked.memory.learn(self.frames, detection.reading.keys, detection.share, inside, own)
        return self._result(tracked, detection.mask, to_score(detection.likeness), detection.stats.area, logits, view)

    def _result(
        self, tracked: Tracked, mask: NDArray[np.bool_], score: float, area: int, logits: NDArray[np.float32],
        view: Letterbox,
    ) -> TrackResult:  # fmt: skip
        presence = tracked.presence
        return TrackResult(
            tracked.id,
            mask,
            score,
            presence.visible,
            tracked.box.astype(np.int32),
            area,
            logits,
            view,
            presence.lost_for,
        )

    def _begin(self, id: ObjectId, layout: pixels.FrameLayout, mask: NDArray[np.bool_], prompt: Prompt) -> TrackResult:
        box = mask_box(mask)
        view = crop_view(box, *_size(layout), self._sides[0][1])
        cells = view_cells(self.segmenter.network.encode(layout, view, self._workspace), view)
        tracked = Tracked(id, Memory.of_first(cells), box, box, Presence(), self.frames)
        result = self._remember(tracked, layout, mask, prompt, (view, cells))
        self._objects[id] = tracked
        self._size = _size(layout)
        return result

    def _remember(
        self, tracked: Tracked, layout: pixels.FrameLayout, mask: NDArray[np.bool_], prompt: Prompt,
        seen: tuple[Letterbox, Cells] | None = None,
    ) -> TrackResult:  # fmt: skip
        """Take a mask that the caller vouches for into an object's memory."""
        tracked.box = tracked.sure_box = mask_box(mask)
        tracked.look = None
        if seen is None:
            view = crop_view(tracked.box, *_size(layout), self._sides[0][1])
            cells = view_cells(self.segmenter.network.encode(layout, view, self._workspace), view)
        else:
            view, cells = seen
        x0, y0, x1, y1 = view.region
        inside = pixels.shrink_mask(mask[y0:y1, x0:x1], view)
        share = coverage(inside, view)
        tracked.memory.learn_prompted(self.frames, tracked.memory.keys(cells), share, cells.inside)
        area = int(np.count_nonzero(mask))
        tracked.presence.vouch(area)
        if tracked.prompted_at != self.frames or prompt.points is None:
            tracked.points, tracked.labels = [], []
        if prompt.points is not None:
            tracked.points = [(float(x), float(y)) for x, y in np.asarray(prompt.points)]
            tracked.labels = [float(v) for v in np.asarray(prompt.labels)]
        tracked.prompted_at = self.frames
        logits = ((inside - 0.5) * (2 * READ_LIMIT)).astype(np.float32)
        tracked.seen = Seen(logits, view)
        return self._result(tracked, np.array(mask, np.bool_), 1.0, area, logits, view)

    def _clicked(self, tracked: Tracked, layout: pixels.FrameLayout, prompt: Prompt) -> NDArray[np.bool_]:
        """The tracker's own answer for a frame, corrected by clicks."""
        points = np.asarray(prompt.points, np.float64)
        box = np.concatenate(
            [np.minimum(tracked.box[:2], points.min(0)), np.maximum(tracked.box[2:], points.max(0) + 1)]
        )
        view = crop_view(box, *_size(layout), self._sides[0][1])
        _, (reading,) = self._read(layout, view, [tracked])
        features = self.segmenter.network.encode(layout, view, self._workspace)
        asked = Prompt(prompt.points, prompt.labels, None, reading.logits)
        logits, _ = self.segmenter.network.decode(features, view, view, [asked], self._workspace)
        mask = np.empty((view.frame_height, view.frame_width), np.bool_)
        pixels.threshold(without_specks(logits[0, :1], asked, view)[0], view, mask)
        return mask

    def _known(self, id: ObjectId) -> Tracked:
        key = _checked_id(id)
        if key not in self._objects:
            known = ", ".join(repr(k) for k in self._objects) or "none yet"
            raise InputError(f"the tracker follows no object {key!r}; its objects are: {known}")
        return self._objects[key]

    def _checked_frame(self, frame: NDArray[np.uint8], color: str) -> pixels.FrameLayout:
        layout = pixels.check_frame(frame, color)
        width, height = _size(layout)
        if self._size not in (None, (width, height)):
            raise FrameError(
                f"the frame has {width} x {height} pixels, but this tracker's frames have {self._size[0]} x {self._size[1]}; "
                "resize it, or begin again with reset()"
            )
        return layout

    def _checked_mask(self, prompt: Prompt, layout: pixels.FrameLayout) -> None:
        mask = np.asarray(prompt.mask)
        if mask.dtype != np.bool_ or mask.shape != layout.pixels.shape[:2]:
            raise PromptError(
                f"a tracked object's mask must be bool with the frame's shape {layout.pixels.shape[:2]}, "
                f"but is {mask.dtype} {mask.shape}"
            )


def _restored_memory(
    saved: Saved, number: int, rows: Sequence[tuple[str, int]], frames: int, channels: int, most_cells: int
) -> Memory:
    """The memory of a file's object. Raises DataError, and KeyError, ValueError or TypeError for facts of another kind."""
    mean = saved.array(f"{number}.mean", (channels,), np.float32)
    deviation = saved.array(f"{number}.deviation", (channels,), np.float32)
    if deviation.min() < LEAST_DEVIATION or max(np.abs(mean).max(), deviation.max()) > MOST_FEATURE:
        raise DataError(f"object {number} has features that cannot be standardised")
    memory = Memory(mean, deviation)
    for i, (kind, frame) in enumerate(rows):
        parts = [saved.array(f"{number}.{i}.{part}", (None, channels), np.float32) for part in ("on", "off")]
        if any(len(keys) > most_cells or (np.abs(keys) > 1.001).any() for keys in parts):
            raise DataError(f"object {number} has a memory that is no part of a view's features")
        snapshot = Snapshot(check_whole("a remembered frame", frame, 0, frames, DataError), *parts)
        if kind == "last":
            memory.last = snapshot
        else:
            {"prompted": memory.prompted, "recent": memory.recent}[kind].append(snapshot)
    if (
        not 1 <= len(memory.prompted) <= PROMPTED_KEPT
        or len(memory.recent) > RECENT_KEPT
        or len(memory.snapshots) != len(rows)
        or not all(len(snapshot.foreground) for snapshot in memory.prompted)
    ):
        raise DataError(f"object {number} has no memory that a tracker would keep")
    return memory


def _restored_object(
    saved: Saved, number: int, row: dict[str, Any], memory: Memory, frames: int, size: tuple[int, int]
) -> Tracked:
    """One object of a file, not seen yet. Raises InputError, and KeyError, ValueError or TypeError for facts of another kind."""
    presence = Presence(
        check_flag("visible", row["visible"], DataError),
        check_whole("lost_for", row["lost_for"], 0, frames, DataError),
        check_whole("doubts", row["doubts"], 0, frames, DataError),
        check_whole("area", row["area"], 0, size[0] * size[1], DataError),
    )
    clicks = Prompt(row["points"], row["labels"]) if row["points"] or row["labels"] else None
    boxes = saved.array(f"{number}.box", (3, 4), np.float64)
    if not ((boxes[:, :2] >= 0) & (boxes[:, :2] < boxes[:, 2:]) & (boxes[:, 2:] <= size)).all():
        raise DataError(f"object {number} has no box in a frame of {size[0]} x {size[1]}")
    return Tracked(
        _checked_id(row["id"]), memory, boxes[0], boxes[1], presence,
        check_whole("prompted_at", row["prompted_at"], 0, frames, DataError),
        [] if clicks is None else [(float(x), float(y)) for x, y in np.asarray(clicks.points)],
        [] if clicks is None else [float(v) for v in np.asarray(clicks.labels)], boxes[2],
    )  # fmt: skip


def _seen_facts(seen: Seen | None) -> dict[str, Any] | None:
    """A view for a file. side: of a crop's input; None for the whole frame's view."""
    if seen is None:
        return None
    width, height = seen.view.input
    crop = not seen.view.whole_frame or width == height
    return {"region": [int(v) for v in seen.view.region], "side": int(width) if crop else None}


def _size(layout: pixels.FrameLayout) -> tuple[int, int]:
    """(width, height)."""
    return layout.pixels.shape[1], layout.pixels.shape[0]


def _checked_id(id: Any) -> ObjectId:
    if isinstance(id, np.integer):
        return int(id)
    if isinstance(id, bool) or not isinstance(id, (int, str)):
        raise InputError(f"an object's id must be a whole number or a string, but is {id!r:.80}")
    return id


def _checked_prompt(
    points: ArrayLike | None, labels: ArrayLike | None, box: ArrayLike | None, mask: ArrayLike | None
) -> Prompt:
    prompt = Prompt(points, labels, box, mask)
    if mask is not None and (points is not None or box is not None):
        raise PromptError("a mask says where the object is by itself; give it without points or box")
    return prompt


def mask_box(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(x0, y0, x1, y1) of a mask with some pixels, ends exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
