"""A script written for segment-anything runs after changing its import."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tests.conftest import mask_iou

Scene = tuple[NDArray[np.uint8], NDArray[np.bool_]]


@pytest.fixture
def predictor(real: tinyseg.Segmenter, scene: Scene) -> tinyseg.SamPredictor:
    predictor = tinyseg.SamPredictor(real)
    predictor.set_image(scene[0][..., ::-1])
    return predictor


def test_the_signature_is_sams() -> None:
    names = list(inspect.signature(tinyseg.SamPredictor.predict).parameters)
    assert names == ["self", "point_coords", "point_labels", "box", "mask_input", "multimask_output", "return_logits"]
    assert list(inspect.signature(tinyseg.SamPredictor.set_image).parameters) == ["self", "image", "image_format"]


def test_shapes_and_dtypes_are_sams(predictor: tinyseg.SamPredictor, scene: Scene) -> None:
    masks, scores, logits = predictor.predict(point_coords=np.array([[170, 110]]), point_labels=np.array([1]))
    assert masks.shape == (3, 240, 320) and masks.dtype == np.bool_
    assert scores.shape == (3,) and scores.dtype == np.float32
    assert logits.shape == (3, 256, 256) and logits.dtype == np.float32
    assert mask_iou(masks[scores.argmax()], scene[1]) > 0.85
    masks, scores, logits = predictor.predict(box=np.array([95, 55, 245, 165]), multimask_output=False)
    assert masks.shape == (1, 240, 320) and scores.shape == (1,) and logits.shape == (1, 256, 256)
    assert predictor.is_image_set and predictor.original_size == (240, 320)
    assert predictor.get_image_embedding().shape == (1, 128, 24, 32)


def test_logits_can_be_passed_back(predictor: tinyseg.SamPredictor, scene: Scene) -> None:
    _, scores, logits = predictor.predict(np.array([[170, 110]]), np.array([1]))
    masks, _, _ = predictor.predict(
        np.array([[170, 110], [10, 10]]),
        np.array([1, 0]),
        mask_input=logits[None, scores.argmax()],
        multimask_output=False,
    )
    assert mask_iou(masks[0], scene[1]) > 0.85


def test_returned_logits_cross_zero_where_the_mask_ends(predictor: tinyseg.SamPredictor) -> None:
    box = np.array([95, 55, 245, 165])
    masks, _, _ = predictor.predict(box=box)
    logits, _, _ = predictor.predict(box=box, return_logits=True)
    assert logits.shape == masks.shape and logits.dtype == np.float32
    assert mask_iou(logits > 0, masks) > 0.99


def test_sams_low_resolution_grid_covers_the_square(predictor: tinyseg.SamPredictor) -> None:
    _, _, logits = predictor.predict(box=np.array([95, 55, 245, 165]), multimask_output=False)
    ys, xs = np.nonzero(logits[0] > 0)
    scale = 256 / 320  # the longer side fills the grid
    assert abs(xs.min() - 100 * scale) < 4 and abs(xs.max() - 240 * scale) < 4
    assert abs(ys.min() - 60 * scale) < 4 and abs(ys.max() - 160 * scale) < 4


def test_wrong_use_is_told(real: tinyseg.Segmenter, predictor: tinyseg.SamPredictor) -> None:
    with pytest.raises(tinyseg.NotReadyError, match="set_image"):
        tinyseg.SamPredictor(real).predict(box=np.array([0, 0, 9, 9]))
    with pytest.raises(tinyseg.InputError, match="image_format"):
        predictor.set_image(np.zeros((9, 9, 3), np.uint8), "HSV")
    with pytest.raises(tinyseg.PromptError, match="mask_input"):
        predictor.predict(mask_input=np.zeros((1, 64, 64), np.float32))
    predictor.reset_image()
    assert not predictor.is_image_set
    with pytest.raises(tinyseg.NotReadyError):
        predictor.get_image_embedding()
