"""Pictures that viewers send: what they claim to be is checked before anything is decoded."""

from __future__ import annotations

import base64
import binascii

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.image_headers import stated_size
from tinyseg.serve.limits import UPLOAD_PIXELS

MAGICS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # PNG, JPEG


def read_picture(text: str) -> NDArray[np.uint8]:
    """A JPEG or PNG in base64 -> (H, W, 3) BGR uint8, upright. Raises DataError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as exc:
        raise DataError(f"image is not base64: {exc}") from exc
    size = stated_size(data) if data.startswith(MAGICS) else None
    if size is None:
        raise DataError("image is not a JPEG or PNG file")
    width, height = size
    if not 0 < width * height <= UPLOAD_PIXELS:
        raise DataError(f"image has {width} x {height} pixels; at most {UPLOAD_PIXELS // 1_000_000} million are taken")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as exc:
        raise DataError(f"image cannot be read: {exc.err}") from exc
    if image is None:
        raise DataError("image is damaged; OpenCV cannot read it")
    return np.asarray(image, np.uint8)
