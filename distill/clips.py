"""Short clips to learn tracking from: photos that move, and real sequences.

Photos become clips as STCN's and AOT's static stages make them (arXiv 2106.05210, 2106.02638): affine, perspective and
elastic motion, objects of other photos that move on their own and hide the one that is followed, and one that looks like
it. Unlike theirs, the object is cut out in half of the clips and moves over other ground, and now and then it is two
things beside each other: what is to be followed is what the first mask covers, not what looks like one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.bench.sequences import Sequence as Video
from tinyseg.dataset import Photo
from tinyseg.distill.data import jitter_colour
from tinyseg.errors import DataError

FRAMES = 3  # the one that is prompted, one some time later, and the one after that
LAPSES = (1, 2, 3, 5, 8, 13)  # frames of a steady camera between the first two
LONG_SIDES = 352, 560  # of a photo's frames, pixels
LEAST_AREA = 60  # pixels of the object in the first two frames
MOST_SHARE = 0.6  # of the frame that the object may cover

Picture = NDArray[np.uint8]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Clip:
    """frames: (3, H, W, 3) BGR. masks: (3, H, W) bool, the object where it can be seen; the last may be empty."""

    frames: Picture
    masks: NDArray[np.bool_]


@dataclass(frozen=True)
class Cutting:
    """A photo at the size of the frames, and what of it is one layer. alpha: (H, W) float32, 0 to 1."""

    image: Picture
    alpha: NDArray[np.float32]

    @property
    def extent(self) -> float:
        """Longer side of what is cut, pixels."""
        return float(max(cv2.boundingRect((self.alpha > 0.5).astype(np.uint8))[2:]))

    @property
    def centre(self) -> NDArray[np.float64]:
        x, y, w, h = cv2.boundingRect((self.alpha > 0.5).astype(np.uint8))
        return np.array([x + w / 2, y + h / 2])


class Clips:
    """Clip number n is a pure function of (seed, n)."""

    def __init__(self, photos: Sequence[Photo], videos: Sequence[Video], seed: int, video_share: float) -> None:
        """video_share: of the clips that are cut from real sequences. Raises DataError."""
        self.photos = [p for p in photos if p.instances]
        self.videos, self.seed = list(videos), seed
        if not self.photos and not self.videos:
            raise DataError("tracking is learned from photos with instances (--data) or sequences (--video)")
        self.video_share = (video_share if self.photos else 1.0) if self.videos else 0.0

    def __getitem__(self, number: int) -> Clip:
        rng = np.random.default_rng((self.seed, number))
        for _ in range(1000):
            clip = self._from_video(rng) if rng.random() < self.video_share else self._from_photos(rng)
            if clip is not None:
                return clip
        raise DataError("no photo or sequence holds an object that is large enough to follow")

    def _from_video(self, rng: np.random.Generator) -> Clip | None:
        video = self.videos[rng.integers(len(self.videos))]
        lapse = int(rng.choice(LAPSES))
        step = int(rng.integers(1, 4))
        if len(video) < lapse + step + 1:
            return None
        start = int(rng.integers(len(video) - lapse - step))
        numbers = [start, start + lapse, start + lapse + step]
        if rng.random() < 0.5:  # a stream that runs backwards is one too
            numbers = [len(video) - 1 - n for n in numbers]
        colors = video.colors(numbers[0])
        if not colors:
            return None
        color = int(rng.choice(colors))
        frames = np.stack([video.frames[n].image() for n in numbers])
        masks = np.stack([video.truth(n, [color])[0] for n in numbers])
        return _checked(frames, masks)

    def _photo(self, rng: np.random.Generator) -> Photo:
        return self.photos[rng.integers(len(self.photos))]

    def _from_photos(self, rng: np.random.Generator) -> Clip | None:
        photo = self._photo(rng)
        image, instances = _at_frame_size(photo, rng)
        target = _target(instances, rng)
        if target is None:
            return None
        height, width = target.shape
        own = Cutting(image, target.astype(np.float32))
        moved = rng.random() < 0.5
        ground = image
        if moved:
            behind = self._photo(rng) if rng.random() < 0.75 else photo
            ground = _cover(behind.read(), width, height)
        layers: list[tuple[Cutting, list[Matrix]]] = []
        # What looks like it, or another thing, beside it: under it or over it.
        if rng.random() < 0.4:
            other = _mirrored(own, rng) if rng.random() < 0.5 else self._thing(width, height, rng)
            if other is not None:
                away = rng.uniform(0.6, 1.8) * own.extent * _direction(rng)
                base = _translation(own.centre + away - other.centre)
                layers.append((other, [m @ base for m in motion(own.centre + away, own.extent, 1.0, rng)]))
        mine = motion(own.centre, own.extent, 1.0, rng)
        camera = motion(np.array([width, height]) / 2, own.extent * 0.5 + 20, 1.0, rng)
        if moved:
            layers.insert(int(rng.integers(len(layers) + 1)), (own, mine))
        at = next((i for i, (cutting, _) in enumerate(layers) if cutting is own), -1)
        # Something passes in front.
        if rng.random() < 0.35:
            hider = self._thing(width, height, rng)
            if hider is not None:
                layers.append((hider, _passing(hider, own, rng)))
        bend = _Bend(own.extent, (height, width), rng)
        frames, masks = [], []
        for t in range(FRAMES):
            frame = bend.warp(ground, camera[t], t, cv2.BORDER_REFLECT_101)
            mask = np.zeros((height, width), np.float32)
            if not moved:
                mask = bend.warp(own.alpha, camera[t], t, cv2.BORDER_CONSTANT)
            for i, (cutting, path) in enumerate(layers):
                image_t = bend.warp(cutting.image, path[t], t, cv2.BORDER_REFLECT_101)
                alpha_t = bend.warp(cutting.alpha, path[t], t, cv2.BORDER_CONSTANT)
                soft = cv2.GaussianBlur(alpha_t, (0, 0), 0.8)[..., None]
                frame = (frame * (1 - soft) + image_t * soft).astype(np.uint8)
                mask = alpha_t if i == at else mask * (1 - alpha_t)
            frames.append(frame)
            masks.append(mask > 0.5)
        return _checked(_exposed(np.stack(frames), rng), np.stack(masks))

    def _thing(self, width: int, height: int, rng: np.random.Generator) -> Cutting | None:
        """Something of another photo."""
        image, instances = _at_frame_size(self._photo(rng), rng)
        chosen = _target(instances, rng)
        if chosen is None:
            return None
        h, w = max(height, image.shape[0]), max(width, image.shape[1])
        alpha = np.zeros((h, w), np.float32)
        whole = np.zeros((h, w, 3), np.uint8)
        whole[: image.shape[0], : image.shape[1]] = image
        alpha[: image.shape[0], : image.shape[1]] = chosen
        return Cutting(whole, alpha)


def motion(centre: NDArray[np.float64], extent: float, strength: float, rng: np.random.Generator) -> list[Matrix]:
    """Where a thing goes: (3, 3) matrices from its place in the first frame to each frame's."""
    lapse = int(rng.choice(LAPSES))
    velocity = rng.normal(0, 0.05, 2) * extent
    matrices = [np.eye(3)]
    for frames in (lapse, 1):
        spread = strength * np.sqrt(frames)
        if rng.random() < 0.1:
            spread *= 2
        angle, scale = rng.normal(0, 0.06) * spread, np.exp(rng.normal(0, 0.045) * spread)
        shear, aspect = rng.normal(0, 0.03, 2) * spread
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = linear @ np.array([[1 + aspect, shear], [0, 1 - aspect]])
        step = np.eye(3)
        step[:2, :2] = linear
        step[2, :2] = rng.normal(0, 0.02, 2) * spread / max(extent, 100.0)
        shift = (rng.normal(0, 0.06, 2) * spread) * extent + velocity * min(frames, 4) * strength
        place = (matrices[-1] @ [*centre, 1.0])[:2] / (matrices[-1] @ [*centre, 1.0])[2]
        matrices.append(_translation(place + shift) @ step @ _translation(-place) @ matrices[-1])
    return matrices


