"""What this device has, which engines work on it, and what is in the way: the facts behind ``tinyseg doctor``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tinyseg.engines import ENGINES, cpu, is_installed, offered_precisions, why_not
from tinyseg.engines.cache import open_cache
from tinyseg.errors import TinysegError
from tinyseg.predict.load import load
from tinyseg.sources import gstreamer, v4l2
from tinyseg.system import device
from tinyseg.version import __version__

# Distributions that install the same module: whichever came last wins, and removing one breaks the other.
SAME_MODULE = {
    "cv2": ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "onnxruntime": (
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-openvino",
        "onnxruntime-qnn",
        "onnxruntime-directml",
    ),
}
# JetPack's major release by that of Jetson Linux, and the TensorRT that belongs to it.
JETPACK_OF_L4T = {35: 5, 36: 6, 38: 7, 39: 7}
TENSORRT_OF_JETPACK = {5: 8, 6: 10, 7: 11}
WORTH_SHOWING = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "asimd",
    "asimddp", "i8mm", "bf16", "asimdhp", "sve",
)  # fmt: skip


@dataclass(frozen=True)
class EngineState:
    """One engine on this device."""

    name: str
    version: str | None  # None: not installed
    precisions: tuple[str, ...]
    works: bool  # a real inference of the packaged model gave a mask
    detail: str  # what ran, or what went wrong, or the command that installs it


@dataclass(frozen=True)
class Trap:
    """Something that is known to cost speed or to break, with the way out."""

    problem: str
    remedy: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything that ``tinyseg doctor`` tells; the keys of its JSON."""

    tinyseg: str
    python: str
    platform: str
    processor: str
    cores: int
    cores_of_machine: int
    instructions: list[str]
    memory_gb: float | None
    available_gb: float | None
    gpus: list[str]
    npus: list[str]
    jetpack: str | None
    power_mode: str | None
    governor: str | None
    cameras: list[str]
    video: list[str]
    image_formats: list[str]
    cache: str
    engines: list[EngineState]
    chosen: str  # what load() opens, or why it opens nothing
    traps: list[Trap] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> str:
        def listed(items: Sequence[str]) -> str:
            return ", ".join(items) or "none found"

        memory = "unknown" if self.memory_gb is None else f"{self.memory_gb:.1f} GB"
        if self.available_gb is not None:
            memory += f", {self.available_gb:.1f} GB free"
        lines = [
            f"tinyseg {self.tinyseg}, Python {self.python}, {self.platform}",
            "",
            f"processor   {self.processor}, {self.cores} of {self.cores_of_machine} cores usable, {listed(self.instructions)}",
            f"memory      {memory}",
            f"GPUs        {listed(self.gpus)}",
            f"NPUs        {listed(self.npus)}",
            *([f"JetPack     {self.jetpack}"] if self.jetpack else []),
            f"power       mode {self.power_mode or 'not stated'}, governor {self.governor or 'not stated'}",
            f"cameras     {listed(self.cameras)}",
            f"video       {listed(self.video)}",
            f"images      {listed(self.image_formats)}",
            f"cache       {self.cache}",
            "",
        ]
        for e in self.engines:
            state = "works        " if e.works else "not installed" if e.version is None else "FAILS        "
            lines.append(f"engine      {e.name:12s} {e.version or '-':10s} {state} {e.detail}")
        lines += ["", f"chosen      {self.chosen}", ""]
        for trap in self.traps:
            lines += [f"problem     {trap.problem}", f"  remedy    {trap.remedy}"]
        if not self.traps:
            lines.append("no known problem found")
        return "\n".join(lines)


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip("\x00\n ")
    except OSError:
        return None


def memory() -> tuple[float | None, float | None]:
    """(total, available) in GB (Linux)."""
    found = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", _text("/proc/meminfo") or "", re.MULTILINE))
    total, available = found.get("MemTotal"), found.get("MemAvailable")
    return (int(total) / 1e6 if total else None), (int(available) / 1e6 if available else None)


