from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")

from tinyseg.distill.losses import mask_iou, mask_loss, round_loss  # noqa: E402
from tinyseg.distill.prompts import correct, first_prompts, interior_depth, sample_clicks  # noqa: E402


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def squares(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """n targets (n, 32, 32): a square of 12 x 8 cells; and its box in pixels."""
    target = torch.zeros(n, 32, 32)
    target[:, 10:18, 6:18] = 1
    return target, torch.tensor([[24.0, 40.0, 72.0, 72.0]]).repeat(n, 1)


def test_clicks_lie_in_their_region() -> None:
    target, _ = squares(200)
    xy = sample_clicks(target > 0, generator())
    assert ((xy[:, 0] >= 24) & (xy[:, 0] < 72) & (xy[:, 1] >= 40) & (xy[:, 1] < 72)).all()
    assert xy.std(0).min() > 3  # half of them anywhere


def test_depth_is_largest_in_the_middle() -> None:
    target, _ = squares(1)
    y, x = divmod(int(interior_depth(target > 0)[0].argmax()), 32)
    assert 12 <= y <= 15 and 10 <= x <= 13


def test_first_prompts_are_of_every_kind_and_true() -> None:
    target, boxes = squares(400)
    prompts = first_prompts(target, boxes, 5, generator())
    boxed = prompts.labels[:, 0] == 2
    clicked = prompts.labels[:, 2] == 1
    hinted = prompts.has_mask == 1
    assert (
        0.25 < boxed.float().mean() < 0.55
        and 0.4 < clicked.float().mean() < 0.75
        and 0.05 < hinted.float().mean() < 0.25
    )
    assert (boxed | clicked | hinted).all()
    assert (prompts.labels[:, 1] == torch.where(boxed, 3.0, -1.0)).all() and (prompts.labels[:, 3:] == -1).all()
    error = (prompts.points[boxed][:, :2].flatten(1) - boxes[boxed]).abs()
    assert error.max() < 20 and (error.max(1).values == 0).float().mean() > 0.15
    assert prompts.mask[~hinted].abs().max() == 0
    spoiled = prompts.mask[hinted, 0] > 0
    assert (mask_iou(prompts.mask[hinted], target[hinted].unsqueeze(1)) > 0.3).all() and spoiled.any()


def test_corrections_click_into_the_larger_error() -> None:
    target, boxes = squares(50)
    prompts = first_prompts(target, boxes, 5, generator())
    nothing = torch.full_like(target, -5.0)
    missing = correct(prompts, 3, nothing, target, generator())
    assert (missing.labels[:, 3] == 1).all()
    x, y = (missing.points[:, 3] // 4).long().unbind(1)
    assert (target[torch.arange(50), y, x] == 1).all()
    everything = torch.full_like(target, 5.0)
    extra = correct(prompts, 3, everything, target, generator())
    assert (extra.labels[:, 3] == 0).all()
    x, y = (extra.points[:, 3] // 4).long().unbind(1)
    assert (target[torch.arange(50), y, x] == 0).all()
    right = correct(prompts, 3, (target - 0.5) * 10, target, generator())
    assert (right.labels[:, 3] == -1).all() and right.has_mask.mean() > 0.5


def test_prompts_are_a_function_of_the_generator() -> None:
    target, boxes = squares(20)
    a, b = (first_prompts(target, boxes, 5, generator(3)) for _ in range(2))
    assert torch.equal(a.points, b.points) and torch.equal(a.labels, b.labels) and torch.equal(a.mask, b.mask)


def test_losses_prefer_the_truth() -> None:
    target, _ = squares(3)
    right, wrong = (target - 0.5) * 12, (0.5 - target) * 12
    logits = torch.stack([right, wrong, right, wrong], 1)
    per_mask = mask_loss(logits, target.unsqueeze(1).expand_as(logits))
    assert (per_mask[:, 0] < 0.05).all() and (per_mask[:, 1] > 1.5).all()
    known = round_loss(logits, torch.tensor([[1.0, 0, 1, 0]]).repeat(3, 1), target)
    guessed = round_loss(logits, torch.tensor([[0.0, 1, 0, 1]]).repeat(3, 1), target)
    assert known.total < guessed.total and (known.iou_single == 1).all() and (known.iou_best == 1).all()
    # Only the best reading is asked for the target: the two wrong ones cost nothing.
    assert known.total < 0.2


def test_soft_targets_put_the_edge_where_it_is() -> None:
    """A cell that is 75% covered is best answered with logit(0.75)."""
    target = torch.full((1, 1, 8, 8), 0.75)
    losses = [mask_loss(torch.full((1, 1, 8, 8), v), target)[0, 0] for v in (0.0, 1.0986, 3.0)]
    bce = [
        torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(v), torch.tensor(0.75))
        for v in (0.0, 1.0986, 3.0)
    ]
    assert bce[1] < bce[0] and bce[1] < bce[2] and losses[1] < losses[0]
