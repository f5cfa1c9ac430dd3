"""Libraries that talk to standard error while they load."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("tinyseg.engines")
# What ONNX Runtime says on Arm in containers and emulators that hide /sys, a dozen lines at every start: it goes on with the
# instructions of every 64-bit Arm processor.
CPUINFO = re.compile(
    r"Error in cpuinfo: |onnxruntime cpuid_info warning: |onnxruntime warning: cpuinfo_initialize failed"
)


@contextmanager
def held_back(noise: re.Pattern[str]) -> Iterator[None]:
    """Within the block nothing reaches standard error; afterwards all but the lines that begin with ``noise`` does.

    Those are logged for ``tinyseg -vv``. Also what C libraries write. Linux; elsewhere, and where standard error is closed,
    nothing is held back.
    """
    try:
        before = os.dup(2)
        held = os.memfd_create("held-back-stderr") if sys.platform == "linux" else -1
    except OSError:
        before = held = -1
    if held < 0:
        if before >= 0:
            os.close(before)
        yield
        return
    _flush()
    os.dup2(held, 2)
    try:
        yield
    finally:
        _flush()
        os.dup2(before, 2)
        os.close(before)
        with os.fdopen(held, "rb") as file:
            file.seek(0)
            lines = file.read().decode(errors="replace").splitlines(keepends=True)
        for line in lines:
            if noise.match(line):
                log.debug(line.rstrip())
            else:
                os.write(2, line.encode())


def _flush() -> None:
    if sys.stderr is not None and not sys.stderr.closed:
        sys.stderr.flush()
