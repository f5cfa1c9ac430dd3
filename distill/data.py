"""Training samples: cut-outs of photos with the instances that are visible in them.

Images may be labelled in part: what carries no instance is never treated as background by itself.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.dataset import Photo
from tinyseg.errors import DataError
from tinyseg.geometry import LOGIT_STRIDE, MEAN

VALIDATION_PERCENT = 3
MIN_VISIBLE_PIXELS = 64  # in the sample; less is not worth a prompt
FILL_SHIFT = 4  # fractional bits of cv2.fillPoly's coordinates


def split_validation(photos: Iterable[Photo]) -> tuple[list[Photo], list[Photo]]:
    """(training, validation) by a hash of the name, so that the split never depends on order or on other files."""
    train: list[Photo] = []
    validation: list[Photo] = []
    for photo in photos:
        held_out = zlib.crc32(photo.name.encode()) % 100 < VALIDATION_PERCENT
        (validation if held_out else train).append(photo)
    return train, validation


@dataclass(frozen=True)
class Sample:
    """A square cut-out of a photo with K instances that are visible in it."""

    image: NDArray[np.uint8]  # (S, S, 3) RGB
    coverage: NDArray[np.uint8]  # (K, S/4, S/4) share of each cell that the instance covers, 0..255
    boxes: NDArray[np.float32]  # (K, 4) visible part of each instance, x0 y0 x1 y1 in pixels of the cut-out


@dataclass(frozen=True)
class Crop:
    """Where a sample is cut: model position = matrix @ (photo position, 1), both continuous."""

    matrix: NDArray[np.float64]  # (2, 3)
    size: int


def fill_instance(polygons: Sequence[NDArray[np.float32]], crop: Crop) -> NDArray[np.uint8]:
    """(S, S) mask of 0 and 1 of an instance inside a crop."""
    mask = np.zeros((crop.size, crop.size), np.uint8)
    placed = []
    for polygon in polygons:
        # Annotations name pixels; half a pixel leads to continuous positions, and back for OpenCV's own habit.
        xy = (polygon + 0.5) @ crop.matrix[:, :2].T + crop.matrix[:, 2] - 0.5
        placed.append(np.round(np.clip(xy, -4e3, 4e3) * (1 << FILL_SHIFT)).astype(np.int32))
    cv2.fillPoly(mask, placed, 1, shift=FILL_SHIFT)
    return mask


def random_crop(photo: Photo, size: int, zoom: bool, rng: np.random.Generator) -> Crop:
    """A square of the photo: nearly all of it, or a closer look at one instance."""
    if zoom:
        polygons = photo.instances[rng.integers(len(photo.instances))]
        low = np.min([p.min(0) for p in polygons], 0)
        high = np.max([p.max(0) for p in polygons], 0) + 1.0
        extent = float(max(high - low))
        side = max(extent * rng.uniform(1.2, 2.6), 24.0)
        centre = (low + high) / 2 + rng.uniform(-0.5, 0.5, 2) * max(side - extent, 0.0)
        side = min(side, 1.4 * max(photo.width, photo.height))
        # Move into the photo as far as it reaches, as the second look does.
        extent_wh = np.array([photo.width, photo.height], np.float64)
        margin = np.minimum(side, extent_wh) / 2
        centre = np.clip(centre, margin, extent_wh - margin)
    else:
        side = max(photo.width, photo.height) * rng.uniform(0.6, 1.1)
        room = np.array([photo.width, photo.height]) - side
        start = np.where(room > 0, rng.uniform(0, 1, 2) * np.maximum(room, 0), np.minimum(room, 0) * rng.integers(0, 2))
        centre = start + side / 2
    scale = size / side
    angle = np.deg2rad(rng.uniform(-20, 20)) if rng.random() < 0.25 else 0.0
    flip = -1.0 if rng.random() < 0.5 else 1.0
    stretch = np.exp(rng.uniform(-0.15, 0.15)) if rng.random() < 0.3 else 1.0
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = linear @ np.diag([flip * stretch, 1.0 / stretch])
    matrix = np.concatenate([linear, (size / 2 - linear @ centre)[:, None]], 1)
    return Crop(matrix, size)


def cut_image(image: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    """(H, W, 3) -> (S, S, 3); outside the photo lies the value that normalises to (nearly) zero."""
    matrix = crop.matrix.copy()
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.75:  # average before sampling, as the pixel core does when it shrinks a frame
        factor = max(scale * 1.25, 0.1)
        h, w = image.shape[:2]
        small = cv2.resize(image, (max(1, round(w * factor)), max(1, round(h * factor))), interpolation=cv2.INTER_AREA)
        matrix[:, 0] *= w / small.shape[1]
        matrix[:, 1] *= h / small.shape[0]
        image = small
    # warpAffine maps pixel centres at integers.
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    fill = (round(MEAN),) * 3
    return cv2.warpAffine(
        image, matrix, (crop.size, crop.size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
    )


def jitter_colour(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Brightness, contrast, saturation, channel gains, grey, blur, noise and JPEG, each now and then."""
    x = image.astype(np.float32)
    if rng.random() < 0.8:
        x = (x - 127.5) * rng.uniform(0.7, 1.35) + 127.5 + rng.uniform(-32, 32)
    if rng.random() < 0.5:
        grey = x.mean(2, keepdims=True)
        x = grey + (x - grey) * rng.uniform(0.4, 1.5)
    if rng.random() < 0.3:
        x = x * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    if rng.random() < 0.05:
        x = np.repeat(x.mean(2, keepdims=True), 3, 2)
    if rng.random() < 0.1:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.5))
    if rng.random() < 0.1:
        x = x + rng.normal(0, rng.uniform(2, 10), x.shape).astype(np.float32)
    out = np.clip(x, 0, 255).astype(np.uint8)
    if rng.random() < 0.1:
        _, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 85))])
        out = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return out


