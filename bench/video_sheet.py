"""A sheet of frames of one sequence, as a way of following objects drew them, beside where they truly are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.draw import POSITIVE, overlay
from tinyseg.images import write_image

PANELS, COLUMNS, PANEL_WIDTH = 8, 4, 400


class Sheet:
    """Panels evenly spread over the frames that are followed, their numbers ascending; told of them in any order."""

    def __init__(self, followed: Sequence[int]) -> None:
        places = np.linspace(0, len(followed) - 1, min(PANELS, len(followed))).round().astype(int)
        self.numbers = frozenset(followed[i] for i in places)
        self._panels: dict[int, NDArray[np.uint8]] = {}

    def draw(
        self, number: int, frame: NDArray[np.uint8], masks: NDArray[np.bool_], truth: NDArray[np.bool_], note: str
    ) -> None:
        """frame: (H, W, 3) BGR. masks, truth: (objects, H, W), no masks where nothing was asked; note: written in a corner."""
        height = max(1, round(PANEL_WIDTH * frame.shape[0] / frame.shape[1]))
        size = (PANEL_WIDTH, height)
        small = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
        panel = overlay(small, [_resized(m, size) for m in masks])
        for mask in truth:
            found, _ = cv2.findContours(_resized(mask, size).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(panel, found, -1, POSITIVE, 1, cv2.LINE_AA)
        for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(panel, f"{number}: {note}", (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, width, cv2.LINE_AA)
        self._panels[number] = panel

    def write(self, path: Path) -> None:
        """Write the panels in the order of their frames. Raises DataError."""
        panels = [self._panels[n] for n in sorted(self._panels)]
        panels += [np.zeros_like(panels[0])] * (-len(panels) % COLUMNS)
        rows = [np.concatenate(panels[i : i + COLUMNS], 1) for i in range(0, len(panels), COLUMNS)]
        write_image(path, np.concatenate(rows))


def _resized(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5, np.bool_)
