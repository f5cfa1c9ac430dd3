"""A page over a stream: see the camera, click, follow; for any number of viewers with one inference.

The way of a frame: ``live`` takes it from the source, steps the tracker and publishes a snapshot; ``viewers`` hands every
viewer the newest one; ``streams`` sends pictures (MJPEG) and ``channel`` masks (websocket). What viewers ask for comes in
through ``api`` and ``channel``, is checked against the schemas of ``openapi``, and is done by ``actions`` between two
frames. ``guard`` stands before everything. ``server`` runs it all; ``page`` is what a browser gets.
"""

from tinyseg.serve.app import create_app
from tinyseg.serve.live import Live, Snapshot
from tinyseg.serve.server import Settings, serve

__all__ = ["Live", "Settings", "Snapshot", "create_app", "serve"]
