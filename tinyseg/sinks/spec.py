"""What a user names on the command line -> a sink."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from tinyseg.arguments import parse_whole, shown
from tinyseg.errors import InputError
from tinyseg.sinks.base import NullSink, Sink
from tinyseg.sinks.http import DEFAULT_PORT, HttpSink
from tinyseg.sinks.jsonl import JsonLinesSink
from tinyseg.sinks.pictures import PngSink
from tinyseg.sinks.raw import RawSink
from tinyseg.sinks.video import VideoSink
from tinyseg.sinks.window import WindowSink
from tinyseg.system.console import tell

SINK_HELP = "null, http[:PORT] (a page on this machine), window, video:FILE.mp4, png:FOLDER, jsonl:FILE, or raw (masks on standard output)"


def open_sink(text: str, frame_rate: float = 0.0, stdout: BinaryIO | None = None) -> Sink:
    """Open what a user names on the command line. Raises InputError or DataError."""
    if not isinstance(text, str):
        raise InputError(f"{shown(text)} is no sink; give {SINK_HELP}")
    kind, _, rest = text.partition(":")
    if kind == "http":
        page = HttpSink(_port(rest))
        tell(f"watch at {page.url}")
        return page
    if (kind in ("null", "window", "raw")) != (not rest):
        raise InputError(f"{shown(text)} is no sink; give {SINK_HELP}")
    if kind == "null":
        return NullSink()
    if kind == "window":
        return WindowSink()
    if kind == "video":
        return VideoSink(Path(rest), frame_rate)
    if kind == "png":
        return PngSink(Path(rest))
    if kind == "jsonl":
        if rest == "-":
            raise InputError("jsonl:- would be a file of that name; standard output is jsonl:/dev/stdout")
        return JsonLinesSink(Path(rest))
    if kind == "raw":
        if stdout is None:
            raise InputError("there is no standard output to write raw masks to")
        return RawSink(stdout)
    raise InputError(f"{shown(text)} is no sink; give {SINK_HELP}")


def _port(text: str) -> int:
    port = parse_whole(text) if text else DEFAULT_PORT
    if port is None or port > 65535:
        raise InputError(f"http takes a port from 0 to 65535, but got {shown(text)}")
    return port
