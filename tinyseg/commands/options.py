"""Options that several subcommands share."""

from __future__ import annotations

import argparse

from tinyseg.engines import ENGINES
from tinyseg.engines.base import PRECISIONS
from tinyseg.engines.cpu import available_cores
from tinyseg.graphs.model import DEFAULT_MODEL
from tinyseg.predict.load import load
from tinyseg.predict.second_look import ZOOM_CHOICES
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


def add_zoom_option(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    """--zoom."""
    parser.add_argument(
        "--zoom", choices=ZOOM_CHOICES, default=default, help=f"second look at small objects (default: {default})"
    )


def add_region_options(group: argparse._ArgumentGroup) -> None:
    """What decides which regions of a picture are found without a prompt."""
    group.add_argument(
        "--points-per-side", type=int, metavar="N",
        help="clicks a side of the finest grid: fewer are faster and find less (16: a third of the time of 32)",
    )  # fmt: skip
    group.add_argument("--score", type=float, metavar="S", help="least predicted IoU of a region")
    group.add_argument("--stability", type=float, metavar="S", help="least stability of a region")
    group.add_argument(
        "--crop-layers",
        type=int,
        default=0,
        metavar="N",
        help="look again at 4 crops (1), 16 more (2), ... for small objects",
    )
    group.add_argument(
        "--min-area", type=int, default=0, metavar="PIXELS", help="take out smaller islands and holes (default: 0)"
    )


def load_segmenter(args: argparse.Namespace) -> Segmenter:
    """The segmenter that the options ask for."""
    return load(args.model, args.engine, args.precision, threads=args.threads)


def load_for_everything(args: argparse.Namespace) -> Segmenter:
    """The same, for one search of a frame at a time, whose many calls go on in several streams."""
    from tinyseg.predict.everything import everything_streams  # noqa: PLC0415 - most commands start without it

    streams = everything_streams(args.threads or available_cores())
    return load(args.model, args.engine, args.precision, threads=args.threads, streams=streams)
