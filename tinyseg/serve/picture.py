"""A frame as viewers get it: encoded once, when the first of them asks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.pixels import check_frame
from tinyseg.sources import Frame

JPEG_QUALITY = 80


def to_bgr(frame: Frame) -> NDArray[np.uint8]:
    """A copy of a frame's pixels as (H, W, 3) BGR: sources may use their buffers again."""
    return check_frame(frame.pixels, frame.color).to_bgr()


def hex_to_bgr(color: str) -> tuple[int, int, int]:
    """ "#rrggbb" -> (b, g, r)."""
    return int(color[5:7], 16), int(color[3:5], 16), int(color[1:3], 16)


def bgr_to_hex(color: tuple[int, int, int]) -> str:
    """(b, g, r) -> "#rrggbb"."""
    b, g, r = color
    return f"#{r:02x}{g:02x}{b:02x}"


@dataclass(frozen=True)
class Drawn:
    """What is drawn of one object: its mask (H, W) bool, its name, and its colour as "#rrggbb"."""

    mask: NDArray[np.bool_]
    name: str
    color: str


class Picture:
    """One frame (H, W, 3) BGR and the masks over it; encodings are made once and shared by all viewers.

    before: an earlier picture of the same pixels, with other masks; the frame's encoding is taken from there.
    """

    def __init__(self, pixels: NDArray[np.uint8], drawn: Sequence[Drawn], before: Picture | None = None) -> None:
        self.pixels = pixels
        self._drawn = drawn
        self._plain_of: Picture = self if before is None else before._plain_of
        self._lock = threading.Lock()
        self._plain: bytes | None = None
        self._masked: bytes | None = None

    def jpeg(self) -> bytes:
        """The frame alone."""
        one = self._plain_of
        with one._lock:
            if one._plain is None:
                one._plain = encode(self.pixels, ".jpg")
            return one._plain

    def masked_jpeg(self) -> bytes:
        """The frame with masks and names drawn in."""
        with self._lock:
            if self._masked is None:
                self._masked = encode(self.masked(), ".jpg")
            return self._masked

    def masked(self) -> NDArray[np.uint8]:
        """(H, W, 3) BGR with masks and names drawn in; a new array."""
        picture: NDArray[np.uint8] = self.pixels.copy()
        thickness = max(1, round(max(picture.shape[:2]) / 500))
        for one in self._drawn:
            color = np.array(hex_to_bgr(one.color), np.float32)
            picture[one.mask] = np.round(picture[one.mask] * 0.5 + color * 0.5).astype(np.uint8)
            outlines, _ = cv2.findContours(one.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, outlines, -1, hex_to_bgr(one.color), thickness + 1, cv2.LINE_AA)
            if outlines:
                x, y, _, _ = cv2.boundingRect(max(outlines, key=cv2.contourArea))
                at = (x, max(y - 4, 12))
                # OpenCV's own letters are ASCII; others show as question marks here, and right on the page.
                label = one.name.encode("ascii", "replace").decode()
                for ink, width in (((0, 0, 0), thickness + 2), ((255, 255, 255), thickness)):
                    cv2.putText(picture, label, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * thickness, ink, width, cv2.LINE_AA)
        return picture


def encode(pixels: NDArray[np.uint8], suffix: str) -> bytes:
    """(H, W, 3) BGR -> a JPEG or PNG file's bytes."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else []
    done, data = cv2.imencode(suffix, pixels, options)
    if not done:
        raise DataError(f"this build of OpenCV does not write {suffix[1:].upper()} pictures")
    return data.tobytes()
