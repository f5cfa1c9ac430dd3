"""Frames into encoder inputs, and logits into masks: the Python face of the pixel core.

``TINYSEG_PIXELS=reference`` (read at import) makes every call use the core's plain reference instead of its fast
version, to find out whether a difference comes from there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_choice
from tinyseg.core import core
from tinyseg.errors import FrameError, InputError
from tinyseg.geometry import LOGIT_STRIDE, MEAN, STD, Letterbox

# Stability score: how much of a mask survives when its threshold moves by this much (SAM, arXiv 2304.02643, appendix B).
STABILITY_OFFSET = 1.0
# Logit of the pixels that a second look did not see.
OUTSIDE_LOGIT = -16.0
MAX_SIDE = 16384
COLORS = ("bgr", "rgb", "gray", "bgra", "rgba")


def _use_reference() -> bool:
    choice = os.environ.get("TINYSEG_PIXELS", "fast")
    if choice not in ("fast", "reference"):
        raise InputError(f"TINYSEG_PIXELS must be 'fast' or 'reference', but is {choice!r}")
    return choice == "reference"


_REFERENCE = _use_reference()


@dataclass(frozen=True)
class FrameLayout:
    """What :func:`check_frame` found out: an (H, W, C) view and the order of its channels."""

    pixels: NDArray[np.uint8]
    bgr: bool

    def to_bgr(self) -> NDArray[np.uint8]:
        """A copy as (H, W, 3) BGR, without alpha."""
        pixels = self.pixels[..., :3] if self.bgr else self.pixels[..., 2::-1]
        return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C")


def check_frame(frame: NDArray[np.uint8], color: str) -> FrameLayout:
    """Check a frame and view it as (H, W, C).

    frame: uint8, (H, W) grey, (H, W, 1) grey, (H, W, 3), or (H, W, 4) whose alpha is ignored; any strides. color is
    the order of its channels: "bgr", "rgb", "bgra", "rgba" or "gray"; a frame with one channel is grey whatever it
    says. Raises FrameError.
    """
    check_choice("color", color, COLORS, FrameError)
    if not isinstance(frame, np.ndarray):
        wanted = f"a frame must be a numpy array (H, W, 3) of uint8, but is a {type(frame).__name__}"
        if isinstance(frame, (str, os.PathLike)):
            raise FrameError(f"{wanted}; read the file first: tinyseg.read_image({str(frame)!r:.100})")
        if frame is None:
            raise FrameError(f"{wanted}, which OpenCV gives for a file or camera that it cannot read; is it there?")
        if type(frame).__module__.partition(".")[0] == "PIL":
            raise FrameError(f"{wanted}; use numpy.asarray(frame.convert('RGB')) with color='rgb'")
        raise FrameError(f"{wanted}; use numpy.asarray(frame)")
    if frame.dtype != np.uint8:
        hint = (
            "multiply by 255 if it is in [0, 1], then .astype(numpy.uint8)"
            if frame.dtype.kind == "f"
            else "convert it to 8 bits"
        )
        raise FrameError(f"a frame must be uint8, but is {frame.dtype}; {hint}")
    plain = np.asarray(frame)  # of a subclass such as numpy.matrix, whose indexing differs
    pixels = plain[..., None] if plain.ndim == 2 else plain
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        hint = (
            "; it looks like channels first: use frame.transpose(1, 2, 0)"
            if frame.ndim == 3 and frame.shape[0] in (1, 3, 4)
            else ""
        )
        raise FrameError(
            f"a frame must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), but has shape {frame.shape}{hint}"
        )
    height, width, channels = pixels.shape
    if height == 0 or width == 0:
        raise FrameError(f"the frame is empty: shape {frame.shape}")
    if max(height, width) > MAX_SIDE:
        raise FrameError(f"a frame may have at most {MAX_SIDE} pixels a side, but is {width} x {height}")
    if (color == "gray" and channels != 1) or (color in ("bgra", "rgba") and channels == 3):
        raise FrameError(f"color={color!r} does not fit a frame with {channels} channels, shape {frame.shape}")
    return FrameLayout(pixels, bgr=color.startswith("bgr"))


def prepare(frame: FrameLayout, view: Letterbox, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Resize the view's region of a frame into an encoder input (1, 3, h, w), RGB in [-1, 1], padding 0.

    Antialiased (triangle filter) when shrinking, bilinear when enlarging. ``out`` is written in place if given.
    """
    width, height = view.input
    if out is None:
        out = np.empty((1, 3, height, width), np.float32)
    x0, y0, x1, y1 = view.region
    native = core()
    function = native.prepare_reference if _REFERENCE else native.prepare
    function(frame.pixels[y0:y1, x0:x1], out[0], view.content, frame.bgr, MEAN, STD)
    return out


@dataclass(frozen=True)
class MaskStats:
    """One mask of the frame and what was counted while it was made."""

    box: tuple[int, int, int, int]  # x0, y0, x1, y1 with exclusive ends, in frame pixels; zeros if the mask is empty
    area: int
    stability: float  # IoU of the masks at thresholds +1 and -1; 0 if both are empty