def cut_sample(
    photo: Photo, image: NDArray[np.uint8], crop: Crop, instances: int, rng: np.random.Generator
) -> Sample | None:
    """Cut a sample with ``instances`` visible instances (repeated if there are fewer), or None if there is none."""
    order = rng.permutation(len(photo.instances))
    coverage, boxes = [], []
    for index in order:
        mask = fill_instance(photo.instances[index], crop)
        area = int(mask.sum())
        if area < MIN_VISIBLE_PIXELS or area > 0.95 * mask.size:
            continue
        x, y, w, h = cv2.boundingRect(mask)
        boxes.append((x, y, x + w, y + h))
        cells = crop.size // LOGIT_STRIDE
        shares = mask.reshape(cells, LOGIT_STRIDE, cells, LOGIT_STRIDE).sum((1, 3), dtype=np.float32)
        coverage.append(np.round(shares * (255.0 / LOGIT_STRIDE**2)).astype(np.uint8))
        if len(boxes) == instances:
            break
    if not boxes:
        return None
    picks = [i % len(boxes) for i in range(instances)]
    rgb = np.ascontiguousarray(cut_image(image, crop)[..., ::-1])
    return Sample(
        jitter_colour(rgb, rng),
        np.stack([coverage[i] for i in picks]),
        np.array([boxes[i] for i in picks], np.float32),
    )


@dataclass(frozen=True)
class Batch:
    """Arrays of one training step: B images with K instances each."""

    image: NDArray[np.uint8]  # (B, S, S, 3) RGB
    coverage: NDArray[np.uint8]  # (B, K, S/4, S/4)
    boxes: NDArray[np.float32]  # (B, K, 4)


class TrainingBatches:
    """Batch number n is a pure function of (seed, n): resuming continues the same order to the bit."""

    # Side length, its share of the steps, and the share of its samples that are a closer look at an instance.
    SIZES = ((256, 0.40, 0.65), (320, 0.35, 0.40), (384, 0.25, 0.20))

    def __init__(
        self, photos: Sequence[Photo], batch_size: int, instances: int, seed: int, oversample: dict[str, float]
    ) -> None:
        self.photos = [p for p in photos if p.instances]
        if not self.photos:
            raise DataError("no photo with an instance to train on")
        self.batch_size, self.instances, self.seed = batch_size, instances, seed
        weights = [min(len(p.instances), 9) ** 0.5 * oversample.get(p.source, 1.0) for p in self.photos]
        self.cumulative = np.cumsum(weights) / np.sum(weights)

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        shares = np.array([s[1] for s in self.SIZES])
        size, _, zoom_share = self.SIZES[int(rng.choice(len(shares), p=shares / shares.sum()))]
        samples: list[Sample] = []
        while len(samples) < self.batch_size:
            photo = self.photos[min(int(np.searchsorted(self.cumulative, rng.random())), len(self.photos) - 1)]
            crop = random_crop(photo, size, bool(rng.random() < zoom_share), rng)
            sample = cut_sample(photo, photo.read(), crop, self.instances, rng)
            if sample is not None:
                samples.append(sample)
        return Batch(
            np.stack([s.image for s in samples]),
            np.stack([s.coverage for s in samples]),
            np.stack([s.boxes for s in samples]),
        )
