"""Grounding DINO from transformers to one ONNX graph, which ``tinyseg.detect`` runs without torch and transformers.

Three things stand in the way of a plain export: the mask between phrases is computed inside with operators that ONNX
lacks, so it becomes an input that the runtime fills; padding words are -inf, which half precision turns to NaN, so they
are clipped; and the image and text sizes that the graph is traced with are the only ones it takes.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyseg.detect.card import CARD, FORMAT, MOST_SIDE
from tinyseg.detect.grounding import MOST_TOKENS, TEXT_INPUTS, lay_out
from tinyseg.errors import InputError, ModelError, NotInstalled
from tinyseg.system.folders import new_folder

CLASSES = ("GroundingDinoForObjectDetection", "MMGroundingDinoForObjectDetection")
MASK_FUNCTION = "generate_masks_with_special_tokens_and_transfer_map"
FLOOR = -1e4  # in place of -inf; its sigmoid is 0, and half precision holds it
OPSET = 17
SIDE_MULTIPLE = 32
# Most that the graph's answers may differ from transformers' on a random picture.
MOST_DIFFERENCE = 1e-3
IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
PROBE = "a cat. a red cup."


@dataclass(frozen=True)
class Exported:
    """What was written, and how far the graph is from transformers: largest differences of probabilities and boxes."""

    folder: Path
    megabytes: float
    scores_off: float
    boxes_off: float


class Exportable(torch.nn.Module):
    """The detector with its text's masks and positions as inputs, all float32."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Any, ids: Any, tokens: Any, mask: Any, positions: Any) -> tuple[Any, Any]:
        """image (1, 3, h, w), ids, tokens, positions (1, T), mask (1, T, T) -> logits (1, queries, T), boxes (1, queries, 4)."""
        with _given_masks(self.model, mask > 0.5, positions.long()):
            out = self.model(pixel_values=image, input_ids=ids.long(), attention_mask=(tokens > 0.5).long())
        return out.logits[..., : ids.shape[1]].clamp(min=FLOOR), out.pred_boxes


@contextmanager
def _given_masks(model: Any, mask: Any, positions: Any) -> Iterator[None]:
    """transformers' own function replaced by what it would compute, and grids by constants: the exporter turns
    ``linspace`` to double precision, which ONNX Runtime's GridSample does not take, and gets its values wrong."""
    module = sys.modules[type(model).__module__]
    own, linspace = getattr(module, MASK_FUNCTION), torch.linspace
    setattr(module, MASK_FUNCTION, lambda *_, **__: (mask, positions))
    torch.linspace = _constant_grid
    try:
        yield
    finally:
        setattr(module, MASK_FUNCTION, own)
        torch.linspace = linspace


def _constant_grid(start: Any, end: Any, steps: Any, dtype: Any = torch.float32, device: Any = None) -> Any:
    return torch.from_numpy(np.linspace(float(start), float(end), int(steps))).to(device, dtype)


def export_detector(source: str, out: Path, width: int = 800, height: int = 800, text_length: int = 64) -> Exported:
    """Export a Grounding DINO (hub name or folder) to a folder that ``tinyseg.detect.open_detector`` opens.

    width, height: of the only input size, multiples of 32; frames are stretched to it. text_length: most tokens of a
    text. Raises InputError, NotInstalled, ModelError or DataError.
    """
    for name, side in (("width", width), ("height", height)):
        if not SIDE_MULTIPLE <= side <= MOST_SIDE or side % SIDE_MULTIPLE:
            raise InputError(f"{name} must be a multiple of {SIDE_MULTIPLE} up to {MOST_SIDE}, but is {side}")
    model, tokenizer = _load(source)
    most = min(MOST_TOKENS, int(model.config.max_text_len))
    if not 8 <= text_length <= most:
        raise InputError(f"text_length must lie from 8 to {most} for this detector, but is {text_length}")
    separators, pixels = _separators(model), _pixel_statistics(source)
    probe = tokenizer(PROBE)["input_ids"]
    text = lay_out(probe, text_length, separators)
    image = torch.randn((1, 3, height, width), generator=torch.Generator().manual_seed(0))
    feeds = (image, *(torch.from_numpy(getattr(text, n)) for n in TEXT_INPUTS))
    with torch.no_grad():
        expected = model(
            pixel_values=image,
            input_ids=torch.tensor([probe]),
            attention_mask=torch.ones((1, len(probe)), dtype=torch.long),
        )
    with new_folder(out) as folder:
        path = folder / "detector.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Exportable(model).eval(), feeds, str(path), input_names=["image", *TEXT_INPUTS],
                output_names=["logits", "boxes"], opset_version=OPSET, dynamo=False,
            )  # fmt: skip
        off = _compared(path, feeds, expected, len(probe))
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
        data = path.read_bytes()
        card = {
            "format": FORMAT, "kind": "grounding-dino", "source": source, "file": path.name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "input": {"name": "image", "width": width, "height": height, "fit": "stretch", "color": "rgb", **pixels},
            "outputs": ["logits", "boxes"], "boxes": "boxes", "scores": "logits", "box_format": "cxcywh", "unit": "share",
            "score_kind": "logits", "threshold": 0.25,
            "text": {"length": text_length, "tokenizer": "tokenizer.json", "separators": list(separators)},
        }  # fmt: skip
        (folder / CARD).write_text(json.dumps(card, indent=1))
    return Exported(out, len(data) / 1e6, *off)


