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
