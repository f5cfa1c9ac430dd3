"""Results drawn into picture files."""

from __future__ import annotations

from pathlib import Path

from tinyseg.arguments import check_path, clipped, path_kind
from tinyseg.errors import DataError
from tinyseg.images import write_image
from tinyseg.sinks.base import FrameResult, Sink
from tinyseg.system.folders import ResultFolder


class PngSink(Sink):
    """A folder of pictures with the masks drawn in: 000000.png, ... Files that tinyseg did not write are not replaced."""

    def __init__(self, folder: Path) -> None:
        place = check_path("a folder's name", folder)
        if path_kind(place) not in (None, "folder"):
            raise DataError(f"{clipped(place)} is no folder; name a folder for the pictures")
        self._folder = ResultFolder(place)

    def write(self, result: FrameResult) -> None:
        write_image(self._folder.place(f"{result.frame.index:06d}.png"), result.picture())
