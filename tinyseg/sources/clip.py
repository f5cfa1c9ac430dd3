"""Frames of a finished video by number, read when they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_path, clipped, path_kind
from tinyseg.errors import DataError
from tinyseg.images import find_images, read_image

KEPT_FRAMES = (
    32  # decoded ones of a video file, so that going backwards decodes each frame about twice, not a file a frame
)


class Clip:
    """A video file or a folder of images as a sequence of (H, W, 3) BGR frames of one size.

    Images are ordered by the number that is their name, as SAM 2 wants them, or else by name. At most 32 frames are held.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises DataError."""
        self.path = check_path("a video's name", path)
        self._capture: Any = None
        self._files: list[Path] = []
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        if path_kind(self.path) == "folder":
            self._files = find_images([str(self.path)])
            if all(f.stem.isdigit() for f in self._files):
                self._files.sort(key=lambda f: int(f.stem))
            self._count = len(self._files)
        else:
            if path_kind(self.path) is None:
                raise DataError(f"there is no video {clipped(self.path)}; give a video file or a folder of images")
            self._capture = cv2.VideoCapture(str(self.path))
            stated = self._capture.get(cv2.CAP_PROP_FRAME_COUNT) if self._capture.isOpened() else 0
            if not 0 < stated < 1e9:
                raise DataError(f"{clipped(self.path)} is not a video whose frames this build of OpenCV can count")
            self._count = int(stated)
        first = self._read(0)
        self.height, self.width = int(first.shape[0]), int(first.shape[1])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        """Frame ``number``, from 0. Raises IndexError, DataError."""
        if not 0 <= number < self._count:
            raise IndexError(f"frame {number} of {self._count}")
        frame = self._read(number)
        height, width = frame.shape[:2]
        if (width, height) != (self.width, self.height):
            name = f"{number} ({self._files[number].name:.80})" if self._files else str(number)
            raise DataError(
                f"{clipped(self.path)}: frame {name} has {width} x {height} pixels, but the first one has "
                f"{self.width} x {self.height}; resize it, and open the video again"
            )
        return frame

    def _read(self, number: int) -> NDArray[np.uint8]:
        if self._files:
            return read_image(self._files[number])
        if number not in self._kept:
            self._decode(number)
        return self._kept[number]

    def _decode(self, number: int) -> None:
        """Decode up to a frame: onwards if it comes soon, else from somewhat before it, for callers who go backwards."""
        at = int(self._capture.get(cv2.CAP_PROP_POS_FRAMES))
        if not at <= number < at + KEPT_FRAMES:
            at = max(0, number - KEPT_FRAMES + 1)
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, at)
        for i in range(at, number + 1):
            there, pixels = self._capture.read()
            if not there:
                raise DataError(f"{clipped(self.path)}: frame {i} cannot be decoded")
            self._kept[i] = np.asarray(pixels, np.uint8)
            self._kept.move_to_end(i)
            if len(self._kept) > KEPT_FRAMES:
                self._kept.popitem(last=False)

    def close(self) -> None:
        """Let go of the file."""
        if self._capture is not None:
            self._capture.release()
        self._kept.clear()
