"""``tinyseg bench``: how fast it is on this device, beside a rival in the same run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tinyseg.commands.options import add_engine_options, load_segmenter
from tinyseg.images import write_bytes


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "bench", help="speed on this device, beside a rival in the same run",
        description="Time one 1280x720 frame from pixels to its full-resolution mask (embed, one box), one frame at a "
        "time. With --peer, a rival's architecture (random weights: speed only) runs in alternating rounds on ONNX "
        "Runtime with as many threads.",
    )  # fmt: skip
    parser.add_argument("--scenario", choices=("predict",), default="predict", help="what to time (default: predict)")
    parser.add_argument("--peer", metavar="NAME", help="mobilesam (needs the peers extra)")
    parser.add_argument("--rounds", type=int, default=25, metavar="N", help="timed rounds (default: 25)")
    parser.add_argument("--json", metavar="FILE", help="also write all samples to a file ('-': print JSON instead)")
    add_engine_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from tinyseg.bench.speed import predict_scenario  # noqa: PLC0415 - the runtime does not know the bench

    report = predict_scenario(load_segmenter(args), args.peer, args.rounds)
    content = json.dumps(report.to_json(), indent=1)
    if args.json == "-":
        print(content)
        return 0
    if args.json:
        write_bytes(Path(args.json), content.encode())
    print(report.to_text())
    return 0
