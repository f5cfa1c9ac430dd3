"""Viewers: each gets the newest snapshot when it is ready for one, and skips what came in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import anyio

from tinyseg.serve.limits import VIEWERS
from tinyseg.serve.live import Live, Snapshot, Unavailable


class Viewer:
    """One reader of the snapshots of a live thread; used from the event loop."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._seen = 0
        self.end_watch = live.watch(self._wake)

    async def next(self, seconds: float) -> Snapshot | None:
        """The newest snapshot, as soon as there is one that this viewer has not had; None after so many seconds."""
        end = self._loop.time() + seconds
        while True:
            self._event.clear()
            snapshot = self._live.latest
            if snapshot is not None and snapshot.number > self._seen:
                self._seen = snapshot.number
                return snapshot
            if not self._live.running or self._loop.time() >= end:
                return None
            with anyio.move_on_after(end - self._loop.time()):
                await self._event.wait()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the event loop has been closed meanwhile
            self._loop.call_soon_threadsafe(self._event.set)


class Viewers:
    """Counts viewers, and refuses more than a machine can feed."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.streams = 0
        self.channels = 0

    @contextmanager
    def stream(self) -> Iterator[Viewer]:
        """A viewer of pictures. Raises Unavailable."""
        if self.streams >= VIEWERS:
            raise Unavailable(f"{VIEWERS} viewers are there already; close one")
        self.streams += 1
        viewer = Viewer(self._live)
        try:
            yield viewer
        finally:
            self.streams -= 1
            viewer.end_watch()

    @contextmanager
    def channel(self) -> Iterator[Viewer]:
        """A viewer of masks. Raises Unavailable."""
        if self.channels >= VIEWERS:
            raise Unavailable(f"{VIEWERS} viewers are there already; close one")
        self.channels += 1
        viewer = Viewer(self._live)
        try:
            yield viewer
        finally:
            self.channels -= 1
            viewer.end_watch()
