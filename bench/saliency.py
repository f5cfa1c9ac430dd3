"""How well the salient object is cut out without a prompt, beside two simpler ways to choose it.

The truth of a photo is all its labelled instances together (a data set for salient objects labels nothing else). MAE is
the mean absolute difference of alpha and truth; F is the F-measure of alpha at 0.5 with beta^2 = 0.3, as the field's tables
have it (Achanta et al., "Frequency-tuned Salient Region Detection", CVPR 2009); both are means over photos.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from tinyseg.bench.accuracy import iou
from tinyseg.bench.rows import markdown_table
from tinyseg.cutout import Cutout, cut_out, salient
from tinyseg.cutout.saliency import ask_again, candidates
from tinyseg.dataset import Photo
from tinyseg.errors import DataError
from tinyseg.masks import Masks
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.segmenter import Segmenter
from tinyseg.system.progress import progress

BETA2 = 0.3
TRUSTED = 0.7  # predicted IoU of the candidates among which "largest mask" takes the largest


@dataclass(frozen=True)
class SalientRow:
    """One way to choose, over all photos."""

    way: str
    photos: int
    mae: float
    f: float
    iou: float


@dataclass(frozen=True)
class SalientReport:
    rows: list[SalientRow]

    def to_json(self) -> dict[str, list[dict[str, object]]]:
        return {"salient": [asdict(r) for r in self.rows]}

    def to_markdown(self) -> str:
        cells = [["way", "photos", "MAE", "F at 0.5", "IoU"]]
        cells += [[r.way, str(r.photos), f"{r.mae:.3f}", f"{r.f:.3f}", f"{r.iou:.3f}"] for r in self.rows]
        return "\n".join(markdown_table(cells))


def centre_click(emb: Embedding) -> Masks:
    """The best reading of a click in the middle."""
    view = emb.geometry
    return emb.predict(points=[((view.frame_width - 1) / 2, (view.frame_height - 1) / 2)], labels=[1])


def largest_mask(emb: Embedding) -> Masks:
    """The largest of a grid's candidates that the model trusts, asked for again like the salient one."""
    found = candidates(emb)
    if not len(found.masks):
        raise DataError("no candidate")
    trusted = found.features[:, 1] >= min(TRUSTED, found.features[:, 1].max())
    return ask_again(emb, found.logits[int(np.where(trusted, found.masks.sum((1, 2)), 0).argmax())])


WAYS: Mapping[str, Callable[[Embedding], Masks]] = {
    "salient (--auto)": salient, "centre click": centre_click, "largest mask": largest_mask,
}  # fmt: skip


def f_measure(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """(1 + beta^2) P R / (beta^2 P + R); 0 where nothing of the truth was found."""
    hit = int(np.count_nonzero(found & truth))
    if hit == 0:
        return 0.0
    precision, recall = hit / np.count_nonzero(found), hit / np.count_nonzero(truth)
    return float((1 + BETA2) * precision * recall / (BETA2 * precision + recall))


def measure_salient(seg: Segmenter, photos: Sequence[Photo]) -> SalientReport:
    """Cut every photo's salient object out in every way. Raises DataError where no photo has a labelled object."""
    scores: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for photo in progress(photos, "photos"):
        frame = photo.read()
        truth = np.asarray(photo.masks().any(0), np.bool_) if photo.instances else np.zeros(frame.shape[:2], np.bool_)
        if not truth.any():
            continue
        emb = seg.embed(frame)
        for way, find in WAYS.items():
            alpha = _alpha(frame, emb, find)
            found = alpha >= 0.5
            error = float(np.abs(alpha - truth).mean(dtype=np.float64))
            scores[way].append((error, f_measure(found, truth), iou(found, truth)))
    if not any(scores.values()):
        raise DataError("the photos hold no labelled object to cut out")
    return SalientReport([SalientRow(w, len(s), *(float(v) for v in np.mean(s, 0))) for w, s in scores.items()])


def _alpha(frame: NDArray[np.uint8], emb: Embedding, find: Callable[[Embedding], Masks]) -> NDArray[np.float32]:
    try:
        found: Cutout = cut_out(frame, find(emb))
    except DataError:  # a photo in which nothing is found scores as an empty cut-out
        return np.zeros(frame.shape[:2], np.float32)
    return found.alpha
