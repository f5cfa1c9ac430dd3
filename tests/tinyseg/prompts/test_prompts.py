from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyseg
from tinyseg import Prompt, PromptError
from tinyseg.geometry import letterbox
from tinyseg.prompts.layout import HINT_LIMIT, decoder_inputs, place_prompt, point_count
from tinyseg.prompts.text import phrases

NAN = float("nan")


@pytest.mark.parametrize(
    "given, says",
    [
        ({}, "empty"),
        ({"labels": [1]}, "without points"),
        ({"points": [[1, 2]]}, "without labels"),
        ({"points": [[1, 2]], "labels": [2]}, "must be 1"),
        ({"points": [[1, 2]], "labels": [-1]}, "must be 1"),
        ({"points": [[1, 2]], "labels": [0.5]}, "must be 1"),
        ({"points": [[1, 2]], "labels": [1, 1]}, r"shape \(1,\)"),
        ({"points": [1, 2], "labels": [1]}, r"\(N, 2\)"),
        ({"points": [[1, 2, 3]], "labels": [1]}, r"\(N, 2\)"),
        ({"points": [], "labels": []}, r"\(N, 2\)"),
        ({"points": np.zeros((0, 2)), "labels": []}, r"\(N, 2\)"),
        ({"points": [[1, NAN]], "labels": [1]}, "finite"),
        ({"points": [[1, 2]], "labels": [NAN]}, "finite"),
        ({"points": "here", "labels": [1]}, "numbers"),
        ({"points": [[1, 2], [3]], "labels": [1, 1]}, "numbers"),
        ({"points": np.zeros((300, 2)), "labels": np.ones(300)}, "at most"),
        ({"box": [1, 2, 3]}, r"\(4,\)"),
        ({"box": [[1, 2, 3, 4], [1, 2, 3, 4]]}, "predict_batch"),
        ({"box": [5, 2, 5, 9]}, "x0 < x1"),
        ({"box": [1, 9, 5, 2]}, "x0 < x1"),
        ({"box": [1, 2, 3, float("inf")]}, "finite"),
        ({"box": ["a", 2, 3, 4]}, "numbers"),
        ({"mask": np.zeros((2, 3, 4), np.float32)}, "shape"),
        ({"mask": np.zeros((0, 4), np.float32)}, "shape"),
        ({"mask": np.full((4, 4), NAN, np.float32)}, "finite"),
        ({"mask": np.zeros((4, 4), np.uint8)}, "bool"),
        ({"mask": np.zeros((4, 4), np.bool_)}, "empty"),
    ],
)
def test_wrong_prompts_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(PromptError, match=says) as caught:
        Prompt(**given)
    assert isinstance(caught.value, tinyseg.TinysegError)


@pytest.mark.parametrize("point", [[-1, 5], [5, -0.1], [101, 5], [5, 61]])
def test_points_outside_the_frame_are_refused(point: list[float]) -> None:
    with pytest.raises(PromptError, match="outside the frame of 100 x 60"):
        place_prompt(Prompt([point], [1]), letterbox(100, 60, 512))


def test_points_on_the_border_are_taken() -> None:
    place_prompt(Prompt([[0, 0], [100, 60], [99, 59]], [1, 1, 0]), letterbox(100, 60, 512))


def test_boxes_are_cut_to_the_frame_or_refused() -> None:
    frame = letterbox(100, 60, 512)
    placed = place_prompt(Prompt(box=[-20, 10, 300, 40]), frame)
    np.testing.assert_array_equal(np.asarray(placed.box), [0, 10, 100, 40])
    for box in ([100, 0, 120, 60], [-9, -9, 0, 10], [200, 200, 300, 300]):
        with pytest.raises(PromptError, match="outside the frame"):
            place_prompt(Prompt(box=box), frame)


def test_hints_must_fit_the_frame() -> None:
    frame = letterbox(100, 60, 512)
    with pytest.raises(PromptError, match="logits"):
        place_prompt(Prompt(mask=np.zeros((7, 7), np.float32)), frame)
    with pytest.raises(PromptError, match=r"\(60, 100\)"):
        place_prompt(Prompt(mask=np.ones((7, 7), np.bool_)), frame)


