"""What a user names on the command line -> a source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

from tinyseg.errors import DataError
from tinyseg.images import SUFFIXES
from tinyseg.sources.base import Source
from tinyseg.sources.camera import open_camera, open_stream
from tinyseg.sources.folder import ImageSource
from tinyseg.sources.raw import RawSource
from tinyseg.sources.synthetic import SyntheticSource
from tinyseg.sources.video import VideoFileSource

SYNTHETIC = re.compile(r"synthetic:(\d+)x(\d+)(?::(\d+))?$")

SOURCE_HELP = (
    "a camera number or /dev/video path, an rtsp:// or http:// url, a video file, an image, folder or glob, "
    "'-' for raw frames on stdin, or synthetic:WIDTHxHEIGHT[:FRAMES]"
)


def open_source(
    text: str, stdin: BinaryIO | None = None, raw_size: tuple[int, int] = (0, 0), raw_color: str = "bgr"
) -> Source:
    """Open what a user names on the command line. Raises DataError."""
    synthetic = SYNTHETIC.match(text)
    if synthetic:
        width, height, frames = synthetic.groups()
        if int(width) < 1 or int(height) < 1:
            raise DataError(f"{text}: width and height must be positive")
        return SyntheticSource(int(width), int(height), int(frames) if frames else None)
    if text == "-":
        if stdin is None:
            raise DataError("there is no standard input to read raw frames from")
        return RawSource(stdin, *raw_size, raw_color)
    if text.isdigit():
        return open_camera(int(text))
    if text.startswith("/dev/video"):
        return open_camera(text)
    if re.match(r"(rtsp|rtsps|http|https|udp|tcp)://", text):
        return open_stream(text)
    path = Path(text)
    if path.is_dir() or path.suffix.lower() in SUFFIXES or any(c in text for c in "*?["):
        return ImageSource([text])
    if path.exists():
        return VideoFileSource(path)
    raise DataError(f"{text!r} is no source; give {SOURCE_HELP}")
