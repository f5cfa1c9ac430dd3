"""SAM 2 itself on this device, through transformers and torch (the ``baseline`` extra)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyseg.bench.rivals import Rival
from tinyseg.errors import InputError, NotInstalled

SIDE = 1024


@dataclass(frozen=True)
class HieraSize:
    """One row of SAM 2's table of image encoders (arXiv 2408.00714, appendix D; its configuration files)."""

    width: int
    heads: int
    blocks: tuple[int, int, int, int]
    global_blocks: tuple[int, int, int]
    windows: tuple[int, int, int, int]
    background: int  # side of the positional embedding's window background


SIZES = {
    "tiny": HieraSize(96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), 7),
    "small": HieraSize(96, 1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), 7),
    "base-plus": HieraSize(112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), 14),
    "large": HieraSize(144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), 7),
}


def build(size: HieraSize) -> Any:
    """An untrained ``transformers.Sam2Model`` of a size."""
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2VisionConfig  # noqa: PLC0415 - heavy

    widths = [size.width * 2**i for i in range(4)]
    trunk = Sam2HieraDetConfig(
        hidden_size=size.width, num_attention_heads=size.heads, blocks_per_stage=list(size.blocks),
        embed_dim_per_stage=widths, num_attention_heads_per_stage=[size.heads * 2**i for i in range(4)],
        window_size_per_stage=list(size.windows), global_attention_blocks=list(size.global_blocks),
        window_positional_embedding_background_size=[size.background] * 2,
    )  # fmt: skip
    vision = Sam2VisionConfig(backbone_config=trunk, backbone_channel_list=widths[::-1])
    return Sam2Model(Sam2Config(vision_config=vision))


def load_baseline(name: str, random_weights: bool) -> Rival:
    """SAM 2 by size (with random weights: speed only), or its weights from a local folder or a hub name.

    On a GPU bf16 autocast is used, as the paper did; on a CPU fp32. One image at a time, torch's own threads. Raises
    InputError or NotInstalled.
    """
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise NotInstalled(f"SAM 2 runs through {package}; run: pip install 'tinyseg[baseline]'")
    if random_weights and name not in SIZES:
        raise InputError(f"--random-weights takes a size, one of {', '.join(SIZES)}, not {name!r}")
    if not random_weights and name in SIZES:
        raise InputError(
            f"--baseline {name} names a size; give a folder or hub name with weights, or add --random-weights for speed alone"
        )
    import torch  # noqa: PLC0415 - heavy, and only for this
    from transformers import Sam2Model  # noqa: PLC0415

    if random_weights:
        torch.manual_seed(0)
        model = build(SIZES[name])
        label = f"SAM 2 Hiera {name} (random weights)"
    else:
        try:
            loaded: Any = Sam2Model.from_pretrained(name, output_loading_info=True)
        except (OSError, ValueError, RuntimeError) as exc:
            raise InputError(f"--baseline {name}: no SAM 2 weights there ({str(exc).splitlines()[0]})") from exc
        model, found = loaded
        if found["missing_keys"]:  # the library fills them at random and only warns
            raise InputError(f"--baseline {name}: SAM 2 weights are missing there; use a whole checkpoint of SAM 2")
        label = f"SAM 2 {Path(name).name}"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.eval().to(device)
    image = torch.zeros(1, 3, SIDE, SIDE, device=device)
    box = torch.tensor([[[256.0, 112.0, 768.0, 496.0]]], device=device)

    def run(call: Callable[[], object]) -> object:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            result = call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return result

    features = run(lambda: model.get_image_embeddings(image))
    precision = "bf16 autocast" if device.type == "cuda" else "fp32"
    return Rival(
        f"{label} on torch {torch.__version__}, {device.type}, {precision}, not compiled",
        lambda: run(lambda: model.get_image_embeddings(image)),
        lambda: run(lambda: model(image_embeddings=features, input_boxes=box, multimask_output=False)),
    )
