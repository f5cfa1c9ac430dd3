"""Results on the screen."""

from __future__ import annotations

import cv2

from tinyseg.errors import DataError
from tinyseg.sinks.base import FrameResult, Sink


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
