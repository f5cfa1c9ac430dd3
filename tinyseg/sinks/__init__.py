"""Where answers go: a page, a window, a video, pictures, JSON lines, raw masks, your own function, or nowhere.

A sink needs one method, ``write(result)``; :class:`Sink` gives the rest. Files appear whole under their name when the
sink is closed, also after an error or Ctrl-C.
"""

from tinyseg.sinks.base import CallbackSink, FrameResult, NullSink, Sink
from tinyseg.sinks.http import HttpSink
from tinyseg.sinks.jsonl import JsonLinesSink
from tinyseg.sinks.pictures import PngSink
from tinyseg.sinks.raw import RawSink
from tinyseg.sinks.spec import SINK_HELP, open_sink
from tinyseg.sinks.video import VideoSink
from tinyseg.sinks.window import WindowSink

__all__ = [
    "SINK_HELP",
    "CallbackSink",
    "FrameResult",
    "HttpSink",
    "JsonLinesSink",
    "NullSink",
    "PngSink",
    "RawSink",
    "Sink",
    "VideoSink",
    "WindowSink",
    "open_sink",
]
