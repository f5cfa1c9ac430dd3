"""The tracker: objects are added with a prompt, corrected or removed at any time, and followed from frame to frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyseg import pixels
from tinyseg.errors import FrameError, InputError, NotReadyError, PromptError
from tinyseg.geometry import LOGIT_STRIDE, Letterbox
from tinyseg.masks import Masks
from tinyseg.predict.segmenter import Segmenter
from tinyseg.predict.specks import without_specks
from tinyseg.predict.workspace import Workspace
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import place_prompt
from tinyseg.track.cuts import CutDetector
from tinyseg.track.memory import CELL_LOGITS, READ_LIMIT, TEMPERATURE, Cells, Memory, coverage, view_cells
from tinyseg.track.presence import Presence, candidate_box
from tinyseg.track.result import ObjectId, TrackResult
from tinyseg.track.views import Look, crop_view, plan_views

LEAST_PART = 0.15  # of the read-out's largest part: smaller ones do not widen the box
BOX_MARGIN = 0.03  # of the read-out's box, on every side
MOST_OBJECTS = 256
SEARCH_FACTOR = 3.2  # side of the crop in which a lost object is awaited where it was seen last


@dataclass
class Tracked:
    """One object: where it was seen last, what it looks like, and whether it is there."""

    id: ObjectId
    memory: Memory
    box: NDArray[np.float64]  # x0, y0, x1, y1 in frame pixels, of the last frame in which it was visible
    presence: Presence
    prompted_at: int  # the tracker's frame count at its last prompt
    points: list[tuple[float, float]] = field(default_factory=list)  # clicks on that frame so far
    labels: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """What the memory and the decoder say of an object in one view."""

    logits: NDArray[np.float32]  # (h, w) on the view's grid
    own: NDArray[np.float32]  # (n,) margins against prompted frames
    keys: NDArray[np.float32]


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

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
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
        """Bytes of all remembered features: at most 1.4 MiB for an object."""
        return sum(o.memory.nbytes for o in self._objects.values())

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
        prompt = place_prompt(prompt, self.segmenter.view(*self._frame_size()))
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
        results: dict[ObjectId, TrackResult] = {}
        followed = [o for o in self._objects.values() if o.presence.visible]
        lost = [o for o in self._objects.values() if not o.presence.visible]
        width, height = self._frame_size()
        for look in plan_views([o.box for o in followed], width, height, self.segmenter.model.long_side):
            for tracked, result in self._follow(layout, look, [followed[i] for i in look.members]):
                results[tracked.id] = result
        for tracked, result in self._search(layout, lost):
            results[tracked.id] = result
        return {id: results[id] for id in self._objects}

    def _follow(
        self, layout: pixels.FrameLayout, look: Look, members: list[Tracked]
    ) -> Iterator[tuple[Tracked, TrackResult]]:
        """Objects that were visible in the frame before, all in one view."""
        cells, readings = self._read(layout, look.view, members)
        for tracked, reading in zip(members, readings):
            result = self._judge(tracked, look.view, cells, reading, searching=False)
            yield tracked, result

    def _search(
        self, layout: pixels.FrameLayout, lost: list[Tracked]
    ) -> Iterator[tuple[Tracked, TrackResult]]:
        """Lost objects: the whole frame, shared by all of them, says where each might be; a crop there says whether it is."""
        if not lost:
            return
        width, height = self._frame_size()
        whole = self.segmenter.view(width, height)
        features = self.segmenter.network.encode(layout, whole, self._workspace)
        cells = view_cells(features, whole)
        for tracked in lost:
            own = tracked.memory.read_prompted(tracked.memory.keys(cells))
            own[~cells.inside] = -1.0
            box = candidate_box(own.reshape(cells.rows, cells.columns), whole, tracked.box)
            views = [crop_view(tracked.box, width, height, SEARCH_FACTOR if self.frames % 2 else 1.6)]
            if box is not None:
                views.insert(0, crop_view(box, width, height))
            result = None
            for view in views:
                in_crop, (reading,) = self._read(layout, view, [tracked])
                result = self._judge(tracked, view, in_crop, reading, searching=True)
                if result.visible:
                    break
            if result is not None:
                yield tracked, result

    def _read(
        self, layout: pixels.FrameLayout, view: Letterbox, members: list[Tracked]
    ) -> tuple[Cells, list[Reading]]:
        """Encode a view and ask for all its objects in one decoder call."""
        features = self.segmenter.network.encode(layout, view, self._workspace)
        cells = view_cells(features, view)
        prompts, keys_of, own_of, asked = [], [], [], []
        for tracked in members:
            keys = tracked.memory.keys(cells)
            keys_of.append(keys)
            own_of.append(tracked.memory.read_prompted(keys))
            hint = read_out(tracked.memory.read(keys), cells)
            box = hint_box(hint, view)
            asked.append(box is not None)
            if box is not None:
                prompts.append(Prompt(box=box, mask=hint))
        answers: Iterator[NDArray[np.float32]] = iter(())
        if prompts:
            logits, _ = self.segmenter.network.decode(features, view, view, prompts, self._workspace)
            answers = iter([without_specks(one[:1], p, view)[0].copy() for one, p in zip(logits, prompts)])
        nothing = np.full(view.grid, -READ_LIMIT, np.float32)
        return cells, [
            Reading(next(answers) if there else nothing, own, keys)
            for there, own, keys in zip(asked, own_of, keys_of)
        ]

    def _judge(
        self, tracked: Tracked, view: Letterbox, cells: Cells, reading: Reading, searching: bool
    ) -> TrackResult:
        """Decide whether what was found is the object; remember it if so."""
        mask = np.empty((view.frame_height, view.frame_width), np.bool_)
        stats = pixels.threshold(reading.logits, view, mask)
        share = coverage(1.0 / (1.0 + np.exp(-reading.logits)))
        score = tracked.presence.score(reading.own, share, cells.inside)
        visible = tracked.presence.see(score, stats.area, searching)
        if not visible:
            if tracked.presence.lost_for == 1:
                tracked.memory.forget_recent()
            mask[:] = False
            return self._result(tracked, mask, 0.0, 0, reading.logits, view)
        tracked.box = np.array(stats.box, np.float64)
        if tracked.presence.sure:
            tracked.memory.learn(self.frames, reading.keys, share, cells.inside, reading.own)
        return self._result(tracked, mask, score, stats.area, reading.logits, view)

    def _result(
        self, tracked: Tracked, mask: NDArray[np.bool_], score: float, area: int, logits: NDArray[np.float32],
        view: Letterbox,
    ) -> TrackResult:  # fmt: skip
        presence = tracked.presence
        return TrackResult(
            tracked.id, mask, score, presence.visible, tracked.box.astype(np.int32), area, logits, view, presence.lost_for
        )

    def _begin(
        self, id: ObjectId, layout: pixels.FrameLayout, mask: NDArray[np.bool_], prompt: Prompt
    ) -> TrackResult:
        box = mask_box(mask)
        view = crop_view(box, *self._frame_size())
        cells = view_cells(self.segmenter.network.encode(layout, view, self._workspace), view)
        tracked = Tracked(id, Memory.of_first(cells), box, Presence(), self.frames)
        result = self._remember(tracked, layout, mask, prompt, (view, cells))
        self._objects[id] = tracked
        return result

    def _remember(
        self, tracked: Tracked, layout: pixels.FrameLayout, mask: NDArray[np.bool_], prompt: Prompt,
        seen: tuple[Letterbox, Cells] | None = None,
    ) -> TrackResult:  # fmt: skip
        """Take a mask that the caller vouches for into an object's memory."""
        tracked.box = mask_box(mask)
        if seen is None:
            view = crop_view(tracked.box, *self._frame_size())
            cells = view_cells(self.segmenter.network.encode(layout, view, self._workspace), view)
        else:
            view, cells = seen
        x0, y0, x1, y1 = view.region
        inside = pixels.shrink_mask(mask[y0:y1, x0:x1], view)
        share = coverage(inside)
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
        return self._result(tracked, np.array(mask, np.bool_), 1.0, area, logits, view)

    def _clicked(self, tracked: Tracked, layout: pixels.FrameLayout, prompt: Prompt) -> NDArray[np.bool_]:
        """The tracker's own answer for a frame, corrected by clicks."""
        points = np.asarray(prompt.points, np.float64)
        box = np.concatenate([np.minimum(tracked.box[:2], points.min(0)), np.maximum(tracked.box[2:], points.max(0) + 1)])
        view = crop_view(box, *self._frame_size())
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
        height, width, _ = layout.pixels.shape
        if self._size is None:
            self._size = width, height
        elif self._size != (width, height):
            raise FrameError(
                f"the frame has {width} x {height} pixels, but this tracker's frames have {self._size[0]} x {self._size[1]}; "
                "resize it, or begin again with reset()"
            )
        return layout

    def _frame_size(self) -> tuple[int, int]:
        if self._size is None:
            raise NotReadyError("the tracker has seen no frame yet; call add(id, box=..., frame=frame) first")
        return self._size

    def _checked_mask(self, prompt: Prompt, layout: pixels.FrameLayout) -> None:
        mask = np.asarray(prompt.mask)
        if mask.dtype != np.bool_ or mask.shape != layout.pixels.shape[:2]:
            raise PromptError(
                f"a tracked object's mask must be bool with the frame's shape {layout.pixels.shape[:2]}, "
                f"but is {mask.dtype} {mask.shape}"
            )


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


