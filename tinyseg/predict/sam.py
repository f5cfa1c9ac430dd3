"""A drop-in for ``segment_anything.SamPredictor``: change the import, keep the script."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import InputError, NotReadyError, PromptError
from tinyseg.geometry import Letterbox
from tinyseg.pixels import resample_grid
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.segmenter import Segmenter

# Side of SAM's low-resolution masks: the frame's longer side scaled to it, at the top left of a square.
SAM_GRID = 256


class SamPredictor:
    """SAM's predictor interface on a tinyseg model.

    ``predictor = tinyseg.SamPredictor(tinyseg.load())`` stands where ``SamPredictor(sam)`` stood; signatures, shapes
    and dtypes are SAM's. Unlike SAM's, a second look is taken at small objects (zoom="off" switches it off).
    """

    def __init__(self, segmenter: Segmenter, zoom: str = "auto") -> None:
        self.model = segmenter
        self.zoom = zoom
        self._embedding: Embedding | None = None

    @property
    def is_image_set(self) -> bool:
        return self._embedding is not None

    @property
    def original_size(self) -> tuple[int, int]:
        """(H, W) of the image that is set."""
        view = self._set().geometry
        return view.frame_height, view.frame_width

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the image inside the encoder's input, without padding."""
        width, height = self._set().geometry.content
        return height, width

    def set_image(self, image: NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encode an image (H, W, 3) uint8; image_format is "RGB" or "BGR". Raises FrameError."""
        if image_format not in ("RGB", "BGR"):
            raise InputError(f"image_format must be 'RGB' or 'BGR', but is {image_format!r}")
        self._embedding = self.model.embed(image, color=image_format.lower())

    def reset_image(self) -> None:
        """Forget the image."""
        self._embedding = None

    def get_image_embedding(self) -> NDArray[np.float32]:
        """The embedding (1, C, h, w) of the image that is set, at stride 16."""
        return np.asarray(self._set().features["embedding"])

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

        point_coords: (N, 2) x, y in pixels. point_labels: (N,) of 1 and 0. box: (4,) x0, y0, x1, y1. mask_input:
        (1, 256, 256) logits returned by an earlier call. Returns masks (K, H, W) bool, or float32 logits with
        return_logits, predicted IoU (K,) float32, and low-resolution logits (K, 256, 256) float32; K is 3 with
        multimask_output, else 1. Raises PromptError, and NotReadyError before set_image.
        """
        embedding = self._set()
        hint = None if mask_input is None else self._from_sam_grid(mask_input, embedding.geometry)
        out = embedding.predict(point_coords, point_labels, box, hint, bool(multimask_output), self.zoom)
        sam = sam_view(embedding.geometry)
        low = np.stack([resample_grid(one, embedding.geometry, sam) for one in out.logits])
        masks = embedding.logits_in_frame(out.logits) if return_logits else out.masks
        return masks, out.scores, low

    def _from_sam_grid(self, mask_input: NDArray[np.floating], frame: Letterbox) -> NDArray[np.float32]:
        array = np.asarray(mask_input)
        if array.shape == (1, SAM_GRID, SAM_GRID):
            array = array[0]
        if array.shape != (SAM_GRID, SAM_GRID) or array.dtype.kind != "f":
            raise PromptError(
                f"mask_input must be float logits of shape (1, {SAM_GRID}, {SAM_GRID}), but is {array.dtype} {np.shape(mask_input)}"
            )
        return resample_grid(array.astype(np.float32), sam_view(frame), frame)

    def _set(self) -> Embedding:
        if self._embedding is None:
            raise NotReadyError("no image is set; call set_image(image) first")
        return self._embedding


def sam_view(frame: Letterbox) -> Letterbox:
    """How SAM lays the same frame into its square input of 1024 pixels, whose logit grid is 256 x 256."""
    side = SAM_GRID * 4
    scale = side / max(frame.frame_width, frame.frame_height)
    # ResizeLongestSide.get_preprocess_shape of segment-anything.
    content = int(frame.frame_width * scale + 0.5), int(frame.frame_height * scale + 0.5)
    return Letterbox(frame.frame_width, frame.frame_height, frame.region, content, (side, side))
