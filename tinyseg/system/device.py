"""What the system tells about this device: processor, temperature, clocks and power mode. None where it does not."""

from __future__ import annotations

import platform
import sys
import time
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


def busy_share(seconds: float = 0.3) -> float | None:
    """Share of all cores' time that was in use while this process waited (Linux): what others are doing."""

    def times() -> tuple[int, int] | None:
        fields = (_read(Path("/proc/stat")) or "").partition("\n")[0].split()[1:]
        if len(fields) < 5:
            return None
        numbers = [int(f) for f in fields]
        return sum(numbers), numbers[3] + numbers[4]  # all, idle and waiting for disks

    before = times()
    time.sleep(seconds)
    after = times()
    if before is None or after is None or after[0] == before[0]:
        return None
    return 1.0 - (after[1] - before[1]) / (after[0] - before[0])


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