def threshold(logits: NDArray[np.float32], view: Letterbox, mask: NDArray[np.bool_]) -> MaskStats:
    """Upsample (h, w) logits of a view, threshold them at 0 into ``mask`` (H, W) of the frame, and count."""
    native = core()
    function = native.threshold_reference if _REFERENCE else native.threshold
    x0, y0, x1, y1, area, above, below = function(
        logits, mask.view(np.uint8), view.region, _content_on_grid(view), STABILITY_OFFSET
    )
    return MaskStats((x0, y0, x1, y1), area, above / below if below else 0.0)


def threshold_window(
    logits: NDArray[np.float32], view: Letterbox, window: tuple[int, int, int, int]
) -> tuple[NDArray[np.bool_], MaskStats]:
    """The part (x0, y0, x1, y1) of the frame, inside the view's region, of the mask that :func:`threshold` draws.

    Returns the (y1 - y0, x1 - x0) mask and what was counted inside the window; its box is in frame pixels, and its
    stability, which takes the whole mask, is 0.
    """
    x0, y0, x1, y1 = window
    mask = np.empty((y1 - y0, x1 - x0), np.bool_)
    found = core().threshold_window(
        logits,
        mask.view(np.uint8),
        (view.frame_width, view.frame_height),
        view.region,
        _content_on_grid(view),
        (x0, y0),
    )
    return mask, MaskStats(tuple(found[:4]), found[4], 0.0)


@dataclass(frozen=True)
class GridStats:
    """N masks counted on the logit grid, padding left out. Boxes are in cells, ends exclusive, zeros if empty."""

    boxes: NDArray[np.int32]  # (N, 4) x0, y0, x1, y1
    areas: NDArray[np.int32]  # (N,) cells
    stability: NDArray[np.float32]  # (N,) IoU of the masks at thresholds +offset and -offset; 0 if both are empty


def grid_stats(logits: NDArray[np.float32], view: Letterbox, offset: float) -> GridStats:
    """Count (N, h, w) logits of a view on their own grid, without drawing a mask."""
    rows, columns = grid_content(view)
    counts = np.empty((len(logits), 7), np.int32)
    native = core()
    function = native.grid_stats_reference if _REFERENCE else native.grid_stats
    function(np.ascontiguousarray(logits), (columns, rows), offset, counts)
    stability = (counts[:, 5] / np.maximum(counts[:, 6], 1)).astype(np.float32)
    return GridStats(counts[:, :4], counts[:, 4], stability)


def suppress(
    boxes: NDArray[np.float32], inside: NDArray[np.bool_], box_overlap: float, mask_overlap: float
) -> NDArray[np.bool_]:
    """Greedy non-maximum suppression of N masks in the order given, the best first -> (N,) which of them stay.

    boxes: (N, 4). inside: (N, h, w) cells of each mask. A mask goes if its box's or its own IoU with one that stays is
    above ``box_overlap`` or ``mask_overlap``; 1 switches a test off.
    """
    packed = np.packbits(inside.reshape(len(inside), inside.shape[1] * inside.shape[2]), axis=1)
    bits = np.zeros((len(inside), -(-packed.shape[1] // 8) * 8), np.uint8)
    bits[:, : packed.shape[1]] = packed
    areas = np.count_nonzero(inside, axis=(1, 2)).astype(np.int32)
    keep = np.empty(len(inside), np.bool_)
    native = core()
    function = native.suppress_reference if _REFERENCE else native.suppress
    words = bits.view(np.uint64)
    function(np.ascontiguousarray(boxes, np.float32), words, areas, box_overlap, mask_overlap, keep.view(np.uint8))
    return keep


def grid_content(view: Letterbox) -> tuple[int, int]:
    """(rows, columns) of the logit grid that the view's content reaches into; the rest is padding."""
    return -(-view.content[1] // LOGIT_STRIDE), -(-view.content[0] // LOGIT_STRIDE)


def upsample(logits: NDArray[np.float32], view: Letterbox) -> NDArray[np.float32]:
    """(h, w) logits of a view -> (H, W) logits of the frame; -16 outside the view's region."""
    out = np.empty((view.frame_height, view.frame_width), np.float32)
    core().upsample(np.ascontiguousarray(logits), out, view.region, _content_on_grid(view), OUTSIDE_LOGIT)
    return out


def _content_on_grid(view: Letterbox) -> tuple[float, float]:
    return view.content[0] / LOGIT_STRIDE, view.content[1] / LOGIT_STRIDE


def resample_grid(logits: NDArray[np.float32], source: Letterbox, target: Letterbox) -> NDArray[np.float32]:
    """Logits (h, w) on one view's grid -> logits on another view's grid of the same frame; -16 where nothing was seen."""
    out = np.empty(target.grid, np.float32)
    core().resample_grid(np.ascontiguousarray(logits), source.numbers, target.numbers, out)
    return out


def shrink_mask(mask: NDArray[np.bool_], view: Letterbox) -> NDArray[np.float32]:
    """A bool mask of a view's region -> the share of each grid cell that it covers, (h, w) in [0, 1]."""
    rows, columns = view.grid
    cells = max(1, round(view.content[0] / LOGIT_STRIDE)), max(1, round(view.content[1] / LOGIT_STRIDE))
    small = cv2.resize(mask.astype(np.float32), cells, interpolation=cv2.INTER_AREA)
    out = np.zeros((rows, columns), np.float32)
    out[: cells[1], : cells[0]] = small
    return out
