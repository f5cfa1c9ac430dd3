"""The one place where frames, model inputs and masks are related to each other.

Coordinates are continuous: pixel (column i, row j) covers [i, i + 1) x [j, j + 1), so a frame of width W spans
x in [0, W], and the centre of its first pixel is at 0.5. Points that users give name pixels (OpenCV and SAM habit:
(0, 0) is the first pixel), so half a pixel is added to them once, in :meth:`Letterbox.points_to_model`. Boxes are
edges already: the whole frame is (0, 0, W, H).

Everything that resizes (the pixel core, training, export, benchmarks) takes its numbers from here. What a frame needs is
computed by the core (native/geometry.cpp), which other languages share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyseg.core import core

# The encoder takes RGB scaled to [-1, 1]: (value - MEAN) / STD. Padding is 0 after this.
MEAN = 127.5
STD = 127.5
# What leads from a pixel that somebody names, by its column and row, to the continuous position of its centre.
HALF_PIXEL = 0.5
# Side lengths of the encoder's input are multiples of its deepest stride.
INPUT_MULTIPLE = 32
# Mask logits live on a grid four times coarser than the encoder's input.
LOGIT_STRIDE = 4
LEAST_CROP_SIDE = 32  # frame pixels

# (width, height) of the frame, region, content and input: a view as the core takes it.
ViewNumbers = tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Letterbox:
    """How a region of a frame lies in the encoder's input: scaled, at the top left, padded right and below.

    ``region`` is (x0, y0, x1, y1) in frame pixels (integers), ``content`` and ``input`` are (width, height) in model
    pixels. Scales are exact quotients of the rounded sizes, so going there and back is the identity.
    """

    frame_width: int
    frame_height: int
    region: tuple[int, int, int, int]
    content: tuple[int, int]
    input: tuple[int, int]

    @property
    def scale_x(self) -> float:
        """Model pixels per frame pixel, horizontally."""
        return self.content[0] / (self.region[2] - self.region[0])

    @property
    def scale_y(self) -> float:
        """Model pixels per frame pixel, vertically."""
        return self.content[1] / (self.region[3] - self.region[1])

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the logit grid that covers the input, padding included."""
        return self.input[1] // LOGIT_STRIDE, self.input[0] // LOGIT_STRIDE

    @property
    def whole_frame(self) -> bool:
        """Whether the region is the frame itself."""
        return self.region == (0, 0, self.frame_width, self.frame_height)

    @property
    def numbers(self) -> ViewNumbers:
        """The view as the core takes it."""
        return (self.frame_width, self.frame_height), self.region, self.content, self.input

    def points_to_model(self, xy: ArrayLike) -> NDArray[np.float32]:
        """(..., 2) pixel positions in the frame -> continuous positions in the model's input."""
        return self._to_model(xy, HALF_PIXEL)

    def edges_to_model(self, xy: ArrayLike) -> NDArray[np.float32]:
        """(..., 2) continuous positions in the frame -> continuous positions in the model's input."""
        return self._to_model(xy, 0.0)

    def _to_model(self, xy: ArrayLike, shift: float) -> NDArray[np.float32]:
        positions = np.asarray(xy, np.float64)
        out = np.empty(positions.shape, np.float32)
        core().to_model(np.ascontiguousarray(positions.reshape(-1, 2)), self.numbers, shift, out.reshape(-1, 2))
        return out

    def edges_to_frame(self, xy: ArrayLike) -> NDArray[np.float32]:
        """(..., 2) continuous positions in the model's input -> continuous positions in the frame."""
        offset = np.array(self.region[:2], np.float64)
        scale = np.array([self.scale_x, self.scale_y])
        return np.asarray(np.asarray(xy, np.float64) / scale + offset, np.float32)

    def boxes_to_model(self, xyxy: ArrayLike) -> NDArray[np.float32]:
        """(..., 4) boxes in the frame -> boxes in the model's input."""
        boxes = np.asarray(xyxy, np.float64)
        return self.edges_to_model(boxes.reshape(*boxes.shape[:-1], 2, 2)).reshape(boxes.shape)

    def boxes_to_frame(self, xyxy: ArrayLike) -> NDArray[np.float32]:
        """(..., 4) boxes in the model's input -> boxes in the frame."""
        boxes = np.asarray(xyxy, np.float64)
        return self.edges_to_frame(boxes.reshape(*boxes.shape[:-1], 2, 2)).reshape(boxes.shape)


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not below ``value``."""
    return -(-value // multiple) * multiple


def letterbox(
    frame_width: int,
    frame_height: int,
    long_side: int,
    region: tuple[int, int, int, int] | None = None,
    square: bool = False,
) -> Letterbox:
    """Fit a region of a frame (by default all of it) into an encoder input whose longer side is ``long_side``.

    The other side is only padded up to the next multiple of 32, so a 16:9 frame costs 288 x 512, not 512 x 512; with
    ``square`` both sides are ``long_side`` (one compiled shape serves every crop).
    """
    frame = frame_width, frame_height
    return view_of(core().letterbox(frame, region or (0, 0, *frame), long_side, square))


def view_of(numbers: ViewNumbers) -> Letterbox:
    """A view from what the core says of it."""
    (frame_width, frame_height), region, content, size = numbers
    return Letterbox(frame_width, frame_height, region, content, size)


def crop_around(
    box: ArrayLike, factor: float, frame_width: int, frame_height: int, min_side: int = LEAST_CROP_SIDE
) -> tuple[int, int, int, int]:
    """A square region of ``factor`` times the box's longer side, centred on it and moved into the frame.

    box is (x0, y0, x1, y1) in frame pixels. Where the frame is shorter than the square, the region is cut to it.
    """
    edges = tuple(np.asarray(box, np.float64).tolist())
    region: tuple[int, int, int, int] = core().crop_around(edges, factor, (frame_width, frame_height), min_side)
    return region
