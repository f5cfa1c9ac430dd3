"""One object through a stream: the last frame's answer is the next frame's prompt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tinyseg.cutout.salient import ask_again
from tinyseg.masks import Masks
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.segmenter import Segmenter

LOST = 0.4  # predicted IoU below which the object counts as gone


class Follower:
    """Finds an object in the first frame and follows it by its mask, which is enough for what moves little from frame
    to frame (a person before a camera). Where it is lost, the search of the first frame is done again.

    find: an embedded frame -> one mask; raises DataError where there is nothing.
    """

    def __init__(self, segmenter: Segmenter, find: Callable[[Embedding], Masks]) -> None:
        self._segmenter, self._find = segmenter, find
        self._last: NDArray[np.float32] | None = None

    def step(self, frame: NDArray[np.uint8], color: str = "bgr") -> Masks:
        """The object's mask in the next frame. Raises FrameError, and what ``find`` raises."""
        emb = self._segmenter.embed(frame, color)
        answer = None
        if self._last is not None and self._last.shape == emb.geometry.grid:
            answer = ask_again(emb, self._last, zoom="off")
            if answer.areas[0] == 0 or answer.scores[0] < LOST:
                answer = None
        if answer is None:
            answer = self._find(emb)
        logits = answer.logits[answer.best]
        self._last = logits if (logits > 0).any() else None
        return answer
