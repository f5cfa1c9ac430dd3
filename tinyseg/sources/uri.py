"""What a user names on the command line -> a source."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

import numpy as np

from tinyseg.arguments import check_path, check_whole, parse_whole, path_kind, shown
from tinyseg.errors import DataError
from tinyseg.images import SUFFIXES
from tinyseg.sources.address import SCHEMES, parse_address
from tinyseg.sources.base import Source
from tinyseg.sources.camera import open_camera, open_stream, open_v4l2
from tinyseg.sources.folder import ImageSource
from tinyseg.sources.gstreamer import open_csi, open_pipeline
from tinyseg.sources.picamera import open_picamera
from tinyseg.sources.raw import RawSource
from tinyseg.sources.synthetic import SyntheticSource
from tinyseg.sources.video import VideoFileSource

SYNTHETIC = re.compile(r"synthetic:([0-9]{1,18})x([0-9]{1,18})(?::([0-9]{1,18}))?")
LAST_CAMERA = 9999  # OpenCV adds the number of a back end times 100 to it

SOURCE_HELP = (
    "a camera (number, /dev/video path, 'v4l2:///dev/video0?size=1280x720&fps=30&format=MJPG', csi://0, picamera2:0), an rtsp:// "
    "or http:// url, 'gst:PIPELINE', a video file, an image, folder or glob (or file:PATH), '-' for raw frames on stdin, or "
    "synthetic:WIDTHxHEIGHT[:FRAMES]"
)


def open_source(
    text: str | Path | int,
    stdin: BinaryIO | None = None,
    raw_size: tuple[int, int] = (0, 0),
    raw_color: str = "bgr",
) -> Source:
    """Open what a user names on the command line; a camera may be its number, a file a Path. Raises DataError."""
    if isinstance(text, (int, np.integer)) and not isinstance(text, bool):
        return open_camera(check_whole("a camera's number", text, 0, LAST_CAMERA, DataError))
    path = check_path("a source", text)
    text = text if isinstance(text, str) else os.fspath(path)
    synthetic = SYNTHETIC.fullmatch(text)
    if synthetic:
        width, height, frames = synthetic.groups()
        return SyntheticSource(int(width), int(height), int(frames) if frames else None)
    if text == "-":
        if stdin is None:
            raise DataError("there is no standard input to read raw frames from")
        if not isinstance(raw_size, (tuple, list)) or len(raw_size) != 2:
            raise DataError(f"raw_size must be (width, height), but is {shown(raw_size)}")
        return RawSource(stdin, *raw_size, raw_color)
    if re.fullmatch("[0-9]+", text):
        number = parse_whole(text)
        if number is None or number > LAST_CAMERA:
            raise DataError(f"cameras have numbers from 0 to {LAST_CAMERA}, not {shown(text)}")
        return open_camera(number)
    if text.startswith("/dev/video"):
        return open_camera(text)
    if re.match(r"(rtsp|rtsps|http|https|udp|tcp)://", text):
        return open_stream(text)
    if text.startswith("gst:"):
        return open_pipeline(text.removeprefix("gst:").strip())
    if text.partition(":")[0] in SCHEMES and path_kind(path) is None:
        return _open_address(text)
    if text.startswith("file:") and path_kind(path) is None:
        text = _file_of(text)
        path = check_path("a source", text)
    kind = path_kind(path)
    if kind == "folder" or path.suffix.lower() in SUFFIXES or any(c in text for c in "*?["):
        return ImageSource([text])
    if kind is not None:
        return VideoFileSource(path)
    raise DataError(f"{shown(text)} is no source; give {SOURCE_HELP}")


def _open_address(text: str) -> Source:
    address = parse_address(text)
    if address.scheme == "v4l2":
        return open_v4l2(address)
    return open_csi(address) if address.scheme == "csi" else open_picamera(address)


def _file_of(text: str) -> str:
    """The path in file:PATH, file://PATH or a percent-encoded file:///PATH."""
    place = text.removeprefix("file:").removeprefix("//")
    decoded = unquote(place)
    return decoded if decoded and "\0" not in decoded and path_kind(Path(place)) is None else place
