"""Draws docs/everything.jpg: the photo, and its regions painted over it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

import tinyseg
from tinyseg.draw import paint_labels
from tinyseg.images import read_image

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "everything.jpg"


def main() -> None:
    frame = read_image(ROOT / "examples" / "coffee.jpg")
    regions = tinyseg.load(engine="onnxruntime", precision="fp32").everything(frame)
    picture = np.hstack([frame, paint_labels(frame, regions.label_map())])
    width = 1000
    small = cv2.resize(
        picture, (width, round(picture.shape[0] * width / picture.shape[1])), interpolation=cv2.INTER_AREA
    )
    cv2.imwrite(str(PICTURE), small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    print(f"{len(regions)} regions -> {PICTURE}")


if __name__ == "__main__":
    main()
