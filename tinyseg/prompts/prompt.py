"""What a user points with, checked once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyseg.arguments import shown
from tinyseg.errors import PromptError

MAX_POINTS = 254  # with the box's two corners the largest decoder shape, 256 slots


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
                raise PromptError(f"labels must be 1 (on the object) or 0 (off it), but are {shown(labels.tolist())}")
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
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told below
            array = array.astype(np.float64)
    except Exception as exc:  # ragged lists, too large numbers, and whatever an object's __array__ raises
        raise PromptError(f"{name} must be an array of numbers, but {shown(value)} is not ({exc!s:.200})") from exc
    if not np.isfinite(array).all():
        raise PromptError(f"{name} must be finite, but contain NaN or infinity: {shown(array.tolist())}")
    return array


def _hint(value: ArrayLike) -> NDArray[np.bool_] | NDArray[np.float32]:
    try:
        array = np.asarray(value)
    except Exception as exc:
        raise PromptError(f"mask must be an array, but {shown(value)} is not ({exc!s:.200})") from exc
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or 0 in array.shape:
        raise PromptError(
            f"mask must have shape (h, w) or (1, h, w), but has {array.shape}; pick one, e.g. logits[scores.argmax()]"
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
    # Far beyond what any reader of logits tells apart, and inside float32.
    with np.errstate(over="ignore"):  # long doubles
        return np.asarray(np.clip(array.astype(np.float64), -1e9, 1e9), np.float32)
