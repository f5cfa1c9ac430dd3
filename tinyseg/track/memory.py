"""What an object looked like: a bounded memory of features on it and around it, and how a new frame is read against it.

Training-free label propagation (CRW, arXiv 2006.14613; DINO, arXiv 2104.14294) on the encoder's own embedding. Their
softmax over remembered cells lets the larger class win, so objects shrink; the difference of the two best matches does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinyseg.geometry import LOGIT_STRIDE, Letterbox
from tinyseg.predict.network import Features

Keys = NDArray[np.float32]

CELL = 16  # model pixels a side of an embedding's cell
CELL_LOGITS = CELL // LOGIT_STRIDE
FOREGROUND, BACKGROUND = 0.7, 0.3  # share of a cell that the mask covers
FEW_CELLS, PARTIAL = 8, 0.35  # with fewer full cells in a prompted frame, partly covered ones stand for the object too
TEMPERATURE = 0.05  # cosine difference that is one logit
READ_LIMIT = 6.0
# Ground that was never seen is ground all the same: a cell that is no more alike to the object than this cosine counts as
# such. Without it masks leak into ground that comes into view.
UNSEEN_GROUND = 0.6

RECENT_EVERY = 5  # frames between two that stay for a while
RECENT_KEPT = 2  # of these; the last frame is kept besides
PROMPTED_KEPT = 4  # prompted frames: the first one for ever, and the newest
LEAST_DEVIATION = np.float32(1e-6)  # of a feature, so that it can be divided by


@dataclass(frozen=True)
class Cells:
    """A view's embedding by cells. raw: (rows * columns, C). inside: (rows * columns,) bool, False for padding."""

    raw: NDArray[np.float32]
    inside: NDArray[np.bool_]
    rows: int
    columns: int


def view_cells(features: Features, view: Letterbox) -> Cells:
    """The embedding of a view, copied out of the encoder's output."""
    embedding = np.asarray(features["embedding"])[0]
    channels, rows, columns = embedding.shape
    raw = np.ascontiguousarray(embedding.reshape(channels, -1).T)
    # Cells whose middle has content, and the first ones at any rate: a crop of a very wide frame may be thinner than half a cell.
    across = np.arange(columns) * CELL + CELL / 2 <= max(view.content[0], CELL / 2)
    down = np.arange(rows) * CELL + CELL / 2 <= max(view.content[1], CELL / 2)
    return Cells(raw, (down[:, None] & across[None]).ravel(), rows, columns)


def coverage(inside: NDArray[np.float32], view: Letterbox) -> NDArray[np.float32]:
    """Share of the object on a view's logit grid (h, w), in [0, 1] -> share of each cell, (h / 4 * w / 4,).

    Of content thinner than half a cell, which could never cover one, the share of what the content covers.
    """
    if min(view.content) >= CELL / 2:
        return _cell_means(inside)
    columns, rows = (max(1, round(side / LOGIT_STRIDE)) for side in view.content)
    content = np.zeros_like(inside)
    content[:rows, :columns] = 1
    means = _cell_means(inside * content) / np.maximum(_cell_means(content), np.float32(1e-6))
    return np.asarray(means, np.float32)


