"""A drop-in for samexporter's ``samexporter.sam_onnx.SegmentAnythingONNX``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import ModelError, PromptError
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.load import load
from tinyseg.predict.sam.prompts import sam_prompt
from tinyseg.predict.sam.transforms import sam_view
from tinyseg.predict.segmenter import Segmenter
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import LABEL_BOX_BOTTOM_RIGHT, LABEL_BOX_TOP_LEFT

MARKS = {"point": 2, "rectangle": 4}  # numbers in "data"


class SegmentAnythingONNX:
    """samexporter's model on tinyseg: ``encode`` an image once, ``predict_masks`` for lists of marks.

    encoder_model_path and decoder_model_path: the two graphs of one tinyseg model folder; without them the packaged
    model. model: a segmenter to run instead. SAM's exported graphs do not run here. Raises ModelError.
    """

    def __init__(
        self,
        encoder_model_path: str | Path | None = None,
        decoder_model_path: str | Path | None = None,
        model: Segmenter | None = None,
    ) -> None:
        if model is not None and (encoder_model_path is not None or decoder_model_path is not None):
            raise ModelError("the model was given twice; give model, or the paths of its two graphs")
        self.segmenter = load(_folder(encoder_model_path, decoder_model_path)) if model is None else model

    def encode(self, cv_image: NDArray[np.uint8]) -> dict[str, Any]:
        """Encode a (H, W, 3) uint8 BGR image.

        Returns a dict for :meth:`predict_masks`: "image_embedding" (a :class:`tinyseg.Embedding`) and "original_size" (H, W).
        Raises FrameError.
        """
        embedding = self.segmenter.embed(cv_image, color="bgr")
        return {"image_embedding": embedding, "original_size": cv_image.shape[:2]}

    def predict_masks(self, embedding: Mapping[str, Any], prompt: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
        """Logits (1, 1, H, W) float32 in the image's pixels for one object; its mask is where they are above 0.

        embedding: what :meth:`encode` returned. prompt: marks {"type": "point", "data": [x, y], "label": 1 or 0} and at
        most one {"type": "rectangle", "data": [x0, y0, x1, y1]}. Raises PromptError.
        """
        encoded = embedding.get("image_embedding") if isinstance(embedding, Mapping) else None
        if not isinstance(encoded, Embedding):
            raise PromptError("embedding must be what encode(image) returned")
        asked = _prompt(prompt, encoded)
        out = encoded.predict(asked.points, asked.labels, asked.box, multimask=False)
        return encoded.logits_in_frame(out.logits)[None]


def _folder(encoder: str | Path | None, decoder: str | Path | None) -> Path | None:
    """The model folder that holds both graphs, None for neither. Raises ModelError."""
    if encoder is None and decoder is None:
        return None
    folders = {Path(p).parent for p in (encoder, decoder) if p is not None}
    if encoder is None or decoder is None or len(folders) > 1:
        raise ModelError("give both graphs of one tinyseg model folder, or neither for the packaged model")
    folder = folders.pop()
    if not (folder / "model.json").is_file():
        raise ModelError(
            f"{folder} is no tinyseg model folder (there is no model.json); graphs that samexporter wrote for SAM do not run "
            "here: leave both paths out for the packaged model"
        )
    return folder


def _prompt(marks: Sequence[Mapping[str, Any]], embedding: Embedding) -> Prompt:
    points: list[list[float]] = []
    labels: list[float] = []
    for i, mark in enumerate(marks):
        kind, data = mark.get("type"), mark.get("data")
        if kind not in MARKS or not isinstance(data, (list, tuple, np.ndarray)) or len(data) != MARKS[kind]:
            raise PromptError(
                f"mark {i} must be {{'type': 'point', 'data': [x, y], 'label': 0 or 1}} or {{'type': 'rectangle', 'data': "
                f"[x0, y0, x1, y1]}}, but is {dict(mark)!r:.120}"
            )
        if kind == "point":
            points.append([data[0], data[1]])
            labels.append(mark.get("label", 1))
        else:
            points += [[data[0], data[1]], [data[2], data[3]]]
            labels += [LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT]
    if not points:
        raise PromptError("the prompt is empty; give at least one point or rectangle")
    return sam_prompt(points, labels, None, None, embedding.geometry, sam_view(embedding.geometry))
