"""From boxes to masks: every box is a prompt, all of them in as few decoder calls as possible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyseg.detect.boxes import Boxes, BoxSource
from tinyseg.masks import Masks
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.segmenter import Segmenter
from tinyseg.prompts import Prompt
from tinyseg.prompts.text import phrases


@dataclass(frozen=True)
class Named:
    """What words found in a frame: for every box one mask (``answers[i]``, K = 1), the surest box first."""

    boxes: Boxes
    answers: tuple[Masks, ...]

    def __len__(self) -> int:
        return len(self.answers)


def name_boxes(emb: Embedding, boxes: Boxes, zoom: str = "off") -> Named:
    """The masks of boxes of an embedded frame. zoom as in ``predict_batch``. Raises PromptError."""
    if not len(boxes):
        return Named(boxes, ())
    prompts = [Prompt(box=box) for box in boxes.xyxy.astype(np.float64)]
    return Named(boxes, tuple(emb.predict_batch(prompts, multimask=False, zoom=zoom)))


def segment_words(
    seg: Segmenter, frame: NDArray[np.uint8], source: BoxSource, text: str = "", zoom: str = "off"
) -> Named:
    """Masks of what a text names in a frame (H, W, 3) BGR; without text of everything that the source knows.

    Raises PromptError, FrameError, and what the source raises.
    """
    boxes = source.find(frame, phrases(text) if text else ())
    return name_boxes(seg.embed(frame), boxes, zoom)
