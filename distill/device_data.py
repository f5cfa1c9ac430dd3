"""Training samples made where the training runs: photos and masks decoded once into the device's memory.

A GPU eats samples faster than worker processes cut them. Every photo lies in a square canvas of uint8, every instance's
mask in another; cutting, averaging and colour changes are a few batched operations. About 0.8 MB a photo and 0.26 MB an
instance at 512 pixels: 16 GB for seven thousand photos with forty thousand instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tinyseg.dataset import Photo
from tinyseg.distill.data import MIN_VISIBLE_PIXELS, TrainingBatches, random_crop
from tinyseg.geometry import LOGIT_STRIDE, MEAN
from tinyseg.system.progress import progress

CANVAS = 512  # pixels; larger photos are shrunk to it
CANDIDATES = 8  # instances of a photo that are looked at for enough visible ones
OVERSAMPLING = 2  # samples a pixel and side, averaged: shrinking must not skip pixels
DECODERS = 8  # threads


@dataclass(frozen=True)
class DeviceBatch:
    """As data.Batch, with tensors on the training's device."""

    number: int
    image: Tensor  # (B, S, S, 3) uint8 RGB
    coverage: Tensor  # (B, K, S/4, S/4) uint8
    boxes: Tensor  # (B, K, 4) float32


