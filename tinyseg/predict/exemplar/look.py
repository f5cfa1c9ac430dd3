"""What an object looks like to the student: its parts as a few feature vectors, and those of what lies around it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import PromptError
from tinyseg.predict.embedding import Embedding

FEATURE_STRIDE = 8
# Of the features at stride 8 beside those at stride 16, both normalised. This and the numbers of parts were chosen on
# videos (pixel average precision of the next frames' object, video-train: 0.67 with stride 16 alone, 0.71 so).
FINE_WEIGHT = 0.5
PARTS, GROUNDS = 8, 16
# What a pixel must resemble its object's parts more than its ground's, by how much of the latter counts.
GROUND_WEIGHT = 0.5
LEAST_SHARE = 0.5  # of a feature cell that the object covers for the cell to count as the object


def features(emb: Embedding) -> NDArray[np.float32]:
    """(h, w, C) unit vectors at stride 8 over what was encoded, without the input's padding."""
    coarse, fine = (np.asarray(emb.features[name])[0].transpose(1, 2, 0) for name in ("embedding", "skip8"))
    rows, columns = fine.shape[:2]
    enlarged = cv2.resize(np.ascontiguousarray(coarse), (columns, rows), interpolation=cv2.INTER_LINEAR)
    coarse = np.asarray(enlarged, np.float32)
    width, height = (max(1, round(side / FEATURE_STRIDE)) for side in emb.geometry.content)
    both = np.concatenate([_unit(coarse[:height, :width]), FINE_WEIGHT * _unit(fine[:height, :width])], 2)
    return _unit(both)


def parts(look: NDArray[np.float32], mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Clusters of the features (h, w, C) inside a mask of the encoded picture, (P, C), and outside of it, (N, C).

    Several part points instead of one mean are what lets a small backbone find things again (P2SAM, Huang et al.,
    "Part-aware Prompted Segment Anything Model", 2024). Raises PromptError for an empty mask.
    """
    height, width = look.shape[:2]
    share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    if share.max() <= 0:
        raise PromptError("the reference mask is empty; give a mask of the object")
    inside = share >= min(LEAST_SHARE, float(share.max()))
    around = share == 0
    return _clusters(look[inside], PARTS), _clusters(look[around], GROUNDS)


def likeness(
    look: NDArray[np.float32], positive: NDArray[np.float32], negative: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(h, w): how much each feature resembles the nearest part (cosine), less what it resembles the nearest ground."""
    found = (look @ positive.T).max(2)
    if len(negative):
        found = found - GROUND_WEIGHT * (look @ negative.T).max(2)
    return np.asarray(found, np.float32)


def _unit(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(array / (np.linalg.norm(array, axis=-1, keepdims=True) + 1e-6), np.float32)


def _clusters(rows: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    if len(rows) <= count:
        return np.asarray(rows, np.float32)
    # Farthest-point starts and a few rounds of k-means on unit vectors: the same answer every time.
    chosen = [int((rows @ rows.mean(0)).argmax())]
    nearest = rows @ rows[chosen[0]]
    for _ in range(count - 1):
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, rows @ rows[chosen[-1]])
    centres = rows[chosen]
    for _ in range(8):
        labels = (rows @ centres.T).argmax(1)
        sums = np.zeros_like(centres)
        np.add.at(sums, labels, rows)
        centres = np.where(np.bincount(labels, minlength=count)[:, None] > 0, _unit(sums), centres)
    return np.asarray(centres, np.float32)


def stacked(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Rows of several references together."""
    return np.concatenate(list(arrays)).astype(np.float32)
