"""Results on the screen."""

from __future__ import annotations

import re

import cv2

from tinyseg.errors import DataError
from tinyseg.sinks.base import FrameResult, Sink


class WindowSink(Sink):
    """A window on the screen; q or Esc stops the loop."""

    TITLE = "tinyseg"

    def __init__(self) -> None:
        if re.search(r"^\s*GUI:\s*NONE", cv2.getBuildInformation(), re.MULTILINE):
            raise DataError(
                "this OpenCV has no windows (opencv-python-headless, which tinyseg installs); watch in a browser: --sink http, "
                "or replace it: pip uninstall -y opencv-python-headless && pip install opencv-python"
            )

    def write(self, result: FrameResult) -> bool:
        try:
            cv2.imshow(self.TITLE, result.picture())
            return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)
        except cv2.error as exc:
            raise DataError(
                "OpenCV opens no window here (is there a screen?); watch in a browser instead: --sink http"
            ) from exc

    def close(self) -> None:
        try:
            cv2.destroyAllWindows()
        except cv2.error:  # never had one
            return