class DeviceBatches:
    """Batch number n is a pure function of (seed, n) and the device, as TrainingBatches' is of (seed, n)."""

    def __init__(self, batches: TrainingBatches, device: torch.device) -> None:
        self.source = batches
        self.device = device
        photos = batches.photos
        self.images = torch.zeros(len(photos), 3, CANVAS, CANVAS, dtype=torch.uint8, device=device)
        counts = [len(p.instances) for p in photos]
        self.first = np.concatenate([[0], np.cumsum(counts)])
        self.masks = torch.zeros(int(self.first[-1]), CANVAS, CANVAS, dtype=torch.uint8, device=device)
        self.scales = np.array([min(1.0, CANVAS / max(p.width, p.height)) for p in photos])
        with ThreadPoolExecutor(DECODERS) as pool:
            decoded = pool.map(_decode, photos, self.scales)
            for i, (image, masks) in enumerate(progress(decoded, "photos into the device's memory", len(photos))):
                height, width = image.shape[:2]
                self.images[i, :, :height, :width] = torch.from_numpy(image).to(device).permute(2, 0, 1)
                self.masks[self.first[i] : self.first[i + 1], :height, :width] = torch.from_numpy(masks).to(device)

    def __getitem__(self, number: int) -> DeviceBatch:
        source = self.source
        rng = np.random.default_rng((source.seed, number))
        generator = torch.Generator(self.device).manual_seed(source.seed * 1_000_003 + number)
        size, zoom_share, count = source.draw_size(rng)
        images, coverages, boxes = [], [], []
        have = 0
        while have < count:
            image, coverage, box = self._cut(rng, size, zoom_share, count - have)
            images.append(image)
            coverages.append(coverage)
            boxes.append(box)
            have += len(image)
        picture = jitter_colour(torch.cat(images), generator)
        pixels = picture.permute(0, 2, 3, 1).contiguous()
        return DeviceBatch(number, pixels, torch.cat(coverages), torch.cat(boxes))

    def _cut(self, rng: np.random.Generator, size: int, zoom_share: float, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Up to ``count`` samples: images (n, 3, S, S) float, coverage (n, K, S/4, S/4) uint8, boxes (n, K, 4)."""
        source = self.source
        picks, matrices, candidates = [], [], []
        for _ in range(count):
            at = min(int(np.searchsorted(source.cumulative, rng.random())), len(source.photos) - 1)
            photo = source.photos[at]
            crop = random_crop(photo, size, bool(rng.random() < zoom_share), rng)
            order = rng.permutation(len(photo.instances))[:CANDIDATES]
            picks.append(at)
            matrices.append(_to_canvas(crop.matrix, float(self.scales[at])))
            candidates.append(np.resize(order, CANDIDATES) + self.first[at])
        grid = sampling_grid(np.stack(matrices), size, self.device)  # (n, 2S, 2S, 2) positions in the canvas
        index = torch.as_tensor(np.array(picks), device=self.device)
        images = F.avg_pool2d(_sample(self.images[index].float() - MEAN, grid), OVERSAMPLING) + MEAN
        chosen = torch.as_tensor(np.array(candidates), device=self.device)  # (n, C)
        masks = _sample(self.masks[chosen.flatten()].view(count, CANDIDATES, CANVAS, CANVAS).float(), grid)
        masks = (F.avg_pool2d(masks, OVERSAMPLING) > 0.5).float()  # (n, C, S, S)
        area = masks.sum((2, 3))
        visible = (area >= MIN_VISIBLE_PIXELS) & (area <= 0.95 * size * size)
        kept = torch.nonzero(visible.any(1))[:, 0]
        # The visible candidates of each sample first, repeated in turn if there are fewer than asked for.
        rank = (~visible[kept]).long().argsort(dim=1, stable=True)
        number = visible[kept].sum(1, keepdim=True)
        turn = torch.arange(source.instances, device=self.device)[None] % number
        masks = masks[kept[:, None], rank.gather(1, turn)]  # (m, K, S, S)
        coverage = (F.avg_pool2d(masks, LOGIT_STRIDE) * 255).round().to(torch.uint8)
        return images[kept], coverage, mask_boxes(masks)


def _decode(photo: Photo, scale: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """((H, W, 3) RGB, (instances, H, W) 0 or 1) at canvas size."""
    image = photo.read()
    masks = photo.masks().astype(np.uint8)
    if scale < 1:
        size = (max(1, int(photo.width * scale)), max(1, int(photo.height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        masks = np.stack([cv2.resize(m, size, interpolation=cv2.INTER_NEAREST) for m in masks])
    return np.ascontiguousarray(image[..., ::-1]), masks


def _to_canvas(matrix: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """photo -> sample (2, 3) turned into sample -> canvas (2, 3)."""
    inverse = np.linalg.inv(matrix[:, :2])
    return np.concatenate([inverse, (-inverse @ matrix[:, 2])[:, None]], 1) * scale


def sampling_grid(matrices: NDArray[np.float64], size: int, device: torch.device) -> Tensor:
    """(n, 2, 3) sample -> canvas maps to grid_sample's (n, 2S, 2S, 2): continuous positions over [-1, 1]."""
    steps = (torch.arange(size * OVERSAMPLING, device=device, dtype=torch.float32) + 0.5) / OVERSAMPLING
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    ones = torch.ones_like(x)
    maps = torch.as_tensor(matrices, dtype=torch.float32, device=device)
    positions = torch.einsum("nij,jhw->nhwi", maps, torch.stack((x, y, ones)))
    return positions * (2.0 / CANVAS) - 1.0


def _sample(planes: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def mask_boxes(masks: Tensor) -> Tensor:
    """(..., S, S) of 0 and 1, none empty -> (..., 4) x0 y0 x1 y1, the last ones exclusive."""
    edges = []
    for axis in (-2, -1):  # columns, then rows that hold something
        line = masks.amax(axis)
        size = line.shape[-1]
        edges.append((line.argmax(-1), size - line.flip(-1).argmax(-1)))
    (x0, x1), (y0, y1) = edges
    return torch.stack((x0, y0, x1, y1), -1).float()


def jitter_colour(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S) float in [0, 255] -> uint8: brightness, contrast, saturation, channel gains, grey, noise, as data.py."""
    n, device = len(images), images.device

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        values = torch.rand(n, channels, 1, 1, generator=generator, device=device)
        return values * (high - low) + low

    def when(share: float, changed: Tensor, otherwise: Tensor) -> Tensor:
        return torch.where(torch.rand(n, 1, 1, 1, generator=generator, device=device) < share, changed, otherwise)

    x = images
    x = when(0.8, (x - 127.5) * draw(0.7, 1.35) + 127.5 + draw(-32, 32), x)
    grey = x.mean(1, keepdim=True)
    x = when(0.5, grey + (x - grey) * draw(0.4, 1.5), x)
    x = when(0.3, x * draw(0.85, 1.15, 3), x)
    x = when(0.05, x.mean(1, keepdim=True).expand_as(x), x)
    noise = torch.randn(x.shape, generator=generator, device=device)
    x = when(0.1, x + noise * draw(2, 10), x)
    blurred = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return when(0.1, blurred, x).clamp(0, 255).to(torch.uint8)


def device_gigabytes(photos: Sequence[Photo]) -> float:
    """What DeviceBatches will take of the device's memory."""
    instances = sum(len(p.instances) for p in photos)
    return (3 * len(photos) + instances) * CANVAS**2 / 1e9
