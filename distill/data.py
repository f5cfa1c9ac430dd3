"""Training samples: cut-outs of photos with the instances that are visible in them.

Images may be labelled in part: what carries no instance is never treated as background by itself.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.dataset import Photo
from tinyseg.distill.flags import check_numbers, flag
from tinyseg.errors import DataError, InputError
from tinyseg.geometry import HALF_PIXEL, LOGIT_STRIDE, MEAN

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
        xy = (polygon + HALF_PIXEL) @ crop.matrix[:, :2].T + crop.matrix[:, 2] - HALF_PIXEL
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
        spare = np.array([photo.width, photo.height]) - side
        start = np.where(
            spare > 0, rng.uniform(0, 1, 2) * np.maximum(spare, 0), np.minimum(spare, 0) * rng.integers(0, 2)
        )
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
    matrix[:, 2] += matrix[:, :2] @ [HALF_PIXEL, HALF_PIXEL] - HALF_PIXEL
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


@dataclass(frozen=True)
class Scene:
    """A cut-out on its way to a Sample: its masks still have every pixel."""

    image: NDArray[np.uint8]  # (S, S, 3) BGR
    masks: NDArray[np.uint8]  # (n, S, S) of 0 and 1, each of them visible


def visible(masks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(n, S, S) -> (n,): neither too little to mean it nor all there is."""
    areas = masks.sum((1, 2), dtype=np.int64)
    return np.asarray((areas >= MIN_VISIBLE_PIXELS) & (areas <= 0.95 * masks[0].size), np.bool_)


def cut_scene(
    photo: Photo, image: NDArray[np.uint8], crop: Crop, instances: int, rng: np.random.Generator
) -> Scene | None:
    """Cut up to ``instances`` visible instances, drawn at random, with their surroundings; None if none is visible."""
    masks: list[NDArray[np.uint8]] = []
    for index in rng.permutation(len(photo.instances)):
        mask = fill_instance(photo.instances[index], crop)
        if visible(mask[None])[0]:
            masks.append(mask)
        if len(masks) == instances:
            break
    return Scene(cut_image(image, crop), np.stack(masks)) if masks else None


def paste(scene: Scene, other: Scene) -> Scene | None:
    """Put the first instance of another scene of the same size into this one, over whatever is there.

    Copy-paste (arXiv 2012.07177): objects meet other surroundings, and others are hidden in part. The pasted instance comes
    first. None if nothing but it would stay visible.
    """
    pasted = other.masks[0]
    # A soft edge, so that the seam is no clue by itself.
    alpha = cv2.GaussianBlur(pasted.astype(np.float32), (0, 0), 1.0)[..., None]
    image = scene.image * (1.0 - alpha) + other.image * alpha
    masks = scene.masks * (1 - pasted)
    masks = masks[visible(masks)]
    if not len(masks):
        return None
    return Scene(np.round(image).astype(np.uint8), np.concatenate([pasted[None], masks]))


