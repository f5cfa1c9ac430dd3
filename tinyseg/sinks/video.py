"""Results drawn into a video file."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2

from tinyseg.errors import DataError
from tinyseg.sinks.base import FrameResult, Sink

DEFAULT_FRAME_RATE = 30.0  # of videos from sources that do not tell theirs

DISK_CHECK_FRAMES = 30

DISK_RESERVE_BYTES = 64 << 20  # what a video needs to be finished properly


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
