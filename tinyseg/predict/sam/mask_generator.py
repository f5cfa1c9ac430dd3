"""A drop-in for ``segment_anything.SamAutomaticMaskGenerator``: change the import, keep the script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_choice
from tinyseg.errors import InputError
from tinyseg.predict.everything import SAM_CROP_OVERLAP, Search
from tinyseg.predict.sam.model import Sam, as_sam
from tinyseg.predict.segmenter import Segmenter
from tinyseg.regions import Regions
from tinyseg.rle import CocoRle


class UncompressedRle(TypedDict):
    """A mask as run lengths, column by column, the first run being zeros (segment-anything's ``mask_to_rle_pytorch``)."""

    size: list[int]  # [height, width]
    counts: list[int]


class SamAnnotation(TypedDict):
    """What segment-anything's generator gives for a mask."""

    segmentation: NDArray[np.bool_] | UncompressedRle | CocoRle
    area: int
    bbox: list[int]  # x, y, width, height
    predicted_iou: float
    point_coords: list[list[float]]
    stability_score: float
    crop_box: list[int]  # x, y, width, height


OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


class SamAutomaticMaskGenerator:
    """SAM's automatic mask generator on a tinyseg model: constructor, keys and types are segment-anything's.

    ``generator = tinyseg.SamAutomaticMaskGenerator(tinyseg.load())`` stands where ``SamAutomaticMaskGenerator(sam)``
    stood. Three things differ. SAM's thresholds belong to SAM's scale: left out, they are the model's own calibrated
    ones (``segmenter.everything_rule``); given, they are used as given. The grid is asked in two levels, the fine one
    only where the coarse one found nothing sure; ``point_grids`` asks exactly those points. Widths and heights of boxes
    count pixels (segment-anything's are one less: its boxes end at the last pixel's index).
    """

    def __init__(
        self,
        model: Sam | Segmenter,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float | None = None,
        stability_score_thresh: float | None = None,
        stability_score_offset: float | None = None,
        box_nms_thresh: float | None = None,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = SAM_CROP_OVERLAP,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[NDArray[np.floating]] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
    ) -> None:
        """Arguments are those of segment-anything 1.0; None for a threshold is the model's own. Raises InputError."""
        self.model = as_sam(model)
        own = self.model.segmenter.everything_rule
        if (points_per_side is None) == (point_grids is None):
            raise InputError("give exactly one of points_per_side and point_grids")
        given = {
            "points_per_side": points_per_side, "score": pred_iou_thresh, "stability": stability_score_thresh,
            "stability_offset": stability_score_offset, "box_overlap": box_nms_thresh,
        }  # fmt: skip
        changes = {name: value for name, value in given.items() if value is not None}
        self.rule = replace(own, **changes)  # type: ignore[arg-type]
        self.search = Search(
            crop_layers=crop_n_layers, crop_overlap=crop_overlap_ratio, crop_downscale=crop_n_points_downscale_factor,
            crop_box_overlap=crop_nms_thresh, min_area=min_mask_region_area, batch=points_per_batch,
            grids=None if point_grids is None else [np.asarray(g, np.float64) for g in point_grids],
        )  # fmt: skip
        self.output_mode = check_choice("output_mode", output_mode, OUTPUT_MODES)

    def generate(self, image: NDArray[np.uint8]) -> list[SamAnnotation]:
        """Masks of an image (H, W, 3) uint8 RGB, the best scored first, as dictionaries with SAM's keys. Raises FrameError."""
        regions = self.model.segmenter.embed(image, color="rgb").everything(self.rule, search=self.search)
        found = regions.to_annotations()
        return [
            {
                "segmentation": self._segmentation(regions, i), "area": row["area"], "bbox": row["bbox"],
                "predicted_iou": float(regions.scores[i]), "point_coords": [regions.points[i].astype(float).tolist()],
                "stability_score": float(regions.stability[i]), "crop_box": row["crop_box"],
            }
            for i, row in enumerate(found)
        ]  # fmt: skip

    def _segmentation(self, regions: Regions, index: int) -> NDArray[np.bool_] | UncompressedRle | CocoRle:
        if self.output_mode == "binary_mask":
            return regions.mask(index)
        if self.output_mode == "coco_rle":
            return regions.rle(index)
        return {"size": [regions.frame_height, regions.frame_width], "counts": regions.runs(index)}
