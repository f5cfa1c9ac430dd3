"""Results drawn into a video file."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_path, clipped, shown
from tinyseg.errors import DataError
from tinyseg.sinks.base import FrameResult, Sink
from tinyseg.sinks.target import Target

DEFAULT_FRAME_RATE = 30.0  # of videos from sources that do not tell theirs
DISK_CHECK_FRAMES = 30
DISK_RESERVE_BYTES = 64 << 20  # what a video needs to be finished properly
# Containers that OpenCV writes, and the codec in each.
CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}


def even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (H, W, 3) with its last row and column again where their number is odd.

    These codecs store colour for two by two pixels, and OpenCV would leave a row or column out without a word.
    """
    height, width = picture.shape[:2]
    if not (height % 2 or width % 2):
        return picture
    return np.asarray(cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)


class VideoTarget(Target):
    """A video while it grows: frames of one size, and room on the disk to finish it."""

    def __init__(self, path: Path, instead: str = "") -> None:
        """instead: what to say where a device or pipe is named. Raises DataError."""
        super().__init__(path)
        if self.streamed:
            raise DataError(f"{clipped(path)} is a device or pipe, and a video is written into a file{instead}")
        self.open().close()
        self._size: tuple[int, int] | None = None
        self._frames = 0

    def check(self, size: tuple[int, int]) -> None:
        """Before every frame of (width, height). Raises DataError where it has another size, or the disk is full."""
        # Writers do not tell when a disk is full, and a broken video cannot be mended.
        if self._frames % DISK_CHECK_FRAMES == 0 and self._free_bytes() < DISK_RESERVE_BYTES:
            raise DataError(
                f"{clipped(self.path)}: the disk is full but for {DISK_RESERVE_BYTES >> 20} MiB; the video so far is whole"
            )
        self._frames += 1
        self._size = self._size or size
        if size != self._size:
            raise DataError(f"{clipped(self.path)}: frames changed from {self._size} to {size}; a video has one size")

    def container(self) -> Path:
        """The temporary file, renamed to end as the video does: writers choose the container by that. Raises DataError."""
        assert self.temporary is not None
        renamed = self.temporary.with_name(self.temporary.name + self.path.suffix.lower())
        try:
            self.temporary.replace(renamed)
        except OSError as exc:
            raise self.failure(exc) from exc
        self.temporary = renamed
        return renamed

    def opencv_writer(self, rate: float, size: tuple[int, int]) -> cv2.VideoWriter:
        """OpenCV's writer of (width, height) BGR frames that :func:`even` made, for a path whose suffix is one of CODECS.

        Raises DataError.
        """
        code = CODECS[self.path.suffix.lower()]
        size = size[0] + size[0] % 2, size[1] + size[1] % 2  # see even()
        writer = cv2.VideoWriter(str(self.container()), cv2.VideoWriter.fourcc(*code), rate, size)
        if not writer.isOpened():
            raise DataError(
                f"{clipped(self.path)}: this build of OpenCV has no {code} encoder for {size[0]}x{size[1]} frames, or the "
                "folder cannot be written"
            )
        return writer

    def _free_bytes(self) -> int:
        try:
            return shutil.disk_usage(self.path.parent).free
        except OSError as exc:
            raise self.failure(exc) from exc


class VideoSink(Sink):
    """An MP4 with the masks drawn in. All frames must have one size; an odd one is made even by a row or column more."""

    def __init__(self, path: Path, frame_rate: float = 0.0) -> None:
        path = check_path("a video's name", path)
        if path.suffix.lower() not in CODECS:
            raise DataError(f"{clipped(path)}: videos are written as .mp4, .avi or .mkv")
        if not isinstance(frame_rate, (int, float)) or not 0 <= frame_rate < float("inf"):
            raise DataError(
                f"a video's frame_rate must be a number, 0 for {DEFAULT_FRAME_RATE:.0f}, not {shown(frame_rate)}"
            )
        self._target = VideoTarget(path, "; pipe --sink raw")
        self._rate = frame_rate or DEFAULT_FRAME_RATE
        self._writer: cv2.VideoWriter | None = None

    def write(self, result: FrameResult) -> None:
        picture = result.picture()
        size = (picture.shape[1], picture.shape[0])
        if self._writer is None:
            self._writer = self._target.opencv_writer(self._rate, size)
        self._target.check(size)
        self._writer.write(even(picture))

    def close(self) -> None:
        if self._writer is None:
            self._target.discard()
            return
        self._writer.release()
        self._writer = None
        self._target.finish()