def _load(source: str) -> tuple[Any, Any]:
    try:
        from transformers import AutoModelForZeroShotObjectDetection, AutoTokenizer  # noqa: PLC0415
    except ImportError as exc:
        raise NotInstalled(
            "Grounding DINO is exported with transformers; run: pip install 'tinyseg[baseline]'"
        ) from exc
    try:
        model, found = AutoModelForZeroShotObjectDetection.from_pretrained(source, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as exc:
        first = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        raise ModelError(f"{source} does not load as a zero-shot detector of transformers: {first}") from exc
    # The library fills them at random and only warns. Buffers it computes.
    if missing := sorted({name for name, _ in model.named_parameters()}.intersection(found["missing_keys"])):
        raise ModelError(f"{source} lacks {len(missing)} of the detector's weights ({missing[0]}, ...); get it again")
    if type(model).__name__ not in CLASSES:
        raise ModelError(f"{source} is a {type(model).__name__}; {' and '.join(CLASSES)} can be exported")
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ModelError(f"{source} has no fast tokenizer (tokenizer.json), which the runtime needs")
    return model.eval(), tokenizer


def _separators(model: Any) -> tuple[int, ...]:
    module = sys.modules[type(model).__module__]
    return tuple(int(i) for i in module.SPECIAL_TOKENS)


def _pixel_statistics(source: str) -> dict[str, list[float]]:
    """Mean and deviation in 0 to 255 from preprocessor_config.json beside the weights, else ImageNet's. Raises ModelError."""
    path = Path(source) / "preprocessor_config.json"
    if not path.is_file():
        return IMAGENET
    try:
        read = json.loads(path.read_text())
        found = {n: [round(255.0 * float(v), 4) for v in read[f"image_{n}"]] for n in ("mean", "std")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ModelError(
            f"{path} states no image_mean and image_std ({exc!s:.100}); mend it, or remove it for ImageNet's"
        ) from exc
    if any(len(values) != 3 for values in found.values()):
        raise ModelError(
            f"{path} must state three numbers of image_mean and image_std; mend it, or remove it for ImageNet's"
        )
    return found


def _compared(path: Path, feeds: tuple[Any, ...], expected: Any, count: int) -> tuple[float, float]:
    """(scores, boxes): largest differences between the graph and transformers. Raises ModelError where they are large."""
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits, boxes = session.run(None, {n: t.numpy() for n, t in zip(["image", *TEXT_INPUTS], feeds)})
    scores = torch.sigmoid(torch.from_numpy(logits[..., :count])).numpy()
    wanted = torch.sigmoid(expected.logits[..., :count]).numpy()
    off = float(np.abs(scores - wanted).max()), float(np.abs(boxes - expected.pred_boxes.numpy()).max())
    if not max(off) <= MOST_DIFFERENCE:
        raise ModelError(
            f"the exported graph differs from transformers by {off[0]:.4f} in scores and {off[1]:.4f} in boxes "
            f"(allowed: {MOST_DIFFERENCE}); this version of transformers or torch exports it wrongly"
        )
    return off
