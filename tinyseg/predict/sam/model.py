"""What stands where a script holds its ``sam``: a segmenter behind the attributes and calls of segment-anything's ``Sam``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyseg.errors import InputError, ModelError
from tinyseg.graphs.model import DEFAULT_MODEL, packaged_models
from tinyseg.predict.load import load
from tinyseg.predict.sam.batches import answer_torch, embed_transformed, torch_image
from tinyseg.predict.sam.tensors import import_torch
from tinyseg.predict.sam.transforms import SAM_SIDE, ResizeLongestSide
from tinyseg.predict.segmenter import Segmenter

PICKLES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt")


@dataclass(frozen=True)
class ImageEncoder:
    """The one thing that scripts ask of ``sam.image_encoder``: the side of the square that images are scaled to."""

    img_size: int = SAM_SIDE


class Sam:
    """A segmenter with the face of ``segment_anything.modeling.Sam``; made by :func:`build_sam`.

    segmenter: what runs. mask_threshold: the logit above which a pixel belongs to a mask. image_format: the colour order
    of images that :class:`SamPredictor` takes by default.
    """

    mask_threshold: float = 0.0
    image_format = "RGB"
    image_encoder = ImageEncoder()

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self._device: Any = "cpu"

    @property
    def device(self) -> Any:
        """Where tensors go: what was given to :meth:`to`, else "cpu"."""
        return self._device

    def to(self, device: Any) -> Sam:
        """Remember where the script's tensors live: a name or a ``torch.device``. Returns itself.

        The engine stays where it is (``segmenter.info.device``); a device other than the CPU warns of that.
        """
        if str(device).partition(":")[0] != "cpu":
            warnings.warn(
                f"tinyseg's engine stays where it was loaded; .to({str(device)!r}) only says where predict_torch puts its "
                "tensors. To run on a GPU choose an engine: SamPredictor(tinyseg.load(engine='tensorrt')); tinyseg doctor lists them",
                stacklevel=2,
            )
        self._device = device
        return self

    def eval(self) -> Sam:
        """Itself: nothing here is trained."""
        return self

    def __call__(self, batched_input: Sequence[dict[str, Any]], multimask_output: bool) -> list[dict[str, Any]]:
        """Masks for several images with their prompts, as ``Sam.forward`` takes them.

        Each dict holds "image" (3, h, w) tensor that :class:`ResizeLongestSide` made, "original_size" (H, W), and prompts in
        that frame: "point_coords" (B, N, 2) with "point_labels" (B, N), "boxes" (B, 4), "mask_inputs" (B, 1, 256, 256).
        Returns a dict each: "masks" (B, K, H, W) bool, "iou_predictions" (B, K), "low_res_logits" (B, K, 256, 256).
        Raises InputError, FrameError, PromptError, and NotInstalled without torch.
        """
        torch = import_torch()
        transform = ResizeLongestSide(self.image_encoder.img_size)
        answers = []
        for i, one in enumerate(batched_input):
            missing = {"image", "original_size"} - set(one)
            if missing:
                raise InputError(f"input {i} of the batch has no {' and no '.join(sorted(missing))}")
            embedding = embed_transformed(self.segmenter, torch_image(one["image"]), one["original_size"])
            masks, scores, low = answer_torch(
                torch, self.device, self.mask_threshold, embedding, transform, one.get("point_coords"),
                one.get("point_labels"), one.get("boxes"), one.get("mask_inputs"), multimask_output, False,
            )  # fmt: skip
            answers.append({"masks": masks, "iou_predictions": scores, "low_res_logits": low})
        return answers


def as_sam(model: Sam | Segmenter) -> Sam:
    """A segmenter, or a ``Sam`` as it is. Raises InputError."""
    if isinstance(model, Sam):
        return model
    if isinstance(model, Segmenter):
        return Sam(model)
    raise InputError(
        f"sam_model must come from tinyseg.load() or tinyseg.sam_model_registry, but is a {type(model).__name__}; SAM's own "
        "models do not run here"
    )


def build_sam(checkpoint: str | Path | None = None) -> Sam:
    """A model on the best engine installed, as ``segment_anything.build_sam`` gives it.

    checkpoint: a packaged model's name, a tinyseg model folder or zip; None for the packaged "base". Raises ModelError, also
    for PyTorch checkpoints, and what :func:`tinyseg.load` raises.
    """
    if checkpoint is not None and Path(checkpoint).suffix.lower() in PICKLES:
        raise ModelError(
            f"{checkpoint} is a PyTorch checkpoint of another model; tinyseg runs its own: leave checkpoint out for the "
            "packaged one, or give a folder that tinyseg exported (docs/training.md)"
        )
    return Sam(load(checkpoint))


def build_sam_base(checkpoint: str | Path | None = None) -> Sam:
    """The packaged "base", or :func:`build_sam` of a checkpoint."""
    return build_sam(DEFAULT_MODEL if checkpoint is None else checkpoint)


def build_sam_small(checkpoint: str | Path | None = None) -> Sam:
    """The packaged "small", or :func:`build_sam` of a checkpoint."""
    return build_sam("small" if checkpoint is None else checkpoint)


class ModelRegistry(dict[str, Callable[..., Sam]]):
    """Builders by model type; an unknown type, SAM's own included, raises ModelError naming ours."""

    def __missing__(self, model_type: str) -> Callable[..., Sam]:
        raise ModelError(
            f"there is no model type {model_type!r}; tinyseg has {', '.join(self)}, all without a checkpoint"
        )


sam_model_registry = ModelRegistry(default=build_sam_base, base=build_sam_base, small=build_sam_small)


def build_sam2(
    config_file: str | Path,
    ckpt_path: str | Path | None = None,
    device: Any = "cpu",
    mode: str = "eval",
    apply_postprocessing: bool = True,
) -> Sam:
    """A model for :class:`SAM2ImagePredictor`, as ``sam2.build_sam.build_sam2`` gives it.

    config_file: a packaged model's name, a tinyseg model folder or zip, or "default". ckpt_path: None, or a model as in
    :func:`build_sam`, which wins. mode and apply_postprocessing are SAM 2's and must keep their defaults. Raises
    ModelError or InputError.
    """
    if mode != "eval" or not apply_postprocessing:
        raise InputError("tinyseg's models are for prediction only: leave mode='eval' and apply_postprocessing=True")
    if str(config_file).endswith((".yaml", ".yml")):
        raise ModelError(
            f"{config_file} configures SAM 2; name one of tinyseg's models instead: {', '.join(packaged_models())}"
        )
    chosen = ckpt_path if ckpt_path is not None else (None if config_file == "default" else config_file)
    return build_sam(chosen).to(device)