def mosaic(quarters: Sequence[Scene]) -> Scene:
    """Four scenes of half the size side by side (arXiv 2004.10934, 3.3): small objects, abrupt surroundings."""
    half = quarters[0].image.shape[0]
    image = np.zeros((2 * half, 2 * half, 3), np.uint8)
    masks = []
    for i, quarter in enumerate(quarters):
        rows = slice(i // 2 * half, (i // 2 + 1) * half)
        columns = slice(i % 2 * half, (i % 2 + 1) * half)
        image[rows, columns] = quarter.image
        placed = np.zeros((len(quarter.masks), 2 * half, 2 * half), np.uint8)
        placed[:, rows, columns] = quarter.masks
        masks.append(placed)
    # In turn from every quarter, so that the first ones are not all of one photo.
    order = [m[k] for k in range(max(len(m) for m in masks)) for m in masks if k < len(m)]
    return Scene(image, np.stack(order))


def finish(scene: Scene, instances: int, rng: np.random.Generator) -> Sample:
    """Colours changed, masks brought to the logits' grid; instances are repeated if there are fewer."""
    cells = scene.image.shape[0] // LOGIT_STRIDE
    chosen = [scene.masks[i % len(scene.masks)] for i in range(instances)]
    coverage, boxes = [], []
    for mask in chosen:
        x, y, w, h = cv2.boundingRect(mask)
        boxes.append((x, y, x + w, y + h))
        shares = mask.reshape(cells, LOGIT_STRIDE, cells, LOGIT_STRIDE).sum((1, 3), dtype=np.float32)
        coverage.append(np.round(shares * (255.0 / LOGIT_STRIDE**2)).astype(np.uint8))
    rgb = np.ascontiguousarray(scene.image[..., ::-1])
    return Sample(jitter_colour(rgb, rng), np.stack(coverage), np.array(boxes, np.float32))


def cut_sample(
    photo: Photo, image: NDArray[np.uint8], crop: Crop, instances: int, rng: np.random.Generator
) -> Sample | None:
    """Cut a sample with ``instances`` visible instances (repeated if there are fewer), or None if there is none."""
    scene = cut_scene(photo, image, crop, instances, rng)
    return None if scene is None else finish(scene, instances, rng)


@dataclass(frozen=True)
class Batch:
    """Arrays of one training step: B images with K instances each."""

    number: int
    image: NDArray[np.uint8]  # (B, S, S, 3) RGB
    coverage: NDArray[np.uint8]  # (B, K, S/4, S/4)
    boxes: NDArray[np.float32]  # (B, K, 4)


@dataclass(frozen=True)
class Mixing:
    """Shares of the samples that are made of several photos."""

    copy_paste: float = field(
        default=0.0, metadata=flag("share of samples with an object pasted from another photo", "mixing", "S")
    )
    mosaic: float = field(default=0.0, metadata=flag("share of samples made of four photos", "mixing", "S"))

    def __post_init__(self) -> None:
        check_numbers(self)
        if min(self.copy_paste, self.mosaic) < 0 or self.copy_paste + self.mosaic > 1:
            raise InputError("--copy-paste and --mosaic are shares of the samples: from 0 to 1, and together at most 1")

    @property
    def any(self) -> bool:
        return self.copy_paste + self.mosaic > 0


class TrainingBatches:
    """Batch number n is a pure function of (seed, n): resuming continues the same order to the bit."""

    # Side length, its share of the steps, and the share of its samples that are a closer look at an instance.
    SIZES = ((256, 0.35, 0.65), (384, 0.35, 0.30), (512, 0.30, 0.10))
    # `batch_size` photos are cut at this side; larger samples are fewer, so that every step takes about as long.
    NOMINAL_SIZE = 320

    def __init__(
        self,
        photos: Sequence[Photo],
        batch_size: int,
        instances: int,
        seed: int,
        oversample: dict[str, float],
        mixing: Mixing | None = None,
    ) -> None:
        self.photos = [p for p in photos if p.instances]
        if not self.photos:
            raise DataError("no photo with an instance to train on")
        self.batch_size, self.instances, self.seed = batch_size, instances, seed
        self.mixing = mixing or Mixing()
        weights = [min(len(p.instances), 9) ** 0.5 * oversample.get(p.source, 1.0) for p in self.photos]
        self.cumulative = np.cumsum(weights) / np.sum(weights)

    def draw_size(self, rng: np.random.Generator) -> tuple[int, float, int]:
        """Of one step: side of its samples, the share of closer looks among them, and their number."""
        shares = np.array([s[1] for s in self.SIZES])
        size, _, zoom_share = self.SIZES[int(rng.choice(len(shares), p=shares / shares.sum()))]
        return size, zoom_share, max(1, round(self.batch_size * (self.NOMINAL_SIZE / size) ** 2))

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng((self.seed, number))
        size, zoom_share, count = self.draw_size(rng)
        samples: list[Sample] = []
        while len(samples) < count:
            sample = self._sample(size, zoom_share, rng)
            if sample is not None:
                samples.append(sample)
        return Batch(
            number,
            np.stack([s.image for s in samples]),
            np.stack([s.coverage for s in samples]),
            np.stack([s.boxes for s in samples]),
        )

    def _scene(self, size: int, zoom_share: float, rng: np.random.Generator) -> Scene | None:
        photo = self.photos[min(int(np.searchsorted(self.cumulative, rng.random())), len(self.photos) - 1)]
        crop = random_crop(photo, size, bool(rng.random() < zoom_share), rng)
        return cut_scene(photo, photo.read(), crop, self.instances, rng)

    def _sample(self, size: int, zoom_share: float, rng: np.random.Generator) -> Sample | None:
        mixed = rng.random() if self.mixing.any else 1.0
        if mixed < self.mixing.mosaic:
            quarters = [self._scene(size // 2, zoom_share, rng) for _ in range(4)]
            found = [q for q in quarters if q is not None]
            scene = mosaic(found) if len(found) == len(quarters) else None
        else:
            scene = self._scene(size, zoom_share, rng)
            if scene is not None and mixed < self.mixing.mosaic + self.mixing.copy_paste:
                other = self._scene(size, zoom_share, rng)
                scene = (other and paste(scene, other)) or scene
        return None if scene is None else finish(scene, self.instances, rng)
