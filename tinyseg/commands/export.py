"""``tinyseg export``: the model as files that other programs run."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from tinyseg.errors import ModelError
from tinyseg.graphs.model import DEFAULT_MODEL, open_model
from tinyseg.graphs.sam_onnx import SAM_SIDE, sam_decoder, sam_encoder
from tinyseg.system.folders import new_folder, require_replaceable
from tinyseg.version import __version__

FORMATS = ("sam-onnx",)
CLIENT_HEIGHT = 682  # what X-AnyLabeling's configurations say; it feeds 684 rows whatever stands there

EXAMPLES = """examples:
  tinyseg export --format sam-onnx --out sam-files        # encoder, decoder and a yaml for X-AnyLabeling
  tinyseg export --format sam-onnx --model small --all-masks --out sam-files"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "export", help="write the model for other programs", epilog=EXAMPLES,
        description="Write the model as files that other programs run. sam-onnx: the pair of ONNX files that clients of "
        "segment-anything take (rembg, samexporter, X-AnyLabeling): NAME.encoder.onnx, NAME.decoder.onnx, and NAME.yaml for "
        "X-AnyLabeling. They hold the model in fp32, without second looks and without removing specks. Needs the compile "
        "extra.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--format", required=True, choices=FORMATS, help="sam-onnx")
    parser.add_argument("--out", required=True, metavar="DIR", help="where to; replaced if it is an earlier export")
    parser.add_argument(
        "--model", metavar="MODEL", help=f"packaged model, model folder or zip (default: {DEFAULT_MODEL})"
    )
    parser.add_argument(
        "--all-masks", action="store_true",
        help="four masks: the usual one and three readings of a click (rembg would draw all of them; default: one)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def yaml_text(name: str, encoder: str, decoder: str) -> str:
    """X-AnyLabeling's configuration of a custom model of type segment_anything."""
    rows = {
        "type": "segment_anything", "name": name, "display_name": name.replace("-", " "), "encoder_model_path": encoder,
        "decoder_model_path": decoder, "input_size": SAM_SIDE, "max_width": SAM_SIDE, "max_height": CLIENT_HEIGHT,
    }  # fmt: skip
    # Strings as JSON are YAML too.
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in rows.items())


def run(args: argparse.Namespace) -> int:
    model = open_model(args.model)
    if "compiled" in model.card:
        raise ModelError(f"{model.path} is compiled; export the model that it was made from")
    out = Path(args.out)
    require_replaceable(out)
    name = model.name if model.name.startswith("tinyseg") else f"tinyseg-{model.name}"
    files = {
        f"{name}.encoder.onnx": sam_encoder(model).SerializeToString(),
        f"{name}.decoder.onnx": sam_decoder(model, args.all_masks).SerializeToString(),
    }
    files[f"{name}.yaml"] = yaml_text(name, *files).encode()
    manifest = {
        "tinyseg": __version__, "format": args.format, "model": model.name, "masks": 4 if args.all_masks else 1,
        "licence": model.card.get("licence", model.card.get("license", "")),
        "files": {file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
    }  # fmt: skip
    with new_folder(out) as folder:
        for file, data in files.items():
            (folder / file).write_bytes(data)
        (folder / "export.json").write_text(json.dumps(manifest, indent=1) + "\n")
    for file, data in files.items():
        print(f"wrote {out / file} ({len(data) / 1e6:.1f} MB)")
    return 0
