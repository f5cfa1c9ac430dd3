"""What a user points with, checked once, and laid out as the decoder takes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyseg.errors import PromptError
from tinyseg.geometry import Letterbox
from tinyseg.pixels import resample_grid, shrink_mask

# Labels of the decoder's point slots, as in SAM's ONNX export.
LABEL_PADDING = -1.0
LABEL_POSITIVE = 1.0
LABEL_BOX_TOP_LEFT = 2.0
LABEL_BOX_BOTTOM_RIGHT = 3.0

MAX_POINTS = 254  # with the box's two corners the largest decoder shape, 256 slots
# Logits of a hint are clipped to this; the student saw no larger ones in training.
HINT_LIMIT = 16.0


@dataclass(frozen=True)
class Prompt:
    """One question about a frame: points, a box, an earlier mask, or any mixture.

    points: (N, 2) x, y in pixels of the frame; (0, 0) is the first pixel's centre. labels: (N,), 1 on the object, 0
    on the background. box: (4,) x0, y0, x1, y1 edges in pixels, x1 and y1 exclusive; the whole frame is (0, 0, W, H).
    mask: logits of an earlier answer for the same frame (``Masks.logits[i]``, (h, w) or (1, h, w)), or a bool mask
    (H, W) of the frame. Raises PromptError for anything else.
    """

    points: ArrayLike | None = None
    labels: ArrayLike | None = None
    box: ArrayLike | None = None
    mask: ArrayLike | None = None

    def __post_init__(self) -> None:
        if self.points is None and self.box is None and self.mask is None:
            if self.labels is not None:
                raise PromptError("labels were given without points; give points=[[x, y], ...] as well")
            raise PromptError("the prompt is empty; give points with labels, a box, a mask, or a mixture of them")
        if self.points is not None:
            points = _numbers(self.points, "points")
            if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
                raise PromptError(
                    f"points must have shape (N, 2) with N >= 1, but have {points.shape}; [[x, y]] is one point"
                )
            if len(points) > MAX_POINTS:
                raise PromptError(f"at most {MAX_POINTS} points can be given, but there are {len(points)}")
            if self.labels is None:
                raise PromptError("points were given without labels; give labels=[1, ...]: 1 on the object, 0 off it")
            labels = _numbers(self.labels, "labels")
            if labels.shape != (len(points),):
                raise PromptError(
                    f"labels must have shape ({len(points)},), one for each point, but have {labels.shape}"
                )
            if not np.isin(labels, (0.0, 1.0)).all():
                raise PromptError(f"labels must be 1 (on the object) or 0 (off it), but are {labels.tolist()}")
            object.__setattr__(self, "points", points)
            object.__setattr__(self, "labels", labels)
        elif self.labels is not None:
            raise PromptError("labels were given without points; give points=[[x, y], ...] as well")
        if self.box is not None:
            box = _numbers(self.box, "box")
            if box.shape == (1, 4):
                box = box[0]
            if box.shape != (4,):
                raise PromptError(
                    f"box must be (x0, y0, x1, y1), shape (4,), but has {box.shape}; use predict_batch for several"
                )
            if box[0] >= box[2] or box[1] >= box[3]:
                raise PromptError(f"box must be (x0, y0, x1, y1) with x0 < x1 and y0 < y1, but is {box.tolist()}")
            object.__setattr__(self, "box", box)
        if self.mask is not None:
            object.__setattr__(self, "mask", _hint(self.mask))

    @property
    def ambiguous(self) -> bool:
        """Whether one click is all there is, which may mean a part, an object or a group."""
        return self.box is None and self.mask is None and self.points is not None and len(np.asarray(self.points)) == 1


def _numbers(value: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"dtype {array.dtype}")
        array = array.astype(np.float64)
    except (TypeError, ValueError) as exc:
        raise PromptError(f"{name} must be an array of numbers, but {value!r:.80} is not ({exc})") from exc
    if not np.isfinite(array).all():
        raise PromptError(f"{name} must be finite, but contain NaN or infinity: {array.tolist()!r:.120}")
    return array


def _hint(value: ArrayLike) -> NDArray[np.bool_] | NDArray[np.float32]:
    array = np.asarray(value)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or 0 in array.shape:
        raise PromptError(
            f"mask must have shape (h, w) or (1, h, w), but has {np.shape(value)}; pick one, e.g. logits[scores.argmax()]"
        )
    if array.dtype == np.bool_:
        if not array.any():
            raise PromptError("mask is empty (no True pixel); give a mask of the object, or leave it out")
        return array
    if array.dtype.kind != "f":
        raise PromptError(
            f"mask must be float logits or a bool mask of the frame, but has dtype {array.dtype}; use mask.astype(bool)"
        )
    if not np.isfinite(array).all():
        raise PromptError("mask must be finite, but contains NaN or infinity")
    return array.astype(np.float32)


@dataclass(frozen=True)
class DecoderInputs:
    """B prompts as the decoder takes them: points (B, N, 2), labels (B, N), mask (B, 1, h, w), has_mask (B,)."""

    points: NDArray[np.float32]
    labels: NDArray[np.float32]
    mask: NDArray[np.float32]
    has_mask: NDArray[np.float32]


def place_prompt(prompt: Prompt, frame: Letterbox) -> Prompt:
    """The prompt with its box cut to the frame; PromptError where it lies outside.

    The rule: a point may lie anywhere in 0 <= x <= W, 0 <= y <= H; a box is cut to the frame and must keep some area.
    """
    width, height = frame.frame_width, frame.frame_height
    if prompt.points is not None:
        points = np.asarray(prompt.points, np.float64)
        outside = ((points < 0) | (points > (width, height))).any(1)
        if outside.any():
            raise PromptError(
                f"point {points[outside][0].tolist()} lies outside the frame of {width} x {height} pixels; "
                "points are x, y with 0 <= x <= width and 0 <= y <= height"
            )
    box = prompt.box
    if box is not None:
        corners = np.asarray(box, np.float64)
        cut = np.clip(corners, 0, (width, height, width, height))
        if cut[2] - cut[0] <= 0 or cut[3] - cut[1] <= 0:
            raise PromptError(f"box {corners.tolist()} lies outside the frame of {width} x {height} pixels")
        box = cut
    mask = prompt.mask
    if mask is not None:
        shape = np.shape(mask)
        if np.asarray(mask).dtype == np.bool_:
            if shape != (height, width):
                raise PromptError(f"a bool mask must have the frame's shape ({height}, {width}), but has {shape}")
        elif shape != frame.grid:
            raise PromptError(
                f"mask logits must have the shape of this frame's logits {frame.grid}, but have {shape}; "
                "pass Masks.logits[i] of the same frame size, or a bool mask of the frame"
            )
    return Prompt(prompt.points, prompt.labels, box, mask)


def decoder_inputs(prompts: list[Prompt], frame: Letterbox, view: Letterbox, batch: int, slots: int) -> DecoderInputs:
    """Lay out prompts (already placed in ``frame``) for a decoder that sees ``view``, padded to (batch, slots).

    Points outside the view (a second look at a part of the frame) are left out; boxes are cut to it.
    """
    rows, columns = view.grid
    points = np.zeros((batch, slots, 2), np.float32)
    labels = np.full((batch, slots), LABEL_PADDING, np.float32)
    mask = np.zeros((batch, 1, rows, columns), np.float32)
    has_mask = np.zeros(batch, np.float32)
    content = np.array(view.content, np.float32)
    for i, prompt in enumerate(prompts):
        slot = 0
        if prompt.box is not None:
            corners = view.boxes_to_model(prompt.box).reshape(2, 2)
            points[i, :2] = np.clip(corners, 0, content)
            labels[i, :2] = LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT
            slot = 2
        if prompt.points is not None:
            placed = view.points_to_model(prompt.points)
            inside = np.ones(len(placed), bool) if view == frame else ((placed >= 0) & (placed <= content)).all(1)
            kept = np.clip(placed[inside], 0, content)  # the frame's very edge is its last pixel's edge
            points[i, slot : slot + len(kept)] = kept
            labels[i, slot : slot + len(kept)] = np.asarray(prompt.labels)[inside]
        if prompt.mask is not None:
            mask[i, 0] = _hint_on_grid(np.asarray(prompt.mask), frame, view)
            has_mask[i] = 1.0
    return DecoderInputs(points, labels, mask, has_mask)


def _hint_on_grid(
    hint: NDArray[np.bool_] | NDArray[np.float32], frame: Letterbox, view: Letterbox
) -> NDArray[np.float32]:
    if hint.dtype == np.bool_:
        x0, y0, x1, y1 = view.region
        coverage = shrink_mask(hint[y0:y1, x0:x1].astype(np.bool_), view)  # share of each cell, 0 to 1
        return ((coverage - 0.5) * (2 * HINT_LIMIT)).astype(np.float32)
    logits = np.clip(hint.astype(np.float32), -HINT_LIMIT, HINT_LIMIT)
    return logits if view == frame else resample_grid(logits, frame, view)


def point_count(prompt: Prompt) -> int:
    """How many decoder slots a prompt fills."""
    points = 0 if prompt.points is None else len(np.asarray(prompt.points))
    return points + (0 if prompt.box is None else 2)
