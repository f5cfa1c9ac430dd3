"""``tinyseg info``: the version, the model, the engines, and what would be chosen."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from dataclasses import asdict
from typing import Any

from tinyseg.commands.options import add_engine_options, load_segmenter
from tinyseg.engines import ENGINES
from tinyseg.track.decoder import has_track_decoder
from tinyseg.version import __version__


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "info", help="version, model, engines, and what is chosen",
        description="Say what is installed and what would run: the model with its measured accuracy, the engines.",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_engine_options(parser)
    parser.set_defaults(run=run)


def installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def run(args: argparse.Namespace) -> int:
    seg = load_segmenter(args)
    engines = {n: installed_version(row.package) for n, row in ENGINES.items() if n != "fake"}
    facts = {
        "tinyseg": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "engines": engines,
        "chosen": asdict(seg.info),
        "tracking": "track_decoder" if has_track_decoder(seg.network) else "decoder",
        "model": {k: v for k, v in seg.model.card.items() if k != "graphs"},
    }
    if args.json:
        print(json.dumps(facts, indent=1))
        return 0
    print(f"tinyseg {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name, version in engines.items():
        print(f"engine {name}: {version or 'not installed; ' + ENGINES[name].install}")
    print(f"chosen: {seg.info}")
    size = sum(len(g.data) for g in seg.model.graphs.values())
    print(
        f"model folder: {seg.model.path} ({size / 1e6:.1f} MB of graphs, licence {seg.model.card.get('licence', 'not stated')})"
    )
    own = has_track_decoder(seg.network)
    print(
        "tracking: "
        + ("a decoder of its own, trained for it" if own else "the decoder of still images, without training")
    )
    for row in seg.model.card.get("accuracy", {}).get("by_set", []):
        print(
            f"  {row['set']}: {row['instances']} objects, box mIoU {row['box']:.3f}, 1 click {row['click1']:.3f}, "
            f"3 clicks {row['click3']:.3f} (box filled {row['fill']:.3f})"
        )
    return 0