def _cell_means(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = grid.shape[0] // CELL_LOGITS, grid.shape[1] // CELL_LOGITS
    means: NDArray[np.float32] = grid.reshape(rows, CELL_LOGITS, columns, CELL_LOGITS).mean((1, 3))
    return means.ravel()


@dataclass(frozen=True)
class Snapshot:
    """Keys (n, C) on and around the object in one frame, L2-normalised. frame: the tracker's count when it was taken."""

    frame: int
    foreground: Keys
    background: Keys

    @property
    def nbytes(self) -> int:
        return self.foreground.nbytes + self.background.nbytes

    def likeness(self, one: NDArray[np.float32]) -> float:
        """How much rather a mean key (C,) is this object's than its background's: a difference of cosines, -2 to 2."""
        on = _direction(self.foreground.mean(0))
        # Keys are centred: without a background, the object's opposite stands for it.
        off = _direction(self.background.mean(0)) if len(self.background) else -on
        return float(one @ on - one @ off)


@dataclass(frozen=True)
class Matches:
    """Best cosines of a view's cells (n,) with what is remembered; -1 where nothing is.

    on, off: with the object and with its ground in prompted frames, which no error of ours has touched. recent_on,
    recent_off: the same in recent frames.
    """

    on: NDArray[np.float32]
    off: NDArray[np.float32]
    recent_on: NDArray[np.float32]
    recent_off: NDArray[np.float32]

    @property
    def all(self) -> NDArray[np.float32]:
        """Cosine with the object minus cosine with the ground, (n,), against everything remembered."""
        ground = np.maximum(np.maximum(self.off, self.recent_off), UNSEEN_GROUND)
        return np.asarray(np.maximum(self.on, self.recent_on) - ground, np.float32)

    @property
    def prompted(self) -> NDArray[np.float32]:
        """The same against prompted frames alone, (n,)."""
        return np.asarray(self.on - np.maximum(self.off, UNSEEN_GROUND), np.float32)


@dataclass
class Memory:
    """An object's snapshots.

    mean, deviation: (C,) of the first view, by which all embeddings are standardised. prompted: frames that the caller
    spoke about; the first stays for ever. recent: every fifth frame, the two newest. last: the frame before.
    At most 4 + 2 + 1 snapshots, each of at most 400 cells of 128 float32: 1.4 MiB for an object.
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    prompted: list[Snapshot] = field(default_factory=list)
    recent: list[Snapshot] = field(default_factory=list)
    last: Snapshot | None = None

    @classmethod
    def of_first(cls, cells: Cells) -> Memory:
        """An empty memory that standardises by this view."""
        seen = cells.raw[cells.inside]
        return cls(seen.mean(0), seen.std(0) + LEAST_DEVIATION)

    @property
    def nbytes(self) -> int:
        """Bytes of all keys."""
        return sum(s.nbytes for s in self.snapshots)

    @property
    def snapshots(self) -> list[Snapshot]:
        return [*self.prompted, *self.recent, *([self.last] if self.last else [])]

    def keys(self, cells: Cells) -> Keys:
        """(n, C) keys of a view's cells."""
        keys = (cells.raw - self.mean) / self.deviation
        return np.asarray(keys / np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), 1e-6), np.float32)

    def read(self, keys: Keys) -> Matches:
        """How a view's cells match what is remembered."""
        recent = [*self.recent, *([self.last] if self.last else [])]
        return Matches(
            _best(keys, [s.foreground for s in self.prompted]), _best(keys, [s.background for s in self.prompted]),
            _best(keys, [s.foreground for s in recent]), _best(keys, [s.background for s in recent]),
        )  # fmt: skip

    def likeness(self, keys: Keys, share: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
        """Likeness of what lies under a mask to the object in prompted frames, -2 to 2: the best of them.

        share: (n,) of each cell that the mask covers. The mean key under the mask told present from absent
        objects better than means or best parts of the cells' own margins.
        """
        weight = np.where(inside & (share > BACKGROUND), share, np.float32(0))
        if not weight.any():
            weight = np.where(inside, share, np.float32(0))
        if not weight.any():
            return -2.0
        mean = _direction(weight @ keys)
        return max(s.likeness(mean) for s in self.prompted)

    def learn_prompted(self, frame: int, keys: Keys, share: NDArray[np.float32], inside: NDArray[np.bool_]) -> None:
        """Keep a frame in which the caller said where the object is; an earlier one of the same frame goes.

        share: (n,) of each cell that the object covers.
        """
        if not share[inside].any():  # it lies in the last sliver of the frame, in cells that are mostly padding
            inside = inside | (share > 0)
        on = inside & (share > FOREGROUND)
        if np.count_nonzero(on) < FEW_CELLS:  # small, or in many thin parts
            on = inside & (share > PARTIAL)
        if not on.any():  # smaller than a cell
            on = inside & (share >= share[inside].max())
        snapshot = Snapshot(frame, keys[on], keys[inside & (share < BACKGROUND)])
        if self.prompted and self.prompted[-1].frame == frame:
            self.prompted[-1] = snapshot
        else:
            self.prompted.append(snapshot)
        if len(self.prompted) > PROMPTED_KEPT:
            del self.prompted[1]

    def learn(
        self, frame: int, keys: Keys, share: NDArray[np.float32], inside: NDArray[np.bool_], own: NDArray[np.float32]
    ) -> None:
        """Keep a tracked frame, only cells where prompted frames agree. own: (n,) ``prompted`` of :meth:`read`."""
        on, off = inside & (share > FOREGROUND) & (own > 0), inside & (share < BACKGROUND) & (own < 0)
        if self.last is not None and self.last.frame % RECENT_EVERY == 0:
            self.recent.append(self.last)
            del self.recent[:-RECENT_KEPT]
        self.last = Snapshot(frame, keys[on], keys[off])

    def forget_recent(self) -> None:
        """Keep prompted frames only: what was seen lately may have been something else, or lies in another scene."""
        self.recent, self.last = [], None


def _direction(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float32)


def _best(keys: Keys, remembered: Sequence[Keys]) -> NDArray[np.float32]:
    """(n,) highest cosine of each key with remembered ones; -1 if there are none."""
    some = [r for r in remembered if len(r)]
    if not some:
        return np.full(len(keys), -1.0, np.float32)
    return np.asarray((keys @ np.concatenate(some).T).max(1), np.float32)
