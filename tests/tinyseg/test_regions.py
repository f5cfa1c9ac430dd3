from __future__ import annotations

import json

import numpy as np
import pytest

import tinyseg
from tests.conftest import ellipse, mask_iou
from tinyseg.errors import FrameError, InputError
from tinyseg.geometry import letterbox
from tinyseg.masks import encode_rle
from tinyseg.pixels import MaskStats, threshold, threshold_window
from tinyseg.regions import Regions


def regions_of(width: int, height: int, shapes: list[tuple[float, float, float]]) -> Regions:
    """Disks (cx, cy, radius) in frame pixels, the first two in the frame's own view, others in a crop."""
    whole = letterbox(width, height, 128)
    crop = letterbox(width, height, 128, (width // 4, height // 4, width, height))
    logits, views, stats = [], [], []
    for i, (cx, cy, r) in enumerate(shapes):
        view = whole if i < 2 else crop
        rows, columns = view.grid
        y, x = np.mgrid[0:rows, 0:columns] + 0.5
        at = view.edges_to_model((cx, cy)) / 4
        logits.append((r * view.scale_x / 4 - np.hypot(x - at[0], y - at[1])).astype(np.float32))
        views.append(view)
        stats.append(threshold_window(logits[-1], view, view.region)[1])
    return Regions(
        width, height, np.linspace(0.9, 0.5, len(shapes)).astype(np.float32), np.full(len(shapes), 0.8, np.float32),
        np.array([s.box for s in stats], np.int32).reshape(-1, 4), np.array([s.area for s in stats], np.int64),
        np.array([s[:2] for s in shapes], np.float32).reshape(-1, 2), tuple(logits), tuple(views),
    )  # fmt: skip


@pytest.fixture
def three() -> Regions:
    # The second touches three edges of the frame, which tests runs that go on in the next column.
    return regions_of(320, 200, [(100, 100, 60), (300, 100, 120), (200, 120, 20)])


def test_shows_itself_in_one_line(three: Regions) -> None:
    assert repr(three) == "Regions(3 of 320 x 200 pixels, scores 0.90 to 0.50)"


def test_masks_windows_and_boxes_say_the_same(three: Regions) -> None:
    masks = three.masks
    assert masks.shape == (3, 200, 320) and masks.dtype == np.bool_ and len(three) == 3
    assert mask_iou(masks[0], ellipse(320, 200, 100, 100, 60, 60)) > 0.97
    for i, mask in enumerate(three):
        np.testing.assert_array_equal(mask, masks[i])
        ys, xs = np.nonzero(mask)
        x0, y0, x1, y1 = three.boxes[i]
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (x0, y0, x1, y1)
        np.testing.assert_array_equal(three.window(i), mask[y0:y1, x0:x1])
        assert mask.sum() == three.areas[i]
        whole = np.zeros_like(mask)
        assert isinstance(threshold(three.logits[i], three.views[i], whole), MaskStats)
        assert np.count_nonzero(whole != mask) <= 2
    np.testing.assert_array_equal(three.mask(-1), masks[2])
    with pytest.raises(InputError, match="one of the 3 regions"):
        three.mask(3)


def test_run_lengths_are_those_of_the_whole_masks(three: Regions) -> None:
    assert three.to_coco() == [encode_rle(m) for m in three.masks]
    decode = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed").decode
    for rle, mask in zip(three.to_coco(), three):
        np.testing.assert_array_equal(decode(rle).astype(bool), mask)
    full = regions_of(40, 30, [(20, 15, 500)])
    assert full.runs(0) == [0, 1200] and full.to_coco() == [encode_rle(np.ones((30, 40), bool))]


def test_annotations_are_plain_numbers(three: Regions) -> None:
    rows = json.loads(json.dumps(three.to_annotations(image_id=7, first_id=20)))
    assert [r["id"] for r in rows] == [20, 21, 22] and {r["image_id"] for r in rows} == {7}
    x0, y0, x1, y1 = three.boxes[0].tolist()
    assert rows[0]["bbox"] == [x0, y0, x1 - x0, y1 - y0] and rows[0]["area"] == three.areas[0]
    assert rows[0]["crop_box"] == [0, 0, 320, 200] and rows[2]["crop_box"] == [80, 50, 240, 150]
    assert rows[0]["point_coords"] == [[100.0, 100.0]] and rows[0]["predicted_iou"] == 0.9


def test_a_label_map_has_the_small_ones_on_top(three: Regions) -> None:
    labels = three.label_map()
    assert labels.shape == (200, 320) and labels.dtype == np.int32
    assert labels[120, 200] == 3 and labels[100, 319] == 2 and labels[100, 100] == 1 and labels[0, 0] == 0
    np.testing.assert_array_equal(labels > 0, three.masks.any(0))


def test_outlines_fill_to_the_mask(three: Regions) -> None:
    import cv2  # noqa: PLC0415

    for outlines, mask in zip(three.to_polygons(), three):
        filled = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(filled, outlines, 1)
        np.testing.assert_array_equal(filled.astype(bool), mask)


def test_conversions_to_masks_and_supervision(three: Regions) -> None:
    view = letterbox(320, 200, 128)
    masks = three.to_masks(view)
    assert masks.logits.shape == (3, *view.grid) and masks.best == 0
    np.testing.assert_array_equal(masks.masks, three.masks)
    pytest.importorskip("supervision", reason="supervision is not installed")
    detections = three.to_supervision()
    assert len(detections) == 3 and detections.mask.shape == (3, 200, 320) and "points" in detections.data


def test_no_region_at_all() -> None:
    none = regions_of(64, 48, [])
    assert len(none) == 0 and none.masks.shape == (0, 48, 64) and not none.label_map().any()
    assert none.to_annotations() == none.to_coco() == none.to_polygons() == [] and list(none) == []
    assert len(none.to_masks(letterbox(64, 48, 64))) == 0 and len(none.select([])) == 0


def test_huge_frames_take_one_mask_at_a_time() -> None:
    huge = regions_of(8192, 8192, [(4000, 4000, 300), (900, 900, 200)])
    many = huge.select([0, 1] * 150)
    assert sum(grid.nbytes for grid in huge.logits) < 1 << 20
    with pytest.raises(FrameError, match="one by one"):
        _ = many.masks
    assert many.window(0).size < 700**2 and len(many.to_coco()) == 300


def test_selection_keeps_the_order_given(three: Regions) -> None:
    some = three.select([2, 0])
    assert some.areas.tolist() == three.areas[[2, 0]].tolist() and some.views[0] == three.views[2]
    assert (
        some.points.tolist() == three.points[[2, 0]].tolist() and some.scores.tolist() == three.scores[[2, 0]].tolist()
    )
    for none in ([5], three.scores > 0, [0.5], [None]):
        with pytest.raises(InputError, match="whole number"):
            three.select(none)  # type: ignore[arg-type]
    for index in (True, 0.5, None):
        with pytest.raises(InputError, match="whole number"):
            three.mask(index)  # type: ignore[arg-type]


def test_a_picture_of_labels(three: Regions) -> None:
    from tinyseg.draw import paint_labels  # noqa: PLC0415

    frame = np.full((200, 320, 3), 100, np.uint8)
    picture = paint_labels(frame, three.label_map())
    assert (picture[0, 0] == 100).all() and (picture[100, 100] != 100).any()
    assert (picture[100, 100] != picture[100, 310]).any() and frame.min() == frame.max() == 100
    assert tinyseg.Regions is Regions
