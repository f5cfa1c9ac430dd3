"""The second look: small objects lose to resolution, so they are encoded again from a crop of the frame.

The rule and its numbers belong to the model (``model.json``, "zoom"): an object whose longer side is below a share of
the frame's is looked at again, in a square a certain factor larger than it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_choice
from tinyseg.geometry import Letterbox, crop_around, letterbox
from tinyseg.graphs.model import ZoomRule
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import place_prompts

ZOOM_CHOICES = ("auto", "off")


@dataclass(frozen=True)
class Plan:
    """Prompts placed in a frame, and where each is looked at, decided before anything is decoded.

    whole: indices of the prompts that the whole frame answers, and these prompts. crops: of the others, whose box says
    by itself that the object is small, the region that answers them. undecided: indices in ``whole`` that get a crop if
    their first answer turns out small.
    """

    placed: tuple[Prompt, ...]
    whole: tuple[int, ...]
    whole_prompts: tuple[Prompt, ...]
    crops: dict[int, Letterbox]
    undecided: frozenset[int]


def plan_looks(prompts: Sequence[Prompt], view: Letterbox, rule: ZoomRule, zoom: str) -> Plan:
    """Check prompts against a view and decide where each is looked at. Raises PromptError, InputError."""
    check_choice("zoom", zoom, ZOOM_CHOICES)
    placed = tuple(place_prompts(prompts, view))
    crops: dict[int, Letterbox] = {}
    undecided = set()
    if zoom == "auto":
        for i, prompt in enumerate(placed):
            box = prompted_box(prompt)
            if box is None:
                undecided.add(i)
                continue
            crop = second_look(box, view, rule)
            if crop is not None:
                crops[i] = crop
    whole = tuple(i for i in range(len(placed)) if i not in crops)
    return Plan(placed, whole, tuple(placed[i] for i in whole), crops, frozenset(undecided))


def prompted_box(prompt: Prompt) -> NDArray[np.float64] | None:
    """The box that a prompt states by itself, widened to its points; None if only a look can tell."""
    if prompt.box is None:
        return None
    box = np.asarray(prompt.box, np.float64)
    if prompt.points is not None:
        points = np.asarray(prompt.points, np.float64)
        box = np.concatenate([np.minimum(box[:2], points.min(0)), np.maximum(box[2:], points.max(0) + 1)])
    return box


def second_look(box: NDArray[np.float64], view: Letterbox, rule: ZoomRule) -> Letterbox | None:
    """Where to look again for an object in ``box`` (x0, y0, x1, y1), or None if the first look is good enough."""
    width, height = view.frame_width, view.frame_height
    if max(box[2] - box[0], box[3] - box[1]) >= rule.below * max(width, height):
        return None
    region = crop_around(box, rule.factor, width, height)
    look = letterbox(width, height, rule.side, region, square=True)
    # Only worth it if it really shows more detail than the first look.
    return look if look.scale_x > 1.2 * view.scale_x else None
