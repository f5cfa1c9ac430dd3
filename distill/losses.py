"""What the student is asked for: the right mask, and to know how right it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyseg.distill.config import DistilWeights


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


LOGIT_RANGE = 10.0  # a probability of 0.99995: what lies beyond is as sure as can be


class FeatureAdapter(nn.Module):
    """From the student's embedding and tokens to a teacher's channels and grid; thrown away after training."""

    def __init__(self, channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, teacher_channels, 1)
        self.project_tokens = nn.Linear(channels, teacher_channels)

    def embedding_loss(self, embedding: Tensor, teacher: Tensor) -> Tensor:
        """l1 between the projected embedding (B, C, h, w) and the teacher's (B, C', h', w'), over its spread."""
        projected = F.interpolate(self.project(embedding), teacher.shape[-2:], mode="bilinear", align_corners=False)
        return (projected - teacher).abs().mean() / teacher.std().clamp(min=1e-6)

    def token_loss(self, tokens: Tensor, teacher: Tensor) -> Tensor:
        """l1 between the projected tokens (n, 5, C) and the teacher's (n, 5, C'), over their spread."""
        return (self.project_tokens(tokens) - teacher).abs().mean() / teacher.std().clamp(min=1e-6)


def distil_loss(
    logits: Tensor, iou: Tensor, teacher_logits: Tensor, teacher_iou: Tensor, target: Tensor, weights: DistilWeights
) -> Tensor:
    """Loss of a student's answers (n, 4, h, w) and (n, 4) to a teacher's of the same shapes; target (n, h, w).

    The student's readings come in no fixed order: each of the teacher's is learned by the one that is nearest to it.
    teacher_iou comes in the student's order.
    """

    def far(own: Tensor, taught: Tensor) -> Tensor:
        """(n, k, h, w) and (n, 1, h, w) logits -> (n, k)."""
        taught = taught.expand_as(own)
        parts = own.new_zeros(own.shape[:2])
        if weights.masks:
            parts = parts + weights.masks * mask_loss(own, taught.sigmoid())
        if weights.logits:
            near = (own.clamp(-LOGIT_RANGE, LOGIT_RANGE) - taught.clamp(-LOGIT_RANGE, LOGIT_RANGE)).abs()
            parts = parts + weights.logits * near.mean((2, 3)) / 10.0
        return parts

    single = far(logits[:, :1], teacher_logits[:, :1])[:, 0]
    pairs = torch.stack([far(logits[:, 1:], teacher_logits[:, k : k + 1]) for k in (1, 2, 3)], 1)
    readings = pairs.amin(2).mean(1)  # pairs is (n, teacher's, student's)
    per_prompt = single + readings
    if weights.hard:
        expanded = target.unsqueeze(1)
        best = mask_iou(teacher_logits, expanded.expand_as(teacher_logits)).amax(1)
        own = mask_iou(logits, expanded.expand_as(logits)).amax(1).clamp(min=0.05)
        per_prompt = per_prompt * 2.0 * torch.sigmoid(best / own - 1.0)  # 1 where both are alike
    total = per_prompt.mean()
    if weights.iou:
        total = total + weights.iou * F.mse_loss(iou, teacher_iou, reduction="none").sum(1).mean()
    return total
