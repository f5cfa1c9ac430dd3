"""Images and batches of prompts that come as torch tensors; torch itself is handed in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import FrameError, PromptError
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.sam.prompts import sam_answers, sam_prompt
from tinyseg.predict.sam.tensors import as_array
from tinyseg.predict.sam.transforms import SAM_GRID, ResizeLongestSide, resize, sam_view
from tinyseg.predict.segmenter import Segmenter


def torch_image(tensor: Any) -> NDArray[np.uint8]:
    """A tensor (1, 3, h, w) or (3, h, w), RGB in [0, 255] -> (h, w, 3) uint8. Raises FrameError."""
    array = as_array(tensor, "the image")
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim != 3 or array.shape[0] != 3 or 0 in array.shape:
        raise FrameError(f"the image must be a tensor (1, 3, h, w), but has shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FrameError("the image contains NaN or infinity")
    pixels: NDArray[np.uint8] = np.clip(np.round(array.transpose(1, 2, 0)), 0, 255).astype(np.uint8)
    return pixels


def embed_transformed(segmenter: Segmenter, pixels: NDArray[np.uint8], original_size: tuple[int, ...]) -> Embedding:
    """Encode a scaled RGB image as the frame (H, W) that it was made from, so that masks lie in that frame's pixels."""
    height, width = int(original_size[0]), int(original_size[1])
    scaled = ResizeLongestSide.get_preprocess_shape(height, width, max(pixels.shape[:2]))
    if max(abs(a - b) for a, b in zip(scaled, pixels.shape)) > 1:
        raise FrameError(
            f"an image of {width} x {height} pixels scales to {scaled[1]} x {scaled[0]}, but the tensor is "
            f"{pixels.shape[1]} x {pixels.shape[0]}; original sizes are (height, width)"
        )
    return segmenter.embed(resize(pixels, width, height), color="rgb")


def answer_torch(
    torch: Any,
    device: Any,
    mask_threshold: float,
    embedding: Embedding,
    transform: ResizeLongestSide,
    point_coords: Any,
    point_labels: Any,
    boxes: Any,
    mask_input: Any,
    multimask: bool,
    return_logits: bool,
) -> tuple[Any, Any, Any]:
    """B prompts in the frame of ``transform``, as :meth:`SamPredictor.predict_torch` describes them -> three tensors
    on ``device``."""
    frame = embedding.geometry
    view = sam_view(frame)
    parts = {
        name: as_array(value, name)
        for name, value in (
            ("point_coords", point_coords), ("point_labels", point_labels), ("boxes", boxes), ("mask_input", mask_input)
        )
        if value is not None
    }  # fmt: skip
    if not parts:
        raise PromptError("the prompt is empty; give point_coords with point_labels, boxes or mask_input")
    if len({len(a) for a in parts.values()}) > 1:
        sizes = ", ".join(f"{name} {a.shape}" for name, a in parts.items())
        raise PromptError(f"all parts of a batch must have one first dimension, a prompt each, but there are {sizes}")
    unit = transform.apply_coords(np.ones((1, 2)), (frame.frame_height, frame.frame_width))
    prompts = []
    for i in range(len(next(iter(parts.values())))):
        points, box = parts.get("point_coords"), parts.get("boxes")
        prompts.append(
            sam_prompt(
                None if points is None else points[i] / unit if points[i].shape[-1:] == (2,) else points[i],
                parts["point_labels"][i] if "point_labels" in parts else None,
                None if box is None else (box[i].reshape(-1, 2) / unit).ravel() if box[i].size == 4 else box[i],
                parts["mask_input"][i] if "mask_input" in parts else None,
                frame,
                view,
            )
        )
    found = sam_answers(embedding, prompts, multimask, "off", mask_threshold, return_logits, view)
    count = 3 if multimask else 1
    shapes = (count, frame.frame_height, frame.frame_width), (count,), (count, SAM_GRID, SAM_GRID)
    if not found:
        return tuple(torch.zeros((0, *shape), device=device) for shape in shapes)
    stacked = (
        np.stack([a.masks for a in found]),
        np.stack([a.scores for a in found]),
        np.stack([a.low for a in found]),
    )
    masks, scores, low = (torch.from_numpy(array) for array in stacked)
    return masks.to(device), scores.to(device), low.to(device)
