"""What the system tells about this device: processor, temperature, clocks and power mode. None where it does not."""

from __future__ import annotations

import platform
import re
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


# Arm's numbers of its own cores (CPU part in /proc/cpuinfo), by the names that people know.
ARM_CORES = {
    "0xd03": "Cortex-A53", "0xd05": "Cortex-A55", "0xd07": "Cortex-A57", "0xd08": "Cortex-A72", "0xd09": "Cortex-A73",
    "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1", "0xd40": "Neoverse-V1", "0xd41": "Cortex-A78", "0xd42": "Cortex-A78AE",
    "0xd49": "Neoverse-N2", "0xd4f": "Neoverse-V2", "0xd83": "Neoverse-V3AE",
}  # fmt: skip


def processor_name() -> str:
    """The processor's name as the system gives it; on Arm the board's, with its cores'."""
    rows: dict[str, str] = {}
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        rows.setdefault(key.strip(), value.strip())
    if platform.machine() in ("aarch64", "arm64"):
        board = (_read(Path("/proc/device-tree/model")) or rows.get("Model", "")).strip("\0")
        named = [n for n in (board, ARM_CORES.get(rows.get("CPU part", "").lower(), "")) if n]
        return ", ".join(named) or platform.processor() or platform.machine()
    return rows.get("model name") or platform.processor() or platform.machine()


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


def power_modes() -> dict[int, str]:
    """The power modes of a Jetson by number (nvpmodel's configuration); empty elsewhere."""
    text = _read(Path("/etc/nvpmodel.conf")) or ""
    return {int(number): name for number, name in re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", text)}


def power_mode() -> str | None:
    """The power mode of a Jetson, such as ``15W (0)`` (nvpmodel's status file)."""
    status = _read(Path("/var/lib/nvpmodel/status"))
    number = re.fullmatch(r"pmode:0*(\d+)", status or "")
    if number is None:
        return status or None
    name = power_modes().get(int(number[1]))
    return f"{name} ({int(number[1])})" if name else number[1]


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
