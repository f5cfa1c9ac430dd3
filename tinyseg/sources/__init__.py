"""Where frames come from: cameras, video files, streams, images, arrays, raw bytes, and drawn ones.

A source is an iterator of frames with a ``live`` flag and ``close()``; your own needs ``read()`` alone
(:class:`Source`). Live sources do not wait for anybody: :class:`tinyseg.Loop` drops what comes too fast and counts it.
Files wait, so that no frame is lost.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.images import SUFFIXES, find_images, read_image

# Waiting between attempts to open a live source again, in seconds: doubled each time up to the last.
FIRST_BACK_OFF, LAST_BACK_OFF = 0.25, 4.0
# How long FFmpeg may wait for a stream to open or to send before that counts as a failure.
NETWORK_TIMEOUT_MS = 5000


@dataclass(frozen=True)
class Frame:
    """One picture: (H, W, 3) or (H, W) uint8, its channel order, and when it was taken."""

    pixels: NDArray[np.uint8]
    index: int  # 0, 1, 2, ... as the source gave them; dropped frames leave gaps
    captured: float  # time.perf_counter() when it was there, seconds
    color: str = "bgr"
    name: str = ""  # the file it came from, if any


class Source(ABC):
    """A stream of frames. ``live`` ones do not wait; ``frame_rate`` is 0 where nobody knows."""

    live = False
    frame_rate = 0.0

    def __init__(self) -> None:
        self._count = 0

    @abstractmethod
    def read(self) -> NDArray[np.uint8] | None:
        """The next picture, None at the end. May wait. Called from one thread."""

    def next_frame(self) -> Frame | None:
        """The next frame with its number and time, None at the end."""
        pixels = self.read()
        if pixels is None:
            return None
        frame = Frame(pixels, self._count, time.perf_counter(), self.color, self.name)
        self._count += 1
        return frame

    @property
    def color(self) -> str:
        return "bgr"

    @property
    def name(self) -> str:
        """The name of what read() gave last, if it has one."""
        return ""

    def close(self) -> None:  # noqa: B027 - most sources hold nothing
        """Let go of devices and files; called once, also after an error."""


class ArraySource(Source):
    """Frames from any iterable of arrays."""

    def __init__(self, arrays: Iterable[NDArray[np.uint8]], color: str = "bgr", live: bool = False) -> None:
        super().__init__()
        self._arrays = iter(arrays)
        self._color = color
        self.live = live

    @property
    def color(self) -> str:
        return self._color

    def read(self) -> NDArray[np.uint8] | None:
        return next(self._arrays, None)


class SyntheticSource(Source):
    """A disk that moves over a gradient: the same pictures everywhere, for tests and benchmarks.

    frames: how many, None for no end. distinct: how many different pictures are drawn; then they repeat, so that
    drawing them costs nothing while the loop runs. frame_rate: pace in frames/s like a camera's, 0 as fast as asked.
    """

    def __init__(
        self,
        width: int,
        height: int,
        frames: int | None = None,
        *,
        distinct: int = 8,
        frame_rate: float = 0.0,
        live: bool = False,
    ) -> None:
        super().__init__()
        self.frame_rate = frame_rate
        self.live = live
        self._frames = frames
        self._pictures = [self.draw(width, height, i / distinct) for i in range(distinct)]
        self._given = 0
        self._due = time.perf_counter()

    @staticmethod
    def draw(width: int, height: int, phase: float) -> NDArray[np.uint8]:
        """The picture at a phase in [0, 1): the disk goes round once."""
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        frame = np.stack([60 + 60 * x / width, 80 + 60 * y / height, np.full_like(x, 90)], 2)
        angle = 2 * np.pi * phase
        cx, cy = width * (0.5 + 0.2 * np.cos(angle)), height * (0.5 + 0.2 * np.sin(angle))
        frame[np.hypot(x - cx, y - cy) < min(width, height) * 0.2] = (40, 120, 210)
        noise = np.random.default_rng(0).normal(0, 4, (height, width, 1))
        return np.clip(frame + noise, 0, 255).astype(np.uint8)

    def read(self) -> NDArray[np.uint8] | None:
        if self._frames is not None and self._given >= self._frames:
            return None
        if self.frame_rate:
            self._due += 1 / self.frame_rate
            time.sleep(max(0.0, self._due - time.perf_counter()))
        self._given += 1
        return self._pictures[(self._given - 1) % len(self._pictures)]


class ImageSource(Source):
    """Image files one after the other; their sizes may differ."""

    def __init__(self, patterns: Iterable[str]) -> None:
        super().__init__()
        self._paths = iter(find_images(patterns))
        self._name = ""

    @property
    def name(self) -> str:
        return self._name

    def read(self) -> NDArray[np.uint8] | None:
        path = next(self._paths, None)
        if path is None:
            return None
        self._name = str(path)
        return read_image(path)


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


class VideoFileSource(Source):
    """A video file, every frame of it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        if not path.is_file():
            raise DataError(f"there is no video file {path}")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise DataError(f"{path} is not a video that this build of OpenCV reads")
        self.frame_rate = float(self._capture.get(cv2.CAP_PROP_FPS)) or 0.0

    def read(self) -> NDArray[np.uint8] | None:
        there, pixels = self._capture.read()
        return np.asarray(pixels, np.uint8) if there else None

    def close(self) -> None:
        self._capture.release()


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


SYNTHETIC = re.compile(r"synthetic:(\d+)x(\d+)(?::(\d+))?$")
SOURCE_HELP = (
    "a camera number or /dev/video path, an rtsp:// or http:// url, a video file, an image, folder or glob, "
    "'-' for raw frames on stdin, or synthetic:WIDTHxHEIGHT[:FRAMES]"
)


def open_source(
    text: str, stdin: BinaryIO | None = None, raw_size: tuple[int, int] = (0, 0), raw_color: str = "bgr"
) -> Source:
    """Open what a user names on the command line. Raises DataError."""
    synthetic = SYNTHETIC.match(text)
    if synthetic:
        width, height, frames = synthetic.groups()
        if int(width) < 1 or int(height) < 1:
            raise DataError(f"{text}: width and height must be positive")
        return SyntheticSource(int(width), int(height), int(frames) if frames else None)
    if text == "-":
        if stdin is None:
            raise DataError("there is no standard input to read raw frames from")
        return RawSource(stdin, *raw_size, raw_color)
    if text.isdigit():
        return open_camera(int(text))
    if text.startswith("/dev/video"):
        return open_camera(text)
    if re.match(r"(rtsp|rtsps|http|https|udp|tcp)://", text):
        return open_stream(text)
    path = Path(text)
    if path.is_dir() or path.suffix.lower() in SUFFIXES or any(c in text for c in "*?["):
        return ImageSource([text])
    if path.exists():
        return VideoFileSource(path)
    raise DataError(f"{text!r} is no source; give {SOURCE_HELP}")
