"""
The pixel core: frames into encoder inputs, logits into masks. Every function releases the GIL.
"""

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
