"""SAM's prompts -> :class:`tinyseg.Prompt`, and answers in SAM's layouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import InputError, PromptError
from tinyseg.geometry import Letterbox
from tinyseg.masks import Masks
from tinyseg.pixels import resample_grid
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.sam.tensors import as_array
from tinyseg.predict.sam.transforms import SAM_GRID
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import (
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_PADDING,
    LABEL_POSITIVE,
)

SAM_LABELS = (LABEL_PADDING, 0.0, LABEL_POSITIVE, LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT)


@dataclass(frozen=True)
class SamAnswer:
    """One prompt's answer: masks (K, H, W) bool, or float32 logits where they were asked for; predicted IoU (K,);
    logits (K, 256, 256) on SAM's grid."""

    masks: NDArray[np.bool_] | NDArray[np.float32]
    scores: NDArray[np.float32]
    low: NDArray[np.float32]


def sam_prompt(points: Any, labels: Any, box: Any, mask_input: Any, frame: Letterbox, view: Letterbox) -> Prompt:
    """One prompt as SAM takes it.

    points: (N, 2) x, y in pixels of the frame; those outside are moved to its edge, as SAM's positional encoding leaves
    them. labels: (N,) of 1 (on the object), 0 (off it), 2 and 3 (a box's top left and bottom right corner) and -1
    (padding, left out). box: (4,) or (1, 4). mask_input: (1, 256, 256) or (256, 256) logits laid out as ``view`` says.
    Raises PromptError.
    """
    corners = None if box is None else _checked(box, "box")
    kept = kept_labels = None
    if points is not None:
        xy = _checked(points, "point_coords")
        if labels is None:
            raise PromptError("point_coords were given without point_labels; give one label for each point")
        marks = _checked(labels, "point_labels")
        if xy.ndim != 2 or xy.shape[1] != 2 or marks.shape != (len(xy),):
            raise PromptError(
                f"point_coords must have shape (N, 2) and point_labels (N,), but have {xy.shape} and {marks.shape}"
            )
        if not np.isin(marks, SAM_LABELS).all():
            raise PromptError(f"point_labels must be of -1, 0, 1, 2 and 3, but are {marks.tolist()}")
        xy = np.clip(xy, 0, (frame.frame_width, frame.frame_height))
        first, last = xy[marks == LABEL_BOX_TOP_LEFT], xy[marks == LABEL_BOX_BOTTOM_RIGHT]
        if len(first) != len(last) or len(first) + (corners is not None) > 1:
            raise PromptError(
                f"one prompt holds one box at most, labels 2 and 3 being its corners; but there are {len(first)} and "
                f"{len(last)} of them{'' if corners is None else ' beside box='}; give a prompt for each object"
            )
        if len(first):
            corners = np.concatenate([first[0], last[0]])
        clicks = (marks == 0) | (marks == LABEL_POSITIVE)
        if clicks.any():
            kept, kept_labels = xy[clicks], marks[clicks]
    elif labels is not None:
        raise PromptError("point_labels were given without point_coords")
    hint = None if mask_input is None else _hint(mask_input, frame, view)
    return Prompt(kept, kept_labels, corners, hint)


def sam_answers(
    embedding: Embedding,
    prompts: list[Prompt],
    multimask: bool,
    zoom: str,
    threshold: float,
    return_logits: bool,
    view: Letterbox,
) -> list[SamAnswer]:
    """Answer prompts in one engine call; low-resolution logits are laid out as ``view`` says. Raises PromptError."""
    if len(prompts) == 1:
        (one,) = prompts
        found = [embedding.predict(one.points, one.labels, one.box, one.mask, multimask, zoom)]
    else:
        found = embedding.predict_batch(prompts, multimask, zoom)
    return [_answer(embedding, one, threshold, return_logits, view) for one in found]


def _answer(embedding: Embedding, out: Masks, threshold: float, return_logits: bool, view: Letterbox) -> SamAnswer:
    low = np.stack([resample_grid(one, embedding.geometry, view) for one in out.logits])
    if return_logits:
        return SamAnswer(embedding.logits_in_frame(out.logits), out.scores, low)
    masks = out.masks if threshold == 0 else embedding.logits_in_frame(out.logits) > threshold
    return SamAnswer(masks, out.scores, low)


def _checked(value: Any, name: str) -> NDArray[np.float64]:
    try:
        return as_array(value, name).astype(np.float64)
    except (InputError, ValueError, TypeError) as exc:
        raise PromptError(f"{name} must be an array of numbers ({exc})") from exc


def _hint(mask_input: Any, frame: Letterbox, view: Letterbox) -> NDArray[np.float32]:
    array = as_array(mask_input, "mask_input")
    if array.shape == (1, SAM_GRID, SAM_GRID):
        array = array[0]
    if array.shape != (SAM_GRID, SAM_GRID) or array.dtype.kind != "f":
        raise PromptError(
            f"mask_input must be float logits of shape (1, {SAM_GRID}, {SAM_GRID}), but is {array.dtype} {np.shape(mask_input)}"
        )
    return resample_grid(array.astype(np.float32), view, frame)
