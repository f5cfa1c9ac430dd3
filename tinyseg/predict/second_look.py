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
from tinyseg.core import core
from tinyseg.geometry import Letterbox, view_of
from tinyseg.graphs.model import ZoomRule
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import clicks, corners, place_prompts

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
    found: tuple[float, float, float, float] | None = core().prompted_box(*clicks(prompt), corners(prompt))
    return None if found is None else np.array(found)


def second_look(box: NDArray[np.float64], view: Letterbox, rule: ZoomRule) -> Letterbox | None:
    """Where to look again for an object in ``box`` (x0, y0, x1, y1), or None if the first look is good enough."""
    found = core().second_look(tuple(box.tolist()), view.numbers, (rule.side, rule.factor, rule.below))
    return None if found is None else view_of(found)
