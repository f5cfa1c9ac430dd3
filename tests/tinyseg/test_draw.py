"""Pictures of answers: what is drawn, and what is refused instead of being drawn in wrong places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyseg
from tinyseg import Prompt, draw
from tinyseg.errors import FrameError, InputError

FRAME = np.zeros((60, 80, 3), np.uint8)
MASK = np.zeros((60, 80), bool)
MASK[10:30, 20:50] = True


def test_masks_and_prompts_are_drawn_on_a_copy() -> None:
    far = Prompt(box=[-1e12, 5, 1e15, 50])  # OpenCV has no such numbers
    picture = draw.overlay(FRAME, [MASK], [far, Prompt(points=[[40, 20]], labels=[1])])
    assert not FRAME.any() and picture[15, 25].any() and not picture[55, 5].any()
    assert tuple(picture[20, 40]) == draw.POSITIVE and tuple(picture[5, 40]) == draw.POSITIVE
    assert draw.readings(FRAME, [MASK, ~MASK], [0.9, 0.1]).shape == (60, 160, 3)


@pytest.mark.parametrize("frame", [FRAME[..., 0], FRAME.astype(float), FRAME.tolist(), np.zeros((60, 80, 4), np.uint8)])
def test_frames_that_are_not_bgr_are_told(frame: Any) -> None:
    for drawn in (lambda: draw.overlay(frame, [MASK]), lambda: draw.paint_labels(frame, MASK.astype(np.int32))):
        with pytest.raises(FrameError, match=r"cv2\.cvtColor"):
            drawn()


@pytest.mark.parametrize(
    ("masks", "more"),
    [
        (MASK, {}), (5, {}), ([MASK[:9]], {}), ([MASK.astype(np.uint8)], {}), ([MASK.tolist()], {}), ([None], {}), ([MASK], {"colors": []}),
        ([MASK], {"colors": ["red"]}), ([MASK], {"prompts": Prompt(box=[1, 1, 9, 9])}), ([MASK], {"prompts": [[1, 1, 9, 9]]}),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_told(masks: Any, more: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"must be"):
        draw.overlay(FRAME, masks, **more)


@pytest.mark.parametrize("labels", [MASK, MASK.astype(np.float32), MASK[:9].astype(np.int32), None])
def test_labels_that_fit_no_frame_are_told(labels: Any) -> None:
    with pytest.raises(InputError, match="whole numbers"):
        draw.paint_labels(FRAME, labels)


def test_readings_need_a_score_each() -> None:
    with pytest.raises(InputError, match="1 masks and 0 scores"):
        draw.readings(FRAME, [MASK], [])


def test_answers_of_a_model_are_drawn_as_lists(fake: tinyseg.Segmenter) -> None:
    out = fake(FRAME, box=(10, 20, 50, 40), zoom="off")
    assert draw.overlay(FRAME, out.masks).shape == FRAME.shape
    with pytest.raises(InputError, match=r"as out\.masks"):
        draw.overlay(FRAME, out)  # type: ignore[arg-type]
    tracker = fake.tracker()
    tracker.add("cup", box=(10, 20, 50, 40), frame=FRAME)
    found = tracker.step(FRAME)
    assert draw.overlay_tracks(FRAME, list(found.values())).shape == FRAME.shape
    with pytest.raises(InputError, match=r"found\.values"):
        draw.overlay_tracks(FRAME, found)  # type: ignore[arg-type]