def nvidia_gpus() -> list[str]:
    """Names, drivers and compute capabilities, from nvidia-smi (or a Jetson's device tree)."""
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
            return [f"NVIDIA {line.strip()}" for line in done.stdout.splitlines() if line.strip()]
        except (OSError, subprocess.SubprocessError):
            return ["NVIDIA (nvidia-smi is there but fails: the driver is not loaded)"]
    model = _text("/proc/device-tree/model") or ""
    return [f"NVIDIA integrated ({model})"] if "Jetson" in model or "Orin" in model else []


def other_gpus() -> list[str]:
    """Intel and AMD GPUs that the kernel drives."""
    names = {"0x8086": "Intel", "0x1002": "AMD"}
    found = []
    for card in sorted(Path("/sys/class/drm").glob("renderD*")):
        vendor = names.get(_text(str(card / "device" / "vendor")) or "")
        if vendor:
            found.append(f"{vendor} /dev/dri/{card.name}")
    return found


def npus() -> list[str]:
    return [str(p) for p in sorted(Path("/dev/accel").glob("accel*"))] if Path("/dev/accel").is_dir() else []


def jetpack() -> tuple[int | None, str | None]:
    """(major release, what to show) of a Jetson's software."""
    text = _text("/etc/nv_tegra_release")
    match = re.search(r"R(\d+).*?REVISION: ([\d.]+)", text or "")
    if match is None:
        return None, None
    major = JETPACK_OF_L4T.get(int(match[1]))
    return major, f"{major or 'unknown'} (Jetson Linux {match[1]}.{match[2]})"


def cameras() -> list[str]:
    """Video devices that give pictures, with the names that their drivers give (Linux)."""
    return [
        f"{path} ({_text(f'/sys/class/video4linux/{Path(path).name}/name') or 'unnamed'})"
        for path in v4l2.find_cameras()
    ]


def opencv_parts() -> tuple[list[str], list[str]]:
    """(video back ends, image formats) that this OpenCV was built with."""
    text = cv2.getBuildInformation()
    video = [n for n in ("FFMPEG", "GStreamer", "v4l/v4l2", "AVFoundation", "Media Foundation") if _yes(text, n)]
    pipelines = gstreamer.version()
    if pipelines is not None:
        video.append(f"gst: pipelines (GStreamer {pipelines})")
    if importlib.util.find_spec("picamera2") is not None:
        video.append("picamera2")
    images = [
        n for n in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") if re.search(rf"^\s+{n}:\s+(?!NO)\S", text, re.MULTILINE)
    ]
    return video, images


def _yes(text: str, name: str) -> bool:
    return re.search(rf"^\s+{re.escape(name)}:\s+YES", text, re.MULTILINE) is not None


def installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def try_engine(name: str) -> EngineState:
    """Run the packaged model once on an engine."""
    row = ENGINES[name]
    if not is_installed(name):
        return EngineState(name, None, (), False, f"{row.install}")
    version: str | None = None
    precisions: tuple[str, ...] = ()
    try:
        precisions = offered_precisions(name)
        seg = load(engine=name)
        version = seg.info.engine_version
        frame = np.full((64, 96, 3), 40, np.uint8)
        frame[16:48, 24:72] = 220
        out = seg.embed(frame).predict(box=(24, 16, 72, 48), multimask=False, zoom="off")
        if not out.masks.any():
            return EngineState(
                name, version, precisions, False, "it ran, but found no mask of a bright box on dark ground"
            )
        return EngineState(name, version, precisions, True, f"{seg.info.precision} of {', '.join(precisions)}")
    except TinysegError as exc:
        return EngineState(name, version or "?", precisions, False, str(exc))


