"""Image files as frames."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import InputError
from tinyseg.images import find_images, read_image
from tinyseg.pixels import check_frame
from tinyseg.sources.base import Source


class ImageSource(Source):
    """Image files one after the other; their sizes may differ. One that cannot be read, or is too large, is passed over."""

    def __init__(self, patterns: Iterable[str]) -> None:
        super().__init__()
        self._paths = iter(find_images(patterns))
        self._name = ""

    @property
    def name(self) -> str:
        return self._name

    def read(self) -> NDArray[np.uint8] | None:
        for path in self._paths:
            try:
                image = read_image(path)
                check_frame(image, self.color)
            except InputError as exc:
                self.pass_over(f"passed over: {exc}" if str(path) in str(exc) else f"passed over {path}: {exc}")
                continue
            self._name = str(path)
            return image
        return None