class _Bend:
    """Elastic motion: every frame is bent a little, smoothly, along with its matrix."""

    def __init__(self, extent: float, size: tuple[int, int], rng: np.random.Generator) -> None:
        rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
        self.places = np.stack([columns, rows, np.ones_like(rows)], -1)
        amplitude = extent * float(rng.choice([0.0, 0.02, 0.04]))
        coarse = rng.normal(0, 1, (2, 5, 5, 2)).astype(np.float32)
        fields = [cv2.resize(c, size[::-1], interpolation=cv2.INTER_CUBIC) for c in coarse]
        far = rng.normal(0, 1, 2)
        near = far + rng.normal(0, 0.4, 2)
        self.fields = [None] + [
            amplitude * (a * fields[0] + b * fields[1]) if amplitude else None for a, b in (far, near)
        ]

    def warp(self, image: NDArray[Any], matrix: Matrix, t: int, border: int) -> NDArray[Any]:
        """An image where a matrix and the bend of frame t bring it."""
        back = np.linalg.inv(matrix).astype(np.float32)
        places = self.places if self.fields[t] is None else self.places.copy()
        if self.fields[t] is not None:
            places[..., :2] += self.fields[t]
        source = places @ back.T
        source = source[..., :2] / np.maximum(source[..., 2:], 1e-3)
        x, y = np.ascontiguousarray(source[..., 0]), np.ascontiguousarray(source[..., 1])
        return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=border))


