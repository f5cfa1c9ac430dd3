"""Where frames come from: cameras, streams, pipelines, video files, images, arrays, raw bytes, and drawn ones.

A source is an iterator of frames with a ``live`` flag and ``close()``; your own needs ``read()`` alone
(:class:`Source`). Live sources do not wait for anybody: :class:`tinyseg.Loop` drops what comes too fast and counts it.
Files wait, so that no frame is lost.
"""

from tinyseg.sources.base import ArraySource, Frame, Source
from tinyseg.sources.camera import Capture, LiveSource, open_camera, open_stream
from tinyseg.sources.folder import ImageSource
from tinyseg.sources.gstreamer import open_pipeline
from tinyseg.sources.raw import RawSource
from tinyseg.sources.synthetic import SyntheticSource
from tinyseg.sources.uri import SOURCE_HELP, open_source
from tinyseg.sources.video import VideoFileSource

__all__ = [
    "SOURCE_HELP",
    "ArraySource",
    "Capture",
    "Frame",
    "ImageSource",
    "LiveSource",
    "RawSource",
    "Source",
    "SyntheticSource",
    "VideoFileSource",
    "open_camera",
    "open_pipeline",
    "open_source",
    "open_stream",
]
