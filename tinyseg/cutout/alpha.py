"""From a mask to a cut-out: a soft alpha along the object's edge, and the object's own colours beneath it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import shown
from tinyseg.errors import FrameError, InputError
from tinyseg.masks import Masks
from tinyseg.pixels import check_frame

# Half the width of the band in which alpha is soft, over the longer side of what was looked at: about one and a half
# cells of the logit grid, which is how far a mask's edge may be off.
BAND = 0.012
# Of the guided filter: edges of less contrast (in [0, 1] squared) than this are smoothed over.
EPSILON = 1e-4
# The filtered edge is stretched so that what is nearly opaque or nearly clear is wholly so.
CLEAR, OPAQUE = 0.1, 0.9
# Side above which the filter's coefficients are computed at half, a third, ... of the size (He and Sun).
FILTER_SIDE = 640
# Radii of the two rounds in which colours are spread across the edge, as in the paper for its own size.
SPREAD_RADII = (45, 3)


@dataclass(frozen=True)
class Cutout:
    """An object without its background. foreground: (H, W, 3) uint8 BGR. alpha: (H, W) float32 in [0, 1].

    Inside the soft edge ``foreground`` is the object's own colour, without what the old background mixed into it, so
    that the cut-out can be laid over anything.
    """

    foreground: NDArray[np.uint8]
    alpha: NDArray[np.float32]

    def rgba(self) -> NDArray[np.uint8]:
        """(H, W, 4) uint8 RGBA, alpha not multiplied into the colours (PNG's and WebP's convention)."""
        return np.dstack([self.foreground[..., ::-1], _to_bytes(self.alpha)])

    def over(self, background: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The object over a background (H, W, 3) uint8 BGR of the same size. Raises FrameError."""
        if not isinstance(background, np.ndarray):
            raise FrameError(
                f"a background must be a numpy array of shape {self.foreground.shape}, but is {shown(background)}"
            )
        if background.shape != self.foreground.shape or background.dtype != np.uint8:
            raise FrameError(
                f"a background must be uint8 of shape {self.foreground.shape}, but is {background.dtype} {background.shape}"
            )
        alpha = self.alpha[..., None]
        return np.asarray(np.rint(alpha * self.foreground + (1 - alpha) * background), np.uint8)


def _to_bytes(alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(alpha * 255), np.uint8)


def cut_out(frame: NDArray[np.uint8], masks: Masks, color: str = "bgr", index: int | None = None) -> Cutout:
    """Cut an object out of a frame, with a soft edge and the object's own colours.

    frame and color as in :meth:`tinyseg.Segmenter.embed`. masks: of this frame; index is the mask, by default the best
    scored one. Raises FrameError or InputError.
    """
    bgr = bgr_frame(frame, color)
    if not isinstance(masks, Masks):
        raise InputError(f"masks must be tinyseg.Masks, as predict gives them, but is {shown(masks)}")
    if bgr.shape[:2] != masks.masks.shape[1:]:
        raise FrameError(f"the frame has shape {bgr.shape[:2]}, but the masks were made for {masks.masks.shape[1:]}")
    chosen = masks.only(masks.best if index is None else index)
    return cut_out_mask(bgr, chosen.masks[0], band_of(bgr.shape, masks.zoom))


def united(answers: Sequence[Masks]) -> Masks:
    """The best masks of several prompts about one frame as one mask: what all of them cut out together."""
    if len(answers) == 1 and len(answers[0]) == 1:
        return answers[0]
    chosen = [(a, a.best) for a in answers]
    mask = np.logical_or.reduce([a.masks[i] for a, i in chosen])
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    zooms = {a.zoom for a, _ in chosen}
    return Masks(
        mask[None], np.array([min(a.scores[i] for a, i in chosen)], np.float32),
        np.maximum.reduce([a.logits[i] for a, i in chosen])[None], np.array([[x, y, x + w, y + h]], np.int32),
        np.array([np.count_nonzero(mask)], np.int64), np.array([min(a.stability[i] for a, i in chosen)], np.float32),
        zooms.pop() if len(zooms) == 1 else None,
    )  # fmt: skip


def bgr_frame(frame: NDArray[np.uint8], color: str) -> NDArray[np.uint8]:
    """A frame of any colour order as (H, W, 3) BGR. Raises FrameError."""
    layout = check_frame(frame, color)
    pixels = layout.pixels[..., :3] if layout.bgr or layout.pixels.shape[2] == 1 else layout.pixels[..., 2::-1]
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def band_of(shape: tuple[int, ...], zoom: tuple[int, int, int, int] | None) -> int:
    """Half the width of the soft edge, in pixels of the frame, for a mask of the whole frame or of a second look."""
    height, width = shape[:2] if zoom is None else (zoom[3] - zoom[1], zoom[2] - zoom[0])
    return max(2, round(BAND * max(height, width)))


def cut_out_mask(bgr: NDArray[np.uint8], mask: NDArray[np.bool_], band: int) -> Cutout:
    """Cut out a mask (H, W) bool of a frame (H, W, 3) BGR; band: half the width of the soft edge, pixels."""
    alpha = mask.astype(np.float32)
    foreground = bgr.copy()
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    if w and h:
        # Nothing changes away from the object: work on what is around it.
        margin = 4 * band
        part = slice(max(0, y - margin), y + h + margin), slice(max(0, x - margin), x + w + margin)
        alpha[part] = soft_alpha(bgr[part], mask[part], band)
        foreground[part] = own_colors(bgr[part], alpha[part], band)
    return Cutout(foreground, alpha)


