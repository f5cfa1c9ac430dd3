"""A drop-in for ``segment_anything.SamAutomaticMaskGenerator``: change the import, keep the script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_choice, shown
from tinyseg.errors import InputError
from tinyseg.graphs.everything_rule import EverythingRule
from tinyseg.predict.everything import SAM_CROP_OVERLAP, Search, fine_per_side, point_grid
from tinyseg.predict.sam.model import Sam
from tinyseg.predict.sam.predictor import SamPredictor
from tinyseg.predict.sam.tensors import as_array
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
    """SAM's automatic mask generator on a tinyseg model: constructor, attributes, keys and types are segment-anything's.

    ``generator = tinyseg.SamAutomaticMaskGenerator(tinyseg.load())`` stands where ``SamAutomaticMaskGenerator(sam)``
    stood. Attributes bear the arguments' names and may be set between calls, as segment-anything's: the next
    :meth:`generate` goes by them. Three things differ. SAM's thresholds belong to SAM's scale: left out, they are the
    model's own calibrated ones (``segmenter.everything_rule``); given, they are used as given. The grid is asked in
    levels, a finer one only where the coarser ones found nothing sure and, if the model's rule says so, in smaller inputs and in
    close views, parts of the picture that are then the ``crop_box``; ``point_grids``, given or set, asks exactly its points.
    Widths and heights of boxes count pixels (segment-anything's are one less: its boxes end at the last pixel's index).

    predictor: :class:`SamPredictor`, whose model is asked; its own image stays as it is.
    """

    def __init__(
        self,
        model: Sam | Segmenter,
        points_per_side: int | None = 32,
        points_per_batch: int | None = None,
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
        """Arguments are those of segment-anything 1.0. None is the model's own threshold, and for points_per_batch 8 on a CPU
        and 64, the most, elsewhere. Raises InputError."""
        if (points_per_side is None) == (point_grids is None):
            raise InputError("give exactly one of points_per_side and point_grids")
        self.predictor = SamPredictor(model)
        own = self.model.segmenter.everything_rule
        self.pred_iou_thresh = own.score if pred_iou_thresh is None else pred_iou_thresh
        self.stability_score_thresh = own.stability if stability_score_thresh is None else stability_score_thresh
        self.stability_score_offset = own.stability_offset if stability_score_offset is None else stability_score_offset
        self.box_nms_thresh = own.box_overlap if box_nms_thresh is None else box_nms_thresh
        self.points_per_batch = points_per_batch
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self._points_per_side = points_per_side
        self._given_grids: Sequence[NDArray[np.floating]] | None = point_grids
        self._checked()

    @property
    def model(self) -> Sam:
        """Whose segmenter is asked: the predictor's."""
        return self.predictor.model

    @property
    def rule(self) -> EverythingRule:
        """What the attributes ask for, the rest being the model's own. Raises InputError for impossible numbers."""
        own = self.model.segmenter.everything_rule
        return replace(
            own,
            points_per_side=own.points_per_side if self._points_per_side is None else self._points_per_side,
            score=self.pred_iou_thresh, stability=self.stability_score_thresh,
            stability_offset=self.stability_score_offset, box_overlap=self.box_nms_thresh,
        )  # fmt: skip

    @property
    def search(self) -> Search:
        """Where the attributes say to look. Raises InputError for what cannot be."""
        given = self._given_grids
        return Search(
            crop_layers=self.crop_n_layers, crop_overlap=self.crop_overlap_ratio,
            crop_downscale=self.crop_n_points_downscale_factor, crop_box_overlap=self.crop_nms_thresh,
            min_area=self.min_mask_region_area, batch=self.points_per_batch,
            grids=None if given is None else _as_grids(given),
        )  # fmt: skip

    @property
    def point_grids(self) -> Sequence[NDArray[np.floating]]:
        """For the frame and every layer of crops (N, 2) points x, y in [0, 1]: those that were given or set, else the
        finest grids of points_per_side, read-only. Those that are set are asked, all of them, from then on."""
        if self._given_grids is not None:
            return self._given_grids
        rule, search = self._checked()
        grids = [point_grid(fine_per_side(rule, search, layer)) for layer in range(search.crop_layers + 1)]
        for grid in grids:
            grid.flags.writeable = False
        return tuple(grids)

    @point_grids.setter
    def point_grids(self, grids: Sequence[NDArray[np.floating]]) -> None:
        self._given_grids = grids

    def _checked(self) -> tuple[EverythingRule, Search]:
        check_choice("output_mode", self.output_mode, OUTPUT_MODES)
        return self.rule, self.search

    def generate(self, image: NDArray[np.uint8]) -> list[SamAnnotation]:
        """Masks of an image (H, W, 3) uint8 RGB, the best scored first, as dictionaries with SAM's keys.

        Raises FrameError, and InputError where an attribute was set to what the constructor refuses.
        """
        rule, search = self._checked()
        regions = self.model.segmenter.everything(image, "rgb", rule, search=search)
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


def _as_grids(given: Any) -> list[NDArray[np.float64]]:
    try:
        return [as_array(grid, "a grid of point_grids").astype(np.float64) for grid in given]
    except TypeError as exc:
        raise InputError(f"point_grids must be a list of arrays (N, 2), but is {shown(given)}") from exc
