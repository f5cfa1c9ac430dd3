"""``tinyseg run``: segment every frame of a camera, video or stream."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinyseg.arguments import check_path, check_whole, clipped, parse_size
from tinyseg.commands.options import add_engine_options
from tinyseg.commands.segment import parse_prompts
from tinyseg.engines.cpu import available_cores
from tinyseg.errors import DataError, InputError, PromptError
from tinyseg.loop import Loop, LoopStats
from tinyseg.pixels import MAX_SIDE
from tinyseg.predict.load import load
from tinyseg.predict.second_look import ZOOM_CHOICES
from tinyseg.prompts import Prompt
from tinyseg.sinks import SINK_HELP, open_sink
from tinyseg.sources import SOURCE_HELP, open_source
from tinyseg.system.console import is_watched, tell
from tinyseg.system.device import temperature_celsius
from tinyseg.system.service import Heartbeat

EXIT_IN_PART, EXIT_INTERRUPTED = 1, 130
MOST_PROMPT_BYTES = 256 << 20
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
    parser.add_argument("--point", action="append", default=[], metavar="X,Y[,0|1]", help="a click in pixels")
    parser.add_argument(
        "--box", action="append", default=[], metavar="X0,Y0,X1,Y1", help="a box in pixels; an object each"
    )
    parser.add_argument("--every-frame-prompts", metavar="FILE", help="JSON lines: prompts for single frames")
    parser.add_argument("--sink", default="null", metavar="SINK", help=f"{SINK_HELP} (default: null)")
    parser.add_argument(
        "--mode", choices=("throughput", "latency"), default="throughput",
        help="throughput: a frame on every core; latency: one frame at a time on all cores (default: throughput)",
    )  # fmt: skip
    parser.add_argument(
        "--drop", choices=("auto", "latest", "none"), default="auto",
        help="when frames come too fast: latest wins, or none is lost (default: latest for live sources)",
    )  # fmt: skip
    parser.add_argument(
        "--zoom", choices=ZOOM_CHOICES, default="off", help="second look at small objects (default: off)"
    )
    parser.add_argument("--raw-size", metavar="WxH", help="size of raw frames on standard input")
    parser.add_argument(
        "--raw-color", choices=("bgr", "rgb", "gray"), default="bgr", help="their colour (default: bgr)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the final figures as JSON, on standard error for --sink raw"
    )
    add_engine_options(parser)
    parser.add_argument(
        "--streams",
        type=int,
        metavar="N",
        help="frames in flight (default: 1 for latency, one on every core for throughput)",
    )
    parser.set_defaults(run=run, mask=None)


def read_frame_prompts(path: Path) -> Callable[[int], Sequence[Prompt] | None]:
    """JSON lines of {"frame", "prompts"} -> prompts of a frame, None for frames that the file does not name."""
    rows: dict[int, list[Prompt]] = {}
    try:
        with check_path("--every-frame-prompts", path).open("rb") as file:
            content = file.read(MOST_PROMPT_BYTES + 1)
        if len(content) > MOST_PROMPT_BYTES:
            raise DataError(f"{clipped(path)} is larger than {MOST_PROMPT_BYTES >> 20} MiB; that is no file of prompts")
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as exc:
        raise DataError(f"{clipped(path)} is not text in UTF-8 (byte {exc.start}); a line is {PROMPT_LINE}") from exc
    except OSError as exc:
        raise DataError(f"{clipped(path)} cannot be read: {exc.strerror or exc}") from exc
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            frame = check_whole("frame", row["frame"], 0, 10**18, DataError)
            rows[frame] = [Prompt(p.get("points"), p.get("labels"), p.get("box")) for p in row["prompts"]]
        except PromptError as exc:
            raise PromptError(f"{clipped(path)}, line {number}: {exc}") from exc
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise DataError(f"{clipped(path)}, line {number}: expected {PROMPT_LINE} ({exc!s:.200})") from exc
    return rows.get


def raw_size(text: str | None) -> tuple[int, int]:
    """The size that --raw-size states, (0, 0) without one. Raises InputError."""
    return (0, 0) if text is None else parse_size("--raw-size", text, MAX_SIDE)


def live_line(stats: LoopStats) -> str:
    heat = temperature_celsius()
    damaged = f", {stats.damaged} damaged" if stats.damaged else ""
    shown = f", {heat:.0f} C" if heat is not None else ""
    if stats.warm_up_seconds >= 0.05:
        shown = f", warm-up of {stats.warm_up_seconds:.1f} s left out{shown}"
    return (
        f"{stats.frames} frames, {stats.fps:.1f}/s, latency p50 {stats.latency_p50_ms:.1f} p99 {stats.latency_p99_ms:.1f} ms, "
        f"{stats.dropped} dropped{damaged}{shown}"
    )


def run(args: argparse.Namespace) -> int:
    frame_prompts = read_frame_prompts(Path(args.every_frame_prompts)) if args.every_frame_prompts else None
    prompts = (
        parse_prompts(args, "--point X,Y or --box X0,Y0,X1,Y1")
        if args.point or args.box or frame_prompts is None
        else []
    )
    if args.streams is not None and args.streams < 1:
        raise InputError(f"--streams must be at least 1, but is {args.streams}")
    if args.streams is not None and args.mode == "latency":
        raise InputError("--mode latency keeps one frame in flight; leave --streams out")
    streams = args.streams or (1 if args.mode == "latency" else args.threads or available_cores())
    seg = load(args.model, args.engine, args.precision, threads=args.threads, streams=streams)
    source = open_source(args.source, getattr(sys.stdin, "buffer", None), raw_size(args.raw_size), args.raw_color)
    try:
        sink = open_sink(args.sink, source.frame_rate, getattr(sys.stdout, "buffer", None))
    except BaseException:
        source.close()
        raise
    watched = is_watched()
    heartbeat = Heartbeat()

    def tick(stats: LoopStats) -> None:
        if watched:
            tell(f"\r{live_line(stats)}\x1b[K", end="")
        heartbeat.progress(stats.frames, live_line(stats))

    loop = Loop(
        seg, source, sink, prompts, prompts_for=frame_prompts, drop=args.drop, zoom=args.zoom, on_tick=tick
    )  # fmt: skip
    interrupted = False
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # stopped like Ctrl-C: files become whole
    with loop:
        try:
            loop.run()
        except KeyboardInterrupt:
            interrupted = True
    if loop.stats.frames == 0 and not interrupted:
        raise DataError(f"{args.source} gave no frame")
    say = tell if args.sink == "raw" else print
    if watched:
        tell("")
    if args.json:
        say(json.dumps({**asdict(loop.stats), "mode": args.mode, "segmenter": asdict(seg.info)}))
    else:
        say(f"{live_line(loop.stats)}; {args.mode}; {seg.info}")
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_IN_PART if loop.stats.damaged else 0
