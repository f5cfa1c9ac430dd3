"""Cameras and network streams, opened again when they go away."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.sources.base import Source, log

# Waiting between attempts to open a live source again, in seconds: doubled each time up to the last.
FIRST_BACK_OFF, LAST_BACK_OFF = 0.25, 4.0

# How long FFmpeg may wait for a stream to open or to send before that counts as a failure.
NETWORK_TIMEOUT_MS = 5000


class LiveSource(Source):
    """A camera or network stream: opened again, with growing pauses, when it goes away.

    opener: makes the capture; tests give their own. patience: seconds without a frame after which it counts as gone for
    good and DataError is raised. reconnections counts how often it came back.
    """

    live = True

    def __init__(self, label: str, opener: Callable[[], cv2.VideoCapture], patience: float = 30.0) -> None:
        super().__init__()
        self._label, self._opener, self._patience = label, opener, patience
        self._closed = False
        self.reconnections = 0
        self._capture = opener()
        if not self._capture.isOpened():
            raise DataError(
                f"{label} does not open; is it there, may you read it (cameras on Linux: group video), does another program use it?"
            )
        self.frame_rate = float(self._capture.get(cv2.CAP_PROP_FPS)) or 0.0

    def read(self) -> NDArray[np.uint8] | None:
        there, pixels = self._capture.read()
        if there:
            return np.asarray(pixels, np.uint8)
        log.warning(f"{self._label} gives no frame; opening it again for up to {self._patience:.0f} s")
        lost, pause = time.monotonic(), FIRST_BACK_OFF
        while not self._closed:
            if time.monotonic() - lost > self._patience:
                raise DataError(f"{self._label} sent no frame for {self._patience:.0f} s")
            self._capture.release()
            time.sleep(pause)
            pause = min(2 * pause, LAST_BACK_OFF)
            self._capture = self._opener()
            if not self._capture.isOpened():
                continue
            there, pixels = self._capture.read()
            if there:
                self.reconnections += 1
                log.warning(f"{self._label} is back after {time.monotonic() - lost:.1f} s")
                return np.asarray(pixels, np.uint8)
        return None

    def close(self) -> None:
        self._closed = True
        self._capture.release()


def open_camera(index: int | str, patience: float = 30.0) -> LiveSource:
    """A camera by number or device path (V4L2, GStreamer, Media Foundation or AVFoundation, as OpenCV finds it)."""

    def opener() -> cv2.VideoCapture:
        capture = cv2.VideoCapture(index)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # an old frame is worth nothing
        return capture

    return LiveSource(f"camera {index}", opener, patience)


def open_stream(url: str, patience: float = 30.0) -> LiveSource:
    """An RTSP or HTTP stream."""
    options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS]
    return LiveSource(url, lambda: cv2.VideoCapture(url, cv2.CAP_FFMPEG, options), patience)
