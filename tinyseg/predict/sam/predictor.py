"""A drop-in for ``segment_anything.SamPredictor``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_choice, check_flag
from tinyseg.errors import FrameError, NotReadyError
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.sam.batches import answer_torch, embed_transformed, torch_image
from tinyseg.predict.sam.model import Sam, as_sam
from tinyseg.predict.sam.prompts import sam_answers, sam_prompt
from tinyseg.predict.sam.tensors import HostTensor, host_tensor, import_torch
from tinyseg.predict.sam.transforms import SAM_SIDE, ResizeLongestSide, sam_view
from tinyseg.predict.second_look import ZOOM_CHOICES
from tinyseg.predict.segmenter import Segmenter


class SamPredictor:
    """SAM's predictor interface on a tinyseg model.

    ``SamPredictor(sam_model_registry["base"]())`` or ``SamPredictor(tinyseg.load())`` stands where ``SamPredictor(sam)``
    stood; signatures, shapes and dtypes are SAM's. Unlike SAM's, a second look is taken at small objects in
    :meth:`predict` (zoom="off" switches it off). transform: :class:`ResizeLongestSide` to 1024 pixels, the coordinate
    frame of :meth:`predict_torch`.
    """

    def __init__(self, sam_model: Sam | Segmenter, zoom: str = "auto") -> None:
        self.model = as_sam(sam_model)
        self.zoom = check_choice("zoom", zoom, ZOOM_CHOICES)
        self.transform = ResizeLongestSide(self.model.image_encoder.img_size)
        self._embedding: Embedding | None = None

    @property
    def is_image_set(self) -> bool:
        return self._embedding is not None

    @property
    def device(self) -> Any:
        """Where :meth:`predict_torch` puts its tensors: what was given to ``sam.to(device)``, else "cpu"."""
        return self.model.device

    @property
    def mask_threshold(self) -> float:
        """The logit above which a pixel belongs to a mask; set it on the model."""
        return self.model.mask_threshold

    @property
    def original_size(self) -> tuple[int, int]:
        """(H, W) of the image that is set."""
        view = self._set().geometry
        return view.frame_height, view.frame_width

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) of the image with its longer side at 1024 pixels, as SAM's encoder would get it."""
        return self.transform.get_preprocess_shape(*self.original_size, self.transform.target_length)

    @property
    def features(self) -> HostTensor | None:
        """The embedding of the image that is set, as :meth:`get_image_embedding` gives it; None without an image."""
        return None if self._embedding is None else self.get_image_embedding()

    def set_image(self, image: NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encode an image (H, W, 3) uint8; image_format is "RGB" or "BGR". Raises FrameError."""
        check_choice("image_format", image_format, ("RGB", "BGR"))
        self._embedding = self.model.segmenter.embed(image, color=image_format.lower())

    def set_torch_image(self, transformed_image: Any, original_image_size: tuple[int, ...]) -> None:
        """Encode an image that ``transform`` made: a tensor (1, 3, h, w), RGB in [0, 255], longer side 1024.

        original_image_size: (H, W) of the image before; prompts of :meth:`predict` and all masks are in its pixels.
        Raises FrameError.
        """
        pixels = torch_image(transformed_image)
        if max(pixels.shape[:2]) != SAM_SIDE:
            raise FrameError(
                f"set_torch_image takes an image whose longer side is {SAM_SIDE} (predictor.transform.apply_image), but "
                f"this one is {pixels.shape[1]} x {pixels.shape[0]}"
            )
        self._embedding = embed_transformed(self.model.segmenter, pixels, original_image_size)

    def reset_image(self) -> None:
        """Forget the image."""
        self._embedding = None

    def get_image_embedding(self) -> HostTensor:
        """The embedding (1, C, h, w) float32 of the image that is set, at stride 16.

        An array that also has a tensor's ``.cpu()``, ``.detach()`` and ``.numpy()``. Its size follows the image's shape;
        SAM's is 256 x 64 x 64. Raises NotReadyError.
        """
        return host_tensor(np.asarray(self._set().features["embedding"]))

    def predict(
        self,
        point_coords: NDArray[np.floating] | None = None,
        point_labels: NDArray[np.integer] | None = None,
        box: NDArray[np.floating] | None = None,
        mask_input: NDArray[np.floating] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[NDArray[np.bool_] | NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Masks for one prompt.

        point_coords: (N, 2) x, y in pixels; points outside the image count at its edge. point_labels: (N,) of 1 and 0; 2
        and 3 mark a box's corners, -1 padding. box: (4,) x0, y0, x1, y1. mask_input: (1, 256, 256) logits returned by an
        earlier call. Returns masks (K, H, W) bool, or float32 logits with return_logits, predicted IoU (K,) float32, and
        low-resolution logits (K, 256, 256) float32; K is 3 with multimask_output, else 1. Raises PromptError, and
        NotReadyError before set_image.
        """
        embedding = self._set()
        view = sam_view(embedding.geometry)
        prompt = sam_prompt(point_coords, point_labels, box, mask_input, embedding.geometry, view)
        many = check_flag("multimask_output", multimask_output)
        logits = check_flag("return_logits", return_logits)
        (out,) = sam_answers(embedding, [prompt], many, self.zoom, self.mask_threshold, logits, view)
        return out.masks, out.scores, out.low

    def predict_torch(
        self,
        point_coords: Any,
        point_labels: Any,
        boxes: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Any, Any, Any]:
        """Masks for B prompts on the image that is set, decoded in one engine call, without second looks.

        Tensors in the frame of ``transform``: point_coords (B, N, 2), point_labels (B, N), boxes (B, 4); mask_input
        (B, 1, 256, 256). Returns tensors on :attr:`device`: masks (B, K, H, W) bool or float32 logits, predicted IoU
        (B, K), logits (B, K, 256, 256). Raises PromptError, NotReadyError, and NotInstalled without torch.
        """
        torch = import_torch()
        return answer_torch(
            torch, self.model.device, self.model.mask_threshold, self._set(), self.transform, point_coords, point_labels, boxes, mask_input,
            check_flag("multimask_output", multimask_output), check_flag("return_logits", return_logits),
        )  # fmt: skip

    def _set(self) -> Embedding:
        if self._embedding is None:
            raise NotReadyError("no image is set; call set_image(image) first")
        return self._embedding
