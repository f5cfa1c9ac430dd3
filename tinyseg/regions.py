"""Regions of a frame: many masks without names, kept small until they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import shown
from tinyseg.errors import FrameError, InputError, NotInstalled
from tinyseg.geometry import Letterbox
from tinyseg.masks import Masks, coco_box
from tinyseg.pixels import resample_grid, threshold_window
from tinyseg.rle import CocoRle, compress_runs

if TYPE_CHECKING:
    import supervision

# Bytes of full-size masks that are made in one array; more are given one by one.
MAX_MASK_BYTES = 4 << 30


class CocoAnnotation(TypedDict):
    """A region as an annotation of COCO's instance JSON, with the extra keys of SA-1B."""

    id: int
    image_id: int
    category_id: int
    iscrowd: int
    segmentation: CocoRle
    bbox: list[int]  # x, y, width, height
    area: int
    predicted_iou: float
    stability_score: float
    point_coords: list[list[float]]
    crop_box: list[int]  # x, y, width, height of the part of the frame that was encoded


@dataclass(frozen=True, repr=False)
class Regions:
    """K regions of one frame, the best scored first. They may overlap, and have no names: tinyseg has no class head.

    scores: (K,) float32, predicted IoU. stability: (K,) float32, of the mask on the logit grid. boxes: (K, 4) int32 x0,
    y0, x1, y1 in frame pixels, ends exclusive. areas: (K,) int64 pixels. points: (K, 2) float32 x, y, the click that found
    each. logits: K arrays (h, w) float32 on the grid of their view; views: how that grid lies in the frame.

    Full-size masks are drawn when they are asked for, so a region takes the memory of its logits (h * w * 4 bytes: 36 KB
    for a 16:9 frame) whatever the size of the frame: go through :meth:`mask` or :meth:`window` one by one where ``masks``,
    K * H * W bytes, would be too much (300 regions of a 16384 x 16384 frame: 80 GB).
    """

    frame_width: int
    frame_height: int
    scores: NDArray[np.float32]
    stability: NDArray[np.float32]
    boxes: NDArray[np.int32]
    areas: NDArray[np.int64]
    points: NDArray[np.float32]
    logits: tuple[NDArray[np.float32], ...]
    views: tuple[Letterbox, ...]

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        """One line, whatever is in it."""
        best = f", scores {self.scores[0]:.2f} to {self.scores[-1]:.2f}" if len(self) else ""
        return f"Regions({len(self)} of {self.frame_width} x {self.frame_height} pixels{best})"

    def window(self, index: int) -> NDArray[np.bool_]:
        """One mask inside its box: (y1 - y0, x1 - x0) bool. Raises InputError."""
        i = self._checked(index)
        x0, y0, x1, y1 = (int(v) for v in self.boxes[i])
        return threshold_window(self.logits[i], self.views[i], (x0, y0, x1, y1))[0]

    def mask(self, index: int) -> NDArray[np.bool_]:
        """One mask: (H, W) bool. Raises InputError."""
        i = self._checked(index)
        out = np.zeros((self.frame_height, self.frame_width), np.bool_)
        x0, y0, x1, y1 = self.boxes[i]
        out[y0:y1, x0:x1] = self.window(i)
        return out

    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        """Masks (H, W), one after the other; only the one in hand takes memory."""
        return (self.mask(i) for i in range(len(self)))

    @property
    def masks(self) -> NDArray[np.bool_]:
        """All masks: (K, H, W) bool. Raises FrameError where that takes more than 4 GiB."""
        size = len(self) * self.frame_height * self.frame_width
        if size > MAX_MASK_BYTES:
            raise FrameError(
                f"{len(self)} masks of {self.frame_width} x {self.frame_height} pixels take {size / 2**30:.0f} GiB at once; "
                "go through them one by one: for mask in regions"
            )
        out = np.zeros((len(self), self.frame_height, self.frame_width), np.bool_)
        for i, (x0, y0, x1, y1) in enumerate(self.boxes):
            out[i, y0:y1, x0:x1] = self.window(i)
        return out

    def select(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Regions:
        """Some of the regions, in the order given; for a condition ``select(numpy.flatnonzero(regions.scores > 0.5))``. Raises
        InputError.
        """
        kept = [self._checked(i) for i in indices]
        return Regions(
            self.frame_width, self.frame_height, self.scores[kept], self.stability[kept], self.boxes[kept],
            self.areas[kept], self.points[kept], tuple(self.logits[i] for i in kept), tuple(self.views[i] for i in kept),
        )  # fmt: skip

    def to_masks(self, view: Letterbox) -> Masks:
        """The same as :class:`tinyseg.Masks`, logits on the grid of ``view`` (``Embedding.geometry``)."""
        rows, columns = view.grid
        on_grid = [g if v == view else resample_grid(g, v, view) for g, v in zip(self.logits, self.views)]
        logits = np.stack(on_grid) if on_grid else np.zeros((0, rows, columns), np.float32)
        return Masks(self.masks, self.scores, logits, self.boxes, self.areas, self.stability)

    def to_coco(self) -> list[CocoRle]:
        """One compressed RLE a region; ``pycocotools.mask.decode`` gives the same pixels."""
        return [self.rle(i) for i in range(len(self))]

    def to_annotations(self, image_id: int = 1, first_id: int = 1) -> list[CocoAnnotation]:
        """Annotations for COCO's instance JSON, category 1, with scores and clicks under the keys of SA-1B."""
        return [
            {
                "id": first_id + i, "image_id": image_id, "category_id": 1, "iscrowd": 0, "segmentation": self.rle(i),
                "bbox": coco_box(self.boxes[i]), "area": int(self.areas[i]),
                "predicted_iou": round(float(self.scores[i]), 4), "stability_score": round(float(self.stability[i]), 4),
                "point_coords": [[round(float(v), 2) for v in self.points[i]]],
                "crop_box": coco_box(self.views[i].region),
            }
            for i in range(len(self))
        ]  # fmt: skip

    def rle(self, index: int) -> CocoRle:
        """One region as COCO's compressed RLE. Raises InputError."""
        return {"size": [self.frame_height, self.frame_width], "counts": compress_runs(self.runs(index))}

    def runs(self, index: int) -> list[int]:
        """One region as lengths of runs, the frame read column by column, the first run being zeros. Raises InputError."""
        i = self._checked(index)
        x0, y0, x1, _ = (int(v) for v in self.boxes[i])
        window = self.window(i)
        # Where each column's runs begin and end, as positions in the frame read column by column.
        columns = np.zeros((x1 - x0, len(window) + 2), np.int8)
        columns[:, 1:-1] = window.T
        column, row = np.nonzero(np.diff(columns, axis=1))
        changes = (column + x0).astype(np.int64) * self.frame_height + row + y0
        # A run that reaches the foot of a column goes on at the head of the next.
        starts, ends = changes[::2], changes[1::2]
        joined = np.flatnonzero(starts[1:] == ends[:-1])
        edges = np.stack([np.delete(starts, joined + 1), np.delete(ends, joined)], 1).ravel()
        total = self.frame_width * self.frame_height
        found: list[int] = np.diff(np.concatenate([[0], edges, [total]])).tolist()
        return found if found[-1] else found[:-1]

    def to_polygons(self) -> list[list[NDArray[np.int32]]]:
        """For every region its outlines, (n, 2) x, y pixel positions each; inner ones are holes (even-odd rule)."""
        found = []
        for i in range(len(self)):
            outlines, _ = cv2.findContours(
                self.window(i).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE,
                offset=(int(self.boxes[i, 0]), int(self.boxes[i, 1])),
            )  # fmt: skip
            found.append([np.asarray(o, np.int32).reshape(-1, 2) for o in outlines])
        return found

    def label_map(self) -> NDArray[np.int32]:
        """(H, W) int32: 0 where no region is, else 1 + its index; the smaller of two that overlap lies on top."""
        out = np.zeros((self.frame_height, self.frame_width), np.int32)
        for i in np.argsort(-self.areas, kind="stable"):
            x0, y0, x1, y1 = self.boxes[i]
            out[y0:y1, x0:x1][self.window(i)] = i + 1
        return out

    def to_supervision(self) -> supervision.Detections:
        """``supervision.Detections`` with xyxy, mask and confidence, ``data`` holding stability and points.

        Needs the ``supervision`` extra. Raises NotInstalled, and FrameError as ``masks`` does.
        """
        try:
            import supervision  # noqa: PLC0415 - an extra
        except ImportError as exc:
            raise NotInstalled("supervision is not installed; run: pip install 'tinyseg[supervision]'") from exc
        data: dict[str, Any] = {"stability": self.stability, "points": self.points}
        return supervision.Detections(
            xyxy=self.boxes.astype(np.float32), mask=self.masks, confidence=self.scores.astype(np.float32), data=data
        )

    def _checked(self, index: int) -> int:
        # True and False are no places: of a condition they would be taken for the second and the first region.
        whole = isinstance(index, (int, np.integer)) and not isinstance(index, bool)
        if not whole or not -len(self) <= index < len(self):
            raise InputError(
                f"index must be a whole number, one of the {len(self)} regions, but is {shown(index)}; "
                "numpy.flatnonzero makes such numbers of a condition"
            )
        return int(index) % len(self)
