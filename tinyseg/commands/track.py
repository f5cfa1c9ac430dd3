"""``tinyseg track``: follow objects through a camera, video or stream."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from tinyseg.commands.options import add_engine_options, load_segmenter
from tinyseg.commands.prompts import parse_boxes, parse_points, prompt_of, read_prompt_file
from tinyseg.commands.results import file_for_results
from tinyseg.commands.stream import (
    add_stream_options,
    exit_code,
    live_line,
    live_tick,
    open_ends,
    run_loop,
    tell_result,
)
from tinyseg.errors import PromptError
from tinyseg.images import read_mask
from tinyseg.loop import Loop
from tinyseg.prompts import Prompt
from tinyseg.sources import SOURCE_HELP
from tinyseg.system.console import tell
from tinyseg.track import ObjectId

LINE_KEYS = ("frame", "id", "remove")
PROMPT_LINE = '{"frame": N, "id": ID, "box" or "points" and "labels", or "remove"}'

EXAMPLES = """examples:
  tinyseg track examples/clip.mp4 --box 28,132,117,212 --box 96,3,207,133 --sink video:tracked.mp4
  tinyseg track 0 --point 640,360 --sink window
  tinyseg track rtsp://camera/stream --box 100,50,400,300 --box 500,80,640,300 --sink jsonl:tracks.jsonl
  tinyseg track film.mp4 --mask cup.png --prompts later.jsonl --sink png:frames

Objects get the ids 1, 2, ..., those that --restore brought left out: boxes first, then masks, then the points, which all
mean one object. A line of --prompts FILE adds an object, corrects one or removes it in a later frame:
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
    add_stream_options(parser)
    parser.add_argument("--save", metavar="FILE", help="keep the tracker's state in a file at the end")
    parser.add_argument("--restore", metavar="FILE", help="go on from a state that --save kept")
    add_engine_options(parser)
    parser.set_defaults(run=run)


def first_prompts(args: argparse.Namespace) -> list[Prompt]:
    """The objects of the first frame. Raises PromptError, DataError."""
    boxes = parse_boxes(args.box)
    points, labels = parse_points(args.point)
    masks = [Prompt(mask=read_mask(file)) for file in args.mask]
    if points is None or len(boxes) != 1:
        return [*(Prompt(box=b) for b in boxes), *masks, *([Prompt(points, labels)] if points else [])]
    return [Prompt(points, labels, boxes[0]), *masks]


def later_prompt(row: Any) -> tuple[int, ObjectId, Prompt | None]:
    """A line of --prompts -> frame, id and prompt, None to remove the object."""
    frame, id = row["frame"], row["id"]
    if type(frame) is not int or frame < 0 or type(id) not in (int, str):
        raise ValueError(f"frame {frame!r}, id {id!r}")
    return frame, id, None if row.get("remove") is True else prompt_of(row, LINE_KEYS)


def run(args: argparse.Namespace) -> int:
    prompts = first_prompts(args)
    later = read_prompt_file("--prompts", args.prompts, PROMPT_LINE, later_prompt) if args.prompts else []
    if not prompts and not later and not args.restore:
        raise PromptError("say what to follow: --box X0,Y0,X1,Y1, --point X,Y, --mask FILE, or --prompts FILE")
    if args.save:
        file_for_results("--save", args.save)
    seg = load_segmenter(args)
    tracker = seg.tracker()
    if args.restore:
        tracker.restore(args.restore)
    source, sink = open_ends(args)
    loop = Loop(tracker, source, sink, prompts, drop=args.drop, on_tick=live_tick())
    for frame, id, prompt in later:
        if prompt is None:
            loop.remove(id, frame)
        else:
            loop.add(id, prompt, frame)
    interrupted = run_loop(loop, args.source)
    if args.save:
        tracker.save(args.save)
    left = () if interrupted else loop.not_reached
    if left:
        id, frame = min(left, key=lambda one: one[1])
        tell(
            f"tinyseg: warning: {len(left)} of the prompts were for frames that never came, the first for object {id!r} in frame "
            f"{frame}; frames are counted from 0"
        )
    facts = {**asdict(loop.stats), "objects": list(tracker.ids), "memory_bytes": tracker.memory_bytes}
    line = f"{len(tracker)} object(s); {live_line(loop.stats)}; {seg.info}"
    tell_result(args, {**facts, "segmenter": asdict(seg.info)}, line)
    return exit_code(loop.stats.damaged + len(left), interrupted)
