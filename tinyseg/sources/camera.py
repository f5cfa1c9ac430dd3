"""Cameras and network streams, opened again when they go away."""

from __future__ import annotations

import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError, NotInstalled
from tinyseg.sources.address import CameraAddress
from tinyseg.sources.base import Source, log
from tinyseg.sources.opencv import SharedCapture
from tinyseg.sources.v4l2 import choose_mode, fourcc, lasting_path, occupy, set_controls

# Waiting between attempts to open a live source again, in seconds: doubled each time up to the last.
FIRST_BACK_OFF, LAST_BACK_OFF = 0.25, 4.0

# How long FFmpeg may wait for a stream to open or to send before that counts as a failure.
NETWORK_TIMEOUT_MS = 5000

# A time stamp that is older than this, or lies in the future, is of another clock.
OLDEST_FRAME = 10.0


class Capture(ABC):
    """A camera or stream that is open. What opens one raises DataError where it does not open."""

    frame_rate = 0.0  # frames/s, 0 where nobody knows

    @abstractmethod
    def read(self) -> tuple[NDArray[np.uint8], float] | None:
        """The next BGR frame (H, W, 3) and when it was taken (:attr:`Frame.captured`); None where there is none any more.

        Waits a few seconds at most.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the device; from any thread, also more than once."""


class OpenCVCapture(Capture):
    """What OpenCV opens. stamped: its position is the driver's time stamp, in ms on the monotonic clock (V4L2)."""

    def __init__(self, label: str, capture: cv2.VideoCapture, stamped: bool = False) -> None:
        """Raises DataError for a capture that is not open."""
        if not capture.isOpened():
            raise DataError(
                f"{label} does not open; is it there, may you read it (cameras on Linux: group video), does another program use it?"
            )
        self._capture, self._stamped = SharedCapture(capture), stamped
        self.frame_rate = float(capture.get(cv2.CAP_PROP_FPS)) or 0.0

    def read(self) -> tuple[NDArray[np.uint8], float] | None:
        try:
            pixels = self._capture.read()
        except cv2.error as exc:
            raise DataError(f"a frame cannot be decoded: {exc}") from exc
        if pixels is None:
            return None
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3 if self._stamped else None
        return pixels, believed(stamp)

    def close(self) -> None:
        self._capture.release()


def believed(stamp: float | None) -> float:
    """A driver's time stamp, seconds on the clock of time.perf_counter(); now, if there is none or it cannot be true."""
    now = time.perf_counter()
    return stamp if stamp is not None and 0 <= now - stamp < OLDEST_FRAME else now


class LiveSource(Source):
    """A camera or network stream: opened again, with growing pauses, when it goes away.

    opener: makes the capture, which may be open already. patience: seconds without a frame after which it counts as gone
    for good and DataError is raised. reconnections counts how often it came back.
    """

    live = True

    def __init__(
        self, label: str, opener: Callable[[], Capture], patience: float = 30.0, capture: Capture | None = None
    ) -> None:
        super().__init__()
        self._label, self._opener, self._patience = label, opener, patience
        self._closed = False
        self._captured = 0.0
        self.reconnections = 0
        self._capture = opener() if capture is None else capture
        self.frame_rate = self._capture.frame_rate

    @property
    def captured(self) -> float:
        return self._captured

    def read(self) -> NDArray[np.uint8] | None:
        taken, why = self._take()
        if taken is None and not self._closed:
            taken = self._come_back(why)
        if taken is None:
            return None
        pixels, self._captured = taken
        return pixels

    def _take(self) -> tuple[tuple[NDArray[np.uint8], float] | None, str]:
        """The next frame, or why there is none."""
        try:
            return self._capture.read(), ""
        except DataError as exc:
            return None, f": {exc}"

    def _come_back(self, why: str) -> tuple[NDArray[np.uint8], float] | None:
        log.warning(f"{self._label} gives no frame{why}; opening it again for up to {self._patience:.0f} s")
        lost, pause = time.monotonic(), FIRST_BACK_OFF
        while not self._closed:
            if time.monotonic() - lost > self._patience:
                raise DataError(f"{self._label} sent no frame for {self._patience:.0f} s{why}")
            self._capture.close()
            time.sleep(pause)
            pause = min(2 * pause, LAST_BACK_OFF)
            try:
                self._capture = self._opener()
            except DataError as exc:
                why = f": {exc}"
                continue
            if self._closed:
                self._capture.close()
                return None
            taken, reason = self._take()
            why = reason or why
            if taken is not None:
                self.reconnections += 1
                log.warning(f"{self._label} is back after {time.monotonic() - lost:.1f} s")
                return taken
        return None

    def close(self) -> None:
        self._closed = True
        self._capture.close()


