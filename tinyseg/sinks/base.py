"""What a result and a sink are; results to a function or to nowhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import shown
from tinyseg.draw import overlay, overlay_tracks
from tinyseg.errors import InputError
from tinyseg.masks import Masks
from tinyseg.pixels import check_frame
from tinyseg.prompts import Prompt
from tinyseg.sources import Frame
from tinyseg.track.result import TrackResult


@dataclass(frozen=True)
class FrameResult:
    """One frame and its answers, one ``Masks`` for every prompt.

    ``answers[i].masks`` lie in buffers that are used again: copy what you keep after ``write`` returns. tracks: of a
    tracker's frames, the object that each answer is of.
    """

    frame: Frame
    prompts: tuple[Prompt, ...]
    answers: list[Masks]
    latency_ms: float  # from the frame being there to its masks being there
    tracks: tuple[TrackResult, ...] = ()

    def picture(self) -> NDArray[np.uint8]:
        """The frame (H, W, 3) BGR with masks and prompts drawn over it."""
        layout = check_frame(self.frame.pixels, self.frame.color)
        pixels = layout.pixels[..., :3] if layout.bgr else layout.pixels[..., 2::-1]
        bgr = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        if self.tracks:
            return overlay_tracks(bgr, self.tracks)
        return overlay(bgr, [a.masks[a.best] for a in self.answers], self.prompts)


class Sink(ABC):
    """Takes results in the order of their frames, from one thread."""

    @abstractmethod
    def write(self, result: FrameResult) -> bool | None:
        """Take a result; returning False asks the loop to stop."""

    def close(self) -> None:  # noqa: B027 - most sinks hold nothing
        """Finish files and windows; called once, also after an error."""


class NullSink(Sink):
    """Nowhere: for measuring."""

    def write(self, result: FrameResult) -> None:
        pass


class CallbackSink(Sink):
    """Your function gets every result; returning False stops the loop."""

    def __init__(self, function: Callable[[FrameResult], bool | None]) -> None:
        if not callable(function):
            raise InputError(f"a callback must be a function of a FrameResult, but is {shown(function)}")
        self._function = function

    def write(self, result: FrameResult) -> bool | None:
        return self._function(result)
