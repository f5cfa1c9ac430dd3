"""SAM's coordinate frames: the longer side of an image scaled to 1024, and the 256 x 256 grid of its logits."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import InputError
from tinyseg.geometry import Letterbox
from tinyseg.predict.sam.tensors import import_torch

# Longer side of SAM's input, and side of its low-resolution masks.
SAM_SIDE = 1024
SAM_GRID = 256


class ResizeLongestSide:
    """segment-anything's ``utils.transforms.ResizeLongestSide``: images, points and boxes to a longer side of
    ``target_length`` pixels. Image sizes are (H, W)."""

    def __init__(self, target_length: int) -> None:
        if isinstance(target_length, bool) or not isinstance(target_length, (int, np.integer)) or target_length < 1:
            raise InputError(f"target_length must be a positive whole number of pixels, but is {target_length!r}")
        self.target_length = int(target_length)

    @staticmethod
    def get_preprocess_shape(oldh: int, oldw: int, long_side_length: int) -> tuple[int, int]:
        """(H, W) after scaling the longer side to ``long_side_length``, each side rounded half up, but never to nothing."""
        scale = long_side_length / max(oldh, oldw)
        return max(1, int(oldh * scale + 0.5)), max(1, int(oldw * scale + 0.5))

    def apply_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, C) uint8 -> the same image with its longer side at ``target_length``."""
        height, width = self.get_preprocess_shape(image.shape[0], image.shape[1], self.target_length)
        return resize(image, width, height)

    def apply_coords(self, coords: NDArray[Any], original_size: tuple[int, ...]) -> NDArray[np.float64]:
        """(..., 2) x, y in pixels of the image -> of the scaled image. original_size: (H, W)."""
        return np.asarray(coords, np.float64) * self._scale(original_size)

    def apply_boxes(self, boxes: NDArray[Any], original_size: tuple[int, ...]) -> NDArray[np.float64]:
        """(B, 4) or (4,) x0, y0, x1, y1 in pixels of the image -> (B, 4) of the scaled image."""
        return self.apply_coords(np.asarray(boxes).reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def apply_image_torch(self, image: Any) -> Any:
        """(B, C, H, W) float tensor -> the same with its longer side at ``target_length``. Raises NotInstalled."""
        size = self.get_preprocess_shape(image.shape[2], image.shape[3], self.target_length)
        functional = import_torch().nn.functional
        return functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)

    def apply_coords_torch(self, coords: Any, original_size: tuple[int, ...]) -> Any:
        """:meth:`apply_coords` for a tensor; float32 on the tensor's device. Raises NotInstalled."""
        torch = import_torch()
        return coords.to(torch.float32) * torch.tensor(self._scale(original_size), device=coords.device).float()

    def apply_boxes_torch(self, boxes: Any, original_size: tuple[int, ...]) -> Any:
        """:meth:`apply_boxes` for a tensor. Raises NotInstalled."""
        return self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def _scale(self, original_size: tuple[int, ...]) -> tuple[float, float]:
        height, width = int(original_size[0]), int(original_size[1])
        scaled_height, scaled_width = self.get_preprocess_shape(height, width, self.target_length)
        return scaled_width / width, scaled_height / height


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize (H, W, C) uint8; by area where it shrinks, else bilinear."""
    shrinks = width * height < image.shape[0] * image.shape[1]
    resized = cv2.resize(
        np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return np.asarray(resized, np.uint8).reshape(height, width, *image.shape[2:])


def sam_view(frame: Letterbox) -> Letterbox:
    """How SAM lays the same frame into its square input of 1024 pixels, whose logit grid is 256 x 256."""
    height, width = ResizeLongestSide.get_preprocess_shape(frame.frame_height, frame.frame_width, SAM_SIDE)
    return Letterbox(frame.frame_width, frame.frame_height, frame.region, (width, height), (SAM_SIDE, SAM_SIDE))


def sam2_view(frame: Letterbox) -> Letterbox:
    """How SAM 2 lays the same frame: stretched over the whole square."""
    square = SAM_SIDE, SAM_SIDE
    return Letterbox(frame.frame_width, frame.frame_height, frame.region, square, square)
