"""Results drawn into a video file."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2

from tinyseg.arguments import check_path, clipped, shown
from tinyseg.errors import DataError
from tinyseg.sinks.base import FrameResult, Sink
from tinyseg.sinks.target import Target

DEFAULT_FRAME_RATE = 30.0  # of videos from sources that do not tell theirs
DISK_CHECK_FRAMES = 30
DISK_RESERVE_BYTES = 64 << 20  # what a video needs to be finished properly
SUFFIXES = (".mp4", ".avi", ".mkv")


class VideoSink(Sink):
    """An MP4 with the masks drawn in. All frames must have one size."""

    def __init__(self, path: Path, frame_rate: float = 0.0) -> None:
        path = check_path("a video's name", path)
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"{clipped(path)}: videos are written as .mp4, .avi or .mkv")
        if not isinstance(frame_rate, (int, float)) or not 0 <= frame_rate < float("inf"):
            raise DataError(
                f"a video's frame_rate must be a number, 0 for {DEFAULT_FRAME_RATE:.0f}, not {shown(frame_rate)}"
            )
        self._target = Target(path)
        if self._target.streamed:
            raise DataError(f"{clipped(path)} is a device or pipe, and a video is written into a file; pipe --sink raw")
        self._path, self._rate = path, frame_rate or DEFAULT_FRAME_RATE
        self._target.open().close()
        self._part: Path | None = None
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._frames = 0

    def write(self, result: FrameResult) -> None:
        picture = result.picture()
        size = (picture.shape[1], picture.shape[0])
        if self._writer is None:
            self._writer, self._size = self._open(size), size
        # OpenCV does not tell when a disk is full, and a broken video cannot be mended.
        if self._frames % DISK_CHECK_FRAMES == 0 and self._free_bytes() < DISK_RESERVE_BYTES:
            raise DataError(
                f"{clipped(self._path)}: the disk is full but for {DISK_RESERVE_BYTES >> 20} MiB; the video so far is whole"
            )
        self._frames += 1
        if size != self._size:
            raise DataError(f"{clipped(self._path)}: frames changed from {self._size} to {size}; a video has one size")
        self._writer.write(picture)

    def _open(self, size: tuple[int, int]) -> cv2.VideoWriter:
        """OpenCV chooses the container by the suffix, so its file is the temporary one with a suffix."""
        suffix = self._path.suffix.lower()
        code = "MJPG" if suffix == ".avi" else "mp4v"
        assert self._target.temporary is not None
        renamed = self._target.temporary.with_name(self._target.temporary.name + suffix)
        try:
            self._target.temporary.replace(renamed)
        except OSError as exc:
            raise self._target.failure(exc) from exc
        self._target.temporary = renamed
        writer = cv2.VideoWriter(str(renamed), cv2.VideoWriter.fourcc(*code), self._rate, size)
        if not writer.isOpened():
            raise DataError(
                f"{clipped(self._path)}: this build of OpenCV has no {code} encoder for {size[0]}x{size[1]} frames, or the folder "
                "cannot be written"
            )
        return writer

    def _free_bytes(self) -> int:
        try:
            return shutil.disk_usage(self._path.parent).free
        except OSError as exc:
            raise self._target.failure(exc) from exc

    def close(self) -> None:
        if self._writer is None:
            self._target.discard()
            return
        self._writer.release()
        self._writer = None
        self._target.finish()
