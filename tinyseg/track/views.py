"""Which parts of a frame are encoded for which objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyseg.geometry import Letterbox, crop_around, letterbox
from tinyseg.graphs.shapes import TRACK_SIDE

FACTOR = 1.6  # side of a crop against the object's longer side
# Model pixels of a crop's side, by how many crops a frame takes at most: detail is what small models lack, but eight crops of
# 320 pixels cost eight times one; as it is, up to eight cost about three. With more than the last entry allows, the whole frame
# serves all objects. docs/video.md has accuracy beside cost.
Sides = Sequence[tuple[int, int]]
SIDES: Sides = ((2, TRACK_SIDE), (4, 256), (6, 192), (16, 160))
# By how much what is looked at may shrink from frame to frame.
SHRINK = 0.95
# An object shares another one's crop if that shows it at no less than this share of the detail of its own.
SHARED_DETAIL = 0.75
# Side of a view against the box that it must keep inside, with what the object may move in a frame.
SHARED_ROOM = 1.25


@dataclass(frozen=True)
class SharedView:
    """One view and the objects (their positions in the list that was planned for) that it serves."""

    view: Letterbox
    members: tuple[int, ...]


def crop_view(box: NDArray[np.float64], width: int, height: int, side: int, factor: float = FACTOR) -> Letterbox:
    """The crop of an object in ``box`` (x0, y0, x1, y1) of a frame; its input is always ``side`` by ``side``."""
    return letterbox(width, height, side, crop_around(box, factor, width, height), square=True)


def plan_views(
    boxes: Sequence[NDArray[np.float64]], width: int, height: int, long_side: int, sides: Sides = SIDES
) -> list[SharedView]:
    """Views that serve objects last seen in ``boxes``. long_side: of the whole frame's view. sides: as SIDES."""
    order = sorted(range(len(boxes)), key=lambda i: -_side(boxes[i]))
    crops: list[tuple[NDArray[np.float64], Letterbox, list[int]]] = []
    for i in order:
        own = crop_view(boxes[i], width, height, sides[0][1])
        found = next((members for _, view, members in crops if _serves(view, own, boxes[i])), None)
        if found is None:
            crops.append((boxes[i], own, [i]))
        else:
            found.append(i)
    side = next((side for most, side in sides if len(crops) <= most), None)
    if side is None:
        return [SharedView(letterbox(width, height, long_side), tuple(range(len(boxes))))]
    return [SharedView(crop_view(box, width, height, side), tuple(members)) for box, _, members in crops]


def held_look(look: NDArray[np.float64], box: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Where to look for an object that was found in ``box`` when ``look`` was looked at; all (x0, y0, x1, y1).

    Around the box, but not much smaller than before: what is hidden for a while, or was missed, would be outside of the next
    crop and lost for good.
    """
    size = np.maximum(box[2:] - box[:2], SHRINK * (look[2:] - look[:2]))
    centre = (box[:2] + box[2:]) / 2
    limits = np.array([width, height], np.float64)
    low, high = np.maximum(centre - size / 2, 0.0), np.minimum(centre + size / 2, limits)
    return np.concatenate([np.minimum(low, box[:2]), np.maximum(high, box[2:])])


def _side(box: NDArray[np.float64]) -> float:
    return float(max(box[2] - box[0], box[3] - box[1]))


def _serves(view: Letterbox, own: Letterbox, box: NDArray[np.float64]) -> bool:
    if view.scale_x < SHARED_DETAIL * own.scale_x:
        return False
    x0, y0, x1, y1 = view.region
    rx, ry = (SHARED_ROOM - 1) / 2 * (box[2] - box[0]), (SHARED_ROOM - 1) / 2 * (box[3] - box[1])
    return bool(
        box[0] - rx >= x0 - (x0 == 0) * rx
        and box[1] - ry >= y0 - (y0 == 0) * ry
        and box[2] + rx <= x1 + (x1 == view.frame_width) * rx
        and box[3] + ry <= y1 + (y1 == view.frame_height) * ry
    )
