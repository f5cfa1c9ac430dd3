"""What is drawn over a frame is checked: an array of another kind would be painted wrongly, or end in NumPy's own error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyseg
from tinyseg.draw import overlay, overlay_tracks

FRAME = np.zeros((60, 80, 3), np.uint8)
MASK = np.ones((60, 80), np.bool_)


@pytest.mark.parametrize("frame", [FRAME[..., 0], FRAME.astype(np.float32), np.dstack([FRAME, MASK]), "photo.jpg"])
def test_only_colour_frames_are_drawn_over(frame: Any) -> None:
    with pytest.raises(tinyseg.FrameError, match="drawn over"):
        overlay(frame, [MASK])


@pytest.mark.parametrize("masks", [MASK, [MASK[:50]], [MASK.astype(np.uint8)], 5])
def test_only_masks_of_the_frame_are_drawn(masks: Any) -> None:
    with pytest.raises(tinyseg.InputError, match="masks must be"):
        overlay(FRAME, masks)


def test_an_answer_is_no_list_of_masks(fake: tinyseg.Segmenter) -> None:
    out = fake(FRAME, box=(10, 20, 50, 40), zoom="off")
    assert overlay(FRAME, out.masks).shape == FRAME.shape
    with pytest.raises(tinyseg.InputError, match=r"as out\.masks"):
        overlay(FRAME, out)  # type: ignore[arg-type]


def test_what_a_tracker_gives_is_drawn_as_a_list(fake: tinyseg.Segmenter) -> None:
    tracker = fake.tracker()
    tracker.add("cup", box=(10, 20, 50, 40), frame=FRAME)
    found = tracker.step(FRAME)
    assert overlay_tracks(FRAME, list(found.values())).shape == FRAME.shape
    with pytest.raises(tinyseg.InputError, match=r"found\.values"):
        overlay_tracks(FRAME, found)  # type: ignore[arg-type]
