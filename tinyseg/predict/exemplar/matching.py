"""Where a reference's thing is in another picture: points from its parts, then two refinements, as PerSAM and P2SAM do.

PerSAM (Zhang et al., "Personalize Segment Anything Model with One Shot", ICLR 2024) asks SAM with the most alike point and
refines twice, first with the mask, then with box, points and mask. With a small network one point is often wrong, so here
many alike points are asked, every answer is compared with the reference as a whole, and the best ones are refined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.geometry import LOGIT_STRIDE
from tinyseg.masks import Masks
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.exemplar.look import FEATURE_STRIDE, features, likeness
from tinyseg.predict.exemplar.reference import Reference
from tinyseg.predict.find_defaults import MAX_FOUND, THRESHOLD
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import place_prompts

PEAKS = 48  # alike points that are asked
LEAST_ALIKE = 0.25  # of a peak, where 0 is the reference's ground and 1 its object
BLOBS = 16  # connected alike regions that are asked as a box
PROMPTS = 16  # a decoder call
OVERLAP = 0.5  # IoU from which two answers are the same thing
CONTAINED = 0.8  # or this share of the smaller one inside the larger one
REFINED = 0.75  # of the threshold: what scores less is not worth two more questions
# How an answer's likeness is made up: 1; share of the reference's parts in the same proportions; mean likeness of its
# features; predicted IoU; share of its features that are like any part; |log| of its size over the reference's. Least
# squares of the answers' IoU with the nearest labelled instance, on 28 training photos of several like things.
WEIGHTS = np.array([-0.073, 0.714, 0.337, 0.279, -0.331, -0.1])
CELLS = FEATURE_STRIDE // LOGIT_STRIDE


@dataclass(frozen=True)
class _Map:
    """A picture's features against a reference: relative likeness (h, w) with 0 for its ground and 1 for its object,
    and the part that each cell is most like, P for any ground."""

    alike: NDArray[np.float32]
    part: NDArray[np.intp]


def search(emb: Embedding, reference: Reference, most: int = MAX_FOUND, threshold: float = THRESHOLD,
           zoom: str = "auto") -> Masks:  # fmt: skip
    """Up to ``most`` masks of what is alike, the most alike first; scores are likeness in [0, 1], at least threshold."""
    seen = _compare(emb, reference)
    prompts = [Prompt(points=[p], labels=[1]) for p in _peaks(emb, seen)] + _blobs(emb, seen)
    if not prompts:
        return _none(emb)
    logits, scores = _ask(emb, prompts)
    logits, scores = logits.reshape(-1, *logits.shape[2:]), scores.reshape(-1)
    alike = _judge(seen, reference, logits, scores)
    kept = _distinct(logits, alike, REFINED * threshold)[: 2 * most]
    if not len(kept):
        return _none(emb)
    # First refinement: the mask alone, whichever reading is most alike.
    again, scores = _ask(emb, [Prompt(mask=m) for m in logits[kept]])
    both = np.concatenate([logits[kept][:, None], again], 1)
    judged = np.stack([_judge(seen, reference, b, np.array([0, *s])) for b, s in zip(both, scores)])
    judged[:, 0] = alike[kept]
    chosen = judged.argmax(1)
    masks, alike = both[np.arange(len(both)), chosen], judged.max(1)
    keep = _distinct(masks, alike, threshold)[:most]
    if not len(keep):
        return _none(emb)
    # Second refinement: box, points and mask.
    final = emb.predict_batch([_whole_prompt(emb, seen, m) for m in masks[keep]], multimask=False, zoom=zoom)
    judged = _judge(seen, reference, np.stack([f.logits[0] for f in final]), np.array([f.scores[0] for f in final]))
    found = [f for f in final if f.areas[0] > 0]
    judged = judged[[f.areas[0] > 0 for f in final]]
    if not found:
        return _none(emb)
    order = _distinct(np.stack([f.logits[0] for f in found]), judged, threshold)[:most]
    return _together([found[i] for i in order], judged[order]) if len(order) else _none(emb)


def _compare(emb: Embedding, reference: Reference) -> _Map:
    look = features(emb)
    alike = likeness(look, reference.positive, reference.negative)
    alike = (alike - reference.outside) / max(reference.inside - reference.outside, 1e-3)
    near = look @ reference.positive.T
    part = near.argmax(2)
    if len(reference.negative):
        part = np.where((look @ reference.negative.T).max(2) > near.max(2), len(reference.positive), part)
    return _Map(alike.astype(np.float32), part)


def _frame_points(emb: Embedding, cells: NDArray[np.intp], stride: int) -> NDArray[np.float64]:
    """(n, 2) rows and columns of a grid -> x, y of whole pixels in the frame."""
    edges = (cells[:, ::-1] + 0.5) * stride
    edges = np.minimum(edges, emb.geometry.content)
    points = emb.geometry.edges_to_frame(edges).astype(np.float64) - 0.5
    x0, y0, x1, y1 = emb.geometry.region
    return np.clip(np.rint(points), (x0, y0), (x1, y1))


def _peaks(emb: Embedding, seen: _Map) -> NDArray[np.float64]:
    """(n, 2) x, y of the most alike points that are the most alike ones around."""
    smooth = cv2.GaussianBlur(seen.alike, (0, 0), 0.7)
    top = (smooth >= cv2.dilate(smooth, np.ones((3, 3), np.uint8))) & (smooth > LEAST_ALIKE)
    cells = np.argwhere(top)
    order = np.argsort(-smooth[top], kind="stable")[:PEAKS]
    return _frame_points(emb, cells[order], FEATURE_STRIDE)


def _blobs(emb: Embedding, seen: _Map) -> list[Prompt]:
    """Connected alike regions as boxes: what is large and even has no peak that means all of it."""
    prompts = []
    for limit in (0.35, 0.65):
        count, _, stats, _ = cv2.connectedComponentsWithStats((seen.alike > limit).astype(np.uint8), connectivity=4)
        order = 1 + np.argsort(-stats[1:count, cv2.CC_STAT_AREA], kind="stable")[: BLOBS // 2]
        for x, y, w, h, area in stats[order]:
            if area >= 2:
                corners = np.array([x, y, x + w, y + h], np.float64) * FEATURE_STRIDE
                corners = np.minimum(corners, np.tile(emb.geometry.content, 2))
                prompts.append(Prompt(box=emb.geometry.boxes_to_frame(corners)))
    return prompts


def _ask(emb: Embedding, prompts: Sequence[Prompt]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits (B, 4, h, w) on the frame's grid and predicted IoU (B, 4)."""
    placed = place_prompts(list(prompts), emb.geometry)
    parts = [
        emb.network.decode(emb.features, emb.geometry, emb.geometry, placed[i : i + PROMPTS])
        for i in range(0, len(placed), PROMPTS)
    ]
    logits, scores = (np.concatenate(arrays) for arrays in zip(*parts))
    return logits, scores


