"""
The pixel core: frames into encoder inputs, logits into masks. Every function releases the GIL.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray


def prepare(frame: Annotated[NDArray[numpy.uint8], dict(shape=(None, None, None), device='cpu', writable=False)], input: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')], content: tuple[int, int], bgr: bool, mean: float, std: float) -> None:
    """
    Resize (H, W, C) uint8 into the top left of (3, h, w) float32 RGB, normalised; zero elsewhere.
    """

def prepare_reference(frame: Annotated[NDArray[numpy.uint8], dict(shape=(None, None, None), device='cpu', writable=False)], input: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')], content: tuple[int, int], bgr: bool, mean: float, std: float) -> None:
    """prepare, written as its definition reads."""

def threshold(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], mask: Annotated[NDArray[numpy.uint8], dict(shape=(None, None), order='C', device='cpu')], region: tuple[int, int, int, int], content: tuple[float, float], offset: float) -> tuple[int, int, int, int, int, int, int]:
    """
    Upsample (h, w) logits into a (H, W) mask of 0 and 1; returns its box, area and areas at +-offset.
    """

def threshold_reference(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], mask: Annotated[NDArray[numpy.uint8], dict(shape=(None, None), order='C', device='cpu')], region: tuple[int, int, int, int], content: tuple[float, float], offset: float) -> tuple[int, int, int, int, int, int, int]:
    """threshold, written as its definition reads."""

def upsample(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], out: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')], region: tuple[int, int, int, int], content: tuple[float, float], outside: float) -> None:
    """Upsample (h, w) logits into (H, W) logits of the frame."""

def grid_stats(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], content: tuple[int, int], offset: float, stats: Annotated[NDArray[numpy.int32], dict(shape=(None, 7), order='C', device='cpu')]) -> None:
    """
    Count (N, h, w) logits on the grid: rows x0, y0, x1, y1, area, area above +offset, area above -offset.
    """

def grid_stats_reference(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], content: tuple[int, int], offset: float, stats: Annotated[NDArray[numpy.int32], dict(shape=(None, 7), order='C', device='cpu')]) -> None:
    """grid_stats, written as its definition reads."""

def suppress(boxes: Annotated[NDArray[numpy.float32], dict(shape=(None, 4), order='C', device='cpu', writable=False)], bits: Annotated[NDArray[numpy.uint64], dict(shape=(None, None), order='C', device='cpu', writable=False)], areas: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], box_iou: float, mask_iou: float, keep: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu')]) -> None:
    """
    Greedy non-maximum suppression over boxes and over masks of one bit a cell, the best first.
    """

def suppress_reference(boxes: Annotated[NDArray[numpy.float32], dict(shape=(None, 4), order='C', device='cpu', writable=False)], bits: Annotated[NDArray[numpy.uint64], dict(shape=(None, None), order='C', device='cpu', writable=False)], areas: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], box_iou: float, mask_iou: float, keep: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu')]) -> None:
    """suppress, written as its definition reads."""

def threshold_window(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], mask: Annotated[NDArray[numpy.uint8], dict(shape=(None, None), order='C', device='cpu')], frame: tuple[int, int], region: tuple[int, int, int, int], content: tuple[float, float], corner: tuple[int, int]) -> tuple[int, int, int, int, int]:
    """
    The window of threshold's mask whose top left pixel is corner; returns its box and area.
    """

MEAN: float = 127.5

STD: float = 127.5

INPUT_MULTIPLE: int = 32

LOGIT_STRIDE: int = 4

OUTSIDE_LOGIT: float = -16.0

HINT_LIMIT: float = 16.0

FIRST_LOOK_WEIGHT: float = 0.30000001192092896

LABEL_PADDING: float = -1.0

LABEL_NEGATIVE: float = 0.0

LABEL_POSITIVE: float = 1.0

LABEL_BOX_TOP_LEFT: float = 2.0

LABEL_BOX_BOTTOM_RIGHT: float = 3.0

def letterbox(frame: tuple[int, int], region: tuple[int, int, int, int], long_side: int, square: bool) -> tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]]:
    """The view of a region of a frame."""

def crop_around(box: tuple[float, float, float, float], factor: float, frame: tuple[int, int], least_side: int) -> tuple[int, int, int, int]:
    """A square region around a box, moved into the frame."""

def to_model(xy: Annotated[NDArray[numpy.float64], dict(shape=(None, 2), order='C', device='cpu', writable=False)], view: tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]], shift: float, out: Annotated[NDArray[numpy.float32], dict(shape=(None, 2), order='C', device='cpu')]) -> None:
    """(N, 2) frame positions, shift added -> (N, 2) model positions."""

def second_look(box: tuple[float, float, float, float], view: tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]], rule: tuple[int, float, float]) -> tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]] | None:
    """
    Where to look again for an object in a box, by rule (side, factor, below); None: nowhere.
    """

def outside_point(points: Annotated[NDArray[numpy.float64], dict(shape=(None, 2), order='C', device='cpu', writable=False)], labels: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)], view: tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]]) -> int:
    """The first point outside the view's region, or -1."""

def cut_box(box: tuple[float, float, float, float], view: tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]]) -> tuple[float, float, float, float] | None:
    """The part of a box in the view's region; None: there is none."""

def prompted_box(points: Annotated[NDArray[numpy.float64], dict(shape=(None, 2), order='C', device='cpu', writable=False)], labels: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)], box: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
    """
    The box that a prompt states, widened to its points; None without a box.
    """

def lay_out(points: Annotated[NDArray[numpy.float64], dict(shape=(None, 2), order='C', device='cpu', writable=False)], labels: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)], box: tuple[float, float, float, float] | None, frame: tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]], view: tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]], out: Annotated[NDArray[numpy.float32], dict(shape=(None, 2), order='C', device='cpu')], out_labels: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu')]) -> None:
    """
    A prompt placed in a frame -> (slots, 2) points and (slots,) labels of a decoder that sees the view.
    """

def lay_out_hint(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], frame: tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]], view: tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]], out: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')]) -> None:
    """Logits of an earlier answer -> the decoder's hint on the view's grid."""

def clicked_cells(points: Annotated[NDArray[numpy.float64], dict(shape=(None, 2), order='C', device='cpu', writable=False)], labels: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)], view: tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(row, column, label) of the cells under the clicks that a view shows."""

def without_specks(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], cells: Sequence[tuple[int, int, int]], out: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')]) -> bool:
    """
    (K, h, w) logits without specks and pinholes into out; False, and out undefined, where there are none.
    """

def resample_grid(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], source: tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]], target: tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], tuple[int, int]], out: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')]) -> None:
    """
    Logits of one view -> logits on another view's grid; OUTSIDE_LOGIT where nothing was seen.
    """

def choose_readings(logits: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)]) -> tuple[int, int, int]:
    """Which three of (4, h, w) logits a user sees."""

def add_first_look(first: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], second: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')]) -> None:
    """Add the first look's share to a second look's logits."""

def all_finite(values: Annotated[NDArray[numpy.float32], dict(order='C', device='cpu', writable=False)]) -> bool:
    """Whether no value is infinite or NaN."""
