"""Raw frames from a pipe."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.sources.base import Source

RAW_CHANNELS = {"bgr": 3, "rgb": 3, "gray": 1}


class RawSource(Source):
    """Raw frames from a binary stream, such as ``ffmpeg ... -f rawvideo -pix_fmt bgr24 - | tinyseg run -``."""

    def __init__(self, stream: BinaryIO, width: int, height: int, color: str = "bgr") -> None:
        super().__init__()
        if color not in RAW_CHANNELS:
            raise DataError(f"raw frames are bgr, rgb or gray, not {color!r}")
        if width < 1 or height < 1:
            raise DataError(f"raw frames need a size, e.g. --raw-size 1280x720, not {width}x{height}")
        self._stream, self._color = stream, color
        self._shape = (height, width, RAW_CHANNELS[color])

    @property
    def color(self) -> str:
        return self._color

    def read(self) -> NDArray[np.uint8] | None:
        pixels = np.empty(self._shape, np.uint8)
        view, filled = memoryview(pixels.reshape(-1).data), 0
        while filled < len(view):
            # A pipe gives what it has; readinto waits for more.
            got = self._stream.readinto(view[filled:])  # type: ignore[attr-defined]
            if not got:
                break
            filled += got
        if filled == 0:
            return None
        if filled < len(view):
            raise DataError(
                f"the raw stream ended inside a frame ({filled} of {len(view)} bytes); check the size and colour"
            )
        return pixels