def read_out(margins: NDArray[np.float32], cells: Cells) -> NDArray[np.float32]:
    """Margins of a view's cells (n,) -> logits (h, w) on its grid, as the decoder takes them for a hint."""
    logits = np.clip(margins / TEMPERATURE, -READ_LIMIT, READ_LIMIT)
    logits[~cells.inside] = -READ_LIMIT
    grid = logits.reshape(cells.rows, cells.columns).astype(np.float32)
    size = cells.columns * CELL_LOGITS, cells.rows * CELL_LOGITS
    return np.asarray(cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR), np.float32)


def hint_box(hint: NDArray[np.float32], view: Letterbox) -> NDArray[np.float64] | None:
    """The box (x0, y0, x1, y1), in frame pixels, of a hint's larger parts and a margin; None if it is empty."""
    count, _, stats, _ = cv2.connectedComponentsWithStats((hint > 0).astype(np.uint8), connectivity=8)
    if count < 2:
        return None
    parts = stats[1:][stats[1:, cv2.CC_STAT_AREA] >= LEAST_PART * stats[1:, cv2.CC_STAT_AREA].max()]
    low = parts[:, :2].min(0).astype(np.float64)
    high = (parts[:, :2] + parts[:, 2:4]).max(0).astype(np.float64)
    margin = BOX_MARGIN * (high - low)
    corners = np.concatenate([low - margin, high + margin]) * LOGIT_STRIDE
    box = np.asarray(view.boxes_to_frame(corners), np.float64)
    x0, y0, x1, y1 = view.region
    return np.clip(box, (x0, y0, x0, y0), (x1, y1, x1, y1))


def mask_box(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(x0, y0, x1, y1) of a mask with some pixels, ends exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
