"""How far a long job is, on the terminal; silent where nobody watches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tinyseg.system.console import is_watched

T = TypeVar("T")
SLOW_SECONDS = 1.0
LOGGER = logging.getLogger("tinyseg")


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items; on a terminal, keep a line on stderr with count, share, rate and time left."""
    if not is_watched():  # standard error may be closed, which tqdm does not expect
        yield from items
        return
    from tqdm import tqdm  # noqa: PLC0415 - every program starts sooner without it

    yield from tqdm(items, desc=what, total=total, dynamic_ncols=True, leave=True)


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
