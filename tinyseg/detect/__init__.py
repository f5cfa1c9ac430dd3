"""Words to boxes to masks: box sources, which find things by name, before the segmenter draws their masks.

source = tinyseg.detect.open_detector("grounding-dino")       # a folder that export-detector wrote, or a detector.json
named = tinyseg.detect.segment_words(seg, frame, source, "dog. red cup")
"""

from __future__ import annotations

from pathlib import Path

from tinyseg.detect.boxes import Boxes, BoxSource, FunctionSource
from tinyseg.detect.card import open_card
from tinyseg.detect.graph import OnnxDetector
from tinyseg.detect.grounding import GroundingDino
from tinyseg.detect.named import Named, name_boxes, segment_words
from tinyseg.errors import InputError

__all__ = [
    "BoxSource",
    "Boxes",
    "FunctionSource",
    "GroundingDino",
    "Named",
    "OnnxDetector",
    "name_boxes",
    "open_detector",
    "segment_words",
]


def open_detector(
    place: str | Path, engine: str = "auto", threads: int | None = None, threshold: float | None = None
) -> BoxSource:
    """A detector's folder or detector.json on an engine, in fp32. threshold: least score, None for the card's own.

    Raises DataError, ModelError, NotInstalled, EngineError or InputError.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold must lie in [0, 1], but is {threshold!r}")
    card = open_card(place)
    kind = GroundingDino if card.kind == "grounding-dino" else OnnxDetector
    return kind(card, engine, threads, threshold)