def _at_frame_size(photo: Photo, rng: np.random.Generator) -> tuple[Picture, NDArray[np.bool_]]:
    """A photo and its masks (n, H, W) at the size of a video's frame."""
    image = photo.read()
    scale = rng.uniform(*LONG_SIDES) / max(image.shape[:2])
    size = max(32, round(image.shape[1] * scale)), max(32, round(image.shape[0] * scale))
    masks = np.zeros((len(photo.instances), size[1], size[0]), np.uint8)
    for mask, polygons in zip(masks, photo.instances):
        cv2.fillPoly(mask, [np.round(p * scale).astype(np.int32) for p in polygons], 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8), masks.astype(bool)


def _target(instances: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_] | None:
    """One of the instances, or one and its neighbour; None if all are too small or too large."""
    areas = instances.sum((1, 2))
    usable = np.flatnonzero((areas >= 4 * LEAST_AREA) & (areas <= MOST_SHARE * instances[0].size))
    if not len(usable):
        return None
    chosen: NDArray[np.bool_] = instances[rng.choice(usable)]
    if len(usable) > 1 and rng.random() < 0.35:
        near = cv2.dilate(chosen.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        for i in rng.permutation(usable):
            both = chosen | instances[i]
            if (near & instances[i]).any() and chosen.sum() < both.sum() <= MOST_SHARE * both.size:
                return both
    return chosen


def _cover(image: Picture, width: int, height: int) -> Picture:
    """A photo that fills a frame; what stands out is cut off."""
    scale = max(width / image.shape[1], height / image.shape[0])
    size = max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA)[:height, :width], np.uint8)


def _mirrored(own: Cutting, rng: np.random.Generator) -> Cutting:
    """A thing's twin, a little different in colour."""
    image = np.clip(own.image * rng.uniform(0.85, 1.15) + rng.uniform(-12, 12), 0, 255).astype(np.uint8)
    return Cutting(np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(own.alpha[:, ::-1]))


def _passing(hider: Cutting, own: Cutting, rng: np.random.Generator) -> list[Matrix]:
    """The way of a thing that comes from the side and lies over another from the second frame on."""
    scale = np.clip(rng.uniform(0.3, 1.1) * own.extent / max(hider.extent, 1.0), 0.1, 3.0)
    fit = _translation(own.centre) @ np.diag([scale, scale, 1.0]) @ _translation(-hider.centre)
    towards = _direction(rng)
    places = (2.0, rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6))
    drift = rng.normal(0, 0.2, 2)
    return [_translation((towards * p + drift * (t > 0)) * own.extent) @ fit for t, p in enumerate(places)]


def _exposed(frames: Picture, rng: np.random.Generator) -> Picture:
    """Another camera: colours of the whole clip, light that drifts, blur of motion, noise."""
    state = rng.integers(1 << 31)
    out = np.stack([jitter_colour(f, np.random.default_rng(state)) for f in frames])
    gain, offset = rng.normal(1, 0.06, FRAMES), rng.normal(0, 5, FRAMES)
    for t in range(1, FRAMES):
        shown = out[t].astype(np.float32) * gain[t] + offset[t]
        if rng.random() < 0.2:
            length = int(rng.integers(3, 10))
            kernel = np.zeros((length, length), np.float32)
            end = (_direction(rng) * length / 2 + length / 2).astype(int)
            cv2.line(kernel, (length // 2, length // 2), (int(end[0]), int(end[1])), 1.0)
            shown = cv2.filter2D(shown, -1, kernel / max(kernel.sum(), 1.0))
        out[t] = np.clip(shown, 0, 255).astype(np.uint8)
    return out


def _checked(frames: Picture, masks: NDArray[np.bool_]) -> Clip | None:
    areas = masks.sum((1, 2))
    if areas[0] < LEAST_AREA or areas[1] < LEAST_AREA or areas.max() > 0.8 * masks[0].size:
        return None
    return Clip(frames, masks)


def _translation(by: NDArray[np.float64]) -> Matrix:
    matrix = np.eye(3)
    matrix[:2, 2] = by
    return matrix


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])
