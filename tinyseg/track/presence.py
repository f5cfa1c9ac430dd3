"""Whether an object is there: judged by what lies under its mask, against the frames that the caller spoke about.

The decoder's own predicted IoU stays high on the wrong thing, so it is not asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.geometry import Letterbox
from tinyseg.track.memory import CELL

# Likeness of what lies under the mask (Memory.likeness, -2 to 2): below the first an object is doubted, from the second on a
# lost one is found again; the score rises from 0 to 1 between the last two. Chosen on training sequences with the object
# painted over in some frames, so that present objects are seldom doubted: what is lost is searched, at the price of a frame.
DOUBT = 0.75
FOUND = 1.2
SCORE_FROM, SCORE_TO = 0.6, 1.9
PATIENCE = 3  # doubtful frames one after the other until it counts as lost
AREA_RATIO = 8.0  # a found object's area against its last: no more, and no less than the inverse
LEAST_CANDIDATE = 0.05  # margin of a cell of the whole frame that may belong to a lost object


@dataclass
class Presence:
    """An object's state. lost_for: frames since it was visible. doubts: doubtful frames in a row. area: when last visible."""

    visible: bool = True
    lost_for: int = 0
    doubts: int = 0
    area: int = 0

    @property
    def sure(self) -> bool:
        """Whether the last frame may be learnt from."""
        return self.visible and self.doubts == 0

    def see(self, likeness: float, area: int, searching: bool) -> bool:
        """Take in a frame; returns whether the object is visible in it. area: of the mask, in pixels."""
        if searching:
            alike = self.area == 0 or 1 / AREA_RATIO <= area / self.area <= AREA_RATIO
            if area and alike and likeness >= FOUND:
                self.visible, self.lost_for, self.doubts, self.area = True, 0, 0, area
            else:
                self.lost_for += 1
            return self.visible
        self.doubts = self.doubts + 1 if likeness < DOUBT else 0
        if area == 0 or self.doubts >= PATIENCE:
            self.lose()
            self.lost_for = 1
            return False
        self.area = area
        return True

    def lose(self) -> None:
        """From now on the object is searched for."""
        self.visible, self.doubts = False, 0

    def vouch(self, area: int) -> None:
        """The caller said where it is."""
        self.visible, self.lost_for, self.doubts, self.area = True, 0, 0, area


def to_score(likeness: float) -> float:
    """Likeness (-2 to 2) -> score in [0, 1]."""
    return float(np.clip((likeness - SCORE_FROM) / (SCORE_TO - SCORE_FROM), 0.0, 1.0))


def candidate_box(
    margins: NDArray[np.float32], whole: Letterbox, last_box: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Where in the whole frame a lost object might be: the best part of a map of margins (rows, columns).

    Returns (x0, y0, x1, y1) in frame pixels, about as large as the object was; None if nothing looks like it.
    """
    likely = margins > LEAST_CANDIDATE
    count, parts = cv2.connectedComponents(likely.astype(np.uint8), connectivity=8)
    if count < 2:
        return None
    sums = np.bincount(parts.ravel(), np.maximum(margins, 0).ravel().astype(np.float64), count)
    sums[0] = 0.0
    ys, xs = np.nonzero(parts == int(sums.argmax()))
    corners = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float64) * CELL
    found = np.asarray(whole.boxes_to_frame(corners), np.float64)
    centre, size = (found[:2] + found[2:]) / 2, np.maximum(found[2:] - found[:2], last_box[2:] - last_box[:2])
    box = np.concatenate([centre - size / 2, centre + size / 2])
    limits = np.array([whole.frame_width, whole.frame_height, whole.frame_width, whole.frame_height], np.float64)
    return np.asarray(np.clip(box, 0, limits), np.float64)
