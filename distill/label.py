"""Photographs without labels into a data set: a teacher is asked everywhere, and what it is sure of is kept.

Clicks on a grid, as in SAM's mask generator (arXiv 2304.02643, section 4 and appendix B): answers are kept by predicted IoU
and stability, and thinned by non-maximum suppression over masks. The result is a data set like any other, to train on
alone or mixed with labelled ones.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinyseg.distill.prompts import PromptBatch
from tinyseg.distill.teachers import Teacher, weights_of
from tinyseg.errors import DataError
from tinyseg.files import write_bytes
from tinyseg.geometry import LOGIT_STRIDE, MEAN
from tinyseg.images import read_image
from tinyseg.masks import polygons
from tinyseg.pixels import STABILITY_OFFSET
from tinyseg.prompts.layout import LABEL_PADDING, LABEL_POSITIVE
from tinyseg.system.console import tell
from tinyseg.system.progress import progress

ANNOTATIONS, TOLD = "annotations.jsonl.gz", "labels.json"
SHARD = 32  # photos a file; what a killed run loses at most
CHUNK = 16  # prompts the teacher is asked at once; more spend their time on fresh memory


@dataclass(frozen=True)
class LabelRule:
    """What is asked, and what is kept."""

    side: int = 512  # the photo's longer side, pixels
    grid: int = 12  # clicks along the longer side
    least_iou: float = 0.6
    least_stability: float = 0.85
    most_overlap: float = 0.7  # mask IoU above which the lower scored of two is dropped
    least_share: float = 0.001  # of the photo
    most_share: float = 0.9


def square(photo: NDArray[np.uint8], side: int) -> tuple[Tensor, float]:
    """((1, side, side, 3) uint8 RGB with the photo at the top left, model pixels per photo pixel)."""
    height, width = photo.shape[:2]
    scale = side / max(height, width)
    small = cv2.resize(photo, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    canvas = np.full((side, side, 3), round(MEAN), np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small[..., ::-1]
    return torch.from_numpy(canvas)[None], scale


def label_photo(teacher: Teacher, photo: NDArray[np.uint8], rule: LabelRule) -> list[list[list[list[int]]]]:
    """Instances of a photo (H, W, 3) BGR as lists of polygons in its pixels, the surest first."""
    image, scale = square(photo, rule.side)
    height, width = photo.shape[:2]
    step = rule.side / rule.grid
    xs = np.arange(step / 2, width * scale, step)
    ys = np.arange(step / 2, height * scale, step)
    clicks = torch.tensor([[x, y] for y in ys for x in xs], dtype=torch.float32)
    cells = rule.side // LOGIT_STRIDE
    encoded = teacher.encode(image)
    masks: list[Tensor] = []
    scores: list[Tensor] = []
    for points in clicks.split(CHUNK):
        n = len(points)
        slots = torch.stack((points, torch.zeros_like(points)), 1)
        labels = torch.tensor([[LABEL_POSITIVE, LABEL_PADDING]]).repeat(n, 1)
        asked = PromptBatch(slots, labels, torch.zeros(n, 1, cells, cells), torch.zeros(n))
        answer = encoded.answer(asked)
        masks.append(answer.logits[:, 1:].flatten(0, 1))
        scores.append(answer.iou[:, 1:].flatten())
    logits, iou = torch.cat(masks), torch.cat(scores)
    logits[:, round(height * scale / LOGIT_STRIDE) :] = -1e3
    logits[:, :, round(width * scale / LOGIT_STRIDE) :] = -1e3
    inside, outside = ((logits > o).flatten(1).sum(1).float() for o in (STABILITY_OFFSET, -STABILITY_OFFSET))
    share = (logits > 0).flatten(1).sum(1) / (height * width * scale * scale / LOGIT_STRIDE**2)
    kept = (iou >= rule.least_iou) & (inside / outside.clamp(min=1) >= rule.least_stability)
    kept &= (share >= rule.least_share) & (share <= rule.most_share)
    order = torch.nonzero(kept)[:, 0][iou[kept].argsort(descending=True)]
    found: list[list[list[list[int]]]] = []
    chosen: list[Tensor] = []
    for index in order.tolist():
        mask = (logits[index] > 0).flatten()
        if any(_overlap(mask, other) > rule.most_overlap for other in chosen):
            continue
        chosen.append(mask)
        size = (round(cells * LOGIT_STRIDE / scale), round(cells * LOGIT_STRIDE / scale))
        full = cv2.resize(logits[index].numpy(), size, interpolation=cv2.INTER_LINEAR)[:height, :width] > 0
        outlines = [p.tolist() for p in polygons(full) if len(p) >= 3]
        if outlines:
            found.append(outlines)
    return found


def _overlap(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum().clamp(min=1))


def distinct_names(images: Sequence[Path]) -> dict[Path, str]:
    """A file name for each image: its own, or where several folders hold that name, one with a digest of its path.

    A pure function of the list, so that a run that goes on gives every image the name that it had.
    """
    counts = Counter(image.name for image in images)
    names: dict[Path, str] = {}
    for image in images:
        digest = hashlib.sha256(str(image).encode(errors="surrogateescape")).hexdigest()[:8]
        names[image] = image.name if counts[image.name] == 1 else f"{image.stem}-{digest}{image.suffix}"
    return names


def label(teacher: Teacher, images: Sequence[Path], out: Path, rule: LabelRule) -> Path:
    """Label every image into a data set folder; run again to go on where it stopped. Returns the annotations' file.

    What cannot be read is told and left out.
    Raises DataError where the folder cannot be written, or holds labels of another teacher or rule, or somebody's data set.
    """
    parts = out / "parts"
    names = distinct_names(images)
    facts = {
        "teacher": teacher.name, "weights": weights_of(teacher), "rule": rule.__dict__, "images": list(names.values()),
    }  # fmt: skip
    try:
        require_own(out, facts)
        write_bytes(out / TOLD, json.dumps(facts).encode())  # first: what is there without it is taken for somebody's
        parts.mkdir(exist_ok=True)
        (out / "images").mkdir(exist_ok=True)
        start, photos, instances, left_out = time.monotonic(), 0, 0, 0
        shards = [images[i : i + SHARD] for i in range(0, len(images), SHARD)]
        for number, shard in enumerate(progress(shards, f"shards of {SHARD} photos")):
            path = parts / f"{number:05d}.jsonl.gz"
            if path.exists():
                continue
            rows = []
            for image in shard:
                try:
                    photo = read_image(image)
                except DataError as exc:  # one damaged file among a million ends nothing
                    tell(f"left out: {exc}")
                    left_out += 1
                    continue
                found = label_photo(teacher, photo, rule)
                shutil.copyfile(image, out / "images" / names[image])
                rows.append(
                    {
                        "file": f"images/{names[image]}", "width": photo.shape[1], "height": photo.shape[0],
                        "source": teacher.name, "instances": found,
                    }
                )  # fmt: skip
                photos, instances = photos + 1, instances + len(found)
            _write(path, "".join(json.dumps(r) + "\n" for r in rows))
        _write(out / ANNOTATIONS, "".join(_read(parts / f"{number:05d}.jsonl.gz") for number in range(len(shards))))
    except OSError as exc:
        raise DataError(f"{out} cannot be written ({exc.strerror or exc})") from exc
    seconds = max(time.monotonic() - start, 1e-9)
    size = sum(p.stat().st_size for p in parts.glob("*.jsonl.gz"))
    print(
        f"{photos} photos labelled with {instances} instances in {seconds:.0f} s ({photos / seconds:.2f} photos/s); "
        f"{len(images)} in all, {size / 1e6:.2f} MB of labels: {out}"
        + (f"; {left_out} could not be read and were left out" if left_out else "")
    )
    return out / ANNOTATIONS


def require_own(out: Path, facts: dict[str, Any]) -> None:
    """Raises DataError where a folder holds labels of another teacher, rule or list of images, or somebody's data set."""
    told = out / TOLD
    if not told.exists():
        if (out / ANNOTATIONS).exists() or (out / "images").exists():
            raise DataError(f"{out} holds a data set that this command did not write; give another --out")
        return
    try:
        found = json.loads(told.read_text())
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{told} is damaged ({exc!s:.100}); give another --out, or delete {out} to label anew") from exc
    if isinstance(found, dict):
        found = {"weights": facts["weights"], **found}  # older folders do not tell it
    if found != facts:
        raise DataError(f"{out} holds labels of another teacher, rule or list of images; give another --out")


def _read(path: Path) -> str:
    """The lines of a shard. Raises DataError where it is damaged."""
    try:
        return gzip.decompress(path.read_bytes()).decode()
    except (OSError, EOFError, ValueError, zlib.error) as exc:
        raise DataError(f"{path} cannot be read ({exc}); delete it and run the command again") from exc


def _write(path: Path, text: str) -> None:
    write_bytes(path, gzip.compress(text.encode()))
