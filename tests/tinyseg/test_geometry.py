from __future__ import annotations

import numpy as np
import pytest

from tinyseg.geometry import INPUT_MULTIPLE, crop_around, letterbox

SIZES = [(1280, 720), (640, 427), (32, 32), (7680, 4320), (720, 1280), (333, 1000), (2000, 33), (1, 1), (640, 426)]


@pytest.mark.parametrize("width, height", SIZES)
@pytest.mark.parametrize("long_side", [256, 512])
def test_points_and_boxes_return_to_where_they_were(width: int, height: int, long_side: int) -> None:
    view = letterbox(width, height, long_side)
    rng = np.random.default_rng(width)
    points = rng.uniform(0, 1, (50, 2)) * (width, height)
    assert np.abs(view.edges_to_frame(view.edges_to_model(points)) - points).max() < 0.01
    boxes = np.concatenate([points[:25], points[25:]], 1)
    assert np.abs(view.boxes_to_frame(view.boxes_to_model(boxes)) - boxes).max() < 0.01


@pytest.mark.parametrize("width, height", SIZES)
def test_content_fits_and_the_frame_fills_it(width: int, height: int) -> None:
    view = letterbox(width, height, 512)
    assert max(view.content) == 512
    assert all(i % INPUT_MULTIPLE == 0 and c <= i < c + INPUT_MULTIPLE for c, i in zip(view.content, view.input))
    np.testing.assert_allclose(view.edges_to_model([width, height]), view.content, rtol=1e-6)


def test_wide_frames_are_not_padded_to_a_square() -> None:
    view = letterbox(1280, 720, 512)
    assert view.input == (512, 288) and view.content == view.input and view.grid == (72, 128)


def test_a_pixel_is_named_by_its_index_and_meant_by_its_centre() -> None:
    view = letterbox(512, 512, 512)
    np.testing.assert_allclose(view.points_to_model([[0, 0], [511, 10]]), [[0.5, 0.5], [511.5, 10.5]])


@pytest.mark.parametrize("box", [(0, 0, 10, 10), (90, 50, 100, 60), (40, 20, 60, 40), (-5, -5, 300, 300)])
def test_crops_stay_in_the_frame(box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = crop_around(box, 1.6, 100, 60)
    assert 0 <= x0 < x1 <= 100 and 0 <= y0 < y1 <= 60
    assert x0 <= max(box[0], 0) and x1 >= min(box[2], 100)


def test_a_crops_points_return_to_where_they_were() -> None:
    view = letterbox(1920, 1080, 256, region=(700, 300, 911, 480), square=True)
    points = np.array([[700.0, 300.0], [911.0, 480.0], [800.3, 401.7]])
    assert np.abs(view.edges_to_frame(view.edges_to_model(points)) - points).max() < 0.01
    assert view.input == (256, 256) and view.content == (256, 218)
