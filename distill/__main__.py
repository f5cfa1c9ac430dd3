"""``python -m tinyseg.distill train|export``: train a student, and turn a checkpoint into a model folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tinyseg.errors import InputError, NotInstalled, TinysegError

TRAIN_EXAMPLE = """example:
  python -m tinyseg.distill train --data photos.tar --backbone mobilenet_v2.npz --minutes 60 --out runs/first
  python -m tinyseg.distill export runs/first/checkpoint.pt --out my-model
  tinyseg segment photo.jpg --point 100,100 --model my-model

Run the same train command again to go on where it stopped (Ctrl-C, --minutes, or a crash)."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tinyseg.distill", description="Train and export a student.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser(
        "train", help="train a student, or go on training", epilog=TRAIN_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    train.add_argument(
        "--data", nargs="+", required=True, metavar="PATH", help="tar files or folders with annotations.jsonl.gz"
    )
    train.add_argument("--out", required=True, metavar="DIR", help="run folder: checkpoint, curves, configuration")
    train.add_argument(
        "--backbone", metavar="FILE", help="npz with MobileNetV2 weights to start from (default: random)"
    )
    train.add_argument(
        "--steps", type=int, default=6000, metavar="N", help="length of the whole training (default: 6000)"
    )
    train.add_argument(
        "--minutes", type=float, metavar="M", help="time budget of the whole training; whichever ends first counts"
    )
    train.add_argument("--batch-size", type=int, default=8, metavar="N", help="photos a step (default: 8)")
    train.add_argument("--instances", type=int, default=3, metavar="N", help="prompts a photo (default: 3)")
    train.add_argument("--learning-rate", type=float, default=1e-3, metavar="R", help="peak rate (default: 0.001)")
    train.add_argument("--seed", type=int, default=0, metavar="N")
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    train.add_argument("--workers", type=int, default=1, metavar="N", help="processes that cut samples (default: 1)")
    train.add_argument(
        "--validate-every", type=int, default=1000, metavar="N", help="steps between validations (default: 1000)"
    )
    train.add_argument(
        "--oversample",
        action="append",
        default=[],
        metavar="SOURCE=FACTOR",
        help="draw photos of a source more often (repeatable)",
    )
    export = commands.add_parser("export", help="turn a checkpoint into a model folder for the runtime")
    export.add_argument("checkpoint", metavar="CHECKPOINT")
    export.add_argument("--out", required=True, metavar="DIR", help="model folder; replaced if it exists")
    export.add_argument("--name", default="tinyseg", help="name in model.json (default: tinyseg)")
    export.add_argument(
        "--long-side", type=int, default=512, metavar="PX", help="longer side of a frame's input (default: 512)"
    )
    export.add_argument(
        "--zoom-factor", type=float, default=2.0, metavar="F", help="second look: crop over object (default: 2.0)"
    )
    export.add_argument(
        "--zoom-below",
        type=float,
        default=0.3,
        metavar="S",
        help="second look: largest share of the frame (default: 0.3)",
    )
    export.add_argument(
        "--card", metavar="FILE", help="JSON whose keys (licence, provenance, accuracy) go into model.json"
    )
    return parser


def oversampling(texts: Sequence[str]) -> dict[str, float]:
    """["SOURCE=FACTOR", ...] -> {SOURCE: FACTOR}. Raises InputError."""
    factors = {}
    for text in texts:
        source, _, factor = text.rpartition("=")
        try:
            factors[source] = float(factor)
        except ValueError:
            source = ""
        if not source or factors[source] <= 0:
            raise InputError(f"--oversample takes SOURCE=FACTOR with a positive factor, but got {text!r}")
    return factors


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(arguments)
    try:
        try:
            from tinyseg.distill import export as export_room  # noqa: PLC0415 - needs torch, which --help does not
            from tinyseg.distill import train as train_room  # noqa: PLC0415
        except ModuleNotFoundError as exc:
            raise NotInstalled(f"{exc.name} is not installed; run: pip install 'tinyseg[train]'") from exc
        if args.command == "train":
            config = train_room.TrainConfig(
                data=tuple(args.data), out=args.out, backbone=args.backbone, steps=args.steps, minutes=args.minutes,
                batch_size=args.batch_size, instances=args.instances, learning_rate=args.learning_rate, seed=args.seed,
                device=args.device, workers=args.workers, validate_every=args.validate_every,
                oversample=oversampling(args.oversample),
            )  # fmt: skip
            train_room.train(config)
        else:
            card = json.loads(Path(args.card).read_text()) if args.card else None
            zoom = {"side": 256, "factor": args.zoom_factor, "below": args.zoom_below}
            out = export_room.export(
                Path(args.checkpoint), Path(args.out), name=args.name, long_side=args.long_side, zoom=zoom, card=card
            )  # fmt: skip
            print(f"wrote {out}")
    except TinysegError as exc:
        print(f"tinyseg.distill: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
