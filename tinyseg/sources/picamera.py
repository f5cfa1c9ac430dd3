"""A Raspberry Pi's cameras through picamera2."""

from __future__ import annotations

import math
import re
import time
from concurrent.futures import TimeoutError as FutureTimeout  # the built-in one from Python 3.11 on
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError, NotInstalled
from tinyseg.sources.address import CameraAddress
from tinyseg.sources.camera import Capture, LiveSource, believed

USUAL_SIZE = (1280, 720)
SILENT_SECONDS = 5.0  # without a frame, after which the camera has failed
BUFFERS = 3  # one films, one waits, one is read
NUMBER = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")


class PicameraCapture(Capture):
    """A camera that picamera2 runs. Its "RGB888" is blue, green, red in memory, as OpenCV's frames are."""

    def __init__(self, address: CameraAddress) -> None:
        """Raises DataError for a camera or control that is not there, NotInstalled without picamera2."""
        try:
            from picamera2 import Picamera2  # noqa: PLC0415 - on a Raspberry Pi alone
        except ImportError as exc:
            raise NotInstalled(
                f"picamera2 is not installed ({exc}): sudo apt-get install python3-picamera2 (not pip: it must fit the system's "
                "libcamera), in an environment made with python3 -m venv --system-site-packages"
            ) from exc
        known = len(Picamera2.global_camera_info())
        if int(address.place) >= known:
            raise DataError(
                f"there is no camera picamera2:{address.place}; libcamera knows {known} (rpicam-hello --list-cameras)"
            )
        if address.format not in (None, "RGB888"):
            raise DataError(f"picamera2 cameras are read as RGB888, not {address.format}; leave format out")
        try:
            self._camera = Picamera2(int(address.place))
        except RuntimeError as exc:
            raise DataError(
                f"camera picamera2:{address.place} does not open: {exc}; does another program use it?"
            ) from exc
        try:
            self._start(address)
        except BaseException:
            self._camera.close()
            raise

    def _start(self, address: CameraAddress) -> None:
        controls: dict[str, Any] = {name: self._checked(name, text) for name, text in address.controls.items()}
        if address.fps is not None:
            controls["FrameRate"] = self.frame_rate = address.fps
        try:
            self._camera.configure(
                self._camera.create_video_configuration(
                    main={"size": address.size or USUAL_SIZE, "format": "RGB888"},
                    controls=controls,
                    buffer_count=BUFFERS,
                    queue=False,  # the next frame, not one that was ready before it was asked for
                )
            )
            self._camera.start()
        except (RuntimeError, ValueError) as exc:
            raise DataError(f"camera picamera2:{address.place} does not start as asked: {exc}") from exc

    def _checked(self, name: str, text: str) -> float | bool:
        """A control's value. Raises DataError for what the camera does not have or take."""
        offered = self._camera.camera_controls
        if name not in offered:
            raise DataError(f"this camera has no control {name!r}; it has: {', '.join(sorted(offered))}")
        least, most, _ = offered[name]
        if isinstance(least, bool) and text.lower() in ("0", "1", "true", "false"):
            return text.lower() in ("1", "true")
        value = float(text) if NUMBER.fullmatch(text) else math.nan
        if not least <= value <= most:
            raise DataError(f"{name} must be a number from {least} to {most}, but is {text!r}")
        return int(value) if isinstance(least, int) else value

    def read(self) -> tuple[NDArray[np.uint8], float] | None:
        try:
            request = self._camera.capture_request(wait=SILENT_SECONDS)
        except (RuntimeError, FutureTimeout) as exc:
            raise DataError(f"the camera stopped: {exc or 'it gives no frames'}") from exc
        try:
            pixels = np.ascontiguousarray(request.make_array("main")[:, :, :3], np.uint8)
            stamp = request.get_metadata().get("SensorTimestamp")  # nanoseconds since the board started
        finally:
            request.release()
        if stamp is None:
            return pixels, believed(None)
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - stamp / 1e9
        return pixels, believed(time.perf_counter() - age)

    def close(self) -> None:
        self._camera.close()


def open_picamera(address: CameraAddress, patience: float = 30.0) -> LiveSource:
    """A camera of a Raspberry Pi by its number; controls by libcamera's names (ExposureTime, AnalogueGain, AfMode, ...)."""
    return LiveSource(f"camera picamera2:{address.place}", lambda: PicameraCapture(address), patience)
