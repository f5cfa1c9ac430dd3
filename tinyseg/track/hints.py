"""What the tracker tells a decoder of an object: where its features match, where it was before, and maybe a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.geometry import LOGIT_STRIDE, Letterbox
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import LABEL_PADDING, decoder_inputs
from tinyseg.track.memory import CELL_LOGITS, READ_LIMIT, TEMPERATURE, UNSEEN_GROUND, Cells, Matches

LEAST_PART = 0.15  # of the read-out's largest part: smaller ones do not widen the box
BOX_MARGIN = 0.03  # of the read-out's box, on every side
MATCHES = 4  # maps of best cosines, as Matches has them
MATCH_SPREAD = 0.2  # cosines that are one unit of a map; zero is where unseen ground begins
MATCH_RANGE = -3.0, 2.0


@dataclass(frozen=True)
class Hint:
    """Of one object in one view.

    read_out: (h, w) logits, where the memory says it is. last: (h, w) logits of the frame before on this view's grid, None if
    there are none. matches, cells: how the view's cells match the memory. box: around the read-out, (x0, y0, x1, y1) in frame
    pixels; None if there is none, or nobody vouches for it.
    """

    read_out: NDArray[np.float32]
    last: NDArray[np.float32] | None
    matches: Matches
    cells: Cells
    box: NDArray[np.float64] | None = None


def make_hint(matches: Matches, cells: Cells, last: NDArray[np.float32] | None) -> Hint:
    """What is told, without a box, of an object whose memory matches a view's cells like this. last: as in Hint."""
    return Hint(read_out(matches.all, cells), last, matches, cells)


def with_box(hint: Hint, view: Letterbox) -> Hint:
    """The same with its read-out's box."""
    return replace(hint, box=hint_box(hint.read_out, view))


def read_out(margins: NDArray[np.float32], cells: Cells) -> NDArray[np.float32]:
    """Margins of a view's cells (n,) -> logits (h, w) on its grid, as the decoder takes them for a hint."""
    logits = np.clip(margins / TEMPERATURE, -READ_LIMIT, READ_LIMIT)
    logits[~cells.inside] = -READ_LIMIT
    grid = logits.reshape(cells.rows, cells.columns).astype(np.float32)
    size = cells.columns * CELL_LOGITS, cells.rows * CELL_LOGITS
    return np.asarray(cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR), np.float32)


def match_maps(matches: Matches, cells: Cells) -> NDArray[np.float32]:
    """(4, rows, columns): the best cosines themselves, centred and scaled; padding matches nothing."""
    maps = np.stack([matches.on, matches.off, matches.recent_on, matches.recent_off])
    maps = np.clip((maps - UNSEEN_GROUND) / MATCH_SPREAD, *MATCH_RANGE)
    maps[:, ~cells.inside] = MATCH_RANGE[0]
    return np.ascontiguousarray(maps.reshape(MATCHES, cells.rows, cells.columns), np.float32)


def hint_box(hint: NDArray[np.float32], view: Letterbox) -> NDArray[np.float64] | None:
    """The box (x0, y0, x1, y1), in frame pixels, of a hint's larger parts and a margin; None if it is empty."""
    count, _, stats, _ = cv2.connectedComponentsWithStats((hint > 0).astype(np.uint8), connectivity=8)
    if count < 2:
        return None
    parts = stats[1:][stats[1:, cv2.CC_STAT_AREA] >= LEAST_PART * stats[1:, cv2.CC_STAT_AREA].max()]
    low = parts[:, :2].min(0).astype(np.float64)
    high = (parts[:, :2] + parts[:, 2:4]).max(0).astype(np.float64)
    margin = BOX_MARGIN * (high - low)
    corners = np.concatenate([low - margin, high + margin]) * LOGIT_STRIDE
    box = np.asarray(view.boxes_to_frame(corners), np.float64)
    x0, y0, x1, y1 = view.region
    return np.clip(box, (x0, y0, x0, y0), (x1, y1, x1, y1))


def lay_out_hints(hints: Sequence[Hint], view: Letterbox, batch: int, slots: int) -> dict[str, NDArray[np.float32]]:
    """The tracking decoder's inputs beside the features, padded to (batch, slots): points, labels, mask, last, memory."""
    rows, columns = view.grid
    feeds = {
        "points": np.zeros((batch, slots, 2), np.float32),
        "labels": np.full((batch, slots), LABEL_PADDING, np.float32),
        "mask": np.zeros((batch, 1, rows, columns), np.float32),
        "last": np.zeros((batch, 1, rows, columns), np.float32),
        "memory": np.zeros((batch, MATCHES, rows // CELL_LOGITS, columns // CELL_LOGITS), np.float32),
    }
    for i, hint in enumerate(hints):
        if hint.box is not None:
            placed = decoder_inputs([Prompt(box=hint.box)], view, view, 1, slots)
            feeds["points"][i], feeds["labels"][i] = placed.points[0], placed.labels[0]
        feeds["mask"][i, 0], feeds["memory"][i] = hint.read_out, match_maps(hint.matches, hint.cells)
        if hint.last is not None:
            feeds["last"][i, 0] = np.clip(hint.last, -READ_LIMIT, READ_LIMIT)
    return feeds
