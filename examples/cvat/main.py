"""A CVAT interactor on tinyseg, as a nuclio function: clicks and an optional box in, a mask out, on a CPU.

nuctl deploy --project-name cvat --path examples/cvat --platform local
"""

from __future__ import annotations

import base64
import json
from typing import Any

import cv2
import numpy as np

import tinyseg


def init_context(context: Any) -> None:
    context.user_data.model = tinyseg.load()


def handler(context: Any, event: Any) -> Any:
    """{"image": base64, "pos_points", "neg_points": [[x, y], ...], "obj_bbox"} -> {"mask": H x W of 0 and 1}."""
    try:
        data = event.body
        image = cv2.imdecode(np.frombuffer(base64.b64decode(data["image"]), np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise tinyseg.DataError("the image cannot be read")
        on, off = data.get("pos_points") or [], data.get("neg_points") or []
        corners = np.array(data.get("obj_bbox") or [], np.float64).ravel()
        found = context.user_data.model.embed(image).predict(
            points=[*on, *off] or None, labels=[1] * len(on) + [0] * len(off) or None,
            box=corners if corners.size else None, multimask=False,
        )  # fmt: skip
        return answer(context, {"mask": found.masks[0].astype(int).tolist()}, 200)
    except (tinyseg.TinysegError, KeyError, ValueError) as exc:
        context.logger.error(f"tinyseg: {exc}")
        return answer(context, {"error": str(exc)}, 400)


def answer(context: Any, body: dict[str, Any], status: int) -> Any:
    return context.Response(body=json.dumps(body), headers={}, content_type="application/json", status_code=status)
