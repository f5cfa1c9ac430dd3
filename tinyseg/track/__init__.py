"""Objects followed through a stream: prompt them once, then step from frame to frame.

The way of a frame: ``views`` says which parts of it are encoded, ``memory`` compares what was encoded with what each
object looked like before, the decoder turns that into masks, and ``presence`` judges whether the object is there at all.
``tracker`` puts these together; ``state`` keeps a tracker in a file.
"""

from tinyseg.track.result import ObjectId, TrackResult
from tinyseg.track.tracker import Tracker

__all__ = ["ObjectId", "TrackResult", "Tracker"]
