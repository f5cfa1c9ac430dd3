"""``tinyseg run``: segment every frame of a camera, video or stream."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tinyseg.arguments import check_whole, clipped
from tinyseg.commands.options import add_engine_options, add_zoom_option
from tinyseg.commands.prompts import add_prompt_options, parse_prompts, prompt_of, read_prompt_file
from tinyseg.commands.stream import (
    add_stream_options,
    exit_code,
    live_line,
    live_tick,
    open_ends,
    run_loop,
    tell_result,
)
from tinyseg.engines.cpu import available_cores
from tinyseg.errors import DataError, InputError
from tinyseg.loop import Loop
from tinyseg.predict.load import load
from tinyseg.prompts import Prompt
from tinyseg.sources import SOURCE_HELP
from tinyseg.system.console import tell

PROMPT_LINE = '{"frame": N, "prompts": [{"box": [x0, y0, x1, y1]}, ...]}'

EXAMPLES = """examples:
  tinyseg run 0 --point 640,360 --sink http                 # watch at http://127.0.0.1:8080/
  tinyseg run film.mp4 --box 100,50,400,300 --sink video:masked.mp4
  tinyseg run rtsp://camera/stream --box 100,50,400,300 --sink jsonl:masks.jsonl
  ffmpeg -i film.mp4 -f rawvideo -pix_fmt bgr24 - | tinyseg run - --raw-size 1280x720 --point 9,9 --sink raw > masks.bin
  tinyseg run synthetic:1280x720:500 --box 300,100,900,600

A line of --every-frame-prompts FILE is {"frame": 12, "prompts": [{"box": [0, 0, 9, 9]}, {"points": [[5, 5]], "labels": [1]}]}."""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "run", help="segment every frame of a camera, video or stream", epilog=EXAMPLES,
        description="Segment every frame of a source with the same prompts, or with prompts of its own for a frame.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("source", metavar="SOURCE", help=SOURCE_HELP)
    add_prompt_options(parser)
    parser.add_argument("--every-frame-prompts", metavar="FILE", help="JSON lines: prompts for single frames")
    add_stream_options(parser)
    parser.add_argument(
        "--mode", choices=("throughput", "latency"), default="throughput",
        help="throughput: a frame on every core; latency: one frame at a time on all cores (default: throughput)",
    )  # fmt: skip
    add_zoom_option(parser, "off")
    add_engine_options(parser)
    parser.add_argument(
        "--streams",
        type=int,
        metavar="N",
        help="frames in flight (default: 1 for latency, one on every core for throughput)",
    )
    parser.set_defaults(run=run)


class FramePrompts:
    """Prompts of single frames, which remembers those that were never asked for. Asked from any thread."""

    def __init__(self, prompts: Mapping[int, Sequence[Prompt]]) -> None:
        self._prompts = prompts
        self._left = set(prompts)

    def __call__(self, frame: int) -> Sequence[Prompt] | None:
        """Those of a frame by its number; None where it has none of its own."""
        self._left.discard(frame)
        return self._prompts.get(frame)

    @property
    def left(self) -> tuple[int, ...]:
        """The frames, in order, whose prompts nobody asked for."""
        return tuple(sorted(self._left))


def read_frame_prompts(path: str) -> FramePrompts:
    """JSON lines of {"frame", "prompts"} -> prompts of a frame, None for frames that the file does not name."""
    rows = read_prompt_file("--every-frame-prompts", path, PROMPT_LINE, _frame_prompts)
    twice = next((frame for frame, lines in Counter(frame for frame, _ in rows).items() if lines > 1), None)
    if twice is not None:
        raise DataError(f"{clipped(path)} has several lines for frame {twice}; put its prompts into one")
    return FramePrompts(dict(rows))


def _frame_prompts(row: Any) -> tuple[int, list[Prompt]]:
    return check_whole("frame", row["frame"], 0, 10**18, DataError), [prompt_of(p) for p in row["prompts"]]


def run(args: argparse.Namespace) -> int:
    frame_prompts = read_frame_prompts(args.every_frame_prompts) if args.every_frame_prompts else None
    prompts = []
    if args.point or args.box or frame_prompts is None:
        prompts = parse_prompts(args.point, args.box, options="--point X,Y or --box X0,Y0,X1,Y1")
    if args.streams is not None and args.streams < 1:
        raise InputError(f"--streams must be at least 1, but is {args.streams}")
    if args.streams is not None and args.mode == "latency":
        raise InputError("--mode latency keeps one frame in flight; leave --streams out")
    streams = args.streams or (1 if args.mode == "latency" else args.threads or available_cores())
    seg = load(args.model, args.engine, args.precision, threads=args.threads, streams=streams)
    source, sink = open_ends(args)
    loop = Loop(
        seg, source, sink, prompts, prompts_for=frame_prompts, drop=args.drop, zoom=args.zoom, on_tick=live_tick()
    )
    interrupted = run_loop(loop, args.source)
    left = frame_prompts.left if frame_prompts and not interrupted else ()
    if left:
        tell(
            f"tinyseg: warning: --every-frame-prompts has prompts for {len(left)} frames that never came or were dropped, the first "
            f"of them frame {left[0]}; frames are counted from 0, and --drop none drops none"
        )
    facts = {**asdict(loop.stats), "mode": args.mode, "segmenter": asdict(seg.info)}
    tell_result(args, facts, f"{live_line(loop.stats)}; {args.mode}; {seg.info}")
    return exit_code(loop.stats.damaged + len(left), interrupted)
