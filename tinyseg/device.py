"""What the system tells about this device: processor, temperature, clocks and power mode. None where it does not."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def temperature_celsius() -> float | None:
    """The hottest thermal zone (Linux)."""
    readings = [_read(p) for p in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(r) / 1000 for r in readings if r and r.lstrip("-").isdigit()]
    return max(degrees) if degrees else None


def processor_name() -> str:
    """The processor's name as the system gives it."""
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def governor() -> str | None:
    """The frequency governor of the first core (Linux)."""
    return _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))


def clock_mhz() -> float | None:
    """The present clock of the first core, in MHz."""
    khz = _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"))
    if khz and khz.isdigit():
        return int(khz) / 1000
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("cpu MHz"):
            return float(line.partition(":")[2])
    return None


def power_mode() -> str | None:
    """The power mode of a Jetson (nvpmodel's status file)."""
    status = _read(Path("/var/lib/nvpmodel/status"))
    return status or None


def load_average() -> float | None:
    """Processes that wanted to run in the last minute."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def resident_megabytes() -> float | None:
    """Memory of this process now (Linux)."""
    for line in (_read(Path("/proc/self/status")) or "").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return None


def peak_megabytes() -> float | None:
    """The most memory that this process ever had (Linux, macOS)."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 1024**2
