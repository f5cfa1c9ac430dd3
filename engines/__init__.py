"""Inference engines behind one protocol: ONNX Runtime, OpenVINO, TensorRT, and a fake one for tests.

An engine may be followed by a device: "onnxruntime:cuda", "openvino:gpu", "tensorrt:dla0".

Libraries are imported only when their engine is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from tinyseg.engines.base import PRECISIONS, CompiledGraph, Engine, GraphInfo, GraphSource, Runner
from tinyseg.engines.cpu import available_cores
from tinyseg.engines.precision import PrecisionFacts, choose_precision
from tinyseg.errors import EngineNotInstalled, PrecisionUnavailable, UnknownEngine

__all__ = [
    "ENGINES",
    "CompiledGraph",
    "Engine",
    "EngineChoice",
    "GraphInfo",
    "GraphSource",
    "PrecisionFacts",
    "Runner",
    "create_engine",
    "is_installed",
    "offered_precisions",
    "why_not",
]


@dataclass(frozen=True)
class EngineRow:
    """Where an engine's adapter lives and what it needs."""

    # Has DEVICES, precisions(device) -> names, best first, create(precision, threads, streams, device), and may have
    # why_not(precision, device) -> what keeps it from offering one, "" if nothing.
    module: str
    package: str  # what must be importable
    install: str  # the command that installs it


ENGINES = {
    "openvino": EngineRow("tinyseg.engines.ov", "openvino", "pip install 'tinyseg[openvino]'"),
    "onnxruntime": EngineRow("tinyseg.engines.ort", "onnxruntime", "pip install onnxruntime"),
    "tensorrt": EngineRow(
        "tinyseg.engines.trt",
        "tensorrt",
        "pip install 'tinyseg[compile]' tensorrt pycuda (on a Jetson both come with JetPack)",
    ),
    "fake": EngineRow("tinyseg.engines.fake", "numpy", "pip install numpy"),
}
# What "auto" tries, best first. OpenVINO was the faster one on every CPU measured so far; ONNX Runtime is always
# installed.
AUTO_ORDER = ("openvino", "onnxruntime")


@dataclass(frozen=True)
class EngineChoice:
    """An engine and why it is this one."""

    engine: Engine
    reason: str
    device: str  # one of the adapter's DEVICES


def create_engine(
    name: str, precision: str, threads: int | None, streams: int = 1, facts: PrecisionFacts | None = None
) -> EngineChoice:
    """Open an engine by name, with or without a device ("onnxruntime:cuda"), or for "auto" the best one installed that
    offers the precision.

    precision: "auto" or one of PRECISIONS. threads: for CPU engines, None for all cores that this process may use.
    streams: how many runs are to go on at the same time; they share the threads. facts: of the model that is to run,
    for "auto" precision and for graphs that it carries; None for a model with fp32 graphs alone.
    Raises UnknownEngine, EngineNotInstalled or PrecisionUnavailable.
    """
    if precision not in PRECISIONS:
        raise PrecisionUnavailable(f"precision must be one of {', '.join(PRECISIONS)}, but is {precision!r}")
    count = max(available_cores() if threads is None else threads, streams)
    reason = "engine as asked for"
    if name == "auto":
        installed = [n for n in AUTO_ORDER if is_installed(n)]
        if not installed:
            raise EngineNotInstalled(f"no inference engine is installed; run: {ENGINES['onnxruntime'].install}")
        missing = [n for n in AUTO_ORDER if n not in installed]
        reason = f"auto: the first installed of {', '.join(AUTO_ORDER)}"
        if missing:
            reason += f"; {', '.join(missing)} not installed ({ENGINES[missing[0]].install})"
        # A precision that was asked for by name decides between engines, as int8 does on processors without VNNI.
        able = [n for n in installed if precision == "auto" or precision in offered_precisions(n)]
        name = (able or installed)[0]
        if name != installed[0]:
            reason += f"; {', '.join(installed[: installed.index(name)])} passed over, without {precision} here"
    name, _, device = name.partition(":")
    if name not in ENGINES:
        raise UnknownEngine(f"there is no engine {name!r}; known are auto, {', '.join(ENGINES)}")
    if not is_installed(name):
        raise EngineNotInstalled(f"engine {name!r} is not installed; run: {ENGINES[name].install}")
    module: Any = importlib.import_module(ENGINES[name].module)
    device = device or module.DEVICES[0]
    if device not in module.DEVICES:
        known = ", ".join(f"{name}:{d}" for d in module.DEVICES)
        raise UnknownEngine(f"engine {name!r} has no device {device!r}; known are {known}")
    offered = offered_precisions(name, device)
    if precision == "auto":
        # Figures were measured on processors; other devices go by what they are made for.
        known_facts = facts if facts is not None and device == "cpu" else PrecisionFacts()
        precision, why = choose_precision(name, offered, known_facts)
        reason = f"{reason}; {why}"
    elif precision not in offered:
        told = f"{name} offers {', '.join(offered)} on this device, not {precision}"
        raise PrecisionUnavailable(f"{told}: {why}" if (why := why_not(name, precision, device)) else told)
    engine: Engine = module.create(precision, count, streams, device)
    return EngineChoice(engine, reason, device)


def is_installed(name: str) -> bool:
    """Whether an engine's package can be imported."""
    return importlib.util.find_spec(ENGINES[name].package) is not None


def offered_precisions(name: str, device: str | None = None) -> tuple[str, ...]:
    """What an installed engine offers on a device, its favourite first; int8 wants graphs made for it."""
    module: Any = importlib.import_module(ENGINES[name].module)
    offered: tuple[str, ...] = module.precisions(device or module.DEVICES[0])
    return offered


def why_not(name: str, precision: str, device: str | None = None) -> str:
    """What keeps an installed engine from a precision on this very device, with the way out; "" where nothing is known."""
    module: Any = importlib.import_module(ENGINES[name].module)
    asked = getattr(module, "why_not", None)
    reason: str = asked(precision, device or module.DEVICES[0]) if asked else ""
    return reason
