"""What a frame and a source are; frames from arrays."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_choice, shown
from tinyseg.errors import InputError
from tinyseg.pixels import COLORS

log = logging.getLogger("tinyseg.sources")
MOST_REASONS = 100  # that are logged one by one


@dataclass(frozen=True)
class Frame:
    """One picture: (H, W, 3) or (H, W) uint8, its channel order, and when it was taken."""

    pixels: NDArray[np.uint8]
    index: int  # 0, 1, 2, ... as the source gave them; dropped frames leave gaps
    captured: (
        float  # time.perf_counter() when the camera took it, where its driver says so, else when it was there; seconds
    )
    color: str = "bgr"
    name: str = ""  # the file it came from, if any


class Source(ABC):
    """A stream of frames. ``live`` ones do not wait; ``frame_rate`` is 0 where nobody knows.

    damaged: how many frames could not be read and were passed over so far; the log (``tinyseg.sources``) says which.
    """

    live = False
    frame_rate = 0.0
    damaged = 0

    def __init__(self) -> None:
        self._count = 0

    @abstractmethod
    def read(self) -> NDArray[np.uint8] | None:
        """The next picture, None at the end. May wait. Called from one thread.

        An array of its own each time: the loop reads on while it works on the pictures before, and copies none.
        """

    def next_frame(self) -> Frame | None:
        """The next frame with its number and time, None at the end."""
        pixels = self.read()
        if pixels is None:
            return None
        frame = Frame(pixels, self._count, self.captured, self.color, self.name)
        self._count += 1
        return frame

    def pass_over(self, reason: str, frames: int = 1) -> None:
        """For ``read``: count frames that cannot be read, and log why."""
        if self.damaged < MOST_REASONS or frames > 1:
            log.warning(reason)
        elif self.damaged == MOST_REASONS:
            log.warning("more frames cannot be read; they are counted only")
        self.damaged += frames

    @property
    def color(self) -> str:
        return "bgr"

    @property
    def name(self) -> str:
        """The name of what read() gave last, if it has one."""
        return ""

    @property
    def captured(self) -> float:
        """When what read() gave last was taken, seconds on the clock of time.perf_counter(); now, where nobody tells."""
        return time.perf_counter()

    def close(self) -> None:  # noqa: B027 - most sources hold nothing
        """Let go of devices and files; called once, also after an error."""


class ArraySource(Source):
    """Frames from any iterable of arrays: one array each, which nobody changes until its result has reached the sink."""

    def __init__(self, arrays: Iterable[NDArray[np.uint8]], color: str = "bgr", live: bool = False) -> None:
        super().__init__()
        try:
            self._arrays = iter(arrays)
        except Exception as exc:  # the object's own method
            raise InputError(f"arrays must be an iterable of frames (H, W, 3) uint8, but is {shown(arrays)}") from exc
        self._color = check_choice("color", color, COLORS)
        self.live = bool(live)

    @property
    def color(self) -> str:
        return self._color

    def read(self) -> NDArray[np.uint8] | None:
        return next(self._arrays, None)
