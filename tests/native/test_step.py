"""The core's step (geometry, prompts, second look, specks, readings) beside definitions in NumPy and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tinyseg import Prompt, _native, geometry
from tinyseg.geometry import Letterbox, letterbox
from tinyseg.pixels import OUTSIDE_LOGIT, resample_grid
from tinyseg.predict.embedding import choose_masks
from tinyseg.predict.specks import clicked_cells, without_specks
from tinyseg.prompts import layout

SEEDS = range(40)


def some_view(rng: np.random.Generator) -> tuple[Letterbox, Letterbox]:
    """The view of a whole frame, and one of a part of it."""
    width, height = (int(v) for v in rng.integers(40, 2000, 2))
    x0, y0 = int(rng.integers(0, width - 33)), int(rng.integers(0, height - 33))
    region = (x0, y0, int(rng.integers(x0 + 32, width + 1)), int(rng.integers(y0 + 7, height + 1)))
    frame = letterbox(width, height, int(rng.integers(1, 17)) * 32)
    return frame, letterbox(width, height, 256, region, square=True)


def blobs(rng: np.random.Generator, view: Letterbox) -> NDArray[np.float32]:
    """Logits of a few parts with specks and holes."""
    rows, columns = view.grid
    coarse = np.kron(rng.normal(0, 6, (5, 5)), np.ones((-(-rows // 5), -(-columns // 5))))[:rows, :columns]
    return np.ascontiguousarray(coarse + rng.normal(0, 2.5, (rows, columns)), np.float32)


def test_constants_are_pythons() -> None:
    for name in ("MEAN", "STD", "INPUT_MULTIPLE", "LOGIT_STRIDE"):
        assert getattr(_native, name) == getattr(geometry, name)
    assert _native.OUTSIDE_LOGIT == OUTSIDE_LOGIT and _native.HINT_LIMIT == layout.HINT_LIMIT
    for name in ("PADDING", "NEGATIVE", "POSITIVE", "BOX_TOP_LEFT", "BOX_BOTTOM_RIGHT"):
        assert getattr(_native, f"LABEL_{name}") == getattr(layout, f"LABEL_{name}")


@pytest.mark.parametrize("seed", SEEDS)
def test_specks_are_opencvs_components(seed: int) -> None:
    rng = np.random.default_rng(seed)
    view, _ = some_view(rng)
    logits = np.stack([blobs(rng, view), -blobs(rng, view), np.full(view.grid, -1.0, np.float32)])
    points = np.stack([rng.integers(0, view.frame_width, 6), rng.integers(0, view.frame_height, 6)], 1)
    prompt = Prompt(points=points, labels=rng.integers(0, 2, 6))
    expected = logits.copy()
    for one, wanted in zip(logits, expected):
        inside = (one > 0).astype(np.uint8)
        for value, connectivity, share in ((1, 8, 0.05), (0, 4, 0.01)):
            count, labels = cv2.connectedComponents((inside == value).astype(np.uint8), connectivity=connectivity)
            if count <= 2:
                continue
            areas = np.bincount(labels.ravel(), minlength=count)
            small = areas < share * (areas[1:].max() if value else areas[0])
            small[0] = False
            if not value:
                for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
                    small[edge] = False
            for row, column, label in clicked_cells(prompt, view):
                if label == value:
                    small[labels[row, column]] = False
            wanted[small[labels]] = -one[small[labels]]
    np.testing.assert_array_equal(without_specks(logits, prompt, view), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_logits_on_another_grid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    views = some_view(rng)
    source, target = views if seed % 2 else views[::-1]
    logits = blobs(rng, source)
    found = resample_grid(logits, source, target)
    # The definition, in doubles.
    axes = []
    for axis in (1, 0):  # y, x
        scales = ((source.scale_x, target.scale_x), (source.scale_y, target.scale_y))[axis]
        frame = (np.arange(target.grid[1 - axis]) + 0.5) * 4 / scales[1] + target.region[axis]
        axes.append((frame, (frame - source.region[axis]) * scales[0] / 4 - 0.5, scales[0] / scales[1]))
    (frame_y, y, shrink_y), (frame_x, x, shrink_x) = axes
    smooth = logits.astype(np.float64)
    if max(shrink_x, shrink_y) > 1.5:
        smooth = cv2.blur(smooth, (max(1, round(shrink_x)), max(1, round(shrink_y))), borderType=cv2.BORDER_REPLICATE)
    rows, columns = source.grid
    y, x = np.clip(y, 0, rows - 1), np.clip(x, 0, columns - 1)
    top, left = np.minimum(y.astype(int), max(rows - 2, 0)), np.minimum(x.astype(int), max(columns - 2, 0))
    below, right = np.minimum(top + 1, rows - 1), np.minimum(left + 1, columns - 1)
    fy, fx = (y - top)[:, None], (x - left)[None]
    upper = smooth[top][:, left] * (1 - fx) + smooth[top][:, right] * fx
    lower = smooth[below][:, left] * (1 - fx) + smooth[below][:, right] * fx
    expected = upper * (1 - fy) + lower * fy
    seen_y = (frame_y >= source.region[1] - 1e-3) & (frame_y <= source.region[3] + 1e-3)
    seen_x = (frame_x >= source.region[0] - 1e-3) & (frame_x <= source.region[2] + 1e-3)
    seen = seen_y[:, None] & seen_x[None]
    expected[~seen] = OUTSIDE_LOGIT
    assert np.abs(found - expected).max() < 4e-3
    again = resample_grid(logits, source, target)
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("seed", range(10))
def test_three_readings(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 1, (4, 9, 17)).astype(np.float32)
    logits[1 + seed % 3] = logits[0] + 0.1
    inside = logits > 0
    shares = [(inside[0] & one).sum() / max((inside[0] | one).sum(), 1) for one in inside[1:]]
    expected = [1, 2, 3]
    expected[int(np.argmax(shares))] = 0
    assert choose_masks(logits, True) == expected and expected[seed % 3] == 0
    assert choose_masks(np.full((4, 2, 2), -1.0, np.float32), True) == [0, 2, 3]  # of equals the first


def test_values_that_are_no_numbers_are_found() -> None:
    values = np.random.default_rng(0).normal(0, 1e37, 1001).astype(np.float32)
    assert _native.all_finite(values) and _native.all_finite(np.empty(0, np.float32))
    for bad in (np.nan, np.inf, -np.inf):
        for at in (0, 500, 1000):
            spoiled = values.copy()
            spoiled[at] = bad
            assert not _native.all_finite(spoiled)


def test_wrong_arguments_are_refused() -> None:
    view = letterbox(64, 48, 64).numbers
    points, labels = np.zeros((2, 2)), np.zeros(2)
    out, slots = np.empty((4, 2), np.float32), np.empty(4, np.float32)
    grid = np.zeros((12, 16), np.float32)
    for call in (
        lambda: _native.letterbox((0, 5), (0, 0, 1, 1), 64, False),
        lambda: _native.letterbox((8, 8), (0, 0, 9, 8), 64, False),
        lambda: _native.crop_around((0, 0, np.nan, 1), 1.0, (8, 8), 32),
        lambda: _native.second_look((0, 0, np.inf, 1), view, (256, 1.6, 0.3)),
        lambda: _native.lay_out(points, labels[:1], None, view, view, out, slots),
        lambda: _native.lay_out(points, labels, (0, 0, 1, 1), view, view, out[:3], slots[:3]),
        lambda: _native.lay_out(points * np.nan, labels, None, view, view, out, slots),
        lambda: _native.to_model(points, view, 0.0, out[:1]),
        lambda: _native.without_specks(grid[None], [(12, 0, 1)], grid[None].copy()),
        lambda: _native.without_specks(grid[None], [], np.zeros((1, 12, 15), np.float32)),
        lambda: _native.resample_grid(grid[:, :8].copy(), view, view, grid.copy()),
        lambda: _native.choose_readings(np.zeros((3, 4, 4), np.float32)),
        lambda: _native.add_first_look(grid, grid[:5].copy()),
    ):
        with pytest.raises(ValueError):
            call()
