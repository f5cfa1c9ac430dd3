"""What systemd is told of a service: that it is ready, and that it is alive (``Type=notify``, ``WatchdogSec=``).

The protocol is sd_notify's: a datagram to the socket that ``NOTIFY_SOCKET`` names. Without that variable nothing is said.
"""

from __future__ import annotations

import logging
import os
import socket
import time

log = logging.getLogger("tinyseg.system")
MOST_SILENT_SHARE = 1 / 3  # of the time after which systemd ends a silent service


def notify(state: str) -> bool:
    """Tell systemd, such as ``READY=1``; whether somebody is there to be told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return False
    place = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect(place)
            channel.sendall(state.encode())
    except OSError as exc:
        log.warning(f"systemd cannot be told {state.partition('=')[0]} at {address}: {exc.strerror or exc}")
        return False
    return True


def watchdog_seconds() -> float | None:
    """After how many seconds without a word systemd ends this process; None where it does not watch."""
    microseconds, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0 or process not in ("", str(os.getpid())):
        return None
    return int(microseconds) / 1e6


class Heartbeat:
    """Tells systemd that a service is ready at its first step, and alive as long as steps are made.

    A process that hangs, its engine's driver included, makes no step: systemd ends and restarts it. Steps more often than
    a third of the watchdog's time are not told.
    """

    def __init__(self) -> None:
        seconds = watchdog_seconds()
        self.pause = None if seconds is None else seconds * MOST_SILENT_SHARE  # between two words
        self._ready = False
        self._step = 0
        self._told = 0.0

    def progress(self, step: int, status: str = "") -> None:
        """The work has come to a step, counted from 1. status: a line for ``systemctl status``."""
        if step <= self._step:
            return
        self._step = step
        now = time.monotonic()
        words = [f"STATUS={' '.join(status.split())}"] if status else []
        if not self._ready:
            self._ready = True
            words.insert(0, "READY=1")
        elif self.pause is None or now - self._told < self.pause:
            return
        self._told = now
        notify("\n".join([*words, "WATCHDOG=1"]))
