"""What a mean IoU does not tell: edges, noisy hands, how many clicks a good mask takes, and whether scores can be trusted.

Sources: boundary IoU (arXiv 2103.16562), the boundary F-measure of DAVIS (Perazzi et al., CVPR 2016), clicks to a given IoU
(NoC, as in RITM, arXiv 2102.06583), calibration error over bins (arXiv 1706.04599).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.bench.accuracy import MIN_PIXELS, NO_OBJECT, iou, next_click
from tinyseg.bench.rows import markdown_table
from tinyseg.dataset import Photo
from tinyseg.draw import overlay
from tinyseg.errors import DataError
from tinyseg.images import write_image
from tinyseg.masks import most_interior
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.segmenter import Segmenter
from tinyseg.prompts import Prompt
from tinyseg.system.progress import progress

BOUNDARY_IOU_SHARE = 0.02  # of the photo's diagonal: how far from its edge a mask's boundary region reaches
BOUNDARY_F_SHARE = 0.008  # of the photo's diagonal: how far apart two edges may be and still meet
NOISE_PIXELS = (1, 5, 10)
NOC_TARGETS = (0.85, 0.90)
MOST_CLICKS = 20
BINS = 10
PICTURES = 8  # best and worst cases that are drawn, each
PICTURE_WIDTH = 480


def boundary_region(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Pixels of a mask (H, W) no farther than ``distance`` from its edge; the frame's border is an edge."""
    padded = np.pad(mask, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    return np.asarray(mask & (depth <= distance), np.bool_)


def boundary_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """IoU of the boundary regions of two masks (H, W)."""
    distance = max(1, round(BOUNDARY_IOU_SHARE * float(np.hypot(*a.shape))))
    return iou(boundary_region(a, distance), boundary_region(b, distance))


def boundary_f(answer: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """F-measure of the edge pixels of an answer that lie near an edge of the truth, and the other way round."""
    tolerance = max(1.0, BOUNDARY_F_SHARE * float(np.hypot(*answer.shape)))
    edges = [boundary_region(m, 1) for m in (answer, truth)]
    if not edges[0].any() or not edges[1].any():
        return float(edges[0].any() == edges[1].any())
    near = [cv2.distanceTransform((~e).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5) <= tolerance for e in edges]
    precision = np.count_nonzero(edges[0] & near[1]) / np.count_nonzero(edges[0])
    recall = np.count_nonzero(edges[1] & near[0]) / np.count_nonzero(edges[1])
    return 2 * precision * recall / max(precision + recall, 1e-12)


@dataclass(frozen=True)
class Case:
    """One instance; every figure is an IoU unless its name says otherwise."""

    photo: int
    box: tuple[int, int, int, int]
    box_iou: float
    box_score: float  # predicted IoU
    boundary_iou: float
    boundary_f: float
    noisy_boxes: tuple[float, ...]  # edges off by up to NOISE_PIXELS
    click: tuple[int, int]
    click_iou: float
    click_score: float
    noisy_clicks: tuple[float, ...]
    after_clicks: tuple[float, ...]  # IoU after 1, 2, ... clicks, until it is above the last of NOC_TARGETS


def noisy_box(box: Sequence[int], pixels: int, shape: tuple[int, ...], rng: np.random.Generator) -> list[float]:
    """A box with every edge moved by up to ``pixels``, inside the frame and at least 2 pixels wide and high."""
    height, width = shape[:2]
    moved = np.asarray(box, np.float64) + rng.uniform(-pixels, pixels, 4)
    x0, y0 = max(0.0, min(moved[0], width - 2.0)), max(0.0, min(moved[1], height - 2.0))
    x1, y1 = min(float(width), max(moved[2], x0 + 2.0)), min(float(height), max(moved[3], y0 + 2.0))
    return [x0, y0, x1, y1]


def click_curve(emb: Embedding, truth: NDArray[np.bool_]) -> tuple[float, ...]:
    """IoU after every click, until the last target is reached or MOST_CLICKS are made."""
    points, labels = [most_interior(truth)], [1]
    out = emb.predict(points=points, labels=labels, multimask=True)
    found = [iou(out.masks[out.best], truth)]
    while found[-1] < NOC_TARGETS[-1] and len(found) < MOST_CLICKS:
        click = next_click(truth, out.masks[out.best])
        if click is None:
            break
        points.append(click[0])
        labels.append(click[1])
        out = emb.predict(points=points, labels=labels, mask=out.logits[out.best], multimask=False)
        found.append(iou(out.masks[out.best], truth))
    return tuple(found)


def examine(emb: Embedding, photo: int, truth: NDArray[np.bool_], rng: np.random.Generator) -> Case:
    """Everything about one instance."""
    x, y, w, h = cv2.boundingRect(truth.astype(np.uint8))
    box = (x, y, x + w, y + h)
    with_box = emb.predict(box=box, multimask=False)
    boxes = [noisy_box(box, n, truth.shape, rng) for n in NOISE_PIXELS]
    click = most_interior(truth)
    with_click = emb.predict(points=[click], labels=[1])
    limits = np.array([truth.shape[1] - 1, truth.shape[0] - 1])
    clicks = [np.clip(np.array(click) + rng.uniform(-n, n, 2), 0, limits) for n in NOISE_PIXELS]
    clicked = [emb.predict(points=[c], labels=[1]) for c in clicks]
    return Case(
        photo=photo, box=box, box_iou=iou(with_box.masks[0], truth), box_score=float(with_box.scores[0]),
        boundary_iou=boundary_iou(with_box.masks[0], truth), boundary_f=boundary_f(with_box.masks[0], truth),
        noisy_boxes=tuple(iou(emb.predict(box=b, multimask=False).masks[0], truth) for b in boxes),
        click=click, click_iou=iou(with_click.masks[with_click.best], truth),
        click_score=float(with_click.scores[with_click.best]),
        noisy_clicks=tuple(iou(o.masks[o.best], truth) for o in clicked), after_clicks=click_curve(emb, truth),
    )  # fmt: skip


@dataclass(frozen=True)
class Detail:
    """Means over all instances."""

    instances: int
    box: float
    boundary_iou: float
    boundary_f: float
    box_noise: dict[int, float]  # by pixels
    click: float
    click_noise: dict[int, float]
    clicks_to: dict[str, float]  # NoC: mean clicks to an IoU, MOST_CLICKS where it was not reached
    never_reached: dict[str, float]  # share of instances
    click_curve: list[float]  # mean IoU after 1, 2, ... clicks
    box_calibration: list[tuple[float, float, int]]  # (mean predicted IoU, mean IoU, instances) by bin
    box_calibration_error: float
    click_calibration: list[tuple[float, float, int]]
    click_calibration_error: float

    def to_markdown(self) -> str:
        noise = [["prompt", "exact", *(f"off by {n} px" for n in NOISE_PIXELS)]]
        for name, exact, moved in (("box", self.box, self.box_noise), ("1 click", self.click, self.click_noise)):
            noise.append([name, f"{exact:.3f}", *(f"{v:.3f}" for v in moved.values())])
        clicks = [["to IoU", "clicks (mean)", f"not within {MOST_CLICKS}"]]
        clicks += [[t, f"{n:.1f}", f"{100 * self.never_reached[t]:.0f}%"] for t, n in self.clicks_to.items()]
        trust = [["predicted IoU", "box: IoU (objects)", "1 click: IoU (objects)"]]
        for i, (a, b) in enumerate(zip(self.box_calibration, self.click_calibration)):
            trust.append(
                [f"{i / BINS:.1f} to {(i + 1) / BINS:.1f}", *(f"{m:.2f} ({n})" if n else "-" for _, m, n in (a, b))]
            )
        curve = " ".join(f"{v:.3f}" for v in self.click_curve)
        return "\n".join(
            [
                f"boundary IoU {self.boundary_iou:.3f}, boundary F {self.boundary_f:.3f} (true boxes, {self.instances} objects)",
                "", *markdown_table(noise), "", *markdown_table(clicks), "",
                f"IoU after 1 to {MOST_CLICKS} clicks: {curve}", "", *markdown_table(trust), "",
                f"calibration error: box {self.box_calibration_error:.3f}, 1 click {self.click_calibration_error:.3f}",
            ]
        )  # fmt: skip

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def calibration(scores: Sequence[float], ious: Sequence[float]) -> tuple[list[tuple[float, float, int]], float]:
    """((mean score, mean IoU, count) of equal bins of [0, 1], the mean distance of the two weighted by count)."""
    s, t = np.asarray(scores), np.asarray(ious)
    bins = np.minimum((s * BINS).astype(int), BINS - 1)
    rows = []
    for i in range(BINS):
        inside = bins == i
        n = int(inside.sum())
        rows.append((float(s[inside].mean()) if n else 0.0, float(t[inside].mean()) if n else 0.0, n))
    return rows, sum(n * abs(a - b) for a, b, n in rows) / max(len(s), 1)


def summarise(cases: Sequence[Case]) -> Detail:
    """Means of a non-empty list of cases."""
    reached = {
        target: [next((i + 1 for i, v in enumerate(c.after_clicks) if v >= target), None) for c in cases]
        for target in NOC_TARGETS
    }
    # A curve that ended early had reached the last target; its last value stands for the clicks nobody needed.
    curves = np.array([[*c.after_clicks, *[c.after_clicks[-1]] * (MOST_CLICKS - len(c.after_clicks))] for c in cases])
    box_rows, box_error = calibration([c.box_score for c in cases], [c.box_iou for c in cases])
    click_rows, click_error = calibration([c.click_score for c in cases], [c.click_iou for c in cases])

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values))

    return Detail(
        instances=len(cases), box=mean([c.box_iou for c in cases]),
        boundary_iou=mean([c.boundary_iou for c in cases]), boundary_f=mean([c.boundary_f for c in cases]),
        box_noise={n: mean([c.noisy_boxes[i] for c in cases]) for i, n in enumerate(NOISE_PIXELS)},
        click=mean([c.click_iou for c in cases]),
        click_noise={n: mean([c.noisy_clicks[i] for c in cases]) for i, n in enumerate(NOISE_PIXELS)},
        clicks_to={f"{t:.2f}": mean([MOST_CLICKS if n is None else n for n in ns]) for t, ns in reached.items()},
        never_reached={f"{t:.2f}": mean([n is None for n in ns]) for t, ns in reached.items()},
        click_curve=[float(v) for v in curves.mean(0)], box_calibration=box_rows, box_calibration_error=box_error,
        click_calibration=click_rows, click_calibration_error=click_error,
    )  # fmt: skip


