"""Snapshots as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from tinyseg.serve.live import Snapshot


def state(snapshot: Snapshot, source: str, live: bool, viewers: int) -> dict[str, Any]:
    """Everything that a viewer needs: whoever has the newest state has missed nothing."""
    height, width = snapshot.size
    return {
        "type": "state", "number": snapshot.number, "frame": snapshot.frame, "width": width, "height": height,
        "source": source, "live": live, "status": snapshot.status, "message": snapshot.message,
        "objects": [asdict(one) for one in snapshot.objects],
        "recording": asdict(snapshot.recording) if snapshot.recording is not None else None,
        "figures": {**asdict(snapshot.figures), "viewers": viewers},
    }  # fmt: skip


class StateText:
    """States as text, each made once for all viewers; used from the event loop."""

    def __init__(self, source: str, live: bool) -> None:
        self._source, self._live = source, live
        self._key = (-1, -1)
        self._text = ""

    def __call__(self, snapshot: Snapshot, viewers: int) -> str:
        key = (snapshot.number, viewers)
        if key != self._key:
            value = state(snapshot, self._source, self._live, viewers)
            self._key, self._text = key, json.dumps(value, separators=(",", ":"))
        return self._text
