"""Raw masks to a pipe."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from tinyseg.arguments import shown
from tinyseg.errors import DataError
from tinyseg.sinks.base import FrameResult, Sink


class RawSink(Sink):
    """Raw masks to a binary stream: for every object of every frame H x W bytes, 0 or 255."""

    def __init__(self, stream: BinaryIO) -> None:
        if not hasattr(stream, "write") or not hasattr(stream, "flush"):
            raise DataError(f"raw masks go to a binary stream, such as sys.stdout.buffer, not to {shown(stream)}")
        self._stream = stream

    def write(self, result: FrameResult) -> None:
        try:
            for answer in result.answers:
                self._stream.write((answer.masks[answer.best].view(np.uint8) * np.uint8(255)).data)
            self._stream.flush()
        except BrokenPipeError:  # the reader has enough; the command line ends quietly
            raise
        except (OSError, ValueError) as exc:  # ValueError: a stream that was closed
            raise DataError(f"raw masks cannot be written: {getattr(exc, 'strerror', None) or exc}") from exc
