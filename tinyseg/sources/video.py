"""Frames of a video file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_path, clipped, path_kind
from tinyseg.errors import DataError
from tinyseg.sources.base import Source
from tinyseg.sources.opencv import SharedCapture

# Failed reads in a row after which a file whose length nobody knows has ended, and the most that any file may have.
FAILURES_AT_END, MOST_FAILURES = 30, 100_000
# A whole file may end before the length that it states: an edit list that starts between key frames, a length estimated
# from a rate that varies. AVI counts its frames.
TOLERATED_SECONDS, TOLERATED_SECONDS_AVI = 0.5, 0.05


class VideoFileSource(Source):
    """A video file, every frame of it that can be decoded.

    A frame that cannot be decoded is passed over and counted; the file has ended where its own length says so, or, where
    it states none, after several failures in a row. What is missing then (a file that was cut off) counts as damaged too.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        path = check_path("a video's name", path)
        if path_kind(path) not in ("file", "other"):
            raise DataError(f"there is no video file {clipped(path)}")
        try:
            with path.open("rb"):  # OpenCV does not tell why it cannot
                pass
        except OSError as exc:
            raise DataError(f"{clipped(path)} cannot be read: {exc.strerror or exc}") from exc
        self._path = path
        capture = cv2.VideoCapture(str(path))
        if not capture.isOpened():
            raise DataError(f"{clipped(path)} is not a video that this build of OpenCV reads")
        self._capture = SharedCapture(capture)
        self.frame_rate = _positive(self._capture.get(cv2.CAP_PROP_FPS))
        self._stated = int(_positive(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))  # 0: unknown
        self._given = 0
        self._time = 0.0  # of the last frame, seconds from the start

    @property
    def stated_frames(self) -> int:
        """How many frames the file says it has, before it was read to its end; 0 where it does not say."""
        return self._stated

    def read(self) -> NDArray[np.uint8] | None:
        failures = 0
        while failures < self._patience():
            try:
                pixels = self._capture.read()
            except (cv2.error, MemoryError) as exc:
                raise DataError(f"{clipped(self._path)} cannot be decoded: {exc}") from exc
            if pixels is not None:
                if failures:
                    # A decoder that works ahead fails a frame or two before the damaged one is due.
                    many = "a frame" if failures == 1 else f"{failures} frames"
                    near = self._given + self.damaged
                    self.pass_over(
                        f"{clipped(self._path)}: {many} near frame {near} cannot be decoded; passed over", failures
                    )
                self._given += 1
                self._time = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
                return pixels
            if self._capture.released:  # closed: nothing is missing
                return None
            failures += 1
        missing = self._stated - self._given - self.damaged
        if missing > 0 and self._given and (self.damaged or self._ended_early()):
            self.pass_over(
                f"{clipped(self._path)}: the last {missing} of the {self._stated} frames that it states are missing or "
                "cannot be decoded",
                missing,
            )
        self._stated = 0
        return None

    def _ended_early(self) -> bool:
        if not self.frame_rate:
            return False
        tolerated = TOLERATED_SECONDS_AVI if self._path.suffix.lower() == ".avi" else TOLERATED_SECONDS
        return (self._stated - 1) / self.frame_rate - self._time > tolerated

    def _patience(self) -> int:
        """Failures in a row that may come before the file has ended."""
        if self._stated == 0:
            return FAILURES_AT_END
        return min(max(self._stated - self._given - self.damaged, 1), MOST_FAILURES)

    def close(self) -> None:
        self._capture.release()


def _positive(value: float) -> float:
    """What a container states, 0 where it states nonsense (NaN, negative, more than anybody films)."""
    return float(value) if 0 < value < 1e9 else 0.0
