from __future__ import annotations

import numpy as np
import pytest

from tinyseg.geometry import letterbox
from tinyseg.predict.specks import clicked_cells, without_specks
from tinyseg.prompts import Prompt

VIEW = letterbox(640, 480, 512)  # a grid of 96 x 128 cells, 5 frame pixels each


@pytest.fixture
def logits() -> np.ndarray:
    """A large part with a pinhole and a wide hole, a part of a tenth of it, and a speck."""
    out = np.full((1, 96, 128), -4.0, np.float32)
    out[0, 10:50, 10:60] = 3.0
    out[0, 20:22, 20:22] = -2.0
    out[0, 30:40, 30:40] = -2.0
    out[0, 60:70, 60:80] = 1.0
    out[0, 80:83, 100:104] = 0.5
    return out


def changed(before: np.ndarray, prompt: Prompt) -> set[str]:
    after = without_specks(before, prompt, VIEW)[0]
    np.testing.assert_array_equal(np.abs(after), np.abs(before[0]))
    places = {"pinhole": (20, 20), "hole": (35, 35), "part": (65, 70), "speck": (81, 101), "ground": (0, 0)}
    return {n for n, at in places.items() if (after[at] > 0) != (before[0][at] > 0)}


def test_specks_go_and_pinholes_are_filled(logits: np.ndarray) -> None:
    box = Prompt(box=(10, 10, 600, 400))
    before = logits.copy()
    assert changed(logits, box) == {"pinhole", "speck"}
    np.testing.assert_array_equal(logits, before)  # the engine's own memory is not written to


def test_what_a_click_points_at_stays(logits: np.ndarray) -> None:
    speck, pinhole = (101 * 5 + 2, 81 * 5 + 2), (21 * 5 - 2, 21 * 5 - 2)
    assert changed(logits, Prompt(points=[speck], labels=[1])) == {"pinhole"}
    assert changed(logits, Prompt(points=[speck, pinhole], labels=[1, 0])) == set()
    assert changed(logits, Prompt(points=[speck, pinhole], labels=[0, 1])) == {"pinhole", "speck"}


def test_clean_masks_are_not_copied() -> None:
    clean = np.full((2, 96, 128), -1.0, np.float32)
    clean[1, 4:9, 4:9] = 1.0
    assert without_specks(clean, Prompt(box=(1, 1, 9, 9)), VIEW) is clean
    # A dent that reaches the border is no hole.
    full = np.full((1, 96, 128), 1.0, np.float32)
    full[0, 0, 5] = -1.0
    assert without_specks(full, Prompt(box=(1, 1, 9, 9)), VIEW) is full


def test_clicks_on_the_grid() -> None:
    clicks = Prompt(points=[[0, 0], [639, 479], [322, 240]], labels=[1, 0, 1])
    assert clicked_cells(clicks, VIEW) == [(0, 0, 1), (95, 127, 0), (48, 64, 1)]
    crop = letterbox(640, 480, 256, (320, 240, 420, 340), square=True)
    assert clicked_cells(Prompt(points=[[10, 10], [370, 290]], labels=[1, 1]), crop) == [(32, 32, 1)]
