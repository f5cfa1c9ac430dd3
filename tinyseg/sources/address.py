"""Addresses of cameras: ``v4l2:///dev/video0?size=1280x720&fps=60&format=MJPG&gain=4``, ``csi://0``, ``picamera2:0``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from tinyseg.arguments import parse_size, shown
from tinyseg.errors import DataError, InputError
from tinyseg.pixels import MAX_SIDE

SCHEMES = ("v4l2", "csi", "picamera2")
MOST_FPS = 1000.0
MOST_CONTROLS = 64


@dataclass(frozen=True)
class CameraAddress:
    """A camera, and how it shall film; None: as the camera likes.

    place: a device path (v4l2) or a number. size: (width, height) in pixels. fps: frames/s. format: the driver's name of the
    pixel format, such as MJPG or YUYV. controls: everything else, by the names that the driver gives: brightness, gain, ...
    """

    scheme: str
    place: str
    size: tuple[int, int] | None = None
    fps: float | None = None
    format: str | None = None
    controls: dict[str, str] = field(default_factory=dict)


def parse_address(text: str) -> CameraAddress:
    """Take an address apart. Raises DataError that says which part is wrong."""
    scheme, _, rest = text.partition(":")
    place, _, query = rest.removeprefix("//").partition("?")
    if scheme == "v4l2":
        if not place.startswith("/"):
            raise DataError(
                f"a V4L2 camera is a device, such as v4l2:///dev/video0, but {shown(text)} names {shown(place)}"
            )
    elif not (place.isascii() and place.isdigit() and len(place) <= 4):
        raise DataError(
            f"{scheme} cameras have numbers, such as {'csi://0' if scheme == 'csi' else 'picamera2:0'}, not {shown(place)}"
        )
    try:
        pairs = (
            parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=MOST_CONTROLS) if query else []
        )
    except ValueError as exc:
        raise DataError(
            f"what follows ? in {shown(text)} must be name=value, several joined by &, such as ?size=1280x720&fps=30 "
            "(on a command line in quotes)"
        ) from exc
    size, fps, format_, controls = None, None, None, {}
    seen = set()
    for name, value in pairs:
        if name in seen or not value:
            raise DataError(f"{name} must be given once and have a value in {shown(text)}")
        seen.add(name)
        if name == "size":
            try:
                size = parse_size("size", value, MAX_SIDE)
            except InputError as exc:
                raise DataError(str(exc)) from exc
        elif name == "fps":
            fps = _fps(value)
        elif name == "format":
            if not (value.isascii() and value.isprintable() and len(value) <= 16):
                raise DataError(f"format must be a pixel format's name, such as MJPG or YUYV, but is {shown(value)}")
            format_ = value.upper()
        else:
            controls[name] = value
    return CameraAddress(scheme, place, size, fps, format_, controls)


def _fps(text: str) -> float:
    """A rate in frames/s, also as a fraction (30000/1001)."""
    top, slash, bottom = text.partition("/")
    try:
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not 0 < value <= MOST_FPS:
        raise DataError(f"fps must be a number of frames a second, {MOST_FPS:.0f} at most, but is {shown(text)}")
    return value
