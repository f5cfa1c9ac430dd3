"""Frames for the live thread: a file's one after the other at its own pace, a camera's newest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tinyseg.sources import Frame, Source

DEFAULT_FRAME_RATE = 25.0  # of files that do not tell theirs
PICTURE_RATE = 1.0  # a folder's pictures a second


class Capture:
    """A source that is opened, read, and opened again from its start. Called from one thread.

    opener: opens the source. Files are read when a frame is asked for, no faster than their frame rate. Live sources are
    read all the time in a thread of their own, so that what is asked for is new, however long nobody asked.
    """

    def __init__(self, opener: Callable[[], Source]) -> None:
        self._opener = opener
        self._source = opener()
        self.live = self._source.live
        self.dropped = 0  # frames of a live source that were there and not asked for in time
        self._due = 0.0
        self._changed = threading.Condition()
        # Of the source that is open now: one that hangs may come back when the next one is read already.
        self._closing = threading.Event()
        self._newest: Frame | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._counting = False
        self._start()

    @property
    def frame_rate(self) -> float:
        """Frames a second as the source states it, 0 where it does not."""
        return self._source.frame_rate

    def next(self, seconds: float) -> Frame | None:
        """The next frame, None where none came in so many seconds. Raises EOFError at the end, and what the source raises."""
        if self.live:
            return self._next_live(seconds)
        rate = self._source.frame_rate or DEFAULT_FRAME_RATE
        now = time.perf_counter()
        if self._due - now > seconds:
            time.sleep(seconds)
            return None
        time.sleep(max(0.0, self._due - now))
        frame = self._source.next_frame()
        if frame is None:
            raise EOFError
        # Late frames are not made up for: the pace starts again from now.
        self._due = max(self._due, time.perf_counter() - 0.5 / rate) + 1 / (PICTURE_RATE if frame.name else rate)
        return frame

    def rest(self) -> None:
        """Nobody will ask for a while: frames that pass meanwhile are not counted as dropped."""
        with self._changed:
            self._counting = False
        self._due = 0.0

    def restart(self) -> None:
        """Open the source again, from its start. Raises what the opener raises."""
        self.close()
        self._source = self._opener()
        self._closing = threading.Event()
        self._ended, self._error, self._newest, self._due = False, None, None, 0.0
        self._start()

    def close(self) -> None:
        with self._changed:
            self._closing.set()
        if not self.live:
            self._source.close()
            return
        # A driver may hang in read(); the thread closes the source itself when it comes back.
        self._thread.join(timeout=1.0)

    def _start(self) -> None:
        if self.live:
            self._thread = threading.Thread(
                target=self._read_all, args=(self._source, self._closing), name="tinyseg-serve-capture", daemon=True
            )
            self._thread.start()

    def _read_all(self, source: Source, closing: threading.Event) -> None:
        try:
            while not closing.is_set():
                frame = source.next_frame()
                with self._changed:
                    if closing.is_set():
                        return
                    if frame is None:
                        self._ended = True
                        self._changed.notify_all()
                        return
                    self.dropped += self._newest is not None and self._counting
                    self._newest = frame
                    self._changed.notify_all()
        except BaseException as exc:
            with self._changed:
                if not closing.is_set():
                    self._error = exc
                    self._changed.notify_all()
        finally:
            source.close()

    def _next_live(self, seconds: float) -> Frame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended or self._error is not None, seconds)
            frame, self._newest = self._newest, None
            self._counting = True
            if frame is None and self._error is not None:
                raise self._error
            if frame is None and self._ended:
                raise EOFError
            return frame
