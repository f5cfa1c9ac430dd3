"""One object through a stream: found once, then followed by the tracker."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.masks import Masks
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.segmenter import Segmenter
from tinyseg.track import Tracker

OBJECT = "cutout"


class Follower:
    """Looks for an object in every frame until it is there, and follows it from then on (:class:`tinyseg.Tracker`).

    find: an embedded frame -> one mask; raises DataError where there is nothing.
    """

    def __init__(self, segmenter: Segmenter, find: Callable[[Embedding], Masks]) -> None:
        self._segmenter, self._find = segmenter, find
        self._tracker: Tracker | None = None

    def step(self, frame: NDArray[np.uint8], color: str = "bgr") -> Masks:
        """The object's mask in the next frame: one mask, empty where it is out of sight.

        Raises FrameError, DataError where it was not found yet, and what else ``find`` raises.
        """
        if self._tracker is None:
            found = self._find(self._segmenter.embed(frame, color))
            mask = found.masks[found.best] if len(found) else np.zeros(frame.shape[:2], np.bool_)
            if not mask.any():
                raise DataError("nothing was found there; give another prompt")
            tracker = self._segmenter.tracker()
            tracker.add(OBJECT, mask=mask, frame=frame, color=color)
            tracker.step(frame, color)
            self._tracker = tracker
            return found.only(found.best)
        return self._tracker.step(frame, color)[OBJECT].to_masks()
