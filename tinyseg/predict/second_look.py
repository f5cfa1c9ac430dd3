"""The second look: small objects lose to resolution, so they are encoded again from a crop of the frame.

The rule and its numbers belong to the model (``model.json``, "zoom"): an object whose longer side is below a share of
the frame's is looked at again, in a square a certain factor larger than it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinyseg.geometry import Letterbox, crop_around, letterbox
from tinyseg.graphs.model import ZoomRule
from tinyseg.prompts import Prompt


def prompted_box(prompt: Prompt) -> NDArray[np.float64] | None:
    """The box that a prompt states by itself, widened to its points; None if only a look can tell."""
    if prompt.box is None:
        return None
    box = np.asarray(prompt.box, np.float64)
    if prompt.points is not None:
        points = np.asarray(prompt.points, np.float64)
        box = np.concatenate([np.minimum(box[:2], points.min(0)), np.maximum(box[2:], points.max(0) + 1)])
    return box


def second_look(box: NDArray[np.float64] | None, frame: Letterbox, rule: ZoomRule) -> Letterbox | None:
    """Where to look again for an object in ``box`` (x0, y0, x1, y1), or None if the first look is good enough."""
    if box is None:
        return None
    width, height = frame.frame_width, frame.frame_height
    if max(box[2] - box[0], box[3] - box[1]) >= rule.below * max(width, height):
        return None
    region = crop_around(box, rule.factor, width, height)
    look = letterbox(width, height, rule.side, region, square=True)
    # Only worth it if it really shows more detail than the first look.
    return look if look.scale_x > 1.2 * frame.scale_x else None
