"""Where answers go: a window, a video, pictures, JSON lines, raw masks, your own function, or nowhere.

A sink needs one method, ``write(result)``; :class:`Sink` gives the rest. Files appear whole under their name when the
sink is closed, also after an error or Ctrl-C.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.draw import overlay
from tinyseg.errors import DataError, InputError
from tinyseg.images import write_image
from tinyseg.masks import Masks, encode_rle
from tinyseg.pixels import check_frame
from tinyseg.prompts import Prompt
from tinyseg.sources import Frame

DEFAULT_FRAME_RATE = 30.0  # of videos from sources that do not tell theirs
DISK_CHECK_FRAMES = 30
DISK_RESERVE_BYTES = 64 << 20  # what a video needs to be finished properly


@dataclass(frozen=True)
class FrameResult:
    """One frame and its answers, one ``Masks`` for every prompt.

    ``answers[i].masks`` lie in buffers that are used again: copy what you keep after ``write`` returns.
    """

    frame: Frame
    prompts: tuple[Prompt, ...]
    answers: list[Masks]
    latency_ms: float  # from the frame being there to its masks being there

    def picture(self) -> NDArray[np.uint8]:
        """The frame (H, W, 3) BGR with masks and prompts drawn over it."""
        layout = check_frame(self.frame.pixels, self.frame.color)
        pixels = layout.pixels[..., :3] if layout.bgr else layout.pixels[..., 2::-1]
        bgr = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
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
        self._function = function

    def write(self, result: FrameResult) -> bool | None:
        return self._function(result)


class WindowSink(Sink):
    """A window on the screen; q or Esc stops the loop."""

    TITLE = "tinyseg"

    def write(self, result: FrameResult) -> bool:
        try:
            cv2.imshow(self.TITLE, result.picture())
            return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)
        except cv2.error as exc:
            raise DataError(
                "this build of OpenCV opens no window (or there is no screen); replace opencv-python-headless by "
                "opencv-python: pip uninstall opencv-python-headless && pip install opencv-python"
            ) from exc

    def close(self) -> None:
        try:
            cv2.destroyAllWindows()
        except cv2.error:  # never had one
            return


class VideoSink(Sink):
    """An MP4 with the masks drawn in. All frames must have one size."""

    def __init__(self, path: Path, frame_rate: float = 0.0) -> None:
        if path.suffix.lower() not in (".mp4", ".avi", ".mkv"):
            raise DataError(f"{path}: videos are written as .mp4, .avi or .mkv")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._rate = path, frame_rate or DEFAULT_FRAME_RATE
        self._part = path.with_name(f".{path.stem}.part{path.suffix}")
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._frames = 0

    def write(self, result: FrameResult) -> None:
        picture = result.picture()
        size = (picture.shape[1], picture.shape[0])
        if self._writer is None:
            code = "MJPG" if self._path.suffix.lower() == ".avi" else "mp4v"
            writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter.fourcc(*code), self._rate, size)
            if not writer.isOpened():
                raise DataError(
                    f"{self._path}: this build of OpenCV has no {code} encoder, or the folder cannot be written"
                )
            self._writer, self._size = writer, size
        # OpenCV does not tell when a disk is full, and a broken video cannot be mended.
        if self._frames % DISK_CHECK_FRAMES == 0 and shutil.disk_usage(self._path.parent).free < DISK_RESERVE_BYTES:
            raise DataError(
                f"{self._path}: the disk is full but for {DISK_RESERVE_BYTES >> 20} MiB; the video so far is whole"
            )
        self._frames += 1
        if size != self._size:
            raise DataError(f"{self._path}: frames changed from {self._size} to {size}; a video has one size")
        self._writer.write(picture)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()
            self._part.replace(self._path)


class PngSink(Sink):
    """A folder of pictures with the masks drawn in: 000000.png, ..."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, result: FrameResult) -> None:
        write_image(self._folder / f"{result.frame.index:06d}.png", result.picture())


class JsonLinesSink(Sink):
    """One JSON line a frame: COCO RLE, box, area and score of every object. A full disk loses no line that was there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._whole = 0  # bytes of complete lines
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb", buffering=0)
        except OSError as exc:
            raise DataError(f"{path} cannot be written: {exc.strerror or exc}") from exc

    def write(self, result: FrameResult) -> None:
        objects = []
        for answer in result.answers:
            x0, y0, x1, y1 = answer.boxes[answer.best].tolist()
            objects.append(
                {
                    "segmentation": encode_rle(answer.masks[answer.best]), "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(answer.areas[answer.best]), "score": round(float(answer.scores[answer.best]), 4),
                }
            )  # fmt: skip
        row = {"frame": result.frame.index, "name": result.frame.name, "objects": objects}
        line = (json.dumps({**row, "latency_ms": round(result.latency_ms, 3)}) + "\n").encode()
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as exc:
            raise DataError(f"{self._path}: {exc.strerror or exc}; the lines before are whole") from exc
        self._whole += len(line)

    def close(self) -> None:
        self._file.truncate(self._whole)
        self._file.close()
        self._part.replace(self._path)


class RawSink(Sink):
    """Raw masks to a binary stream: for every object of every frame H x W bytes, 0 or 255."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, result: FrameResult) -> None:
        try:
            for answer in result.answers:
                self._stream.write((answer.masks[answer.best].view(np.uint8) * np.uint8(255)).data)
            self._stream.flush()
        except BrokenPipeError:  # the reader has enough; the command line ends quietly
            raise
        except OSError as exc:
            raise DataError(f"raw masks cannot be written: {exc.strerror or exc}") from exc


SINK_HELP = "null, window, video:FILE.mp4, png:FOLDER, jsonl:FILE, or raw (masks on standard output)"


def open_sink(text: str, frame_rate: float = 0.0, stdout: BinaryIO | None = None) -> Sink:
    """Open what a user names on the command line. Raises InputError or DataError."""
    kind, _, rest = text.partition(":")
    if (kind in ("null", "window", "raw")) != (not rest):
        raise InputError(f"{text!r} is no sink; give {SINK_HELP}")
    if kind == "null":
        return NullSink()
    if kind == "window":
        return WindowSink()
    if kind == "video":
        return VideoSink(Path(rest), frame_rate)
    if kind == "png":
        return PngSink(Path(rest))
    if kind == "jsonl":
        return JsonLinesSink(Path(rest))
    if kind == "raw":
        if stdout is None:
            raise InputError("there is no standard output to write raw masks to")
        return RawSink(stdout)
    raise InputError(f"{text!r} is no sink; give {SINK_HELP}")
