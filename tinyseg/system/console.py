"""The terminal: standard streams that may be closed or full, what is told on standard error, Ctrl-C and SIGTERM."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)
AGAIN_SECONDS = 0.1  # by then a finalizer or callback has ended
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
    """Ctrl-C or SIGTERM while a command runs: KeyboardInterrupt, so that files become whole, and a memory of it where a
    library swallows that."""

    def __init__(self) -> None:
        self.seen = False
        self._again: threading.Timer | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        raise KeyboardInterrupt

    def ask_again(self) -> None:
        """Interrupt the main thread once more, in a moment: it was in a finalizer or a callback, which raise nothing."""
        # A signal, where there are any, for it ends a system call that is waited for, too.
        main, again = threading.main_thread().ident, _thread.interrupt_main
        if hasattr(signal, "pthread_kill") and main is not None:
            again = partial(signal.pthread_kill, main, signal.SIGINT)
        self._again = threading.Timer(AGAIN_SECONDS, again)
        self._again.daemon = True
        self._again.start()

    def end(self) -> None:
        if self._again is not None:
            self._again.cancel()


_current: Interrupts | None = None


@contextmanager
def remembered_interrupts() -> Iterator[Interrupts]:
    """Handle Ctrl-C and SIGTERM as :class:`Interrupts` does; not in other threads, and not where a parent has them ignored."""
    global _current
    interrupts = Interrupts()
    hook, outer = sys.unraisablehook, _current
    ours = threading.current_thread() is threading.main_thread()
    ignored = (signal.SIG_IGN, None)  # None: handled, but not by Python
    before = {n: signal.getsignal(n) for n in STOPPING if ours and signal.getsignal(n) not in ignored}

    def not_raised(what: sys.UnraisableHookArgs) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt):
            interrupts.ask_again()
        else:
            hook(what)

    if before:
        for number in before:
            signal.signal(number, interrupts)
        sys.unraisablehook, _current = not_raised, interrupts
    try:
        yield interrupts
    finally:
        if before:
            interrupts.end()
            sys.unraisablehook, _current = hook, outer
            for number, handler in before.items():
                signal.signal(number, handler)


def heed_interrupts() -> None:
    """Raise KeyboardInterrupt where Ctrl-C was pressed and a library swallowed it: for what might otherwise go on for ever."""
    if _current is not None and _current.seen:
        raise KeyboardInterrupt


def forget_interrupts() -> None:
    """Count what was asked so far as done: for a server, whose end is Ctrl-C or SIGTERM."""
    if _current is not None:
        _current.seen = False


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