def measure_detail(seg: Segmenter, photos: Sequence[Photo], pictures: Path | None = None, seed: int = 0) -> Detail:
    """Examine every instance of every photo; with ``pictures``, draw the best and worst cases into that folder.

    Raises DataError where there is no instance.
    """
    cases: list[Case] = []
    rng = np.random.default_rng(seed)
    for index, photo in enumerate(progress(photos, "photos, in detail")):
        emb = seg.embed(photo.read())
        cases += [examine(emb, index, truth, rng) for truth in photo.masks() if truth.sum() >= MIN_PIXELS]
    if not cases:
        raise DataError(NO_OBJECT)
    if pictures is not None:
        draw_cases(seg, photos, cases, pictures)
    return summarise(cases)


def draw_cases(seg: Segmenter, photos: Sequence[Photo], cases: Sequence[Case], folder: Path) -> None:
    """Pictures of the best and worst boxes and clicks: the truth on the left, the answer on the right."""
    for kind in ("box", "click"):
        ranked = sorted(cases, key=lambda c: c.box_iou if kind == "box" else c.click_iou)
        for name, chosen in (("worst", ranked[:PICTURES]), ("best", ranked[::-1][:PICTURES])):
            for i, case in enumerate(chosen):
                photo = photos[case.photo]
                image = photo.read()
                prompt = Prompt(box=case.box) if kind == "box" else Prompt(points=[case.click], labels=[1])
                out = seg.embed(image).predict(prompt.points, prompt.labels, prompt.box, multimask=kind == "click")
                x0, y0, x1, y1 = case.box
                truth = next(
                    m
                    for m in photo.masks()
                    if m.any() and cv2.boundingRect(m.astype(np.uint8)) == (x0, y0, x1 - x0, y1 - y0)
                )
                pair = [overlay(image, [m], [prompt]) for m in (truth, out.masks[out.best])]
                scale = PICTURE_WIDTH / image.shape[1]
                both = cv2.resize(np.concatenate(pair, 1), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                value = case.box_iou if kind == "box" else case.click_iou
                write_image(folder / f"{kind}-{name}-{i + 1}-{value:.2f}.jpg", np.asarray(both, np.uint8))
