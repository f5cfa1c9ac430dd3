"""How well the same thing is found again: in later frames of a video, and its like in the same photo.

Videos: the first frame with its mask is the reference, every tenth frame is a target, in which the single most alike
answer counts (J: mean IoU over targets, then over videos). Photos: the instance that is largest among those not cut by
the border is the reference, all instances are the targets; an answer is right when it matches one of them at IoU 0.5,
each once.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import path_kind
from tinyseg.bench.accuracy import MIN_PIXELS, iou
from tinyseg.bench.rows import markdown_table
from tinyseg.dataset import Photo
from tinyseg.errors import DataError
from tinyseg.predict.segmenter import Segmenter
from tinyseg.system.progress import progress

EVERY = 10
MATCH = 0.5
# Sources whose photos label several instances of one kind that look alike, chosen by looking at them; the other sources
# label unlike things or one thing a photo.
ONE_KIND = (
    "AISangam/Mask-RCNN-bottle-training", "JKingKong/data", "KomaHomu/Applying-Mask-RCNN-in-endangered-animals-detection",
    "PJ1920/Transfer-learning-for-Instance-segmentation-of-Waste-bottles-using-Mask-RCNN", "RabindraManandhar/Mask_RCNN",
    "Tony607/mmdetection_instance_segmentation_demo", "WesselJonge/DLforSegregation", "andresceballosm/foots_model",
    "ferrariromano/mangoDiseases", "pcashman21/feral-cat-segmentation-dataset-and-model", "prel2014/Mandarina",
    "reviveai/np_detect", "tomsains/SegMush", "ukiras123/ml-temp",
)  # fmt: skip


@dataclass(frozen=True)
class PhotoScores:
    """One photo: instances, answers, and answers that match an instance."""

    name: str
    instances: int
    found: int
    right: int


@dataclass(frozen=True)
class FindReport:
    """Photos and videos; either may be empty."""

    photos: list[PhotoScores]
    videos: dict[str, float]

    @property
    def recall(self) -> float:
        return sum(p.right for p in self.photos) / max(sum(p.instances for p in self.photos), 1)

    @property
    def precision(self) -> float:
        return sum(p.right for p in self.photos) / max(sum(p.found for p in self.photos), 1)

    @property
    def count_error(self) -> float:
        """Mean over photos of |found - labelled| / labelled."""
        return float(np.mean([abs(p.found - p.instances) / p.instances for p in self.photos])) if self.photos else 0.0

    @property
    def j(self) -> float:
        return float(np.mean(list(self.videos.values()))) if self.videos else 0.0

    def to_json(self) -> dict[str, object]:
        out: dict[str, object] = {}
        if self.photos:
            out["photos"] = {
                "photos": len(self.photos), "recall": self.recall, "precision": self.precision,
                "count_error": self.count_error, "rows": [asdict(p) for p in self.photos],
            }  # fmt: skip
        if self.videos:
            out["videos"] = {"j": self.j, "by_video": self.videos}
        return out

    def to_markdown(self) -> str:
        parts = []
        if self.photos:
            cells = [["photos", "instances", "recall", "precision", "count error"]]
            cells.append(
                [
                    str(len(self.photos)), str(sum(p.instances for p in self.photos)), f"{self.recall:.3f}",
                    f"{self.precision:.3f}", f"{self.count_error:.2f}",
                ]
            )  # fmt: skip
            parts.append("\n".join(markdown_table(cells)))
        if self.videos:
            cells = [["video", "J"], *([n, f"{j:.3f}"] for n, j in self.videos.items()), ["mean", f"{self.j:.3f}"]]
            parts.append("\n".join(markdown_table(cells)))
        return "\n\n".join(parts)


def score_photo(seg: Segmenter, photo: Photo) -> PhotoScores | None:
    """None where the photo labels fewer than two instances, or none that lies wholly inside."""
    truths = [m for m in photo.masks() if m.sum() >= MIN_PIXELS]
    whole = [m for m in truths if not (m[[0, -1]].any() or m[:, [0, -1]].any())]
    if len(truths) < 2 or not whole:
        return None
    frame = photo.read()
    found = seg.find(frame, like=(frame, max(whole, key=np.count_nonzero)))
    pairs = np.array([[iou(m, t) for t in truths] for m in found.masks]).reshape(len(found), len(truths))
    right = 0
    while pairs.size and pairs.max() >= MATCH:
        i, j = np.unravel_index(int(pairs.argmax()), pairs.shape)
        pairs[i], pairs[:, j] = 0, 0
        right += 1
    return PhotoScores(photo.name, len(truths), len(found), right)


def measure_photos(seg: Segmenter, photos: Sequence[Photo]) -> FindReport:
    """Find the like of one instance in every photo of one kind. Raises DataError where there is none."""
    kept = [p for p in photos if p.source in ONE_KIND and len(p.instances) > 1]
    rows = [s for s in (score_photo(seg, p) for p in progress(kept, "photos")) if s is not None]
    if not rows:
        raise DataError("the photos label no several instances of one kind (bench/finding.py names the sources)")
    return FindReport(rows, {})


# A frame and its mask, (H, W) bool.
Labelled = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def is_videos(path: Path) -> bool:
    """Whether a tar file or folder holds videos: NAME/frames/* with NAME/masks/*. Raises DataError."""
    if path.is_dir():
        return any(path.glob("*/frames"))
    if path_kind(path) != "file" or not tarfile.is_tarfile(path):
        return False
    return any("/frames/" in f"/{name}" for name in _tar_names(path))