def open_camera(index: int | str, patience: float = 30.0) -> LiveSource:
    """A camera by number or device path: V4L2 on Linux, elsewhere as OpenCV finds it (Media Foundation, AVFoundation)."""
    if sys.platform.startswith("linux"):
        path = f"/dev/video{index}" if isinstance(index, int) else index
        return open_v4l2(CameraAddress("v4l2", path), patience)

    def opener() -> Capture:
        capture = cv2.VideoCapture(index)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # an old frame is worth nothing
        return OpenCVCapture(f"camera {index}", capture)

    return LiveSource(f"camera {index}", opener, patience)


def open_v4l2(address: CameraAddress, patience: float = 30.0) -> LiveSource:
    """A V4L2 camera (Linux) in a mode that it offers, with its controls set.

    Raises DataError for a device that is missing, busy, no camera or not the user's, and for a mode, a control or a value
    that it does not offer; the message lists what it does offer.
    """
    if not sys.platform.startswith("linux"):
        raise DataError("v4l2:// names cameras on Linux; here a camera is named by its number")
    path = lasting_path(address.place)

    def opener() -> Capture:
        mode = choose_mode(path, address.size, address.fps, address.format)
        set_controls(path, address.controls)
        occupy(path)
        parameters = [cv2.CAP_PROP_BUFFERSIZE, 2]
        if mode is not None:
            wanted = cv2.VideoWriter.fourcc(*mode.format.ljust(4))
            parameters += [cv2.CAP_PROP_FOURCC, wanted]
            parameters += [cv2.CAP_PROP_FRAME_WIDTH, mode.width, cv2.CAP_PROP_FRAME_HEIGHT, mode.height]
            if address.fps is not None or mode.fps:
                parameters += [cv2.CAP_PROP_FPS, round(address.fps or mode.fps)]
        capture = cv2.VideoCapture(path, cv2.CAP_V4L2, parameters)
        opened = OpenCVCapture(f"camera {path}", capture, stamped=True)
        _check_mode(path, capture, address)
        if opened.read() is None:  # what a driver refuses only when it starts
            opened.close()
            raise DataError(
                f"camera {path} opens but gives no frame: the USB bus may have no room left (ask for a smaller size or rate, for "
                "format=MJPG, or use another port), or the cable is loose"
            )
        return opened

    return LiveSource(f"camera {path}", opener, patience)


def _check_mode(path: str, capture: cv2.VideoCapture, address: CameraAddress) -> None:
    """Drivers answer with what they can instead of refusing: what was asked for by name must be there."""
    size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    given = fourcc(int(capture.get(cv2.CAP_PROP_FOURCC)))
    if (address.size and size != address.size) or (address.format and given != address.format):
        capture.release()
        wanted = " ".join(str(p) for p in (address.format, "x".join(map(str, address.size or ()))) if p)
        raise DataError(
            f"camera {path} was asked for {wanted} and gives {given} {size[0]}x{size[1]}; leave that part out, or name a mode "
            f"that `tinyseg cameras {path}` lists"
        )


def shown_url(url: str) -> str:
    """A url without user, password and query, which often hold secrets."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return re.sub(r"//.*@", "//", url.partition("?")[0])
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def open_stream(url: str, patience: float = 30.0) -> LiveSource:
    """An RTSP or HTTP stream, through FFmpeg inside OpenCV."""
    label = shown_url(url)

    def opener() -> Capture:
        waits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, [n for wait in waits for n in (wait, NETWORK_TIMEOUT_MS)])
        if not capture.isOpened():
            raise DataError(
                f"{label} does not open within {NETWORK_TIMEOUT_MS / 1e3:.0f} s; is the server up, are address, user and password "
                "right, does it send H.264 or another codec that FFmpeg reads?"
            )
        return OpenCVCapture(label, capture)

    if not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
        raise NotInstalled(
            f"this OpenCV was built without FFmpeg and reads no {label.partition(':')[0]} streams; install the one of PyPI "
            f"(pip install opencv-python-headless), or use GStreamer: 'gst:rtspsrc location={label} ! decodebin'"
        )
    return LiveSource(label, opener, patience)
