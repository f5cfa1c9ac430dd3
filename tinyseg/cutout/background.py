"""What a cut-out is laid over: nothing, a colour, a picture, or the frame's own background out of focus."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.cutout.alpha import Cutout
from tinyseg.errors import InputError
from tinyseg.images import read_image

BACKGROUND_HELP = "none (transparent), blur, a colour (white, black, gray, green, blue, #RRGGBB), or an image file"
# BGR; green and blue are those of studios.
NAMED = {
    "white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128), "green": (64, 177, 0), "blue": (187, 71, 0),
}  # fmt: skip
BLUR_SHARE = 0.04  # of the frame's longer side: the blur's radius
BLUR_SIDE = 320  # a blur needs no more pixels than this

# A frame (H, W, 3) BGR and what was cut out of it -> a background of the same size.
Background = Callable[[NDArray[np.uint8], Cutout], NDArray[np.uint8]]


def open_background(text: str) -> Background | None:
    """What a user names on the command line -> a background, None for "none". Raises InputError or DataError."""
    if text == "none":
        return None
    if text == "blur":
        return blurred
    if text in NAMED or re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        red, green, blue = (int(text[i : i + 2], 16) for i in (1, 3, 5)) if text not in NAMED else NAMED[text][::-1]
        return lambda frame, _: np.full_like(frame, (blue, green, red))
    if not Path(text).is_file():
        raise InputError(f"{text!r} is no background; give {BACKGROUND_HELP}")
    picture = read_image(text)
    known: dict[tuple[int, ...], NDArray[np.uint8]] = {}

    def fitted(frame: NDArray[np.uint8], _: Cutout) -> NDArray[np.uint8]:
        if frame.shape not in known:
            known.clear()  # a stream has one size, and a folder's pictures come one after the other
            known[frame.shape] = fill(picture, frame.shape[1], frame.shape[0])
        return known[frame.shape]

    return fitted


def fill(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """A picture (h, w, 3) scaled to cover width x height, its middle kept."""
    scale = max(width / picture.shape[1], height / picture.shape[0])
    size = max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    large = cv2.resize(picture, size, interpolation=method)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(large[top : top + height, left : left + width])


def blurred(frame: NDArray[np.uint8], cutout: Cutout) -> NDArray[np.uint8]:
    """The frame out of focus, without the object: its colours would glow around it otherwise."""
    height, width = frame.shape[:2]
    scale = min(1.0, BLUR_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    seen = 1 - cv2.resize(cutout.alpha, size, interpolation=cv2.INTER_AREA)
    sigma = max(1.0, BLUR_SHARE * max(size))
    # A little of the object stays, so that a frame that it fills has a background at all.
    weight = (seen + 1e-3).astype(np.float32)
    total = cv2.GaussianBlur(small * weight[..., None], (0, 0), sigma)
    soft = np.asarray(total, np.float32) / cv2.GaussianBlur(weight, (0, 0), sigma)[..., None]
    large = cv2.resize(np.asarray(soft, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(np.rint(large), 0, 255), np.uint8)