def _tar_names(path: Path) -> list[str]:
    """Files of a tar. Raises DataError."""
    try:
        with tarfile.open(path) as tar:
            return [m.name.removeprefix("./") for m in tar if m.isfile()]
    except (OSError, EOFError, tarfile.TarError, zlib.error) as exc:
        raise DataError(f"{path} is no tar, or damaged: {exc}") from exc


def list_videos(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Videos by name: (frame, mask) paths in order, of the frames that have a mask."""
    names = [p.relative_to(path).as_posix() for p in path.glob("*/*/*")] if path.is_dir() else _tar_names(path)
    masks = {n.replace("/masks/", "/").rpartition(".")[0]: n for n in names if "/masks/" in n}
    videos: dict[str, list[tuple[str, str]]] = {}
    for name in sorted(n for n in names if "/frames/" in n):
        mask = masks.get(name.replace("/frames/", "/").rpartition(".")[0])
        if mask is not None:
            videos.setdefault(name.split("/")[0], []).append((name, mask))
    return videos


def _read(path: Path, pair: tuple[str, str]) -> Labelled:
    blobs = []
    try:
        if path.is_dir():
            blobs = [(path / name).read_bytes() for name in pair]
        else:
            with tarfile.open(path) as tar:
                for name in pair:
                    member = tar.extractfile(name)
                    blobs.append(member.read() if member is not None else b"")
    except (OSError, EOFError, tarfile.TarError, zlib.error) as exc:
        raise DataError(f"{path}: {pair[0]} and its mask cannot be read: {exc}") from exc
    frame = cv2.imdecode(np.frombuffer(blobs[0], np.uint8), cv2.IMREAD_COLOR) if blobs[0] else None
    mask = cv2.imdecode(np.frombuffer(blobs[1], np.uint8), cv2.IMREAD_GRAYSCALE) if blobs[1] else None
    if frame is None or mask is None or frame.shape[:2] != mask.shape:
        raise DataError(f"{path}: {pair[0]} and {pair[1]} are not a frame and its mask")
    return np.asarray(frame, np.uint8), np.asarray(mask > 127)


def measure_videos(seg: Segmenter, path: Path, only: Sequence[str] = (), limit: int | None = None) -> FindReport:
    """Find the first frame's object in every tenth frame of each video. only: their names, () for all; limit: the first so many.

    Raises DataError.
    """
    found: dict[str, float] = {}
    every = list_videos(path)
    unknown = sorted(set(only) - set(every))
    if unknown:
        raise DataError(f"{path} has no video {', '.join(unknown)}; it has {', '.join(every)}")
    videos = {name: every[name] for name in [n for n in every if not only or n in only][:limit]}
    for name, pairs in progress(videos.items(), "videos", len(videos)):
        frame, mask = _read(path, pairs[0])
        if not mask.any() or len(pairs) <= EVERY:
            continue
        reference = seg.reference((frame, mask))
        scores = []
        for pair in pairs[EVERY::EVERY]:
            target, truth = _read(path, pair)
            answer = seg.find(target, like=reference, most=1)
            scores.append(iou(answer.masks[0], truth) if len(answer) else float(not truth.any()))
        found[name] = float(np.mean(scores))
    if not found:
        raise DataError(f"{path} holds no video of more than {EVERY} frames whose first has a mask")
    return FindReport([], found)
