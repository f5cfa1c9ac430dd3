"""Scene cuts: the frame differs from the one before far more than frames lately did."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.pixels import FrameLayout

THUMBNAIL = (32, 18)
LEAST = 24.0  # mean difference of grey values, 0 to 255
TIMES_USUAL = 3.0
KEPT = 12  # differences that say what is usual
KEPT_AT_CUT = 2  # of them, beside the cut's own


class CutDetector:
    """Told every frame, in order; keeps a thumbnail and a few numbers."""

    def __init__(self) -> None:
        self.thumbnail: NDArray[np.float32] | None = None
        self.usual: deque[float] = deque(maxlen=KEPT)

    def see(self, frame: FrameLayout) -> bool:
        """Whether this frame begins another scene than the one before. The first one begins none."""
        # Every 4th pixel is enough for a mean over a 32nd of the frame.
        stride = max(1, min(frame.pixels.shape[:2]) // (4 * THUMBNAIL[1]))
        sparse = np.ascontiguousarray(frame.pixels[::stride, ::stride, :3]).mean(2, dtype=np.float32)
        small = np.asarray(cv2.resize(sparse, THUMBNAIL, interpolation=cv2.INTER_AREA), np.float32)
        before, self.thumbnail = self.thumbnail, small
        if before is None:
            return False
        difference = float(np.abs(small - before).mean())
        # While nothing is usual yet there is no cut: what moves fast from its first frame on would be cut in every one.
        cut = bool(self.usual) and difference > max(LEAST, TIMES_USUAL * float(np.median(self.usual)))
        if cut:  # a third one in a row would be no cut but motion
            kept = [*self.usual][-KEPT_AT_CUT:]
            self.usual.clear()
            self.usual.extend(kept)
        self.usual.append(difference)
        return cut
