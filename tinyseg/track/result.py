"""What a tracker says of one object in one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyseg import pixels
from tinyseg.geometry import Letterbox
from tinyseg.masks import Masks

ObjectId = int | str


@dataclass(frozen=True)
class TrackResult:
    """One object in one frame.

    id: the caller's. mask: (H, W) bool, all False while the object is not visible. visible: whether it was found in this
    frame; while it is not, ``box`` is where it was seen last. score: in [0, 1], how much what lies under the mask looks
    like the prompted object; 0 when not visible. box: (4,) int32 x0, y0, x1, y1, ends exclusive. area: pixels of the mask.
    logits: (h, w) float32 on the low-resolution grid of ``view``, the part of the frame that was looked at; positive
    inside. lost_for: frames since it was last visible, 0 when it is.
    """

    id: ObjectId
    mask: NDArray[np.bool_]
    score: float
    visible: bool
    box: NDArray[np.int32]
    area: int
    logits: NDArray[np.float32]
    view: Letterbox
    lost_for: int = 0

    def frame_logits(self) -> NDArray[np.float32]:
        """(H, W) float32 logits in the frame's pixels; -16 where nothing was looked at."""
        return pixels.upsample(self.logits, self.view)

    def to_masks(self) -> Masks:
        """The same as :class:`tinyseg.Masks` of one mask, for everything that takes those; an empty one if not visible."""
        box = self.box if self.visible else np.zeros(4, np.int32)
        return Masks(
            self.mask[None], np.array([self.score], np.float32), self.logits[None], box[None],
            np.array([self.area], np.int64), np.zeros(1, np.float32), self.view.region,
        )  # fmt: skip
