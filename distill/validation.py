"""Figures of a student during training, or of a teacher: box and click IoU on photos that are not trained on.

A quick encoded through torch, whole frame only; the figures that are published come from ``tinyseg eval``, which runs the
exported model through the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tinyseg.dataset import Photo
from tinyseg.distill.data import Crop, cut_image, fill_instance
from tinyseg.distill.losses import mask_iou
from tinyseg.distill.model import Student
from tinyseg.distill.prompts import PromptBatch
from tinyseg.distill.teachers import Encoded, StudentEncoded
from tinyseg.geometry import HALF_PIXEL, LOGIT_STRIDE
from tinyseg.masks import most_interior
from tinyseg.prompts.layout import (
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_NEGATIVE,
    LABEL_PADDING,
    LABEL_POSITIVE,
)

CLICKS = 3
MAX_INSTANCES = 4  # of one photo, the first ones in file order
VIEW_SIZES = {"frame": 512, "zoom": 256}


def view(photo: Photo, size: int, box: NDArray[np.float64] | None) -> Crop:
    """The whole photo, or the square of 1.6 times a box, scaled to ``size``."""
    if box is None:
        scale = size / max(photo.width, photo.height)
        return Crop(np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]]), size)
    side = max(1.6 * float((box[2:] - box[:2]).max()), 24.0)
    start = (box[:2] + box[2:]) / 2 - side / 2
    start = np.clip(start, 0, np.maximum(np.array([photo.width, photo.height]) - side, 0))
    scale = size / side
    return Crop(np.array([[scale, 0.0, -start[0] * scale], [0.0, scale, -start[1] * scale]]), size)


def validate(student: Student, photos: Sequence[Photo], device: torch.device) -> dict[str, float]:
    """Figures of a student, see ``score_encoders``."""
    was_training = student.training
    student.eval()
    figures = score_encoders(lambda image: StudentEncoded.at(student, image), photos, device)
    student.train(was_training)
    return figures


@torch.inference_mode()
def score_encoders(
    encode: Callable[[Tensor], Encoded], photos: Sequence[Photo], device: torch.device
) -> dict[str, float]:
    """Mean IoU of the true box (mask 0), of one interior click (best scored of masks 1 to 3) and of three, frame and zoom.

    encode: takes samples (B, S, S, 3) uint8 RGB, as Teacher.encoded does.
    """
    names = ("box_frame", "click_frame", "oracle_frame", "click3_frame", "box_zoom")
    found: dict[str, list[float]] = {name: [] for name in names}
    for photo in photos:
        image = photo.read()
        for kind, size in VIEW_SIZES.items():
            boxes = []
            for polygons in photo.instances[:MAX_INSTANCES]:
                low = np.min([p.min(0) for p in polygons], 0)
                high = np.max([p.max(0) for p in polygons], 0) + 1.0
                boxes.append(np.concatenate([low, high]).astype(np.float64))
            crops = [view(photo, size, box) for box in boxes] if kind == "zoom" else [view(photo, size, None)]
            for i, crop in enumerate(crops):
                instances = [photo.instances[i]] if kind == "zoom" else photo.instances[:MAX_INSTANCES]
                masks = [fill_instance(p, crop) for p in instances]
                masks = [m for m in masks if m.sum() >= 16]
                if not masks:
                    continue
                encoded = encode(torch.from_numpy(cut_image(image, crop)[None, ..., ::-1].copy()).to(device))
                target = torch.from_numpy(np.stack(masks)).to(device).float().unsqueeze(1)  # (n, 1, S, S)
                corners, clicks = [], []
                for m in masks:
                    x, y, w, h = cv2.boundingRect(m)
                    corners.append([[x, y], [x + w, y + h]])
                    cx, cy = most_interior(m > 0)
                    clicks.append([[cx + HALF_PIXEL, cy + HALF_PIXEL], [0.0, 0.0]])
                n = len(masks)
                empty = torch.zeros(n, 1, size // LOGIT_STRIDE, size // LOGIT_STRIDE, device=device)
                none = torch.zeros(n, device=device)
                for prompt, points, labels in (
                    ("box", corners, (LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT)),
                    ("click", clicks, (LABEL_POSITIVE, LABEL_PADDING)),
                ):
                    if f"{prompt}_{kind}" not in found:
                        continue
                    xy = torch.tensor(points, dtype=torch.float32, device=device)
                    lab = torch.tensor([labels] * n, dtype=torch.float32, device=device)
                    answer = encoded.answer(PromptBatch(xy, lab, empty, none))
                    logits, scores = answer.logits, answer.iou
                    full = F.interpolate(logits, size=(size, size), mode="bilinear")
                    ious = mask_iou(full, target.expand_as(full))
                    if prompt == "box":
                        found[f"box_{kind}"] += ious[:, 0].tolist()
                    else:
                        best = scores[:, 1:].argmax(1, keepdim=True) + 1
                        found["click_frame"] += ious.gather(1, best)[:, 0].tolist()
                        found["oracle_frame"] += ious[:, 1:].amax(1).tolist()
                        shown = logits[torch.arange(n, device=device), best[:, 0]]
                        found["click3_frame"] += correct_twice(encoded, target, xy, lab, shown)
    return {name: float(np.mean(v)) if v else float("nan") for name, v in found.items()}


def correct_twice(encoded: Encoded, target: Tensor, points: Tensor, labels: Tensor, shown: Tensor) -> list[float]:
    """IoU after CLICKS clicks, as ``tinyseg eval`` makes them: inside the larger wrong region, the answer as a hint.

    target (n, 1, S, S), points (n, N, 2), labels (n, N), shown (n, h, w) logits of the answer to the first click.
    """
    size = target.shape[-1]
    truth = target[:, 0].cpu().numpy() > 0.5
    for _ in range(CLICKS - 1):
        answer = F.interpolate(shown.unsqueeze(1), size=(size, size), mode="bilinear")[:, 0].cpu().numpy() > 0
        xy, label = np.zeros((len(truth), 1, 2), np.float32), np.full((len(truth), 1), LABEL_PADDING, np.float32)
        for i, (a, t) in enumerate(zip(answer, truth)):
            missing, extra = t & ~a, a & ~t
            if missing.any() or extra.any():
                region, label[i] = (
                    (missing, LABEL_POSITIVE) if missing.sum() >= extra.sum() else (extra, LABEL_NEGATIVE)
                )
                xy[i, 0] = np.add(most_interior(region), HALF_PIXEL)
        points = torch.cat((points, torch.from_numpy(xy).to(points.device)), 1)
        labels = torch.cat((labels, torch.from_numpy(label).to(labels.device)), 1)
        given = torch.ones(len(truth), device=points.device)
        shown = encoded.answer(PromptBatch(points, labels, shown.unsqueeze(1), given)).logits[:, 0]
    full = F.interpolate(shown.unsqueeze(1), size=(size, size), mode="bilinear")
    return mask_iou(full, target)[:, 0].tolist()
