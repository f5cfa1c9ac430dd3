"""What the processor can do, as far as engines and precisions depend on it."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path

# Instructions that multiply 8-bit integers into 32-bit sums: without them int8 saves memory, not time.
INT8_FLAGS = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")


@functools.cache
def flags() -> frozenset[str]:
    """Instruction sets as the Linux kernel names them; empty where it cannot be told."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    # "flags" on x86, "Features" on Arm; every core has its own line.
    rows = [set(line.partition(":")[2].split()) for line in lines if line.startswith(("flags", "Features"))]
    return frozenset(set.intersection(*rows)) if rows else frozenset()


def int8_instruction() -> str | None:
    """The fastest int8 dot product of this processor, None if it has none or cannot be asked."""
    return next((f for f in INT8_FLAGS if f in flags()), None)


def int8_saturates() -> bool:
    """Whether this is an x86 processor that sums products of 8-bit integers in 16 bits, which saturate (vpmaddubsw).

    False also where the instruction sets cannot be told.
    """
    return platform.machine().lower() in ("x86_64", "amd64") and bool(flags()) and int8_instruction() is None


def fingerprint() -> str:
    """Tells processors apart whose compiled graphs differ: the architecture and a digest of its instruction sets."""
    return f"{platform.machine()}-{hashlib.sha256(' '.join(sorted(flags())).encode()).hexdigest()[:12]}"


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
