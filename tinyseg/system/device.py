"""What the system tells about this device: processor, temperature, clocks and power mode. None where it does not."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import psutil


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def temperature_celsius() -> float | None:
    """The hottest sensor (Linux)."""
    try:
        sensors = psutil.sensors_temperatures()
    except (AttributeError, OSError):  # not on every system
        return None
    degrees = [reading.current for readings in sensors.values() for reading in readings if reading.current]
    return float(max(degrees)) if degrees else None


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
    """The present clock of the cores, in MHz."""
    try:
        clock = psutil.cpu_freq()
    except (AttributeError, NotImplementedError, OSError):  # not on every system
        return None
    return float(clock.current) if clock is not None and clock.current else None


def power_mode() -> str | None:
    """The power mode of a Jetson (nvpmodel's status file)."""
    status = _read(Path("/var/lib/nvpmodel/status"))
    return status or None


def busy_share(seconds: float = 0.3) -> float | None:
    """Share of all cores' time that was in use while this process waited: what others are doing."""
    try:
        return float(psutil.cpu_percent(interval=seconds)) / 100
    except OSError:
        return None


def resident_megabytes() -> float | None:
    """Memory of this process now."""
    try:
        return float(psutil.Process().memory_info().rss) / 1024**2
    except psutil.Error:
        return None


def peak_megabytes() -> float | None:
    """The most memory that this process ever had (Linux, macOS)."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 1024**2
