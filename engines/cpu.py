"""What the processor can do, as far as engines and precisions depend on it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import sys
from pathlib import Path

# Instructions that multiply 8-bit integers into 32-bit sums: without them int8 saves memory, not time.
INT8_FLAGS = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")


# Bits of the kernel's AT_HWCAP and AT_HWCAP2 on 64-bit Arm (asm/hwcap.h), for the instructions that are asked for.
AT_HWCAP, AT_HWCAP2 = 16, 26
ARM_BITS = {
    AT_HWCAP: {"asimd": 1, "asimdhp": 10, "asimddp": 20, "sve": 22}, AT_HWCAP2: {"sve2": 1, "i8mm": 13, "bf16": 14}
}  # fmt: skip


@functools.cache
def flags() -> frozenset[str]:
    """Instruction sets as the Linux kernel names them; empty where it cannot be told."""
    if platform.machine() == "aarch64" and sys.platform == "linux":
        return _arm_flags()
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    # Every core has its own line.
    rows = [set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")]
    return frozenset(set.intersection(*rows)) if rows else frozenset()


def _arm_flags() -> frozenset[str]:
    """Asked of the C library: under emulation, and in some containers, /proc/cpuinfo is another machine's."""
    library = ctypes.CDLL(None)
    library.getauxval.restype = ctypes.c_ulong
    words = {kind: library.getauxval(ctypes.c_ulong(kind)) for kind in ARM_BITS}
    return frozenset(name for kind, bits in ARM_BITS.items() for name, bit in bits.items() if words[kind] >> bit & 1)


def int8_instruction() -> str | None:
    """The fastest int8 dot product of this processor, None if it has none or cannot be asked."""
    return next((f for f in INT8_FLAGS if f in flags()), None)


def int8_saturates() -> bool:
    """Whether this is an x86 processor that sums products of 8-bit integers in 16 bits, which saturate (vpmaddubsw).

    False also where the instruction sets cannot be told.
    """
    return bool(flags()) and int8_may_saturate()


def int8_may_saturate() -> bool:
    """The same, and True also on an x86 processor whose instruction sets cannot be told."""
    return platform.machine().lower() in ("x86_64", "amd64") and int8_instruction() is None


def fingerprint() -> str:
    """Tells processors apart whose compiled graphs differ: the architecture and a digest of its instruction sets."""
    return f"{platform.machine()}-{hashlib.sha256(' '.join(sorted(flags())).encode()).hexdigest()[:12]}"


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
