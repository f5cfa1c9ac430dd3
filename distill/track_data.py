"""What a frozen encoder sees of clips, cut as the tracker cuts them, and kept in files: a step then is the decoder's alone."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.distill.clips import FRAMES, Clip, Clips
from tinyseg.errors import InputError
from tinyseg.files import write_bytes
from tinyseg.geometry import Letterbox, view_of
from tinyseg.pixels import check_frame, shrink_mask
from tinyseg.predict.network import Features, Network
from tinyseg.track.memory import READ_LIMIT, Cells, view_cells
from tinyseg.track.tracker import mask_box
from tinyseg.track.views import crop_view

# Sides of the crops and their shares: the first is one object's, the others are what several objects get.
SIDES = ((320, 0.7), (256, 0.15), (192, 0.15))
NAMES = ("embedding", "skip8", "skip4")
TOLD = "clips.json"  # beside the clips: what they are made of


@dataclass(frozen=True)
class EncodedCrop:
    """A frame of a clip in its crop. features: of one view, as the encoder gives them. share: (h, w) that the object covers."""

    features: Features
    view: Letterbox
    share: NDArray[np.float32]

    @property
    def cells(self) -> Cells:
        return view_cells(self.features, self.view)


def side_of(number: int, seed: int) -> int:
    """Side of the crops of clip ``number``."""
    sides, shares = zip(*SIDES)
    return int(np.random.default_rng((seed, number, 1)).choice(sides, p=np.array(shares)))


def encode_clip(network: Network, clip: Clip, side: int, rng: np.random.Generator) -> list[EncodedCrop]:
    """The three frames of a clip in crops around where a tracker would look."""
    height, width = clip.masks.shape[1:]
    boxes = [mask_box(m) if m.any() else None for m in clip.masks]
    assert boxes[0] is not None and boxes[1] is not None
    around = [boxes[0], _shifted(boxes[1], 0.08, width, height, rng), _shifted(boxes[1], 0.03, width, height, rng)]
    crops = []
    for frame, mask, box in zip(clip.frames, clip.masks, around):
        view = crop_view(box, width, height, side)
        features = {k: np.array(v) for k, v in network.encode(check_frame(frame, "bgr"), view).items()}
        x0, y0, x1, y1 = view.region
        crops.append(EncodedCrop(features, view, shrink_mask(mask[y0:y1, x0:x1], view)))
    return crops


def _shifted(
    box: NDArray[np.float64], by: float, width: int, height: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A box that is off by some share of its size, now and then by much."""
    spread = by * (3 if rng.random() < 0.15 else 1)
    size = box[2:] - box[:2]
    centre = (box[:2] + box[2:]) / 2 + rng.normal(0, spread, 2) * size.max()
    half = np.maximum(size * np.exp(rng.normal(0, spread, 2)), 2.0) / 2
    limits = np.array([width, height], np.float64)
    low, high = np.clip(centre - half, 0, limits - 2), np.clip(centre + half, 2, limits)
    return np.concatenate([low, np.maximum(high, low + 1)])


class EncodedClips:
    """The crops of clip number n, from their file if there is one; files hold fp16."""

    def __init__(self, clips: Clips, network: Network, folder: Path, seed: int) -> None:
        self.clips, self.network, self.folder, self.seed = clips, network, folder, seed

    def require_same(self) -> None:
        """Note what the clips are made of. Raises InputError where those that the folder holds were made of something else."""
        told, facts = self.folder / TOLD, self._facts()
        if told.exists():
            try:
                found = json.loads(told.read_bytes())
                other = next((name for name, value in facts.items() if found.get(name) != value), None)
            except (OSError, ValueError, AttributeError, RecursionError) as exc:
                raise InputError(
                    f"{told} cannot be read ({exc!s:.100}); delete {self.folder}: its clips are made anew"
                ) from exc
            if other is not None:
                raise InputError(
                    f"{self.folder} holds clips of another training: {other} is {found.get(other)!r:.60} there and "
                    f"{facts[other]!r:.60} now; give the options of that training or another --out, or delete {self.folder}"
                )
        write_bytes(told, json.dumps(facts).encode())

    def _facts(self) -> dict[str, Any]:
        """Everything that decides what the encoded clip of a number is."""
        clips = self.clips
        names = [f"{p.name} {p.source} {len(p.instances)}" for p in clips.photos]
        names += [f"{v.name} {len(v)}" for v in clips.videos]
        return {
            "encoder": self.network.graphs["encoder"].sha256[:16],
            "data": hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()[:16],
            "seed": self.seed,
            "video_share": clips.video_share,
        }

    def __getitem__(self, number: int) -> list[EncodedCrop]:
        path = self.folder / f"{number // 1000:03d}" / f"{number:06d}.npz"
        if path.is_file():
            try:
                return _read(path)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                pass  # cut short by a full disk, say: it is made again
        side = side_of(number, self.seed)
        crops = encode_clip(self.network, self.clips[number], side, np.random.default_rng((self.seed, number, 2)))
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, crops)
        return crops


def _write(path: Path, crops: list[EncodedCrop]) -> None:
    arrays: dict[str, NDArray[np.generic]] = {}
    for t, crop in enumerate(crops):
        view = crop.view
        arrays |= {f"{name}{t}": crop.features[name].astype(np.float16) for name in NAMES}
        arrays[f"share{t}"] = np.round(crop.share * 255).astype(np.uint8)
        arrays[f"view{t}"] = np.array([view.frame_width, view.frame_height, *view.region, *view.content, *view.input])
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_bytes(path, content.getvalue())


def _read(path: Path) -> list[EncodedCrop]:
    crops = []
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
        for t in range(FRAMES):
            v = [int(x) for x in arrays[f"view{t}"]]
            view = view_of(((v[0], v[1]), (v[2], v[3], v[4], v[5]), (v[6], v[7]), (v[8], v[9])))
            features = {name: arrays[f"{name}{t}"].astype(np.float32) for name in NAMES}
            crops.append(EncodedCrop(features, view, arrays[f"share{t}"].astype(np.float32) / 255))
    return crops


def worn(share: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A mask (h, w) in [0, 1] as a tracker might have drawn it: thicker or thinner, shifted, with a part lost or won."""
    mask = (share > 0.5).astype(np.uint8)
    grow = int(rng.integers(-2, 3))
    if grow:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(grow) + 1,) * 2)
        changed = cv2.dilate(mask, kernel) if grow > 0 else cv2.erode(mask, kernel)
        mask = changed if changed.any() else mask
    ys, xs = np.nonzero(mask)
    if len(ys):
        radius = int(np.ceil(np.sqrt(len(ys)) * rng.uniform(0.15, 0.4)))
        kind = rng.random()
        if kind < 0.25:
            i = rng.integers(len(ys))
            cv2.circle(mask, (int(xs[i]), int(ys[i])), radius, 0, -1)
        elif kind < 0.45:
            i = rng.integers(len(ys))
            at = np.array([xs[i], ys[i]]) + rng.normal(0, radius, 2)
            cv2.circle(mask, (int(at[0]), int(at[1])), max(radius // 2, 1), 1, -1)
    if rng.random() < 0.3:
        shift = np.array([[1, 0, rng.normal(0, 1.5)], [0, 1, rng.normal(0, 1.5)]])
        mask = cv2.warpAffine(mask, shift, mask.shape[::-1])
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7), np.float32)


def as_logits(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """A mask in [0, 1] as the logits of a sure decoder."""
    return np.asarray((share - 0.5) * (2 * READ_LIMIT), np.float32)
