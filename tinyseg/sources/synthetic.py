"""Drawn frames, the same everywhere."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_whole, shown
from tinyseg.errors import DataError
from tinyseg.pixels import MAX_SIDE
from tinyseg.sources.base import Source

MAX_PIXELS = 7680 * 4320
MOST_DISTINCT = 1000


class SyntheticSource(Source):
    """A disk that moves over a gradient: the same pictures everywhere, for tests and benchmarks.

    frames: how many, None for no end. distinct: how many different pictures are drawn; then they repeat, so that
    drawing them costs nothing while the loop runs. frame_rate: pace in frames/s like a camera's, 0 as fast as asked.
    """

    def __init__(
        self,
        width: int,
        height: int,
        frames: int | None = None,
        *,
        distinct: int = 8,
        frame_rate: float = 0.0,
        live: bool = False,
    ) -> None:
        super().__init__()
        check_whole("width", width, 1, MAX_SIDE, DataError)
        check_whole("height", height, 1, MAX_SIDE, DataError)
        if width * height > MAX_PIXELS:
            raise DataError(f"drawn frames have {MAX_PIXELS} pixels at most (7680x4320), not {width}x{height}")
        if frames is not None:
            check_whole("frames", frames, 0, 10**18, DataError)
        check_whole("distinct", distinct, 1, MOST_DISTINCT, DataError)
        if not isinstance(frame_rate, (int, float)) or not 0 <= frame_rate < float("inf"):
            raise DataError(
                f"frame_rate must be a number of frames a second, 0 for no pace, but is {shown(frame_rate)}"
            )
        self.frame_rate = frame_rate
        self.live = live
        self._frames = frames
        self._pictures = [self.draw(width, height, i / distinct) for i in range(distinct)]
        self._given = 0
        self._due = time.perf_counter()

    @staticmethod
    def draw(width: int, height: int, phase: float) -> NDArray[np.uint8]:
        """The picture at a phase in [0, 1): the disk goes round once."""
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        frame = np.stack([60 + 60 * x / width, 80 + 60 * y / height, np.full_like(x, 90)], 2)
        angle = 2 * np.pi * phase
        cx, cy = width * (0.5 + 0.2 * np.cos(angle)), height * (0.5 + 0.2 * np.sin(angle))
        frame[np.hypot(x - cx, y - cy) < min(width, height) * 0.2] = (40, 120, 210)
        noise = np.random.default_rng(0).normal(0, 4, (height, width, 1))
        return np.clip(frame + noise, 0, 255).astype(np.uint8)

    def read(self) -> NDArray[np.uint8] | None:
        if self._frames is not None and self._given >= self._frames:
            return None
        if self.frame_rate:
            self._due += 1 / self.frame_rate
            time.sleep(max(0.0, self._due - time.perf_counter()))
        self._given += 1
        return self._pictures[(self._given - 1) % len(self._pictures)]
