"""The images and streams that a command line names."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import is_url
from tinyseg.errors import DataError
from tinyseg.fetch import MAX_BYTES
from tinyseg.image_headers import stated_size
from tinyseg.images import SUFFIXES, decode_image, find_images, read_image

MOTION_JPEG = (".mjpg", ".mjpeg")  # films that begin as pictures
HEADER_BYTES = 64 << 10


def find_inputs(texts: Sequence[str]) -> list[str]:
    """The images that arguments name: addresses and "-" as they are, folders and globs expanded. Raises DataError."""
    found: dict[str, None] = {}
    for text in texts:
        found.update(dict.fromkeys([text] if text == "-" or is_url(text) else [str(p) for p in find_images([text])]))
    return list(found)


def read_input(image: str) -> NDArray[np.uint8]:
    """(H, W, 3) BGR of a file, address or standard input. Raises DataError."""
    if image != "-":
        return read_image(image)
    if sys.stdin is None:
        raise DataError("there is no standard input to read an image from")
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(f"standard input holds more than {MAX_BYTES >> 20} MiB; give a file")
    return decode_image(data, "standard input")


def is_stream(source: str) -> bool:
    """Whether a source is a video, camera or stream, not images: no folder, glob, or file that begins as a picture does."""
    place = Path(source)
    suffix = place.suffix.lower()
    if source.endswith(("/", os.sep)) or os.path.isdir(source) or suffix in SUFFIXES or set(source) & set("*?["):
        return False
    # Only a regular file may be looked into: a camera's device or a pipe would wait, or lose what is read here.
    if suffix in MOTION_JPEG or not os.path.isfile(source):
        return True
    try:
        with place.open("rb") as file:
            return stated_size(file.read(HEADER_BYTES)) is None
    except OSError:  # told by whoever opens it
        return True
