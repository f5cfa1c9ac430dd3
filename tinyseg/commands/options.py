"""Options that several subcommands share."""

from __future__ import annotations

import argparse

from tinyseg.engines import ENGINES
from tinyseg.engines.base import PRECISIONS
from tinyseg.graphs.model import DEFAULT_MODEL
from tinyseg.predict.load import load
from tinyseg.predict.segmenter import Segmenter


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """--model, --engine, --precision and --threads."""
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--model",
        metavar="MODEL",
        help=f"packaged model (see tinyseg models), model folder or zip (default: {DEFAULT_MODEL})",
    )
    group.add_argument(
        "--engine",
        default="auto",
        metavar="NAME",
        help=f"auto, {', '.join(ENGINES)} (default: auto, the best installed)",
    )
    group.add_argument(
        "--precision", default="auto", metavar="P", help=f"{', '.join(PRECISIONS)} (default: auto, the engine's best)"
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")


def load_segmenter(args: argparse.Namespace) -> Segmenter:
    """The segmenter that the options ask for."""
    return load(args.model, args.engine, args.precision, threads=args.threads)
