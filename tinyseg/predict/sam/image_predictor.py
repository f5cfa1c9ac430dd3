"""A drop-in for ``sam2.sam2_image_predictor.SAM2ImagePredictor``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_choice, check_flag, shown
from tinyseg.errors import FrameError, InputError, NotReadyError, PromptError
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.sam.model import Sam, as_sam, build_sam
from tinyseg.predict.sam.prompts import sam_answers, sam_prompt
from tinyseg.predict.sam.tensors import HostTensor, as_array, host_tensor
from tinyseg.predict.sam.transforms import sam2_view
from tinyseg.predict.second_look import ZOOM_CHOICES
from tinyseg.predict.segmenter import Segmenter
from tinyseg.prompts import Prompt

# SAM 2 hands out low-resolution logits clamped to this.
LOGIT_LIMIT = 32.0
Answer = tuple["NDArray[np.bool_] | NDArray[np.float32]", NDArray[np.float32], NDArray[np.float32]]


class SAM2ImagePredictor:
    """SAM 2's image predictor on a tinyseg model; signatures, shapes and dtypes are SAM 2's.

    sam_model: from :func:`build_sam2`, :func:`build_sam` or :func:`tinyseg.load`. mask_threshold: the logit above which a
    pixel belongs to a mask. max_hole_area and max_sprinkle_area must stay 0: tinyseg removes specks by its own rule.
    Unlike SAM 2's, a second look is taken at small objects when one object is asked for (zoom="off" switches it off).
    """

    def __init__(
        self,
        sam_model: Sam | Segmenter,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        zoom: str = "auto",
    ) -> None:
        if max_hole_area or max_sprinkle_area:
            raise InputError("max_hole_area and max_sprinkle_area must be 0: tinyseg removes specks by its own rule")
        if (
            isinstance(mask_threshold, bool)
            or not isinstance(mask_threshold, (int, float))
            or not math.isfinite(mask_threshold)
        ):
            raise InputError(f"mask_threshold must be a finite number, a logit, but is {shown(mask_threshold)}")
        self.model = as_sam(sam_model)
        self.mask_threshold = mask_threshold
        self.zoom = check_choice("zoom", zoom, ZOOM_CHOICES)
        self._embeddings: list[Embedding] = []
        self._is_batch = False

    @classmethod
    def from_pretrained(cls, model_id: str) -> SAM2ImagePredictor:
        """A predictor for a packaged model's name, or a tinyseg model folder or zip; no hub is asked. Raises ModelError."""
        return cls(build_sam(model_id))

    @property
    def device(self) -> Any:
        return self.model.device

    def set_image(self, image: Any) -> None:
        """Encode one image: (H, W, 3) uint8 RGB, or a ``PIL.Image``. Raises FrameError."""
        self.reset_predictor()
        self._embeddings = [self._embed(image)]

    def set_image_batch(self, image_list: Sequence[Any]) -> None:
        """Encode several images, as :meth:`set_image` takes them, for :meth:`predict_batch`. Raises FrameError."""
        if not isinstance(image_list, (list, tuple)) or not image_list:
            raise FrameError("set_image_batch takes a list of at least one image")
        self.reset_predictor()
        self._embeddings = [self._embed(image) for image in image_list]
        self._is_batch = True

    def reset_predictor(self) -> None:
        """Forget the images."""
        self._embeddings = []
        self._is_batch = False

    def get_image_embedding(self) -> HostTensor:
        """The embedding (1, C, h, w) float32 of the image that is set. Raises NotReadyError."""
        return host_tensor(np.asarray(self._single().features["embedding"]))

    def predict(
        self,
        point_coords: NDArray[np.floating] | None = None,
        point_labels: NDArray[np.integer] | None = None,
        box: NDArray[np.floating] | None = None,
        mask_input: NDArray[np.floating] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> Answer:
        """Masks for one object or B objects of the image that is set.

        point_coords: (N, 2) or (B, N, 2) x, y in pixels, in [0, 1] without normalize_coords; points outside count at the
        edge. point_labels: (N,) or (B, N) as in :meth:`SamPredictor.predict`. box: (4,) or (B, 4). mask_input: (1, 256, 256)
        or (B, 1, 256, 256). Returns masks bool or float32 logits, predicted IoU and logits clamped to +-32: (K, H, W), (K,)
        and (K, 256, 256) for one object, with a leading B for several. Raises PromptError or NotReadyError.
        """
        return self._predict(
            self._single(),
            point_coords,
            point_labels,
            box,
            mask_input,
            multimask_output,
            return_logits,
            normalize_coords,
        )

    def predict_batch(
        self,
        point_coords_batch: Sequence[Any] | None = None,
        point_labels_batch: Sequence[Any] | None = None,
        box_batch: Sequence[Any] | None = None,
        mask_input_batch: Sequence[Any] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[Any], list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """:meth:`predict` for every image of the batch: lists with an entry an image in, lists out. Raises as it does."""
        if not self._is_batch:
            raise NotReadyError("no batch of images is set; call set_image_batch([image, ...]) first")
        parts = (point_coords_batch, point_labels_batch, box_batch, mask_input_batch)
        for given in parts:
            if given is not None and len(given) != len(self._embeddings):
                raise PromptError(f"there are {len(self._embeddings)} images, but prompts for {len(given)}")
        found = []
        for i, embedding in enumerate(self._embeddings):
            points, labels, box, mask = (None if p is None else p[i] for p in parts)
            found.append(
                self._predict(embedding, points, labels, box, mask, multimask_output, return_logits, normalize_coords)
            )
        return [f[0] for f in found], [f[1] for f in found], [f[2] for f in found]

    def _predict(
        self,
        embedding: Embedding,
        points: Any,
        labels: Any,
        box: Any,
        mask_input: Any,
        multimask: bool,
        return_logits: bool,
        normalize_coords: bool,
    ) -> Answer:
        frame = embedding.geometry
        view = sam2_view(frame)
        prompts = self._prompts(embedding, points, labels, box, mask_input, normalize_coords)
        # Many objects are answered in one engine call; a second look would be an encoder run for each.
        zoom = self.zoom if len(prompts) == 1 else "off"
        found = sam_answers(
            embedding,
            prompts,
            check_flag("multimask_output", multimask),
            zoom,
            self.mask_threshold,
            check_flag("return_logits", return_logits),
            view,
        )
        low = [np.clip(a.low, -LOGIT_LIMIT, LOGIT_LIMIT) for a in found]
        if len(found) == 1:
            return found[0].masks, found[0].scores, low[0]
        masks: Any = np.stack([a.masks for a in found])
        return masks, np.stack([a.scores for a in found]), np.stack(low)

    def _prompts(
        self, embedding: Embedding, points: Any, labels: Any, box: Any, mask_input: Any, normalize_coords: bool
    ) -> list[Prompt]:
        frame = embedding.geometry
        unit = np.ones(2) if normalize_coords else np.array([frame.frame_width, frame.frame_height], np.float64)
        parts: list[NDArray[Any] | None] = []
        shapes = (
            ("point_coords", points, 3),
            ("point_labels", labels, 2),
            ("box", box, 2),
            ("mask_input", mask_input, 4),
        )
        for name, value, rank in shapes:
            array = None if value is None else as_array(value, name)
            if array is not None and array.ndim == rank - 1:
                array = array[None]
            if array is not None and (array.ndim != rank or not len(array)):
                raise PromptError(
                    f"{name} must have {rank - 1} dimensions, {rank} for several objects, but has {array.shape}"
                )
            parts.append(array)
        counts = {len(p) for p in parts if p is not None}
        if len(counts) > 1:
            raise PromptError(f"all parts of a prompt must be for one number of objects, but are for {sorted(counts)}")
        if not counts:
            raise PromptError("the prompt is empty; give point_coords with point_labels, a box or mask_input")
        view = sam2_view(frame)
        xy, marks, corners, hints = parts
        return [
            sam_prompt(
                None if xy is None else xy[i] * unit if xy[i].shape[-1:] == (2,) else xy[i],
                None if marks is None else marks[i],
                None
                if corners is None
                else (corners[i].reshape(-1, 2) * unit).ravel()
                if corners[i].size == 4
                else corners[i],
                None if hints is None else hints[i],
                frame,
                view,
            )
            for i in range(counts.pop())
        ]

    def _embed(self, image: Any) -> Embedding:
        pixels = np.asarray(image.convert("RGB")) if hasattr(image, "convert") else image
        return self.model.segmenter.embed(pixels, color="rgb")

    def _single(self) -> Embedding:
        if self._is_batch:
            raise NotReadyError("a batch of images is set; call predict_batch, or set_image(image) for a single one")
        if not self._embeddings:
            raise NotReadyError("no image is set; call set_image(image) first")
        return self._embeddings[0]