def find_traps(gpus: Sequence[str], governor: str | None, engines: Sequence[EngineState]) -> list[Trap]:
    """Known mistakes of set-up."""
    traps = []
    for module, names in SAME_MODULE.items():
        found = [n for n in names if installed(n)]
        if len(found) > 1:
            traps.append(
                Trap(
                    f"{' and '.join(found)} are both installed and overwrite each other's {module}",
                    f"pip uninstall -y {' '.join(found)} && pip install {found[0]}",
                )
            )
    has_nvidia = any(g.startswith("NVIDIA") for g in gpus)
    if has_nvidia and installed("onnxruntime") and not installed("onnxruntime-gpu") and not installed("tensorrt"):
        traps.append(
            Trap(
                "an NVIDIA GPU is here, but only the CPU build of ONNX Runtime is installed: everything runs on the CPU",
                "pip uninstall -y onnxruntime && pip install onnxruntime-gpu",
            )
        )
    major, _ = jetpack()
    tensorrt = installed("tensorrt") or installed("tensorrt-cu13") or installed("tensorrt-cu12")
    wanted = TENSORRT_OF_JETPACK.get(major or 0)
    if tensorrt and wanted and int(tensorrt.partition(".")[0]) != wanted:
        traps.append(
            Trap(
                f"JetPack {major} comes with TensorRT {wanted}, but version {tensorrt} was installed from elsewhere",
                "remove it (pip uninstall tensorrt) and use the one of JetPack: a virtual environment made with "
                "python3 -m venv --system-site-packages sees it",
            )
        )
    traps.extend(
        Trap(
            f"you may not use the camera {path}",
            "sudo usermod -aG video $USER, then log in again; in a container: docker run --device " + path,
        )
        for path in v4l2.find_cameras()
        if not os.access(path, os.R_OK | os.W_OK)
    )
    modes = device.power_modes()
    fastest = [n for n, name in modes.items() if name.startswith("MAXN")]
    mode = device.power_mode()
    if fastest and mode is not None and "MAXN" not in mode:
        traps.append(
            Trap(
                f"this Jetson runs in power mode {mode}; {modes[fastest[-1]]} is faster",
                f"sudo nvpmodel -m {fastest[-1]} && sudo jetson_clocks (it draws more power: mind supply and cooling)",
            )
        )
    if governor == "powersave":
        traps.append(
            Trap(
                "the frequency governor is powersave: clocks rise late, and frames take up to twice as long",
                "sudo cpupower frequency-set -g performance",
            )
        )
    quota = (_text("/sys/fs/cgroup/cpu.max") or "max").split()
    if quota[0].isdigit() and int(quota[0]) / int(quota[1]) < cpu.available_cores():
        cores = max(1, int(quota[0]) // int(quota[1]))
        traps.append(
            Trap(
                f"this container may use {int(quota[0]) / int(quota[1]):.1f} cores, but {cpu.available_cores()} are visible: "
                "threads wait for each other",
                f"pass --threads {cores} (in Python: tinyseg.load(threads={cores}))",
            )
        )
    traps.extend(
        Trap(f"{e.name} does not run int8 here: {problem}", remedy.strip())
        for e in engines
        if e.works and e.name in ENGINES and "int8" not in e.precisions
        for problem, _, remedy in [why_not(e.name, "int8").partition(";")]
        if problem
    )
    traps.extend(
        Trap(f"{e.name} is installed but does not work: {e.detail}", ENGINES[e.name].install)
        for e in engines
        if e.version is not None and not e.works
    )
    return traps


def diagnose() -> Diagnosis:
    """Look at everything; runs every installed engine once."""
    total, available = memory()
    gpus = [*nvidia_gpus(), *other_gpus()]
    engines = [try_engine(name) for name in ENGINES if name != "fake"]
    try:
        chosen = str(load().info)
    except TinysegError as exc:
        chosen = f"none ({exc})"
    try:
        cache, told = open_cache()
        cache_told = f"{told}, {cache.root}" if cache else told
    except TinysegError as exc:
        cache_told = f"not usable: {exc}"
    video, images = opencv_parts()
    governor = device.governor()
    return Diagnosis(
        tinyseg=__version__, python=platform.python_version(), platform=platform.platform(),
        processor=device.processor_name(), cores=cpu.available_cores(), cores_of_machine=os.cpu_count() or 1,
        instructions=[f for f in WORTH_SHOWING if f in cpu.flags()], memory_gb=total, available_gb=available, gpus=gpus,
        npus=npus(), jetpack=jetpack()[1], power_mode=device.power_mode(), governor=governor, cameras=cameras(),
        video=video, image_formats=images, cache=cache_told, engines=engines, chosen=chosen,
        traps=find_traps(gpus, governor, engines),
    )  # fmt: skip
