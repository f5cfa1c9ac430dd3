"""Images: opening whatever a user names, and finding, reading and writing files."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_path, clipped, is_url, path_kind, shown
from tinyseg.errors import DataError, FrameError
from tinyseg.files import write_bytes
from tinyseg.image_headers import is_cut_off, stated_size
from tinyseg.pixels import MAX_SIDE

if TYPE_CHECKING:
    import PIL.Image

# What embed() and a segmenter's call take: pixels, a file, an address, or Pillow's image.
ImageInput = Union[NDArray[np.uint8], str, "os.PathLike[str]", "PIL.Image.Image"]
# Pillow's modes with 8 bits a channel.
PILLOW_MODES = ("1", "L", "P", "PA", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MAX_FILE_BYTES = 1 << 30  # of one image file: what is larger is none, and a device would never end


def open_image(source: ImageInput, color: str = "bgr") -> tuple[NDArray[np.uint8], str]:
    """Pixels of whatever names an image, and the order of their channels.

    source: a path or http(s) address, read by :func:`read_image`; a ``PIL.Image``, as it lies in memory (its EXIF
    orientation is not applied: coordinates are those of its ``size``); or an array, which is returned as it is. color:
    the order of an array's channels; for everything else the file says it. Raises DataError or FrameError.
    """
    if isinstance(source, (str, os.PathLike)):
        return read_image(source), "bgr"
    pillow = sys.modules.get("PIL.Image")  # who has such an image has imported it
    if pillow is not None and isinstance(source, pillow.Image):
        if source.mode not in PILLOW_MODES:
            raise FrameError(
                f"a PIL image must have 8 bits a channel, but has mode {source.mode!r}; use image.convert('RGB')"
            )
        return np.asarray(source.convert("RGB"), np.uint8), "rgb"
    pixels: Any = source  # whoever uses it checks that it is an array
    return pixels, color


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a file or http(s) address as (H, W, 3) BGR uint8, turned upright as its EXIF orientation says.

    An address may hold at most 64 MiB and take 60 s. Raises DataError.
    """
    if isinstance(path, str) and is_url(path):
        from tinyseg.fetch import fetch  # noqa: PLC0415 - the network's modules, which most programs never need

        return decode_image(fetch(path), clipped(path))
    place = check_path("an image's name", path)
    try:
        with place.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise DataError(f"{clipped(place)} cannot be read: {exc.strerror or exc}") from exc
    return decode_image(data, clipped(place))


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """The bytes of an image file -> (H, W, 3) BGR uint8, turned upright. name: for messages. Raises DataError."""
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{name} is larger than {MAX_FILE_BYTES >> 20} MiB; images may have that much at most")
    size = stated_size(data)
    if size is not None and max(size) > MAX_SIDE:
        raise DataError(f"{name} is {size[0]} x {size[1]}; images may have {MAX_SIDE} pixels a side at most")
    if is_cut_off(data):
        raise DataError(f"{name} is a JPEG without its end; get the file again")
    try:
        # IMREAD_COLOR applies the EXIF orientation and turns grey, 16-bit and alpha files into 8-bit BGR.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except (cv2.error, MemoryError) as exc:
        raise DataError(f"{name} cannot be decoded: {str(exc).strip() or 'not enough memory'}") from exc
    if image is None:
        raise DataError(f"{name} is not an image that OpenCV reads ({', '.join(s[1:] for s in SUFFIXES)} are known)")
    return np.asarray(image, np.uint8)


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """Read an image file as a (H, W) bool mask: every pixel that is not black. Raises DataError."""
    return np.asarray(read_image(path).any(2), np.bool_)


def write_image(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write an image by its suffix: under a temporary name first, so that no half file is ever seen. Raises DataError."""
    place = check_path("a picture's name", path)
    write_bytes(place, encode_image(place, image))


def encode_image(path: Path, image: NDArray[np.uint8]) -> bytes:
    """An image as the bytes of a file, of the kind that the path's suffix says. Raises DataError."""
    try:
        done, data = cv2.imencode(path.suffix, image)
    except cv2.error as exc:  # no encoder for the suffix, or a picture that the kind cannot hold
        raise DataError(f"{clipped(path)}: OpenCV cannot write this kind of file ({exc.err})") from exc
    if not done:
        raise DataError(f"{clipped(path)}: OpenCV cannot write this kind of file")
    return data.tobytes()


def find_images(patterns: Iterable[str]) -> list[Path]:
    """Files, folders (their images, not deeper) and globs -> image files in order, without repeats. Raises DataError."""
    if isinstance(patterns, (str, bytes, os.PathLike)):
        raise DataError(f"images must be a list of files, folders or globs, but is {shown(patterns)}")
    try:
        patterns = list(patterns)
    except Exception as exc:  # no iterable, or one that fails
        raise DataError(f"images must be a list of files, folders or globs, but is {shown(patterns)}") from exc
    found: dict[Path, None] = {}
    for pattern in patterns:
        place = check_path("an image, folder or glob", pattern)
        kind = path_kind(place)
        if kind == "folder":
            try:
                inside = sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES)
            except OSError as exc:
                raise DataError(f"folder {clipped(place)} cannot be read: {exc.strerror or exc}") from exc
            if not inside:
                raise DataError(f"folder {clipped(place)} holds no image ({', '.join(s[1:] for s in SUFFIXES)})")
            found.update(dict.fromkeys(inside))
        elif kind is not None:
            found[place] = None
        else:
            matches = sorted(Path(p) for p in glob.glob(str(place), recursive=True) if os.path.isfile(p))
            if not matches:
                raise DataError(f"{clipped(place)} matches no file")
            found.update(dict.fromkeys(matches))
    return list(found)
