"""The pixel core's fast versions against its plain references and against independent numpy."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyseg import _native
from tinyseg.errors import FrameError
from tinyseg.geometry import MEAN, STD, Letterbox, letterbox
from tinyseg.pixels import check_frame, prepare, resample_grid, threshold, upsample


def run(function: object, frame: NDArray[np.uint8], width: int, height: int, bgr: bool) -> NDArray[np.float32]:
    out = np.full((3, height + 5, width + 7), np.nan, np.float32)
    function(frame, out, (width, height), bgr, MEAN, STD)  # type: ignore[operator]
    return out


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(37, 53), (64, 64), (5, 200), (121, 3), (1, 1)])
@pytest.mark.parametrize("target", [(16, 24), (64, 64), (97, 31), (1, 1)])
def test_prepare_equals_its_reference(channels: int, size: tuple[int, int], target: tuple[int, int]) -> None:
    rng = np.random.default_rng(channels * 1000 + size[0] + target[0])
    frame = rng.integers(0, 256, (*size, channels), np.uint8)
    for bgr in (False, True):
        fast = run(_native.prepare, frame, *target, bgr)
        slow = run(_native.prepare_reference, frame, *target, bgr)
        # Vertical sums are kept in 8.8 fixed point: a few hundredths of a grey level, of which 127.5 make 1.
        np.testing.assert_allclose(fast, slow, atol=5e-4)
        assert not np.isnan(fast).any()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "numerator, denominator", [(2, 1), (3, 1), (4, 1), (3, 2), (5, 2), (5, 4), (15, 4), (1, 2), (1, 1)]
)
def test_ratios_of_small_numbers_equal_the_reference(channels: int, numerator: int, denominator: int) -> None:
    """Weights that repeat themselves stay in registers, and rows that two outputs share are read once."""
    rng = np.random.default_rng(10 * numerator + denominator)
    for columns, rows in (
        (13, 9),
        (12, 6),
        (3, 2),
    ):  # in units of the period; odd ones leave a rest of rows and columns
        size, target = (
            (rows * 2 * numerator, columns * 4 * numerator),
            (columns * 4 * denominator, rows * 2 * denominator),
        )
        for frame in (rng.integers(0, 256, (*size, channels), np.uint8), np.full((*size, channels), 255, np.uint8)):
            fast, slow = (run(f, frame, *target, True) for f in (_native.prepare, _native.prepare_reference))
            np.testing.assert_allclose(fast, slow, atol=5e-4)
        # A frame that is one pixel larger has no such weights, and is shrunk alike all the same.
        larger = np.pad(frame, ((0, 1), (0, 1), (0, 0)), mode="edge")
        np.testing.assert_allclose(run(_native.prepare, larger, *target, True), fast, atol=5e-4)


def views(frame: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    planar = np.ascontiguousarray(frame.transpose(2, 0, 1)).transpose(1, 2, 0)
    return [frame[::-1], frame[:, ::-1], frame[..., ::-1], frame[::2, 1::3], planar, frame.transpose(1, 0, 2)]


@pytest.mark.parametrize("index", range(6))
def test_prepare_reads_any_strides(index: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 60, 3), np.uint8)
    view = views(frame)[index]
    expected = run(_native.prepare, np.ascontiguousarray(view), 20, 30, True)
    np.testing.assert_array_equal(run(_native.prepare, view, 20, 30, True), expected)


def test_a_flat_frame_stays_flat_and_padding_is_zero() -> None:
    frame = np.full((90, 120, 3), (255, 0, 51), np.uint8)
    view = letterbox(120, 90, 64)
    out = prepare(check_frame(frame, "bgr"), view)
    width, height = view.content
    np.testing.assert_allclose(out[0, 0, :height, :width], 51 / 127.5 - 1, atol=2e-4)
    np.testing.assert_allclose(out[0, 2, :height, :width], 1.0, atol=2e-4)
    assert view.input[1] > height and not out[0, :, height:].any()


def test_same_size_is_the_identity() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    out = prepare(check_frame(frame, "rgb"), Letterbox(96, 64, (0, 0, 96, 64), (96, 64), (96, 64)))
    np.testing.assert_allclose(out[0].transpose(1, 2, 0) * STD + MEAN, frame, atol=1e-3)


def placement(seed: int) -> tuple[NDArray[np.float32], Letterbox]:
    """Smooth random logits and a view, sometimes of a part of the frame."""
    rng = np.random.default_rng(seed)
    width, height = int(rng.integers(1, 300)), int(rng.integers(1, 300))
    region = None
    if seed % 2:
        x0, y0 = int(rng.integers(0, width)), int(rng.integers(0, height))
        region = (x0, y0, int(rng.integers(x0 + 1, width + 1)), int(rng.integers(y0 + 1, height + 1)))
    view = letterbox(width, height, 64, region, square=seed % 3 == 0)
    coarse = rng.normal(0, 6, (4, 4)).astype(np.float32)
    rows, columns = view.grid
    logits = np.kron(coarse, np.ones((-(-rows // 4), -(-columns // 4)), np.float32))[:rows, :columns]
    return np.ascontiguousarray(logits + rng.normal(0, 0.5, logits.shape).astype(np.float32)), view


@pytest.mark.parametrize("seed", range(24))
def test_threshold_equals_its_reference(seed: int) -> None:
    logits, view = placement(seed)
    shape = (view.frame_height, view.frame_width)
    fast, slow = np.full(shape, 7, np.uint8), np.full(shape, 7, np.uint8)
    content = (view.content[0] / 4, view.content[1] / 4)
    a = _native.threshold(logits, fast, view.region, content, 1.0)
    b = _native.threshold_reference(logits, slow, view.region, content, 1.0)
    # Rounding may move single pixels whose logit is within 1e-5 of a threshold.
    assert np.count_nonzero(fast != slow) <= 2 and fast.max() <= 1
    np.testing.assert_allclose(a, b, atol=2)
    assert a[4] == np.count_nonzero(fast)
    ys, xs = np.nonzero(fast)
    expected = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else (0, 0, 0, 0)
    assert a[:4] == expected


@pytest.mark.parametrize("seed", range(8))
def test_upsampled_logits_and_thresholded_masks_agree(seed: int) -> None:
    logits, view = placement(seed)
    mask = np.zeros((view.frame_height, view.frame_width), np.bool_)
    threshold(logits, view, mask)
    full = upsample(logits, view)
    assert np.count_nonzero(mask != (full > 0)) <= 2


def test_stability_counts_both_thresholds() -> None:
    view = letterbox(64, 64, 64)
    logits = np.full((16, 16), -5.0, np.float32)
    logits[4:12, 4:12] = 0.5  # inside at 0, outside at +1
    mask = np.zeros((64, 64), np.bool_)
    assert threshold(logits, view, mask).stability == 0.0 and mask.any()
    logits[4:12, 4:12] = 50.0
    assert threshold(logits, view, mask).stability > 0.8
    stats = threshold(np.full((16, 16), -5.0, np.float32), view, mask)
    assert stats.area == 0 and stats.box == (0, 0, 0, 0) and stats.stability == 0.0 and not mask.any()


def test_grids_resample_there_and_back() -> None:
    frame = letterbox(640, 480, 512)
    look = letterbox(640, 480, 256, (200, 100, 360, 260), square=True)
    y, x = np.mgrid[0 : look.grid[0], 0 : look.grid[1]].astype(np.float32)
    bump = 8 - np.hypot(x - 32, y - 30) / 2
    there = resample_grid(bump, look, frame)
    assert there.shape == frame.grid and there.min() == -16
    back = resample_grid(there, frame, look)
    inside = slice(8, -8)
    assert np.abs(back[inside, inside] - bump[inside, inside]).max() < 1.0


def test_the_core_is_safe_in_threads() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    layout, view = check_frame(frame, "bgr"), letterbox(400, 300, 256)
    expected = prepare(layout, view)
    results: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda: results.extend(np.array_equal(prepare(layout, view), expected) for _ in range(20))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80 and all(results)


def test_wrong_arguments_are_refused() -> None:
    frame = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="content must fit"):
        _native.prepare(frame, np.zeros((3, 8, 8), np.float32), (9, 8), True, 0.0, 1.0)
    with pytest.raises(ValueError, match="region"):
        _native.threshold(np.zeros((2, 2), np.float32), np.zeros((8, 8), np.uint8), (0, 0, 9, 8), (2.0, 2.0), 1.0)
    with pytest.raises(FrameError):
        check_frame(np.zeros((8, 8, 2), np.uint8), "bgr")


def test_a_variable_forces_the_reference(scene: tuple[NDArray[np.uint8], NDArray[np.bool_]]) -> None:
    code = "from tinyseg import pixels; print(pixels._REFERENCE)"
    for value, printed in (("reference", "True"), ("fast", "False")):
        env = {**os.environ, "TINYSEG_PIXELS": value}
        assert subprocess.check_output([sys.executable, "-c", code], env=env, text=True).strip() == printed
    wrong = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TINYSEG_PIXELS": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "TINYSEG_PIXELS must be" in wrong.stderr


def test_the_stub_is_what_the_module_says(root: Path, tmp_path: Path) -> None:
    stubgen = pytest.importorskip("nanobind.stubgen", reason="nanobind is not installed")
    stub = stubgen.StubGen(_native)
    stub.put(_native)
    assert stub.get() == (root / "tinyseg" / "_native.pyi").read_text()
