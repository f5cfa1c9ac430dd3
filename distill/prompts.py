"""Simulated users: the prompts that the student is trained on.

A prompt starts as a click, a jittered box, both, or an earlier mask; every further round clicks where the answer was
wrong (SAM, arXiv 2304.02643, appendix A; RITM, arXiv 2102.06583, section 3.3). All positions are pixels of the
model's input, all maps lie on the stride-4 grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tinyseg.geometry import LOGIT_STRIDE
from tinyseg.prompts.layout import (
    HINT_LIMIT,
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_NEGATIVE,
    LABEL_PADDING,
    LABEL_POSITIVE,
)

# Shares of the first prompt's kinds: click, box, box and click, mask, mask and click.
FIRST_PROMPT_SHARES = (0.40, 0.42, 0.05, 0.05, 0.08)


@dataclass
class PromptBatch:
    """n prompts with N point slots, as the decoder takes them."""

    points: Tensor  # (n, N, 2)
    labels: Tensor  # (n, N) float
    mask: Tensor  # (n, 1, h, w) logits
    has_mask: Tensor  # (n,) float

    def click(self, slot: int, xy: Tensor, labels: Tensor) -> PromptBatch:
        """With one more click (n, 2) in a slot; labels (n,), -1 for prompts that get none."""
        points, all_labels = self.points.clone(), self.labels.clone()
        points[:, slot], all_labels[:, slot] = xy, labels
        return PromptBatch(points, all_labels, self.mask, self.has_mask)


def first_prompts(target: Tensor, boxes: Tensor, slots: int, generator: torch.Generator) -> PromptBatch:
    """First-round prompts for target masks (n, h, w) in [0, 1] with boxes (n, 4); slots 0 and 1 hold the box."""
    n, h, w = target.shape
    device = target.device

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    shares = torch.tensor(FIRST_PROMPT_SHARES, device=device)
    kind = torch.multinomial(shares, n, replacement=True, generator=generator)
    box_given, mask_given = (kind == 1) | (kind == 2), kind >= 3
    click_given = (kind == 0) | (kind == 2) | (kind == 4)

    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)  # (n, 4)
    noise = torch.randn(n, 4, generator=generator, device=device) * torch.minimum(size * 0.05, size.new_tensor(12.0))
    noise = noise * (rand(n, 1) < 0.5)  # half of the boxes are exact
    limit = boxes.new_tensor([w, h, w, h]) * LOGIT_STRIDE
    jittered = torch.minimum((boxes + noise).clamp(min=0.0), limit)
    valid = ((jittered[:, 2:] - jittered[:, :2]) > 2.0).all(1, keepdim=True)
    corners = torch.where(valid, jittered, boxes)

    points = torch.zeros(n, slots, 2, device=device)
    labels = torch.full((n, slots), LABEL_PADDING, device=device)
    points[:, 0], points[:, 1] = corners[:, :2], corners[:, 2:]
    labels[:, 0] = torch.where(box_given, float(LABEL_BOX_TOP_LEFT), LABEL_PADDING)
    labels[:, 1] = torch.where(box_given, float(LABEL_BOX_BOTTOM_RIGHT), LABEL_PADDING)
    mask = spoil_masks(target, generator)
    prompts = PromptBatch(points, labels, mask * mask_given[:, None, None, None], mask_given.float())
    xy = sample_clicks(target > 0.5, generator)
    return prompts.click(2, xy, torch.where(click_given, LABEL_POSITIVE, LABEL_PADDING))


def spoil_masks(target: Tensor, generator: torch.Generator) -> Tensor:
    """Turn targets (n, h, w) into logits (n, 1, h, w) of masks that are roughly right: blurred, shifted, eaten away."""
    n, h, w = target.shape
    noise = torch.randn(n, 1, h // 8, w // 8, generator=generator, device=target.device)
    noise = F.interpolate(noise, (h, w), mode="bilinear", align_corners=False)
    soft = F.avg_pool2d(target.unsqueeze(1), 5, 1, 2, count_include_pad=False)
    return ((soft - 0.5) * 10.0 + noise * 3.0).clamp(-8.0, 8.0)


def interior_depth(region: Tensor) -> Tensor:
    """(n, h, w) bool -> (n, h, w) float, larger the farther inside; a fast stand-in for a distance transform."""
    x = region.unsqueeze(1).float()
    depth = x.clone()
    for kernel in (3, 7, 15, 31):
        if kernel <= min(region.shape[-2:]):
            rows = F.avg_pool2d(x, (kernel, 1), 1, (kernel // 2, 0))
            depth = depth + F.avg_pool2d(rows, (1, kernel), 1, (0, kernel // 2))
    return depth.squeeze(1) * region


def sample_clicks(region: Tensor, generator: torch.Generator) -> Tensor:
    """A click in every region (n, h, w) bool: half of them deep inside, half anywhere. Returns (n, 2) positions.

    An empty region gives an arbitrary position; the caller decides what it means.
    """
    n, h, w = region.shape

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=region.device)

    inside = interior_depth(region).flatten(1)
    deepest = (inside + rand(n, h * w) * 1e-3).argmax(1)
    anywhere = (region.flatten(1) * (rand(n, h * w) + 1e-3)).argmax(1)
    cell = torch.where(rand(n) < 0.5, deepest, anywhere)
    xy = torch.stack((cell % w, cell // w), 1).float()
    return (xy + rand(n, 2)) * LOGIT_STRIDE


def correct(prompts: PromptBatch, slot: int, logits: Tensor, target: Tensor, generator: torch.Generator) -> PromptBatch:
    """One more round: a click in the larger error of an answer (n, h, w), and usually the answer itself as a hint."""
    truth, answer = target > 0.5, logits > 0
    missing, extra = truth & ~answer, answer & ~truth
    positive = missing.sum((1, 2)) >= extra.sum((1, 2))
    region = torch.where(positive[:, None, None], missing, extra)
    xy = sample_clicks(region, generator)
    wrong = region.sum((1, 2)) > 0
    label = torch.where(positive, LABEL_POSITIVE, float(LABEL_NEGATIVE))
    label = torch.where(wrong, label, torch.full_like(label, LABEL_PADDING))
    keep = (torch.rand(len(logits), generator=generator, device=logits.device) < 0.8).float()
    mask = logits.detach().float().clamp(-HINT_LIMIT, HINT_LIMIT).unsqueeze(1) * keep[:, None, None, None]
    clicked = prompts.click(slot, xy, label)
    return PromptBatch(clicked.points, clicked.labels, mask, keep)
