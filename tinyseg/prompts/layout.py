"""Prompts placed in a frame, and laid out as the decoder takes them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyseg.core import core
from tinyseg.errors import InputError, PromptError
from tinyseg.geometry import Letterbox
from tinyseg.pixels import shrink_mask
from tinyseg.prompts.prompt import Prompt

# A box or clicks that all lie in the first pixel of a frame this large are relative coordinates by mistake.
RELATIVE_BEFORE = 16

# Labels of the decoder's point slots, as in SAM's ONNX export.
LABEL_PADDING = -1.0
LABEL_NEGATIVE = 0.0
LABEL_POSITIVE = 1.0
LABEL_BOX_TOP_LEFT = 2.0
LABEL_BOX_BOTTOM_RIGHT = 3.0

# Logits of a hint are clipped to this; the student saw no larger ones in training.
HINT_LIMIT = 16.0
NO_CLICKS = np.empty((0, 2)), np.empty(0)


@dataclass(frozen=True)
class DecoderInputs:
    """B prompts as the decoder takes them: points (B, N, 2), labels (B, N), mask (B, 1, h, w), has_mask (B,)."""

    points: NDArray[np.float32]
    labels: NDArray[np.float32]
    mask: NDArray[np.float32]
    has_mask: NDArray[np.float32]


def place_prompt(prompt: Prompt, frame: Letterbox) -> Prompt:
    """The prompt with its box cut to the frame, or to the region of it that was encoded; PromptError where it lies outside.

    The rule: a point may lie anywhere in 0 <= x <= W, 0 <= y <= H; a box is cut to the frame and must keep some area.
    """
    width, height = frame.frame_width, frame.frame_height
    x0, y0, x1, y1 = frame.region
    seen = f"the frame of {width} x {height} pixels" if frame.whole_frame else f"the encoded region {frame.region}"
    if frame.whole_frame:
        _warn_of_relative(prompt, width, height)
    if prompt.points is not None:
        outside = core().outside_point(*clicks(prompt), frame.numbers)
        if outside >= 0:
            raise PromptError(
                f"point {clicks(prompt)[0][outside].tolist()} lies outside {seen}; points are x, y with {x0} <= x <= {x1} "
                f"and {y0} <= y <= {y1}"
            )
    box, edges = prompt.box, corners(prompt)
    if edges is not None:
        box = core().cut_box(edges, frame.numbers)
        if box is None:
            raise PromptError(f"box {list(edges)} lies outside {seen}")
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


def _warn_of_relative(prompt: Prompt, width: int, height: int) -> None:
    """Warn where a box, or clicks of which one has a fraction, lie in the first pixel of a frame."""
    if min(width, height) < RELATIVE_BEFORE:
        return
    for name, value in (("box", prompt.box), ("points", prompt.points)):
        numbers = np.empty(0) if value is None else np.asarray(value, np.float64)
        fraction = name == "box" or bool((numbers != np.round(numbers)).any())
        if numbers.size and fraction and ((numbers >= 0) & (numbers <= 1)).all():
            warnings.warn(
                f"{name} {numbers.tolist()} lies within the first pixel of the {width} x {height} frame; coordinates are "
                "pixels: multiply relative ones by the frame's width and height",
                stacklevel=2,
            )


def place_prompts(prompts: Sequence[Prompt], frame: Letterbox) -> list[Prompt]:
    """All prompts checked against a frame. Raises InputError or PromptError, naming the prompt where there are several."""
    if isinstance(prompts, (Prompt, str, bytes)) or not isinstance(prompts, Sequence):
        raise InputError(f"prompts must be a list of tinyseg.Prompt, but is a {type(prompts).__name__}")
    placed = []
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, Prompt):
            raise InputError(f"prompt {i} must be a tinyseg.Prompt, but is a {type(prompt).__name__}")
        try:
            placed.append(place_prompt(prompt, frame))
        except InputError as exc:
            if len(prompts) == 1:
                raise
            raise type(exc)(f"prompt {i}: {exc}") from exc
    return placed


def decoder_inputs(
    prompts: Sequence[Prompt], frame: Letterbox, view: Letterbox, batch: int, slots: int
) -> DecoderInputs:
    """Lay out prompts (already placed in ``frame``) for a decoder that sees ``view``, padded to (batch, slots).

    Points outside the view (a second look at a part of the frame) are left out; boxes are cut to it.
    """
    rows, columns = view.grid
    points = np.zeros((batch, slots, 2), np.float32)
    labels = np.full((batch, slots), LABEL_PADDING, np.float32)
    seen, shown = frame.numbers, view.numbers
    mask = np.zeros((batch, 1, rows, columns), np.float32)
    has_mask = np.zeros(batch, np.float32)
    for i, prompt in enumerate(prompts):
        core().lay_out(*clicks(prompt), corners(prompt), seen, shown, points[i], labels[i])
        if prompt.mask is not None:
            mask[i, 0] = _hint_on_grid(np.asarray(prompt.mask), frame, view)
            has_mask[i] = 1.0
    return DecoderInputs(points, labels, mask, has_mask)


def click_inputs(clicks: NDArray[np.float64], view: Letterbox, batch: int) -> DecoderInputs:
    """Single clicks (N, 2) on things, inside of a view, for a decoder of one point slot, padded to ``batch``."""
    points = np.zeros((batch, 1, 2), np.float32)
    labels = np.full((batch, 1), LABEL_PADDING, np.float32)
    points[: len(clicks), 0] = view.points_to_model(clicks)
    labels[: len(clicks)] = LABEL_POSITIVE
    return DecoderInputs(points, labels, np.zeros((batch, 1, *view.grid), np.float32), np.zeros(batch, np.float32))


def _hint_on_grid(
    hint: NDArray[np.bool_] | NDArray[np.float32], frame: Letterbox, view: Letterbox
) -> NDArray[np.float32]:
    if hint.dtype == np.bool_:
        x0, y0, x1, y1 = view.region
        coverage = shrink_mask(hint[y0:y1, x0:x1].astype(np.bool_), view)  # share of each cell, 0 to 1
        return ((coverage - 0.5) * (2 * HINT_LIMIT)).astype(np.float32)
    out = np.empty(view.grid, np.float32)
    core().lay_out_hint(np.ascontiguousarray(hint, np.float32), frame.numbers, view.numbers, out)
    return out


def clicks(prompt: Prompt) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A prompt's points (N, 2) and labels (N,), N = 0 where it has none."""
    if prompt.points is None:
        return NO_CLICKS
    return np.ascontiguousarray(prompt.points, np.float64), np.ascontiguousarray(prompt.labels, np.float64)


def corners(prompt: Prompt) -> tuple[float, ...] | None:
    """A prompt's box as the core takes it."""
    return None if prompt.box is None else tuple(np.asarray(prompt.box, np.float64).tolist())


def point_count(prompt: Prompt) -> int:
    """How many decoder slots a prompt fills."""
    points = 0 if prompt.points is None else len(np.asarray(prompt.points))
    return points + (0 if prompt.box is None else 2)
