"""COCO's run lengths: a mask read column by column, the first run being zeros, as text (pycocotools' ``maskApi.c``)."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import shown
from tinyseg.errors import DataError

MOST_PIXELS = 1 << 30  # of a mask that a file states: more is none


class CocoRle(TypedDict):
    """A mask as COCO's compressed run-length encoding, which pycocotools reads."""

    size: list[int]  # [height, width]
    counts: str


def encode_rle(mask: NDArray[np.bool_]) -> CocoRle:
    """COCO's compressed RLE of a (H, W) mask (the format of pycocotools' ``maskApi.c``)."""
    height, width = mask.shape
    flat = np.ascontiguousarray(mask.T).ravel()  # column by column
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(edges).tolist()
    if flat.size and flat[0]:  # the first run counts zeros
        runs.insert(0, 0)
    return {"size": [height, width], "counts": compress_runs(runs)}


def compress_runs(runs: list[int]) -> str:
    """Lengths of runs, the first of zeros -> the text that COCO stores (pycocotools' ``rleToString``)."""
    text = bytearray()
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            text.append((bits | 0x20 if more else bits) + 48)
    return text.decode("ascii")


def decode_rle(rle: Any) -> NDArray[np.bool_]:
    """COCO's RLE, compressed (text) or not (a list of runs), as a (H, W) bool mask.

    It may be a stranger's: raises DataError where size and runs do not belong together.
    """
    try:
        height, width = rle["size"]
        counts = rle["counts"]
        if isinstance(counts, (str, bytes)):
            runs = np.array(_expanded(counts.encode("ascii") if isinstance(counts, str) else counts), np.int64)
        else:
            runs = np.asarray(counts, np.int64).reshape(-1)
        if type(height) is not int or type(width) is not int or height < 1 or width < 1 or height * width > MOST_PIXELS:
            raise ValueError(f"a size of {shown(rle['size'])}")
        if (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
            raise ValueError(f"runs of {runs.sum()} pixels for {height} x {width}")
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise DataError(f"no run lengths of a mask ({exc}): expected {{'size': [H, W], 'counts': ...}}") from exc
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.asarray(flat.reshape(width, height).T, np.bool_)


def _expanded(text: bytes) -> list[int]:
    """The runs of COCO's text (pycocotools' ``rleFrString``). Raises ValueError where the last one lacks its end."""
    runs: list[int] = []
    value = shift = 0
    for char in text:
        bits = char - 48
        if not 0 <= bits < 64 or shift > 35:
            raise ValueError("characters that encode no run")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("a run that is cut off")
    return runs
