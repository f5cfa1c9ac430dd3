"""OpenCV's VideoCapture, let go of by whichever thread was the last to use it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray


class SharedCapture:
    """A ``cv2.VideoCapture`` that one thread reads and any thread may release.

    OpenCV frees at once what another thread is still reading from, and the process crashes: a stream that hangs when a loop
    is stopped. Here a release during a read is done when the read comes back.
    """

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        self._in_use = threading.Lock()
        self.released = False

    def read(self) -> NDArray[np.uint8] | None:
        """The next picture; None where there is none, and after a release. Raises cv2.error and MemoryError."""
        with self._used():
            there, pixels = (False, None) if self.released else self._capture.read()
        return np.asarray(pixels, np.uint8) if there and not self.released else None

    def get(self, which: int) -> float:
        """A property, such as cv2.CAP_PROP_POS_MSEC; 0 after a release."""
        with self._used():
            return 0.0 if self.released else float(self._capture.get(which))

    def release(self) -> None:
        """Let go of the file or device; from any thread, also more than once."""
        self.released = True
        self._let_go()

    @contextmanager
    def _used(self) -> Iterator[None]:
        try:
            with self._in_use:
                yield
        finally:
            if self.released:
                self._let_go()

    def _let_go(self) -> None:
        if self._in_use.acquire(blocking=False):  # else who uses it looks again when it is done
            try:
                self._capture.release()
            finally:
                self._in_use.release()