def soft_alpha(bgr: NDArray[np.uint8], mask: NDArray[np.bool_], band: int) -> NDArray[np.float32]:
    """A mask (H, W) whose edge follows the picture: (H, W) alpha in [0, 1], soft within ``band`` pixels of the edge."""
    guide = np.asarray(bgr, np.float32) / np.float32(255)
    hard = mask.astype(np.float32)
    soft = guided_filter(guide, hard, band, EPSILON)
    soft = np.clip((soft - CLEAR) / (OPAQUE - CLEAR), 0, 1)
    # Far from the edge the mask is right, whatever the colours say.
    side = 2 * band + 1
    ball = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    bits = mask.view(np.uint8)
    near = cv2.morphologyEx(bits, cv2.MORPH_GRADIENT, ball).astype(bool)
    return np.where(near, soft, hard).astype(np.float32)


def guided_filter(
    guide: NDArray[np.float32], values: NDArray[np.float32], radius: int, epsilon: float
) -> NDArray[np.float32]:
    """Smooth ``values`` (H, W) so that its edges are those of ``guide`` (H, W, 3) in [0, 1].

    The colour guided filter (He, Sun and Tang, "Guided Image Filtering", TPAMI 2013, section 3.4); coefficients of large
    pictures are computed at a fraction of the size (He and Sun, "Fast Guided Filter", arXiv 1505.00996).
    """
    height, width = values.shape
    step = -(-max(height, width) // FILTER_SIDE)
    small, target = guide, values
    if step > 1:
        size = max(1, width // step), max(1, height // step)
        small = np.asarray(cv2.resize(guide, size, interpolation=cv2.INTER_AREA), np.float32)
        target = np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)
    side = 2 * max(1, radius // step) + 1

    def mean(array: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.blur(array, (side, side)), np.float32)

    mean_guide, mean_target = mean(small), mean(target)
    covariance = mean(small * target[..., None]) - mean_guide * mean_target[..., None]
    b, g, r = (small[..., i] for i in range(3))
    mb, mg, mr = (mean_guide[..., i] for i in range(3))
    # The symmetric 3 x 3 matrix of a window's colours, inverted by its adjugate.
    bb, gg, rr = mean(b * b) - mb * mb + epsilon, mean(g * g) - mg * mg + epsilon, mean(r * r) - mr * mr + epsilon
    bg, br, gr = mean(b * g) - mb * mg, mean(b * r) - mb * mr, mean(g * r) - mg * mr
    i00, i01, i02 = gg * rr - gr * gr, br * gr - bg * rr, bg * gr - br * gg
    i11, i12, i22 = bb * rr - br * br, bg * br - bb * gr, bb * gg - bg * bg
    scale = 1 / np.maximum(bb * i00 + bg * i01 + br * i02, 1e-12)
    cb, cg, cr = (covariance[..., i] for i in range(3))
    slope = np.stack(
        [(i00 * cb + i01 * cg + i02 * cr), (i01 * cb + i11 * cg + i12 * cr), (i02 * cb + i12 * cg + i22 * cr)], 2
    ) * scale[..., None]  # fmt: skip
    offset = mean_target - (slope * mean_guide).sum(2)
    slope, offset = mean(slope.astype(np.float32)), mean(offset.astype(np.float32))
    if step > 1:
        slope = np.asarray(cv2.resize(slope, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        offset = np.asarray(cv2.resize(offset, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    b, g, r = (slope[..., i] * guide[..., i] for i in range(3))
    return np.asarray(b + g + r + offset, np.float32)


def own_colors(bgr: NDArray[np.uint8], alpha: NDArray[np.float32], band: int) -> NDArray[np.uint8]:
    """The object's colours (H, W, 3) with what the background mixed into its edge taken out.

    Blur fusion, twice (Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021): the colours on either side are
    spread by a box filter, weighted by alpha, and corrected so that both together give the picture again.
    """
    height, width = alpha.shape
    # The first round carries colours far and knows no detail: a few pixels do.
    step = max(1, band // 2)
    size = max(1, width // step), max(1, height // step)
    picture = bgr.astype(np.float32)
    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)
    share = np.asarray(cv2.resize(alpha, size, interpolation=cv2.INTER_AREA), np.float32)[..., None]
    front, back = _fused(small, small, small, share, max(1, max(SPREAD_RADII[0], 2 * band) // step))
    front = np.asarray(cv2.resize(front, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    back = np.asarray(cv2.resize(back, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    weight = alpha[..., None]
    front, _ = _fused(picture, front, back, weight, SPREAD_RADII[1])
    # Where nothing of the object is seen any colour would do; the picture's own compresses best.
    soft = (weight > 0) & (weight < 1)
    return np.asarray(np.rint(np.where(soft, front, picture)), np.uint8)


def _fused(
    picture: NDArray[np.float32], front: NDArray[np.float32], back: NDArray[np.float32], weight: NDArray[np.float32],
    radius: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # fmt: skip
    """One round of blur fusion: colours (h, w, 3) of the object and of its background, better than those given."""
    side = (2 * radius + 1, 2 * radius + 1)
    share = cv2.blur(weight, side)[..., None]
    front = np.asarray(cv2.blur(front * weight, side) / (share + 1e-5), np.float32)
    rest = 1 - weight
    back = np.asarray(cv2.blur(back * rest, side) / (1 - share + 1e-5), np.float32)
    front = front + weight * (picture - weight * front - rest * back)
    return np.clip(front, 0, 255), back
