"""Followed objects in COCO's format, which annotation tools and pycocotools read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tinyseg.masks import coco_box
from tinyseg.serve.objects import ObjectState


def annotations_of(
    objects: Sequence[ObjectState], image: int, size: tuple[int, int], first: int = 1
) -> list[dict[str, Any]]:
    """The visible objects of one image as annotations. size is (H, W); ids count up from ``first``."""
    visible = [one for one in objects if one.visible and one.area]
    return [
        {
            "id": first + i, "image_id": image, "category_id": one.id, "track_id": one.id, "iscrowd": 0, "area": one.area,
            "bbox": coco_box(one.box), "segmentation": {"size": list(size), "counts": one.counts}, "score": one.score,
        }
        for i, one in enumerate(visible)
    ]  # fmt: skip


def categories_of(names: Iterable[tuple[int, str]]) -> list[dict[str, Any]]:
    """A category for every object: its id and the name that viewers gave it."""
    return [{"id": number, "name": name} for number, name in names]


def picture_document(objects: Sequence[ObjectState], frame: int, size: tuple[int, int]) -> dict[str, Any]:
    """One frame as a COCO document. size is (H, W)."""
    return {
        "images": [{"id": frame, "file_name": f"frame-{frame:06d}.png", "height": size[0], "width": size[1]}],
        "annotations": annotations_of(objects, frame, size),
        "categories": categories_of((one.id, one.name) for one in objects),
    }
