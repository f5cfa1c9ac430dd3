"""What the student is asked for: the right mask, and to know how right it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy plus dice of every mask: logits and target (n, k, h, w) -> (n, k).

    Targets are the covered share of each cell, so that the zero crossing of interpolated logits falls on the true
    edge between cell centres. At this scale of data bce + dice trains better than SAM's focal 20 : dice 1.
    """
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((2, 3))
    p = logits.sigmoid()
    overlap = (p * target).sum((2, 3))
    dice = 1.0 - (2.0 * overlap + 1.0) / (p.sum((2, 3)) + target.sum((2, 3)) + 1.0)
    return bce + dice


@torch.no_grad()
def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of thresholded masks, (n, k, h, w) twice -> (n, k)."""
    a, b = logits > 0, target > 0.5
    union = (a | b).sum((2, 3)).clamp(min=1)
    return (a & b).sum((2, 3)) / union


@dataclass
class RoundLoss:
    """Loss of one round and the figures worth logging."""

    total: Tensor
    iou_single: Tensor  # (n,) IoU of mask 0
    iou_best: Tensor  # (n,) best IoU of masks 1 to 3


def round_loss(logits: Tensor, iou: Tensor, target: Tensor) -> RoundLoss:
    """logits (n, 4, h, w), predicted IoU (n, 4), target (n, h, w).

    Mask 0 always answers for the target. Of masks 1 to 3 only the best one does (SAM, appendix A), so that they can
    become three readings of an ambiguous prompt. Predicted IoU is regressed for all four.
    """
    expanded = target.unsqueeze(1).expand_as(logits)
    per_mask = mask_loss(logits, expanded)
    actual = mask_iou(logits, expanded)
    total = per_mask[:, 0] + per_mask[:, 1:].amin(1) + F.mse_loss(iou, actual, reduction="none").sum(1)
    return RoundLoss(total.mean(), actual[:, 0], actual[:, 1:].amax(1))
