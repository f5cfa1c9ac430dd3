"""Image files as frames."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tinyseg.images import find_images, read_image
from tinyseg.sources.base import Source


class ImageSource(Source):
    """Image files one after the other; their sizes may differ."""

    def __init__(self, patterns: Iterable[str]) -> None:
        super().__init__()
        self._paths = iter(find_images(patterns))
        self._name = ""

    @property
    def name(self) -> str:
        return self._name

    def read(self) -> NDArray[np.uint8] | None:
        path = next(self._paths, None)
        if path is None:
            return None
        self._name = str(path)
        return read_image(path)
