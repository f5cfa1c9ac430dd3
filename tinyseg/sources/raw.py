"""Raw frames from a pipe."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_choice, check_whole, shown
from tinyseg.errors import DataError
from tinyseg.pixels import MAX_SIDE
from tinyseg.sources.base import Source

RAW_CHANNELS = {"bgr": 3, "rgb": 3, "gray": 1}


class RawSource(Source):
    """Raw frames from a binary stream, such as ``ffmpeg ... -f rawvideo -pix_fmt bgr24 - | tinyseg run -``.

    A stream that ends inside a frame has given the frames before; the rest counts as damaged. One that holds no whole
    frame at all raises DataError: its size is another.
    """

    def __init__(self, stream: BinaryIO, width: int, height: int, color: str = "bgr") -> None:
        super().__init__()
        check_choice("color", color, tuple(RAW_CHANNELS), DataError)
        if isinstance(width, int) and isinstance(height, int) and width == height == 0:
            raise DataError("raw frames need a size, e.g. --raw-size 1280x720")
        check_whole("width", width, 1, MAX_SIDE, DataError)
        check_whole("height", height, 1, MAX_SIDE, DataError)
        if not hasattr(stream, "readinto"):
            raise DataError(f"raw frames come from a binary stream, such as sys.stdin.buffer, not {shown(stream)}")
        self._stream, self._color = stream, color
        self._whole = 0
        self._shape = (height, width, RAW_CHANNELS[color])

    @property
    def color(self) -> str:
        return self._color

    def read(self) -> NDArray[np.uint8] | None:
        pixels = np.empty(self._shape, np.uint8)
        view, filled = memoryview(pixels.reshape(-1).data), 0
        while filled < len(view):
            # A pipe gives what it has; readinto waits for more.
            try:
                got = self._stream.readinto(view[filled:])
            except (OSError, ValueError) as exc:  # a folder as standard input, a stream that was closed
                raise DataError(f"raw frames cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
            if not got:
                break
            filled += got
        if filled == 0:
            return None
        if filled < len(view):
            told = f"the raw stream ended inside a frame ({filled} of {len(view)} bytes)"
            if self._whole == 0:
                raise DataError(f"{told} and held no whole one; check the size and colour")
            self.pass_over(f"{told}, after {self._whole} whole ones; if that is wrong, check the size and colour")
            return None
        self._whole += 1
        return pixels
