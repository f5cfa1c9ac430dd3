"""The objects that are followed: what viewers call them, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tinyseg.draw import COLORS
from tinyseg.rle import encode_rle
from tinyseg.serve.picture import bgr_to_hex


class TrackedMask(Protocol):
    """What a tracker says of one object in one frame: ``tinyseg.track.TrackResult``, as far as it is needed here."""

    @property
    def mask(self) -> NDArray[np.bool_]: ...

    @property
    def score(self) -> float: ...

    @property
    def visible(self) -> bool: ...


def palette(index: int) -> str:
    """The colour of the object of an index, "#rrggbb"."""
    return bgr_to_hex(COLORS[index % len(COLORS)])


@dataclass
class Followed:
    """One object: what viewers call it, and what the tracker said of it last."""

    id: int
    name: str
    color: str
    result: TrackedMask | None = None


@dataclass(frozen=True)
class ObjectState:
    """One object in one frame, as viewers are told. box: x0, y0, x1, y1, ends exclusive. counts: COCO's compressed RLE."""

    id: int
    name: str
    color: str
    visible: bool
    score: float
    box: tuple[int, int, int, int]
    area: int
    counts: str


def state_of(one: Followed, shape: tuple[int, int]) -> ObjectState:
    """What viewers are told of an object in a frame of ``shape`` (H, W)."""
    result = one.result
    empty = np.zeros(shape, np.bool_)
    seen = result is not None and result.visible and result.mask.shape == shape
    mask = result.mask if result is not None and seen else empty
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (0, 0, 0, 0)
    if len(rows):
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    score = float(result.score) if result is not None and seen else 0.0
    return ObjectState(
        one.id, one.name, one.color, seen, round(score, 4), box, int(np.count_nonzero(mask)), encode_rle(mask)["counts"]
    )
