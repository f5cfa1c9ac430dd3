from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tinyseg.dataset import read_photos
from tinyseg.distill.data import (
    Crop,
    Mixing,
    Scene,
    TrainingBatches,
    cut_image,
    cut_sample,
    fill_instance,
    finish,
    mosaic,
    paste,
    random_crop,
    split_validation,
)


def test_batches_are_a_function_of_seed_and_step(shapes: Path) -> None:
    photos = read_photos(shapes)
    first, again = (TrainingBatches(photos, 2, 3, 5, {}) for _ in range(2))
    for step in (0, 7, 123):
        a, b = first[step], again[step]
        for name in ("image", "coverage", "boxes"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert not np.array_equal(TrainingBatches(photos, 2, 3, 6, {})[0].boxes, first[0].boxes)


def test_samples_hold_visible_instances_and_their_boxes(shapes: Path) -> None:
    batches = TrainingBatches(read_photos(shapes), 4, 3, 0, {})
    for step in range(6):
        batch = batches[step]
        size = batch.image.shape[1]
        count = round(4 * (320 / size) ** 2)  # of every size about as many pixels
        assert batch.image.shape == (count, size, size, 3)
        assert batch.coverage.shape == (count, 3, size // 4, size // 4)
        flat = batch.coverage.reshape(3 * count, size // 4, -1)
        for coverage, (x0, y0, x1, y1) in zip(flat, batch.boxes.reshape(3 * count, 4)):
            ys, xs = np.nonzero(coverage)
            assert len(xs) and x0 // 4 == xs.min() and y0 // 4 == ys.min()
            assert (x1 - 1) // 4 == xs.max() and (y1 - 1) // 4 == ys.max()


def test_image_and_mask_are_cut_alike(shapes: Path) -> None:
    """Drawn ellipses are brighter than their ground: the cut mask must cover the cut bright pixels."""
    rng = np.random.default_rng(3)
    for photo in read_photos(shapes)[:8]:
        image = photo.read()
        for zoom in (False, True):
            crop = random_crop(photo, 256, zoom, rng)
            cut = cut_image(image, crop)
            # Outside the photo lies a grey that is brighter than the ground.
            whole = [np.array([[0, 0], [159, 0], [159, 119], [0, 119]], np.float32)]
            inside = fill_instance(whole, crop) > 0
            masks = np.any([fill_instance(p, crop) for p in photo.instances], 0)
            bright = (cut.max(2) > 124) & inside
            if masks.sum() > 500:
                assert np.count_nonzero(bright & masks) / np.count_nonzero(bright | masks) > 0.85


def test_an_identity_crop_is_the_photo(shapes: Path) -> None:
    photo = read_photos(shapes)[0]
    image = photo.read()
    cut = cut_image(image, Crop(np.array([[1.0, 0, 0], [0, 1.0, 0]]), 160))
    np.testing.assert_array_equal(cut[:120], image)
    assert (cut[120:] == 128).all()


def test_crops_without_an_instance_give_no_sample(shapes: Path) -> None:
    photo = read_photos(shapes)[0]
    far = Crop(np.array([[1.0, 0, 5000.0], [0, 1.0, 0]]), 64)
    assert cut_sample(photo, photo.read(), far, 2, np.random.default_rng(0)) is None


def test_the_split_does_not_depend_on_order(shapes: Path) -> None:
    photos = read_photos(shapes)
    _, a = split_validation(photos)
    _, b = split_validation(photos[::-1])
    assert {p.name for p in a} == {p.name for p in b}


def test_oversampled_sources_come_more_often(shapes: Path) -> None:
    photos = read_photos(shapes)
    batches = TrainingBatches(photos, 1, 1, 0, {"s1": 9.0})
    draws = np.random.default_rng(0).random(2000)
    found = Counter(photos[int(np.searchsorted(batches.cumulative, d))].source for d in draws)
    assert found["s1"] > 5 * found["s0"]


def test_no_photo_is_an_error() -> None:
    with pytest.raises(ValueError, match="no photo"):
        TrainingBatches([], 1, 1, 0, {})


def scene_of(value: int, *rectangles: tuple[int, int, int, int]) -> Scene:
    masks = np.zeros((len(rectangles), 64, 64), np.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, rectangles):
        mask[y0:y1, x0:x1] = 1
    return Scene(np.full((64, 64, 3), value, np.uint8), masks)


def test_a_pasted_object_hides_what_lies_below_it() -> None:
    ground, other = scene_of(50, (0, 0, 32, 64), (40, 40, 60, 60)), scene_of(200, (16, 16, 48, 48))
    mixed = paste(ground, other)
    assert mixed is not None
    assert (mixed.image[20:44, 20:44] == 200).all() and (mixed.image[:10] == 50).all()
    np.testing.assert_array_equal(mixed.masks[0], other.masks[0])
    assert mixed.masks[1].sum() == 32 * 64 - 16 * 32 and not (mixed.masks[1:] & other.masks[0]).any()
    assert paste(scene_of(50, (20, 20, 40, 40)), other) is None  # nothing of it would be left


def test_a_mosaic_takes_instances_from_every_quarter_in_turn() -> None:
    quarters = [scene_of(40 * i, (0, 0, 16, 16), (20, 20, 40, 60)) for i in range(4)]
    whole = mosaic(quarters)
    assert whole.image.shape == (128, 128, 3) and whole.masks.shape == (8, 128, 128)
    assert [int(whole.image[y, x, 0]) for y, x in ((0, 0), (0, 127), (127, 0), (127, 127))] == [0, 40, 80, 120]
    boxes = finish(whole, 5, np.random.default_rng(0)).boxes
    assert boxes[:, :2].tolist() == [[0, 0], [64, 0], [0, 64], [64, 64], [20, 20]]


def test_mixed_batches(shapes: Path) -> None:
    photos = read_photos(shapes)
    plain = TrainingBatches(photos, 2, 3, 5, {})[1]
    for mixing in (Mixing(copy_paste=1.0), Mixing(mosaic=1.0)):
        mixed = TrainingBatches(photos, 2, 3, 5, {}, mixing)[1]
        assert mixed.image.shape == plain.image.shape and not np.array_equal(mixed.image, plain.image)
        assert (mixed.coverage.reshape(*mixed.coverage.shape[:2], -1).sum(2) > 0).all()
