#!/usr/bin/env python3
"""Make examples/clip.mp4 from the photographs beside it, and say where its objects are.

A camera sways over examples/astronaut.jpg while the cup of examples/coffee.jpg floats past, turns, leaves the picture and
comes back. Prints the boxes of both objects in the first frame.

    python scripts/make_clip.py [OUT.mp4]
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
WIDTH, HEIGHT, FRAMES, RATE = 320, 240, 56, 15
# Ellipses of the coffee photograph: saucer and rim. Centre, half axes, angle in degrees.
CUP = (((279, 229), (203, 153), 8), ((293, 105), (120, 88), 0))
FACE = (152, 16, 302, 192)  # of the astronaut photograph
AWAY = range(32, 39)  # frames in which the cup is out of the picture


def camera(frame: int) -> np.ndarray:
    """(2, 3) map from the photograph to the frame."""
    turn = 2 * np.pi * frame / FRAMES
    zoom = 0.74 + 0.05 * np.sin(turn)
    left, top = 16 + 27 * np.sin(turn), 8 + 18 * (1 - np.cos(turn))
    return np.array([[zoom, 0, -left], [0, zoom, -top]])


def cup(frame: int) -> np.ndarray:
    """(2, 3) map from the coffee photograph to the frame."""
    first, last = AWAY.start, AWAY.stop
    if frame < first:
        x, y = 72 + 320 * (frame / first) ** 1.5, 171 + 16 * np.sin(frame / 5)
    elif frame < last:
        x, y = 1000.0, 0.0
    else:
        x, y = 391 - 204 * ((frame - last + 1) / (FRAMES - last)), 98 + 44 * (frame - last) / (FRAMES - last)
    scale, angle = 0.22 + 0.04 * frame / FRAMES, 10 * np.sin(frame / 9)
    turned = cv2.getRotationMatrix2D((279, 200), angle, scale)
    turned[:, 2] += (x - 279, y - 200)
    return turned


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLES / "clip.mp4"
    scene, coffee = (cv2.imread(str(EXAMPLES / name)) for name in ("astronaut.jpg", "coffee.jpg"))
    shape = np.zeros(coffee.shape[:2], np.uint8)
    for centre, axes, angle in CUP:
        cv2.ellipse(shape, centre, axes, angle, 0, 360, 255, -1)
    writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (WIDTH, HEIGHT))
    if not writer.isOpened():
        sys.exit(f"this build of OpenCV cannot write {out} with mp4v")
    for frame in range(FRAMES):
        picture = cv2.warpAffine(
            scene, camera(frame), (WIDTH, HEIGHT), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
        )
        place = cup(frame)
        pasted = cv2.warpAffine(coffee, place, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
        share = cv2.GaussianBlur(cv2.warpAffine(shape, place, (WIDTH, HEIGHT)), (3, 3), 0)[..., None] / 255.0
        writer.write(np.round(picture * (1 - share) + pasted * share).astype(np.uint8))
        if frame == 0:
            x, y, width, height = cv2.boundingRect((share[..., 0] > 0.5).astype(np.uint8))
            corners = camera(0) @ np.array([[FACE[0], FACE[2]], [FACE[1], FACE[3]], [1, 1]])
            print("cup", (x, y, x + width, y + height), "head", tuple(corners.T.round().astype(int).ravel().tolist()))
    writer.release()
    print(out, f"{FRAMES} frames, {out.stat().st_size >> 10} KB")


if __name__ == "__main__":
    main()
