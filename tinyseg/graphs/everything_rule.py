"""What "everything" keeps: thresholds that belong to a model, because every network has a scale of its own.

They are calibrated on photos that were held out from training (``python -m tinyseg.distill calibrate-everything``) and
stored in ``model.json`` under "everything"; what a model does not state is as here. SAM's own numbers (0.88, 0.95 and
TinySAM's 8.5) belong to SAM's scale and mean nothing on this one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from tinyseg.arguments import check_whole, shown
from tinyseg.errors import InputError, ModelError
from tinyseg.geometry import INPUT_MULTIPLE

MAX_POINTS_PER_SIDE = 256
MAX_CLOSE_VIEWS = 16  # a side
MAX_CLOSE_SIDE = 4096


@dataclass(frozen=True)
class EverythingRule:
    """How everything in a frame is found, and which masks of it are kept. Raises InputError for impossible numbers."""

    points_per_side: int = 32  # of the finest grid: the more, the more is found, in more time
    coarse_per_side: int = (
        8  # of the grid that comes first, others with twice as many following; 0: the finest alone, in full
    )
    score: float = 0.3  # masks need a predicted IoU above this
    stability: float = 0.8  # and at least this share of their cells must stay when the threshold moves by the offset
    stability_offset: float = 1.0  # logits
    confident: float = 3.0  # logit; where a mask of a coarser grid is above it, the finer ones are not asked
    sure_margin: int = 2  # cells on every side of such a cell in which the mask must be above it too
    box_overlap: float = 0.7  # IoU of boxes above which the worse of two masks goes; 1: any
    mask_overlap: float = 0.8  # the same of masks
    close_views: int = (
        0  # n: grids after the second are asked in n x n parts of the view, each encoded again; 0: in itself
    )
    close_side: int = 256  # longer side of the encoder's input for such a part, pixels
    whole_side: int = 0  # the same for the whole view, where several grids are asked; 0: the view's own input

    def __post_init__(self) -> None:
        for name, least in (("points_per_side", 1), ("coarse_per_side", 0), ("sure_margin", 0)):
            check_whole(name, getattr(self, name), least, MAX_POINTS_PER_SIDE)
        check_whole("close_views", self.close_views, 0, MAX_CLOSE_VIEWS)
        check_whole("close_side", self.close_side, INPUT_MULTIPLE, MAX_CLOSE_SIDE)
        check_whole("whole_side", self.whole_side, INPUT_MULTIPLE if self.whole_side else 0, MAX_CLOSE_SIDE)
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):  # numpy's numbers go into no JSON
                value = value.item()
                object.__setattr__(self, field.name, value)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise InputError(f"{field.name} must be a finite number, but is {shown(value)}")
        if self.stability_offset < 0:
            raise InputError(f"stability_offset must not be negative, but is {self.stability_offset!r}")

    def sides(self, fine: int | None = None) -> list[int]:
        """Clicks a side of the grids that are asked one after the other: the coarse one, twice as many, and so on, and last
        the finest, ``fine`` or ``points_per_side``."""
        last = self.points_per_side if fine is None else fine
        sides = []
        side = self.coarse_per_side
        while 0 < side < last:
            sides.append(side)
            side *= 2
        return [*sides, last]

    def to_card(self) -> dict[str, float]:
        """What model.json states under "everything"."""
        return asdict(self)


DEFAULT_RULE = EverythingRule()


def read_everything_rule(card: Mapping[str, Any], model: str) -> EverythingRule:
    """The rule that a model.json states, with the defaults above for what it leaves out. Raises ModelError."""
    stated = card.get("everything", {})
    known = {field.name for field in fields(EverythingRule)}
    if not isinstance(stated, dict):
        raise ModelError(f"{model}: 'everything' in model.json must be an object, but is {shown(stated)}")
    try:
        return EverythingRule(**{name: value for name, value in stated.items() if name in known})
    except InputError as exc:
        raise ModelError(f"{model}: 'everything' in model.json: {exc}") from exc
