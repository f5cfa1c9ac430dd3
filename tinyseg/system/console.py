"""The terminal: standard streams that may be closed or full, what is told on standard error, and Ctrl-C."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}


def tell(text: str, end: str = "\n") -> None:
    """Say something on standard error, if it can be said: a closed or full one changes nothing."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text + end)
            sys.stderr.flush()


def is_watched() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


def occupy_standard_streams() -> None:
    """Give closed descriptors 0 to 2 a place to lead to.

    A file that is opened later would get the number of a closed one, and whatever a library prints would go into it.
    Standard output leads to a place that cannot be written, so that losing results is an error.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        if not _is_open(number):
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - a descriptor, for the whole run
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def drop_output() -> None:
    """Forget what standard output still holds: it cannot be written, and the interpreter would try once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Interrupts:
    """Ctrl-C while a command runs: KeyboardInterrupt, and a memory of it where a library swallows that."""

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        raise KeyboardInterrupt


_running: list[Interrupts] = []


@contextmanager
def remembered_interrupts() -> Iterator[Interrupts]:
    """Handle Ctrl-C as :class:`Interrupts` does; not in other threads, and not where a parent has it ignored."""
    interrupts = Interrupts()
    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and callable(before)
    if ours:
        signal.signal(signal.SIGINT, interrupts)
    _running.append(interrupts)
    try:
        yield interrupts
    finally:
        _running.remove(interrupts)
        if ours:
            signal.signal(signal.SIGINT, before)


def heed_interrupts() -> None:
    """Raise KeyboardInterrupt where a library swallowed the one of this command: before work that does not end by itself."""
    if any(interrupts.seen for interrupts in _running):
        raise KeyboardInterrupt


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno >= logging.WARNING else f"{record.levelname.lower()}: "
        tell(f"tinyseg: {level}{self.format(record)}")


@contextmanager
def log_to_console(verbosity: int) -> Iterator[None]:
    """Show the log of tinyseg on standard error: -1 errors only, 0 warnings, 1 what is done, 2 everything."""
    logger, handler = logging.getLogger("tinyseg"), _Handler()
    before = logger.level
    logger.setLevel(LEVELS[max(-1, min(verbosity, 2))])
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
