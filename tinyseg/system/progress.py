"""Telling a user how far a long job is, and why a program waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from tinyseg.system.console import is_watched, tell

T = TypeVar("T")
REFRESH_SECONDS = 0.2
SLOW_SECONDS = 1.0
LOGGER = logging.getLogger("tinyseg")


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items; on a terminal, keep a line on stderr with count, share, rate and time left."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    watched = is_watched()
    start = shown = time.monotonic()
    done = 0
    try:
        for item in items:
            yield item
            done += 1
            now = time.monotonic()
            if watched and (now - shown > REFRESH_SECONDS or done == total):
                shown = now
                rate = done / max(now - start, 1e-9)
                share = f"/{total} ({100 * done // total}%), {(total - done) / rate:.0f} s left" if total else ""
                tell(f"\r{what}: {done}{share}, {rate:.1f}/s\x1b[K", end="")
    finally:
        if watched and done:
            tell("")


@contextmanager
def tell_if_slow(what: str) -> Iterator[None]:
    """Log what is being waited for (logger "tinyseg") if it takes longer than a second: a warning, and at the end how long."""
    start = time.monotonic()
    timer = threading.Timer(SLOW_SECONDS, LOGGER.warning, args=(what,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        spent = time.monotonic() - start
        if spent > SLOW_SECONDS:
            LOGGER.info("... ready after %.1f s", spent)