def _judge(
    seen: _Map, reference: Reference, logits: NDArray[np.float32], scores: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(N,) likeness in [0, 1] of masks (N, h, w) on the logit grid."""
    height, width = seen.alike.shape
    parts = len(reference.positive)
    out = np.zeros(len(logits))
    # Shares of cells are compared at the features' stride.
    rows, columns = min(height * CELLS, logits.shape[1]), min(width * CELLS, logits.shape[2])
    for i, one in enumerate(logits):
        inside = (one[:rows, :columns] > 0).astype(np.float32)
        share = cv2.resize(inside, (width, height), interpolation=cv2.INTER_AREA)
        total = float(share.sum())
        if total < 0.5:
            continue
        made_of = np.bincount(seen.part.ravel(), weights=share.ravel(), minlength=parts + 1) / total
        same = float(np.minimum(made_of[:parts], reference.shares).sum())
        mean = float(np.clip((seen.alike * share).sum() / total, 0, 1))
        _, _, w, h = cv2.boundingRect(inside.astype(np.uint8))
        size = max(w, h) / (reference.size * max(rows, columns))
        facts = (1, same, mean, scores[i], 1 - made_of[parts], abs(np.log(size)))
        out[i] = np.clip(facts @ WEIGHTS, 0, 1)
    return out


def _distinct(logits: NDArray[np.float32], alike: NDArray[np.float64], threshold: float) -> NDArray[np.intp]:
    """Indices of the answers of at least a threshold that have a mask, the most alike first, each thing once."""
    flat = (logits > 0).reshape(len(logits), -1)
    order = [int(i) for i in np.argsort(-alike, kind="stable") if alike[i] >= threshold and flat[i].any()]
    kept: list[int] = []
    for i in order:
        one, area = flat[i], int(np.count_nonzero(flat[i]))
        for j in kept:
            both = np.count_nonzero(one & flat[j])
            other = int(np.count_nonzero(flat[j]))
            if both > OVERLAP * (area + other - both) or both > CONTAINED * min(area, other):
                break
        else:
            kept.append(i)
    return np.array(kept, np.intp)


def _whole_prompt(emb: Embedding, seen: _Map, logits: NDArray[np.float32]) -> Prompt:
    """The box of a mask, its most alike point, the least alike one in its box outside of it, and the mask itself."""
    columns, rows = (max(1, round(side / LOGIT_STRIDE)) for side in emb.geometry.content)
    inside = logits[:rows, :columns] > 0
    x, y, w, h = cv2.boundingRect(inside.astype(np.uint8))
    corners = np.minimum(np.array([x, y, x + w, y + h], np.float64) * LOGIT_STRIDE, np.tile(emb.geometry.content, 2))
    alike = cv2.resize(seen.alike, (columns, rows), interpolation=cv2.INTER_LINEAR)
    depth = cv2.distanceTransform(np.pad(inside, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    deep = inside & (depth >= 0.5 * depth.max())
    cells = [np.unravel_index(int(np.where(deep, alike, -np.inf).argmax()), alike.shape)]
    labels = [1]
    ground = np.zeros_like(inside)
    ground[y : y + h, x : x + w] = True
    ground &= ~cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    if ground.any():
        cells.append(np.unravel_index(int(np.where(ground, alike, np.inf).argmin()), alike.shape))
        labels.append(0)
    points = _frame_points(emb, np.array(cells, np.intp), LOGIT_STRIDE)
    return Prompt(points=points, labels=labels, box=emb.geometry.boxes_to_frame(corners), mask=logits)


def _together(answers: Sequence[Masks], alike: NDArray[np.float64]) -> Masks:
    return Masks(
        np.concatenate([f.masks for f in answers]), np.clip(alike, 0, 1).astype(np.float32),
        np.concatenate([f.logits for f in answers]), np.concatenate([f.boxes for f in answers]),
        np.concatenate([f.areas for f in answers]), np.concatenate([f.stability for f in answers]), None, answers[0].frame,
    )  # fmt: skip


def _none(emb: Embedding) -> Masks:
    view = emb.geometry
    return Masks(
        np.zeros((0, view.frame_height, view.frame_width), np.bool_), np.zeros(0, np.float32),
        np.zeros((0, *view.grid), np.float32), np.zeros((0, 4), np.int32), np.zeros(0, np.int64), np.zeros(0, np.float32),
        None, emb.frame,
    )  # fmt: skip
