"""The gate that a detector's built engine passes before it is used: its boxes against the graph's on ONNX Runtime in fp32.

The three photographs that ship with tinyseg are looked at by both. Detectors order their rows by score, and two nearly equal
ones may change places, so rows are found by their boxes and not by their number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tinyseg.engines import CompiledGraph
from tinyseg.errors import ParityError
from tinyseg.graphs.probes import PHOTOGRAPHS, PROMPTS
from tinyseg.images import read_image

Arrays = Mapping[str, NDArray[np.float32]]
# Outputs of a run -> (N, 4) corners in pixels of the input and (N,) scores in [0, 1].
ReadRows = Callable[[Arrays], tuple[NDArray[np.float32], NDArray[np.float32]]]

SUREST = 30  # rows of a photograph that are compared
MOST_APART = 0.01  # of a box's corners, as a share of the input's longer side, and of its score
LEAST_SHARE = 0.95  # of the rows compared


def require_parity(
    reference: CompiledGraph, candidate: CompiledGraph, feeds: Callable[[NDArray[np.uint8]], Arrays], rows: ReadRows,
    side: int, what: str,
) -> None:  # fmt: skip
    """Raises ParityError where a compiled detector finds other boxes than its reference.

    feeds: a photograph (H, W, 3) BGR -> the graph's inputs. side: the input's longer side. what: the engine, for the message.
    """
    compared = kept = 0
    for name in PROMPTS:
        given = feeds(read_image(PHOTOGRAPHS / name))
        boxes, scores = rows(reference.run(given))
        found, sure = rows(candidate.run(given))
        for i in np.argsort(-scores, kind="stable")[:SUREST]:
            compared += 1
            near = (np.abs(found - boxes[i]).max(1) <= MOST_APART * side) & (np.abs(sure - scores[i]) <= MOST_APART)
            kept += bool(near.any())
        if not len(scores) and len(sure):
            compared += len(sure)
    if kept < LEAST_SHARE * compared:
        raise ParityError(
            f"the detector {what} finds {kept} of {compared} boxes that its graph finds on ONNX Runtime in fp32; run it there: "
            "engine='onnxruntime', or --engine onnxruntime"
        )
