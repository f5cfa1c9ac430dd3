"""What commands share that carry a stream's frames to a sink: options, the line that lives, and how a loop ends."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tinyseg.arguments import clipped, parse_size
from tinyseg.errors import DataError, InputError
from tinyseg.loop import Loop, LoopStats
from tinyseg.pixels import MAX_SIDE
from tinyseg.sinks import SINK_HELP, Sink, open_sink
from tinyseg.sources import Source, open_source
from tinyseg.system.console import heed_interrupts, is_watched, tell
from tinyseg.system.device import temperature_celsius
from tinyseg.system.service import Heartbeat

EXIT_IN_PART, EXIT_INTERRUPTED = 1, 130


def add_stream_options(parser: argparse.ArgumentParser) -> None:
    """--sink, --drop, --raw-size, --raw-color and --json."""
    parser.add_argument("--sink", default="null", metavar="SINK", help=f"{SINK_HELP} (default: null)")
    parser.add_argument(
        "--drop", choices=("auto", "latest", "none"), default="auto",
        help="when frames come too fast: latest wins, or none is lost (default: latest for live sources)",
    )  # fmt: skip
    parser.add_argument("--raw-size", metavar="WxH", help="size of raw frames on standard input")
    parser.add_argument(
        "--raw-color", choices=("bgr", "rgb", "gray"), default="bgr", help="their colour (default: bgr)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the final figures as JSON, on standard error for --sink raw"
    )


def open_ends(args: argparse.Namespace) -> tuple[Source, Sink]:
    """The source and the sink that the options name. Raises DataError, InputError."""
    check_sink_apart(args.sink, args.source)
    if args.raw_size is not None and args.source != "-":
        raise InputError("--raw-size is for raw frames on standard input, of the source -")
    if args.raw_color != "bgr" and args.source != "-":
        raise InputError("--raw-color is of raw frames on standard input, of the source -; leave it out")
    size = (0, 0) if args.raw_size is None else parse_size("--raw-size", args.raw_size, MAX_SIDE)
    source = open_source(args.source, getattr(sys.stdin, "buffer", None), size, args.raw_color)
    try:
        return source, open_sink(args.sink, source.frame_rate, getattr(sys.stdout, "buffer", None))
    except BaseException:
        source.close()
        raise


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


def live_tick() -> Callable[[LoopStats], None]:
    """For ``Loop(on_tick=)``: writes the line over itself where somebody watches, and tells systemd that the loop is alive."""
    watched = is_watched()
    heartbeat = Heartbeat()

    def tick(stats: LoopStats) -> None:
        heed_interrupts()
        line = live_line(stats)
        if watched:
            tell(f"\r{line}\x1b[K", end="")
        heartbeat.progress(stats.frames, line)

    return tick


def run_loop(loop: Loop, source: str) -> bool:
    """Run a loop to its end; returns whether it was interrupted. Raises DataError where the source gave no frame."""
    interrupted = False
    with loop:
        try:
            heed_interrupts()
            loop.run()
        except KeyboardInterrupt:
            interrupted = True
    if is_watched():
        tell("")
    if loop.stats.frames == 0 and not interrupted:
        raise DataError(f"{source} gave no frame")
    return interrupted


def tell_result(args: argparse.Namespace, facts: Mapping[str, Any], line: str) -> None:
    """The final figures, as --json says; on standard error where results fill standard output."""
    (tell if args.sink == "raw" else print)(json.dumps(facts) if args.json else line)


def exit_code(damaged: int, interrupted: bool) -> int:
    """How a command ends that carried a stream's frames. damaged: frames that could not be read."""
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_IN_PART if damaged else 0


def check_sink_apart(sink: str, source: str) -> None:
    """Raises DataError where the sink's file is the source's: at its end the film would be replaced by what was made of it."""
    kind, _, place = sink.partition(":")
    if kind in ("video", "jsonl") and place:
        check_apart(f"--sink {clipped(sink)}", Path(place), source)


def check_apart(option: str, place: Path, source: str) -> None:
    """Raises DataError where the file that an option names is the source."""
    same = False
    with suppress(OSError, ValueError):  # names that no file has
        same = os.path.samefile(place, source)
    if same:
        raise DataError(f"{option} is the source; name another file")
