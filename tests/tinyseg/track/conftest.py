from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tests.conftest import ROOT

Picture = NDArray[np.uint8]
Moving = Callable[[int], tuple[Picture, NDArray[np.bool_]]]


@pytest.fixture(scope="session")
def seg(reference: tinyseg.Segmenter) -> tinyseg.Segmenter:
    return reference


@pytest.fixture(scope="session")
def moving() -> Moving:
    """Frame number -> (240, 320, 3) frame in which a cup moves over a table by 6 pixels a frame, and the cup's mask."""
    photo = cv2.imread(str(ROOT / "examples" / "coffee.jpg"))
    shape = np.zeros(photo.shape[:2], np.uint8)
    cv2.ellipse(shape, (279, 229), (203, 153), 8, 0, 360, 255, -1)
    cv2.ellipse(shape, (293, 105), (120, 88), 0, 0, 360, 255, -1)
    ground = np.full((240, 320, 3), (120, 140, 110), np.uint8)
    noise = np.random.default_rng(0).integers(-20, 21, (30, 40, 3))
    texture = cv2.resize(noise.astype(np.float32), (320, 240))
    ground = np.clip(ground + texture, 0, 255).astype(np.uint8)

    def frame(number: int) -> tuple[Picture, NDArray[np.bool_]]:
        place = np.array([[0.25, 0, 10.0 + 6 * number], [0, 0.25, 60.0]])
        inside = cv2.warpAffine(shape, place, (320, 240)) > 127
        cup = cv2.warpAffine(photo, place, (320, 240), flags=cv2.INTER_AREA)
        return np.where(inside[..., None], cup, ground).astype(np.uint8), inside

    return frame
