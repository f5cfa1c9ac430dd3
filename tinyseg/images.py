"""Image files: finding, reading and writing them."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.files import write_bytes

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read a file as (H, W, 3) BGR uint8, turned upright as its EXIF orientation says. Raises DataError."""
    place = Path(path)
    try:
        data = np.frombuffer(place.read_bytes(), np.uint8)
    except OSError as exc:
        raise DataError(f"{place} cannot be read: {exc.strerror or exc}") from exc
    # IMREAD_COLOR applies the EXIF orientation and turns grey, 16-bit and alpha files into 8-bit BGR.
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise DataError(f"{place} is not an image that OpenCV reads ({', '.join(s[1:] for s in SUFFIXES)} are known)")
    return np.asarray(image, np.uint8)


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """Read an image file as a (H, W) bool mask: every pixel that is not black. Raises DataError."""
    return np.asarray(read_image(path).any(2), np.bool_)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image by its suffix: under a temporary name first, so that no half file is ever seen."""
    done, data = cv2.imencode(path.suffix, image)
    if not done:
        raise DataError(f"{path}: OpenCV cannot write this kind of file")
    write_bytes(path, data.tobytes())


def find_images(patterns: Iterable[str]) -> list[Path]:
    """Files, folders (their images, not deeper) and globs -> image files in order, without repeats. Raises DataError."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        place = Path(pattern)
        if place.is_dir():
            inside = sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise DataError(f"folder {place} holds no image ({', '.join(s[1:] for s in SUFFIXES)})")
            found.update(dict.fromkeys(inside))
        elif place.exists():
            found[place] = None
        else:
            matches = sorted(Path(p) for p in glob.glob(pattern, recursive=True) if Path(p).is_file())
            if not matches:
                raise DataError(f"{pattern} matches no file")
            found.update(dict.fromkeys(matches))
    return list(found)
