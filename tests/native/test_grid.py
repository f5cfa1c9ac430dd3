"""Masks on the logit grid: the fast versions against their references and against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import mask_iou as iou
from tinyseg import _native
from tinyseg.geometry import Letterbox, letterbox
from tinyseg.pixels import grid_content, grid_stats, suppress, threshold, threshold_window, upsample


def blobs(seed: int, count: int, view: Letterbox) -> NDArray[np.float32]:
    """Logits (count, h, w) of disks, some of them empty, some alike."""
    rng = np.random.default_rng(seed)
    rows, columns = view.grid
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    out = np.empty((count, rows, columns), np.float32)
    last = (0.0, 0.0, 0.0)
    for i in range(count):
        if i % 3 and i:
            cx, cy, r = last[0] + rng.normal(0, 1), last[1] + rng.normal(0, 1), last[2]
        else:
            cx, cy, r = rng.uniform(0, columns), rng.uniform(0, rows), rng.uniform(-2, rows / 2)
        last = (cx, cy, r)
        out[i] = r - np.hypot(x - cx, y - cy) + rng.normal(0, 0.3, (rows, columns))
    return out


@pytest.mark.parametrize("size", [(320, 200), (200, 320), (33, 17), (512, 512), (64, 1)])
def test_counts_equal_the_reference_and_numpy(size: tuple[int, int]) -> None:
    view = letterbox(*size, 96)
    logits = blobs(sum(size), 12, view)
    rows, columns = grid_content(view)
    fast, slow = np.full((12, 7), -1, np.int32), np.full((12, 7), -2, np.int32)
    _native.grid_stats(logits, (columns, rows), 1.0, fast)
    _native.grid_stats_reference(logits, (columns, rows), 1.0, slow)
    np.testing.assert_array_equal(fast, slow)
    stats = grid_stats(logits, view, 1.0)
    for one, box, area, stability in zip(logits[:, :rows, :columns], stats.boxes, stats.areas, stats.stability):
        assert area == (one > 0).sum()
        below = (one > -1).sum()
        assert stability == pytest.approx((one > 1).sum() / below if below else 0.0)
        ys, xs = np.nonzero(one > 0)
        assert tuple(box) == ((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else (0, 0, 0, 0))


def test_padding_and_nan_count_as_outside() -> None:
    logits = np.full((1, 8, 8), 5.0, np.float32)
    logits[0, 2, 2] = np.nan
    stats = grid_stats(logits, Letterbox(20, 12, (0, 0, 20, 12), (20, 12), (32, 32)), 1.0)
    assert stats.areas[0] == 5 * 3 - 1 and stats.boxes[0].tolist() == [0, 0, 5, 3]


@pytest.mark.parametrize("limits", [(0.7, 0.8), (1.0, 0.5), (0.5, 1.0), (1.0, 1.0), (0.0, 0.0)])
def test_suppression_equals_the_reference_and_the_definition(limits: tuple[float, float]) -> None:
    view = letterbox(300, 260, 96)
    logits = blobs(3, 40, view)
    inside = logits > 0
    inside = inside[inside.any((1, 2))]
    boxes = np.array([(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in map(np.nonzero, inside)], np.float32)

    def filled(box: NDArray[np.float32]) -> NDArray[np.bool_]:
        x0, y0, x1, y1 = box.astype(int)
        out = np.zeros(view.grid, np.bool_)
        out[y0:y1, x0:x1] = True
        return out

    kept: list[int] = []
    for i in range(len(inside)):
        against = [(iou(filled(boxes[i]), filled(boxes[j])), iou(inside[i], inside[j])) for j in kept]
        if all(box <= limits[0] and mask <= limits[1] for box, mask in against):
            kept.append(i)
    assert np.flatnonzero(suppress(boxes, inside, *limits)).tolist() == kept
    assert 0 < len(kept) < len(inside) or limits == (1.0, 1.0)
    bits = np.packbits(inside.reshape(len(inside), -1), 1)
    bits = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)
    keep = np.full(len(inside), 9, np.uint8)
    areas = inside.sum((1, 2)).astype(np.int32)
    _native.suppress_reference(boxes, np.ascontiguousarray(bits), areas, *limits, keep)
    assert np.flatnonzero(keep).tolist() == kept


def test_suppression_of_nothing() -> None:
    assert suppress(np.zeros((0, 4), np.float32), np.zeros((0, 3, 3), bool), 0.5, 0.5).shape == (0,)


@pytest.mark.parametrize("seed", range(12))
def test_a_window_is_that_part_of_the_whole_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = int(rng.integers(1, 400)), int(rng.integers(1, 400))
    region = (
        None
        if seed % 2
        else (width // 4, height // 3, max(width // 4 + 1, width - 3), max(height // 3 + 1, height - 2))
    )
    view = letterbox(width, height, 96, region)
    logits = blobs(seed, 1, view)[0] + 2
    whole = np.zeros((height, width), np.bool_)
    stats = threshold(logits, view, whole)
    x0, y0, x1, y1 = view.region
    part, counted = threshold_window(logits, view, view.region)
    assert np.count_nonzero(part != whole[y0:y1, x0:x1]) <= 2
    assert abs(counted.area - stats.area) <= 2 and np.abs(np.subtract(counted.box, stats.box)).max() <= 1
    left, top = int(rng.integers(x0, x1)), int(rng.integers(y0, y1))
    right, bottom = int(rng.integers(left + 1, x1 + 1)), int(rng.integers(top + 1, y1 + 1))
    window, _ = threshold_window(logits, view, (left, top, right, bottom))
    np.testing.assert_array_equal(window, part[top - y0 : bottom - y0, left - x0 : right - x0])


def test_wrong_arguments_are_refused() -> None:
    logits, stats = np.zeros((2, 4, 4), np.float32), np.zeros((2, 7), np.int32)
    for content, offset, rows in (
        ((5, 4), 1.0, stats),
        ((0, 4), 1.0, stats),
        ((4, 4), -1.0, stats),
        ((4, 4), 1.0, stats[:1]),
    ):
        with pytest.raises(ValueError):
            _native.grid_stats(logits, content, offset, rows)
    boxes, bits, areas = np.zeros((2, 4), np.float32), np.zeros((2, 1), np.uint64), np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="same length"):
        _native.suppress(boxes, bits, areas[:1], 0.5, 0.5, np.zeros(2, np.uint8))
    with pytest.raises(ValueError, match="numbers"):
        _native.suppress(boxes, bits, areas, float("nan"), 0.5, np.zeros(2, np.uint8))
    for corner, size, region in (((1, 0), 8, (0, 0, 8, 8)), ((-1, 0), 2, (0, 0, 8, 8)), ((0, 0), 4, (0, 0, 9, 8))):
        with pytest.raises(ValueError, match="must lie"):
            _native.threshold_window(logits[0], np.zeros((size, size), np.uint8), (8, 8), region, (4.0, 4.0), corner)
    with pytest.raises(ValueError, match="positive"):
        _native.threshold_window(
            logits[0], np.zeros((2, 2), np.uint8), (8, 8), (0, 0, 8, 8), (float("nan"), 4.0), (0, 0)
        )


def test_boxes_and_masks_are_judged_by_limits_of_their_own() -> None:
    inside = np.zeros((2, 8, 8), np.bool_)
    inside[0][np.eye(8, dtype=bool)] = inside[1][np.eye(8, dtype=bool)[::-1]] = True  # one box, no common cell
    boxes = np.array([[0, 0, 8, 8]] * 2, np.float32)
    assert suppress(boxes, inside, 0.5, 1.0).tolist() == [True, False]
    assert suppress(boxes, inside, 1.0, 0.5).tolist() == [True, True]


def test_stability_is_what_survives_a_stricter_threshold() -> None:
    view = letterbox(320, 200, 96)
    (logits,) = blobs(5, 1, view)
    stats = threshold(logits, view, np.empty((200, 320), np.bool_))
    large = upsample(logits, view)
    assert stats.area == np.count_nonzero(large > 0) > 0
    assert 0 < stats.stability < 1
    assert stats.stability == pytest.approx(np.count_nonzero(large > 1) / np.count_nonzero(large > -1), abs=0.01)