def test_slots_hold_the_box_first_then_the_points() -> None:
    frame = letterbox(512, 288, 512)
    prompt = Prompt([[9, 9], [20, 30]], [1, 0], box=[10, 20, 110, 220])
    inputs = decoder_inputs([prompt], frame, frame, 2, 6)
    np.testing.assert_array_equal(inputs.labels, [[2, 3, 1, 0, -1, -1], [-1] * 6])
    np.testing.assert_allclose(inputs.points[0, :4], [[10, 20], [110, 220], [9.5, 9.5], [20.5, 30.5]], atol=1e-4)
    assert not inputs.has_mask.any()


def test_a_second_look_drops_points_that_it_does_not_see() -> None:
    frame = letterbox(512, 288, 512)
    look = letterbox(512, 288, 256, (100, 100, 164, 164), square=True)
    inputs = decoder_inputs([Prompt([[120, 120], [400, 20]], [1, 0])], frame, look, 1, 4)
    np.testing.assert_array_equal(inputs.labels, [[1, -1, -1, -1]])
    np.testing.assert_allclose(inputs.points[0, 0], [82, 82], atol=1e-4)


def test_a_bool_mask_becomes_logits_of_the_same_shape() -> None:
    frame = letterbox(512, 288, 512)
    mask = np.zeros((288, 512), np.bool_)
    mask[40:80, 100:200] = True
    inputs = decoder_inputs([Prompt(mask=mask)], frame, frame, 1, 4)
    assert inputs.mask.shape == (1, 1, 72, 128) and inputs.has_mask[0] == 1
    positive = inputs.mask[0, 0] > 0
    assert positive[10:20, 25:50].all() and positive.sum() == 10 * 25
    # Inside and outside are as sure as a hint can be, half a cell says nothing, and so it is for logits.
    assert inputs.mask[0, 0, 15, 30] == HINT_LIMIT and inputs.mask[0, 0, 0, 0] == -HINT_LIMIT
    mask[40:80, 98:100] = True
    assert decoder_inputs([Prompt(mask=mask)], frame, frame, 1, 4).mask[0, 0, 15, 24] == 0
    sure = np.full((72, 128), 40.0, np.float32)
    assert (decoder_inputs([Prompt(mask=sure)], frame, frame, 1, 4).mask == HINT_LIMIT).all()


def test_hints_are_bounded_far_beyond_what_anybody_tells_apart() -> None:
    given = np.array([[1e3, -1e3, 1e30, -1e30]])
    np.testing.assert_array_equal(np.asarray(Prompt(mask=given).mask), np.float32([[1e3, -1e3, 1e9, -1e9]]))


def test_as_many_points_as_there_are_slots() -> None:
    most = Prompt(np.zeros((254, 2)), np.ones(254), box=(0, 0, 9, 9))
    assert point_count(most) == 256 and point_count(Prompt(box=(0, 0, 9, 9))) == 2
    with pytest.raises(PromptError, match="at most 254"):
        Prompt(np.zeros((255, 2)), np.ones(255))


def test_one_click_alone_is_ambiguous() -> None:
    hint = np.ones((4, 4), np.bool_)
    assert Prompt([[1, 1]], [1]).ambiguous
    assert not Prompt([[1, 1], [2, 2]], [1, 0]).ambiguous and not Prompt([[1, 1]], [1], mask=hint).ambiguous
    assert not Prompt([[1, 1]], [1], box=(0, 0, 9, 9)).ambiguous and not Prompt(box=(0, 0, 9, 9)).ambiguous


def test_relative_coordinates_are_suspected(recwarn: pytest.WarningsRecorder) -> None:
    shares, first_pixel = Prompt([[0.5, 0.25]], [1]), Prompt([[0, 1]], [1])
    place_prompt(first_pixel, letterbox(100, 60, 512))  # whole numbers are pixels
    place_prompt(shares, letterbox(15, 60, 512))  # a frame so small may well mean it
    assert not recwarn.list
    with pytest.warns(UserWarning, match="coordinates are pixels"):
        place_prompt(shares, letterbox(16, 16, 512))
    with pytest.warns(UserWarning, match="coordinates are pixels"):
        place_prompt(Prompt(box=(0, 0, 1, 1)), letterbox(100, 60, 512))


def test_phrases_keep_their_order() -> None:
    assert phrases("red cup. dog. Red cup") == ("red cup", "dog")
