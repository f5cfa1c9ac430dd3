"""Label Studio's clicks and boxes -> tinyseg's prompts, and masks -> its brush labels. Needs label-studio-sdk for the latter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def prompt_of(context: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What a user drew -> (points, labels and box in pixels, the chosen label's name).

    Label Studio gives places and sizes in percent of the picture.
    """
    points: list[list[float]] = []
    labels: list[int] = []
    box: list[float] | None = None
    chosen = ""
    for one in context["result"]:
        kind, value = one["type"], one["value"]
        width, height = one["original_width"], one["original_height"]
        x, y = value["x"] * width / 100, value["y"] * height / 100
        chosen = value[kind][0]
        if kind == "keypointlabels":
            points.append([x, y])
            labels.append(int(one.get("is_positive", 1)))
        elif kind == "rectanglelabels":
            box = [x, y, x + value["width"] * width / 100, y + value["height"] * height / 100]
    return {"points": points or None, "labels": labels or None, "box": box}, chosen


def prediction_of(
    mask: NDArray[np.bool_], score: float, label: str, from_name: str, to_name: str, version: str
) -> dict[str, Any]:
    """A mask (H, W) as a prediction of one brush label."""
    result = brush_of(mask, score, label, from_name, to_name, "tinyseg-1")
    return {"result": [result], "score": score, "model_version": version}


def brush_of(
    mask: NDArray[np.bool_], score: float, label: str, from_name: str, to_name: str, id: str
) -> dict[str, Any]:
    """A mask (H, W) as one brush label of a prediction."""
    from label_studio_sdk.converter.brush import mask2rle  # noqa: PLC0415 - reading contexts does not need it

    height, width = mask.shape
    return {
        "id": id, "from_name": from_name, "to_name": to_name, "type": "brushlabels", "score": score,
        "original_width": width, "original_height": height, "image_rotation": 0, "readonly": False,
        "value": {"format": "rle", "rle": mask2rle(mask.astype(np.uint8) * 255), "brushlabels": [label]},
    }  # fmt: skip
