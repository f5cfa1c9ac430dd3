"""What finds boxes: a small protocol, and Python functions as sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import shown
from tinyseg.errors import InputError, PromptError


@dataclass(frozen=True)
class Boxes:
    """N boxes of one frame. xyxy: (N, 4) float32 edges in pixels of the frame, inside of it. scores: (N,) in [0, 1]."""

    xyxy: NDArray[np.float32]
    labels: tuple[str, ...]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)


class BoxSource(Protocol):
    """Anything that finds boxes in a frame."""

    def find(self, frame: NDArray[np.uint8], words: Sequence[str] = ()) -> Boxes:
        """Boxes of a frame (H, W, 3) BGR, the surest first. words: what to look for; none: whatever the source knows.

        Raises PromptError for words that it cannot look for, and InputError or EngineError.
        """
        ...


def checked_boxes(xyxy: Any, labels: Any, scores: Any, frame: NDArray[np.uint8]) -> Boxes:
    """Boxes as a detector gave them: cut to the frame, those without area or with NaN left out, the surest first.

    Raises InputError where the arrays do not belong together.
    """
    try:
        corners = np.asarray(xyxy, np.float32).reshape(-1, 4)
        certain = np.asarray(scores, np.float32).reshape(-1)
        names = tuple(str(label) for label in labels)
    except (TypeError, ValueError) as exc:
        raise InputError(
            f"boxes must be (N, 4) numbers with N labels and N scores, but are {shown(xyxy)} ({exc})"
        ) from exc
    if not len(corners) == len(certain) == len(names):
        raise InputError(
            f"there are {len(corners)} boxes, {len(names)} labels and {len(certain)} scores; one each is needed"
        )
    height, width = frame.shape[:2]
    finite = np.isfinite(corners).all(1) & np.isfinite(certain)
    corners = np.clip(np.where(finite[:, None], corners, 0), 0, np.array([width, height, width, height], np.float32))
    kept = finite & (corners[:, 2] - corners[:, 0] > 0.5) & (corners[:, 3] - corners[:, 1] > 0.5)
    order = np.array([i for i in np.argsort(-certain, kind="stable") if kept[i]], np.intp)
    return Boxes(corners[order], tuple(names[i] for i in order), np.clip(certain[order], 0, 1))


class FunctionSource:
    """A Python function as a source: frame (H, W, 3) BGR -> (xyxy, labels, scores), or ``supervision.Detections``."""

    def __init__(self, function: Callable[[NDArray[np.uint8]], Any]) -> None:
        self._function = function

    def find(self, frame: NDArray[np.uint8], words: Sequence[str] = ()) -> Boxes:
        given = self._function(frame)
        if hasattr(given, "xyxy") and hasattr(given, "confidence"):
            xyxy, labels, scores = from_supervision(given)
        elif isinstance(given, tuple) and len(given) == 3:
            xyxy, labels, scores = given
        else:
            raise InputError(
                f"a box source must return (xyxy, labels, scores) or supervision.Detections, but gave {shown(given)}"
            )
        return only(checked_boxes(xyxy, labels, scores, frame), words)


def from_supervision(detections: Any) -> tuple[Any, list[str], Any]:
    """``supervision.Detections`` -> (xyxy, labels, scores); names are ``data["class_name"]``, else the class numbers."""
    count = len(detections.xyxy)
    names = detections.data.get("class_name") if getattr(detections, "data", None) else None
    if names is None:
        names = ["object"] * count if detections.class_id is None else [str(i) for i in detections.class_id]
    scores = np.ones(count, np.float32) if detections.confidence is None else detections.confidence
    return detections.xyxy, [str(n) for n in names], scores


def only(boxes: Boxes, words: Sequence[str]) -> Boxes:
    """The boxes whose label is one of the words, all of them without words."""
    if not words:
        return boxes
    wanted = {w.lower() for w in words}
    kept = [i for i, label in enumerate(boxes.labels) if label.lower() in wanted]
    return Boxes(boxes.xyxy[kept], tuple(boxes.labels[i] for i in kept), boxes.scores[kept])


def require_known(words: Sequence[str], labels: Sequence[str]) -> None:
    """Raises PromptError where a detector of fixed classes is asked for another one."""
    known = {label.lower() for label in labels}
    unknown = [w for w in words if w.lower() not in known]
    if unknown:
        some = ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
        raise PromptError(
            f"this detector does not know {', '.join(map(shown, unknown))}; it knows {some}. Grounding DINO takes any words"
        )
