"""``tinyseg compile``: build engines ahead of time, into the cache or into a folder of their own."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from tinyseg.arguments import parse_size
from tinyseg.commands.options import add_engine_options
from tinyseg.engines import create_engine
from tinyseg.engines.cache import open_cache
from tinyseg.errors import InputError, ModelError
from tinyseg.geometry import letterbox
from tinyseg.graphs.bisect import bisect
from tinyseg.graphs.compiled import Builder, write_folder
from tinyseg.graphs.model import open_model
from tinyseg.graphs.shapes import graph_shapes
from tinyseg.pixels import MAX_SIDE
from tinyseg.predict.load import graphs_for
from tinyseg.system.folders import require_replaceable
from tinyseg.system.progress import progress

EXAMPLES = """examples:
  tinyseg compile                                             # into the cache, for 1280x720 frames
  tinyseg compile --engine openvino --precision int8 --size 640x480 --out camera-model
  tinyseg run 0 --model camera-model --box 100,50,400,300
  tinyseg compile my-model --precision int8 --bisect          # where does it leave the fp32 reference?"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "compile", help="build this device's engines ahead of time", epilog=EXAMPLES,
        description="Build the engines for a frame size, compare each with the fp32 reference on real photographs, and keep "
        "them: in the cache, or with --out in a folder that tinyseg.load() runs without building anything.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "model_path", nargs="?", metavar="MODEL", help="model folder or zip (default: the packaged model)"
    )
    parser.add_argument("--size", default="1280x720", metavar="WxH", help="frame size (default: 1280x720)")
    parser.add_argument(
        "--prompts", type=int, nargs="+", default=[1], metavar="N",
        help="prompts a decoder call answers at once; one engine for each number (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="DIR", help="write a self-contained folder; one that tinyseg wrote is replaced"
    )
    parser.add_argument(
        "--bisect", action="store_true", help="compare layer by layer with fp32 instead, and name the first wrong one"
    )
    add_engine_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    width, height = parse_size("--size", args.size, MAX_SIDE)
    if args.model_path and args.model:
        raise InputError("the model was given twice; leave --model out")
    if any(n < 1 for n in args.prompts):
        raise InputError(f"--prompts takes positive numbers, but got {min(args.prompts)}")
    if args.bisect and (args.out or len(args.prompts) > 1):
        raise InputError("--bisect compares one engine and writes none; leave --out and further --prompts out")
    if args.out:
        require_replaceable(Path(args.out))  # told before the work, not after
    model = open_model(args.model_path or args.model)
    if "compiled" in model.card:
        raise ModelError(f"{model.path} is compiled already; compile the model that it was made from")
    choice = create_engine(args.engine, args.precision, args.threads, 1, model.precision_facts)
    graphs = graphs_for(model, choice.engine.precision)
    view = letterbox(width, height, model.long_side)
    shapes = graph_shapes(view, model.zoom.side, args.prompts, graphs)
    print(f"{model.name} on {choice.engine.name} {choice.engine.version}, {choice.engine.precision} ({choice.reason})")
    if args.bisect:
        for name, graph in graphs.items():
            print(bisect(model, graph, choice.engine, shapes[name][0]).to_text())
        return 0
    cache, told = open_cache()
    if cache is None and not args.out:
        raise InputError(f"the cache is {told}; give --out DIR, or another TINYSEG_CACHE")
    builder = Builder(model, choice.engine, cache)
    start = time.monotonic()
    blobs = [
        (name, dimensions, builder.kept(graphs[name], dimensions))
        for name, dimensions in progress([(n, d) for n, ds in shapes.items() for d in ds], "engines")
    ]
    if args.out:
        by_shape = {(name, tuple(sorted(d.items()))): blob for name, d, blob in blobs}
        write_folder(
            builder, graphs, shapes, Path(args.out),
            lambda graph, dimensions: by_shape[graph.name, tuple(sorted(dimensions.items()))],
        )  # fmt: skip
    seconds = time.monotonic() - start
    for parity in builder.parities:
        print(
            f"built {parity.graph}: mask IoU with fp32 {parity.mask_iou:.4f}, logits off by {parity.noise:.4f} of their "
            f"spread, {parity.masks} masks on real photographs"
        )
    reused = len(blobs) - (cache.builds if cache else len(blobs))
    print(
        f"{len(blobs)} engines for {width}x{height} frames and second looks in {seconds:.2f} s, {reused} of them from the cache"
    )
    if args.out:
        print(f"wrote {args.out}; use it with: tinyseg.load({args.out!r})")
    return 0
