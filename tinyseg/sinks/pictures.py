"""Results drawn into picture files."""

from __future__ import annotations

from pathlib import Path

from tinyseg.images import write_image
from tinyseg.sinks.base import FrameResult, Sink


class PngSink(Sink):
    """A folder of pictures with the masks drawn in: 000000.png, ..."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, result: FrameResult) -> None:
        write_image(self._folder / f"{result.frame.index:06d}.png", result.picture())
