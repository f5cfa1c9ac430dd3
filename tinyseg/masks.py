"""Answers: masks in the frame's own pixels, and their conversions to what other tools read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyseg.arguments import check_path, check_whole
from tinyseg.draw import overlay
from tinyseg.errors import FrameError, InputError, NotInstalled
from tinyseg.images import ImageInput, open_image, write_image
from tinyseg.pixels import FrameLayout, check_frame
from tinyseg.prompts import Prompt
from tinyseg.rle import CocoRle, encode_rle

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, repr=False)
class Masks:
    """K masks of one frame, in the decoder's order (for three readings of a click: no order of size or score).

    masks: (K, H, W) bool. scores: (K,) float32, predicted IoU in [0, 1]. logits: (K, h, w) float32 on the frame's
    low-resolution grid; one of them can be passed back as ``mask=``. boxes: (K, 4) int32 x0, y0, x1, y1, ends
    exclusive, zeros for an empty mask. areas: (K,) int64 pixels. stability: (K,) float32, how much of the mask
    survives when its threshold moves by 1 (SAM, appendix B). zoom: the region (x0, y0, x1, y1) of the frame that was
    looked at a second time, or None. frame and prompt: what :meth:`plot` and :meth:`save` draw on, and draw; None where
    the frame was not kept (:class:`tinyseg.Loop`).
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    logits: NDArray[np.float32]
    boxes: NDArray[np.int32]
    areas: NDArray[np.int64]
    stability: NDArray[np.float32]
    zoom: tuple[int, int, int, int] | None = None
    frame: FrameLayout | None = field(default=None, compare=False)
    prompt: Prompt | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        """One line: how many, of which size, their scores, and the best one's box and area."""
        count, height, width = self.masks.shape
        if not count:
            return f"Masks(0 of {width} x {height} pixels)"
        scores = ", ".join(f"{s:.2f}" for s in self.scores)
        zoomed = "" if self.zoom is None else f", second look at {self.zoom}"
        return (
            f"Masks({count} of {width} x {height} pixels, scores {scores}; best {self.best}: box "
            f"{tuple(self.boxes[self.best].tolist())}, {self.areas[self.best]} px{zoomed})"
        )

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def best(self) -> int:
        """Index of the mask with the highest score. Raises InputError where there is no mask."""
        if not len(self):
            raise InputError("there is no mask, as where nothing was found; look at len(masks) first")
        return int(self.scores.argmax())

    def only(self, index: int) -> Masks:
        """One of the masks, as K = 1; as in a list, -1 is the last one. Raises InputError."""
        index = self._checked(index) % len(self)
        one = slice(index, index + 1)
        return Masks(
            self.masks[one], self.scores[one], self.logits[one], self.boxes[one], self.areas[one], self.stability[one],
            self.zoom, self.frame, self.prompt,
        )  # fmt: skip

    def to_coco(self) -> list[CocoRle]:
        """One compressed RLE a mask; ``pycocotools.mask.decode`` gives the same pixels."""
        return [encode_rle(mask) for mask in self.masks]

    def to_polygons(self) -> list[list[NDArray[np.int32]]]:
        """For every mask its outlines, (n, 2) x, y pixel positions each.

        Inner outlines are holes: fill all of a mask's outlines in one ``cv2.fillPoly`` call (even-odd).
        """
        return [polygons(mask) for mask in self.masks]

    def to_supervision(self) -> supervision.Detections:
        """``supervision.Detections`` with xyxy, mask and confidence. Needs the ``supervision`` extra."""
        try:
            import supervision  # noqa: PLC0415 - an extra
        except ImportError as exc:
            raise NotInstalled("supervision is not installed; run: pip install 'tinyseg[supervision]'") from exc
        return supervision.Detections(
            xyxy=self.boxes.astype(np.float32), mask=self.masks, confidence=self.scores.astype(np.float32)
        )

    def plot(self, frame: ImageInput | None = None, color: str = "bgr", index: int | None = None) -> NDArray[np.uint8]:
        """A picture (H, W, 3) BGR uint8: a mask and the prompt drawn over the frame.

        frame and color as in :meth:`tinyseg.Segmenter.embed`; None for the frame that was segmented. index is the mask, by
        default the best scored one. Raises FrameError or InputError.
        """
        if frame is not None:
            layout = check_frame(*open_image(frame, color))
        elif self.frame is not None:
            layout = self.frame
        else:
            raise InputError("these masks do not hold their frame; give it: plot(frame) or save(path, frame)")
        self._require_size(layout)
        prompts = () if self.prompt is None else (self.prompt,)
        return overlay(layout.to_bgr(), [self.masks[self._checked(index)]], prompts)

    def save(
        self, path: str | Path, frame: ImageInput | None = None, color: str = "bgr", index: int | None = None
    ) -> Path:
        """Write :meth:`plot`'s picture as a .png, .jpg or other image file; returns the path. Raises DataError."""
        place = check_path("a picture's name", path)
        write_image(place, self.plot(frame, color, index))
        return place

    def cutout(self, frame: NDArray[np.uint8], color: str = "bgr", index: int | None = None) -> NDArray[np.uint8]:
        """The frame with everything but a mask transparent: (H, W, 4) RGBA uint8.

        frame and color as in :meth:`tinyseg.Segmenter.embed`; index is the mask, by default the best scored one.
        """
        layout = check_frame(frame, color)
        self._require_size(layout)
        index = self._checked(index)
        pixels = layout.pixels[..., :3]
        rgb = pixels[..., ::-1] if layout.bgr else pixels
        alpha = np.where(self.masks[index], 255, 0).astype(np.uint8)
        return np.concatenate([np.broadcast_to(rgb, (*rgb.shape[:2], 3)), alpha[..., None]], 2)

    def _checked(self, index: int | None) -> int:
        best = self.best  # which also tells that there is a mask
        return best if index is None else check_whole("index", index, -len(self), len(self) - 1)

    def _require_size(self, layout: FrameLayout) -> None:
        if layout.pixels.shape[:2] != self.masks.shape[1:]:
            raise FrameError(
                f"the frame has shape {layout.pixels.shape[:2]}, but the masks were made for {self.masks.shape[1:]}"
            )


def coco_box(box: ArrayLike) -> list[int]:
    """(x0, y0, x1, y1) in pixels, ends exclusive -> [x, y, width, height], as COCO has boxes."""
    x0, y0, x1, y1 = (int(v) for v in np.asarray(box))
    return [x0, y0, x1 - x0, y1 - y0]


def polygons(mask: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    """Outlines of a (H, W) mask, (n, 2) pixel positions each; inner ones are holes."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [np.asarray(c, np.int32).reshape(-1, 2) for c in found]


def most_interior(region: NDArray[np.bool_]) -> tuple[int, int]:
    """(x, y) of the pixel farthest from the region's outside; the frame's border counts as outside."""
    padded = np.pad(region, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    y, x = divmod(int(depth.argmax()), region.shape[1])
    return x, y
