"""``tinyseg track``: follow objects through a camera, video or stream."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinyseg.arguments import check_path, clipped
from tinyseg.commands.options import add_engine_options, load_segmenter
from tinyseg.commands.run import EXIT_IN_PART, EXIT_INTERRUPTED, live_line, raw_size
from tinyseg.commands.segment import numbers
from tinyseg.errors import DataError, PromptError
from tinyseg.images import read_mask
from tinyseg.loop import Loop, LoopStats
from tinyseg.prompts import Prompt
from tinyseg.sinks import SINK_HELP, open_sink
from tinyseg.sources import SOURCE_HELP, open_source
from tinyseg.system.console import is_watched, tell
from tinyseg.system.service import Heartbeat
from tinyseg.track import ObjectId

MOST_PROMPT_BYTES = 64 << 20

EXAMPLES = """examples:
  tinyseg track examples/clip.mp4 --box 28,132,117,212 --box 96,3,207,133 --sink video:tracked.mp4
  tinyseg track 0 --point 640,360 --sink window
  tinyseg track rtsp://camera/stream --box 100,50,400,300 --box 500,80,640,300 --sink jsonl:tracks.jsonl
  tinyseg track film.mp4 --mask cup.png --prompts later.jsonl --sink png:frames

Objects get the ids 1, 2, ...: boxes first, then masks, then the points, which all mean one object. A line of --prompts FILE
adds an object, corrects one or removes it in a later frame:
  {"frame": 40, "id": "ball", "box": [10, 20, 60, 70]}
  {"frame": 52, "id": 1, "points": [[30, 40], [90, 95]], "labels": [1, 0]}
  {"frame": 90, "id": 1, "remove": true}"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "track", help="follow objects through a camera, video or stream", epilog=EXAMPLES,
        description="Follow objects through a source: they are prompted in its first frame, keep their ids, and come back "
        "under them after they were hidden.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("source", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument(
        "--box", action="append", default=[], metavar="X0,Y0,X1,Y1", help="a box in pixels; an object each"
    )
    parser.add_argument(
        "--mask", action="append", default=[], metavar="FILE",
        help="an image of the frame's size, not black where the object is; an object each",
    )  # fmt: skip
    parser.add_argument(
        "--point", action="append", default=[], metavar="X,Y[,0|1]",
        help="a click in pixels; all clicks mean one object, with a single --box the object in it",
    )  # fmt: skip
    parser.add_argument("--prompts", metavar="FILE", help="JSON lines: objects of later frames, and corrections")
    parser.add_argument("--sink", default="null", metavar="SINK", help=f"{SINK_HELP} (default: null)")
    parser.add_argument(
        "--drop", choices=("auto", "latest", "none"), default="auto",
        help="when frames come too fast: latest wins, or none is lost (default: latest for live sources)",
    )  # fmt: skip
    parser.add_argument("--save", metavar="FILE", help="keep the tracker's state in a file at the end")
    parser.add_argument("--restore", metavar="FILE", help="go on from a state that --save kept")
    parser.add_argument("--raw-size", metavar="WxH", help="size of raw frames on standard input")
    parser.add_argument(
        "--raw-color", choices=("bgr", "rgb", "gray"), default="bgr", help="their colour (default: bgr)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the final figures as JSON, on standard error for --sink raw"
    )
    add_engine_options(parser)
    parser.set_defaults(run=run)


def first_prompts(args: argparse.Namespace) -> list[Prompt]:
    """The objects of the first frame. Raises PromptError, DataError."""
    boxes = [numbers(text, (4,), "--box takes X0,Y0,X1,Y1") for text in args.box]
    clicks = [numbers(text, (2, 3), "--point takes X,Y or X,Y,LABEL") for text in args.point]
    points = [c[:2] for c in clicks] or None
    labels = [c[2] if len(c) == 3 else 1.0 for c in clicks] or None
    masks = [Prompt(mask=read_mask(file)) for file in args.mask]
    if points is None or len(boxes) != 1:
        return [*(Prompt(box=b) for b in boxes), *masks, *([Prompt(points, labels)] if points else [])]
    return [Prompt(points, labels, boxes[0]), *masks]


def read_later(path: Path) -> list[tuple[int, ObjectId, Prompt | None]]:
    """JSON lines of --prompts -> (frame, id, prompt or None to remove). Raises DataError or PromptError."""
    try:
        if path.stat().st_size > MOST_PROMPT_BYTES:
            raise DataError(f"{clipped(path)} is too large for prompts; {MOST_PROMPT_BYTES >> 20} MiB are the most")
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(f"{clipped(path)} cannot be read: {exc}") from exc
    return [_later(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _later(path: Path, number: int, line: str) -> tuple[int, ObjectId, Prompt | None]:
    try:
        row = json.loads(line)
        frame, id = row["frame"], row["id"]
        if type(frame) is not int or frame < 0 or type(id) not in (int, str):
            raise ValueError(f"frame {frame!r}, id {id!r}")
        if row.get("remove") is True:
            return frame, id, None
        return frame, id, Prompt(row.get("points"), row.get("labels"), row.get("box"))
    except PromptError as exc:
        raise PromptError(f"{path}, line {number}: {exc}") from exc
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise DataError(
            f'{path}, line {number}: expected {{"frame": N, "id": ID, "box" or "points" and "labels", or "remove"}} ({exc})'
        ) from exc


def run(args: argparse.Namespace) -> int:
    prompts = first_prompts(args)
    later = read_later(check_path("--prompts", args.prompts)) if args.prompts else []
    if not prompts and not later and not args.restore:
        raise PromptError("say what to follow: --box X0,Y0,X1,Y1, --point X,Y, --mask FILE, or --prompts FILE")
    seg = load_segmenter(args)
    tracker = seg.tracker()
    if args.restore:
        tracker.restore(args.restore)
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

    loop = Loop(tracker, source, sink, prompts, drop=args.drop, on_tick=tick)
    for frame, id, prompt in later:
        if prompt is None:
            loop.remove(id, frame)
        else:
            loop.add(id, prompt, frame)
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
    if args.save:
        tracker.save(args.save)
    say = tell if args.sink == "raw" else print
    if watched:
        tell("")
    if args.json:
        facts = {**asdict(loop.stats), "objects": list(tracker.ids), "memory_bytes": tracker.memory_bytes}
        say(json.dumps({**facts, "segmenter": asdict(seg.info)}))
    else:
        say(f"{len(tracker)} object(s); {live_line(loop.stats)}; {seg.info}")
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_IN_PART if loop.stats.damaged else 0
