"""The COCO file that commands write about photographs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.masks import Masks, coco_box
from tinyseg.regions import Regions


class CocoWriter:
    """Collects a COCO results file: images, and annotations with RLE, box, area and score."""

    def __init__(self) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[Mapping[str, Any]] = []
        self._categories = {"object": 1}

    def add(
        self, image: str, frame: NDArray[np.uint8], kept: Sequence[tuple[Masks, int]], labels: Sequence[str] = ()
    ) -> None:
        """labels: of the masks, by which words found them; none: all are objects."""
        image_id = self._add_image(image, frame)
        for number, (answer, index) in enumerate(kept):
            label = labels[number] if labels else "object"
            category = self._categories.setdefault(label, len(self._categories) + 1)
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1, "image_id": image_id, "category_id": category, "iscrowd": 0,
                    "segmentation": answer.to_coco()[index], "bbox": coco_box(answer.boxes[index]),
                    "area": int(answer.areas[index]), "score": round(float(answer.scores[index]), 4),
                }
            )  # fmt: skip

    def add_regions(self, image: str, frame: NDArray[np.uint8], regions: Regions) -> None:
        """All regions of an image, as objects without names."""
        image_id = self._add_image(image, frame)
        self._annotations += regions.to_annotations(image_id, len(self._annotations) + 1)

    def _add_image(self, image: str, frame: NDArray[np.uint8]) -> int:
        height, width = frame.shape[:2]
        self._images.append({"id": len(self._images) + 1, "file_name": image, "width": width, "height": height})
        return len(self._images)

    def content(self) -> bytes:
        """The file, as JSON."""
        categories = [{"id": number, "name": name} for name, number in self._categories.items()]
        rows = {"images": self._images, "annotations": self._annotations, "categories": categories}
        return json.dumps(rows).encode()
