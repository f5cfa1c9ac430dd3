"""How good the masks are: IoU of boxes and clicks on labelled photos, through the installed runtime.

Prompts are simulated as the field does: the true box; one click at the pixel farthest from the object's outline (the
frame's border counts as outline); further clicks likewise inside the larger wrong region, with the earlier answer as
mask hint. After one click the best scored of three masks counts, after more clicks and for boxes the single mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.bench.rows import markdown_table
from tinyseg.dataset import Photo
from tinyseg.errors import DataError
from tinyseg.masks import Masks, most_interior
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.segmenter import Segmenter
from tinyseg.prompts import Prompt
from tinyseg.system.progress import progress

CLICKS = 3
MIN_PIXELS = 16  # instances with fewer are left out: no prompt can mean them
NO_OBJECT = f"the photos hold no object to ask for: none is labelled with {MIN_PIXELS} pixels or more"
# Longer side of the object against the frame's: small below the first, large from the second on.
SIZE_LIMITS = (0.15, 0.4)


@dataclass(frozen=True)
class InstanceScores:
    """IoU of one instance under every prompt."""

    group: str
    size: str  # small, middle or large
    fill: float  # the box itself, filled: what a segmenter must beat
    box: float  # true box, second look as the model's rule says
    box_off: float  # true box, without second look
    click1: float
    click1_off: float
    click1_oracle: float  # best of the three masks, whatever their scores
    click3: float


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; 1 if both are empty."""
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def next_click(truth: NDArray[np.bool_], answer: NDArray[np.bool_]) -> tuple[tuple[int, int], int] | None:
    """((x, y), label) of a click in the larger of the missing and the extra region; None if all is right."""
    missing, extra = truth & ~answer, answer & ~truth
    if not missing.any() and not extra.any():
        return None
    if missing.sum() >= extra.sum():
        return most_interior(missing), 1
    return most_interior(extra), 0


def click_rounds(emb: Embedding, truth: NDArray[np.bool_], rounds: int, zoom: str) -> tuple[Masks, list[float]]:
    """Click until ``rounds`` clicks are made; returns the first answer and the IoU after every click."""
    points, labels = [most_interior(truth)], [1]
    first = out = emb.predict(points=points, labels=labels, multimask=True, zoom=zoom)
    found = [iou(out.masks[out.best], truth)]
    for _ in range(rounds - 1):
        click = next_click(truth, out.masks[out.best])
        if click is not None:
            points.append(click[0])
            labels.append(click[1])
            out = emb.predict(points=points, labels=labels, mask=out.logits[out.best], multimask=False, zoom=zoom)
        found.append(iou(out.masks[out.best], truth))
    return first, found


def score_photo(seg: Segmenter, photo: Photo, long_side: int | None = None) -> list[InstanceScores]:
    """Scores of every instance of a photo."""
    image = photo.read()
    emb = seg.embed(image, long_side=long_side)
    truths = [m for m in photo.masks() if m.sum() >= MIN_PIXELS]
    boxes = [cv2.boundingRect(m.astype(np.uint8)) for m in truths]
    corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    without = emb.predict_batch([Prompt(box=b) for b in corners], zoom="off")
    rows = []
    for truth, corner, box_off in zip(truths, corners, without):
        x0, y0, x1, y1 = corner
        filled = np.zeros_like(truth)
        filled[y0:y1, x0:x1] = True
        with_zoom = emb.predict(box=corner, multimask=False)
        _, clicks = click_rounds(emb, truth, CLICKS, "auto")
        first_off, clicks_off = click_rounds(emb, truth, 1, "off")
        share = max(x1 - x0, y1 - y0) / max(truth.shape)
        rows.append(
            InstanceScores(
                group=photo.group or "all",
                size="small" if share < SIZE_LIMITS[0] else "middle" if share < SIZE_LIMITS[1] else "large",
                fill=iou(filled, truth),
                box=iou(with_zoom.masks[0], truth),
                box_off=iou(box_off.masks[0], truth),
                click1=clicks[0],
                click1_off=clicks_off[0],
                click1_oracle=max(iou(m, truth) for m in first_off.masks),
                click3=clicks[-1],
            )
        )
    return rows


@dataclass(frozen=True)
class AccuracyRow:
    """Mean IoU of a set of instances; the columns of the table and the keys of the JSON."""

    set: str
    photos: int
    instances: int
    fill: float
    box: float
    box_off: float
    click1: float
    click1_off: float
    click1_oracle: float
    click3: float


HEADINGS = {
    "set": "set",
    "photos": "photos",
    "instances": "objects",
    "fill": "box filled",
    "box": "box",
    "box_off": "box, no zoom",
    "click1": "1 click",
    "click1_off": "1 click, no zoom",
    "click1_oracle": "best of 3, no zoom",
    "click3": "3 clicks",
}


@dataclass(frozen=True)
class AccuracyReport:
    """Figures by set and by object size, and of every object, in the order of the photos."""

    by_set: list[AccuracyRow]
    by_size: list[AccuracyRow]
    instances: list[InstanceScores] = field(default_factory=list)

    def to_json(self) -> dict[str, list[dict[str, object]]]:
        return {"by_set": [asdict(r) for r in self.by_set], "by_size": [asdict(r) for r in self.by_size]}

    def to_markdown(self) -> str:
        """Two tables of mean IoU."""
        return "\n".join([*_table(self.by_set), "", *_table(self.by_size)])


def _table(rows: Sequence[AccuracyRow]) -> list[str]:
    names = [f.name for f in fields(AccuracyRow)]
    cells = [[HEADINGS[n] for n in names]]
    for row in rows:
        values = asdict(row)
        cells.append([f"{values[n]:.3f}" if isinstance(values[n], float) else str(values[n]) for n in names])
    return markdown_table(cells)


def measure(seg: Segmenter, photos: Sequence[Photo], long_side: int | None = None) -> AccuracyReport:
    """Score every instance of every photo and average by set and by size.

    long_side: of the frame's input, as in ``Segmenter.embed``. Raises DataError where there is no instance.
    """
    scored = [score_photo(seg, p, long_side) for p in progress(photos, "photos")]
    if not any(scored):
        raise DataError(NO_OBJECT)
    return summarize(scored)


def summarize(photos: Sequence[Sequence[InstanceScores]]) -> AccuracyReport:
    """Means by set and by size of the instances of every photo; photos without any are left out."""
    scored = [rows for rows in photos if rows]
    groups = sorted({rows[0].group for rows in scored})
    by_set = [_mean(g, [r for r in scored if r[0].group == g]) for g in groups]
    if len(groups) > 1:
        by_set.append(_mean("all", scored))
    by_size = [_mean(s, [[i for i in rows if i.size == s] for rows in scored]) for s in ("small", "middle", "large")]
    return AccuracyReport(by_set, [r for r in by_size if r.instances], [i for rows in scored for i in rows])


def _mean(name: str, photos: Sequence[Sequence[InstanceScores]]) -> AccuracyRow:
    instances = [i for rows in photos for i in rows]
    figures = [f.name for f in fields(AccuracyRow)][3:]
    means = {n: float(np.mean([getattr(i, n) for i in instances])) if instances else float("nan") for n in figures}
    return AccuracyRow(name, sum(bool(rows) for rows in photos), len(instances), **means)
