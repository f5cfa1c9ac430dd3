"""A kill at a chosen moment: before the n-th thing that a piece of work does to the file system."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def dies(work: Callable[[], object], root: Path, at: int) -> None:
    """For a forked process: do the work, killed before its n-th act under a folder; exits with 0 where it does fewer.

    Acts are Python's audit events: open, rename, remove, mkdir, ...
    """
    inside, counted = str(root), [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        acts = event == "open" or event.startswith(("os.", "shutil."))
        if acts and any(inside in os.fsdecode(a) for a in arguments if isinstance(a, (str, bytes, os.PathLike))):
            if counted[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            counted[0] += 1

    sys.addaudithook(hook)
    work()
    os._exit(0)
