"""Frames of a video file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.sources.base import Source


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
