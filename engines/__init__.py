"""Inference engines behind one protocol: ONNX Runtime, OpenVINO, and a fake one for tests.

Libraries are imported only when their engine is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass

from tinyseg.engines.base import PRECISIONS, CompiledGraph, Engine, GraphInfo, GraphSource, Runner
from tinyseg.errors import EngineNotInstalled, PrecisionUnavailable, UnknownEngine

__all__ = ["ENGINES", "CompiledGraph", "Engine", "EngineChoice", "GraphInfo", "GraphSource", "Runner", "create_engine"]


@dataclass(frozen=True)
class EngineRow:
    """Where an engine's adapter lives and what it needs."""

    module: str  # has create(precision, threads, streams) -> Engine
    package: str  # what must be importable
    install: str  # the command that installs it


ENGINES = {
    "openvino": EngineRow("tinyseg.engines.ov", "openvino", "pip install 'tinyseg[openvino]'"),
    "onnxruntime": EngineRow("tinyseg.engines.ort", "onnxruntime", "pip install onnxruntime"),
    "fake": EngineRow("tinyseg.engines.fake", "numpy", "pip install numpy"),
}
# What "auto" tries, best first. OpenVINO uses bf16 where the processor has it and was the faster one on every CPU
# measured so far; ONNX Runtime is always installed.
AUTO_ORDER = ("openvino", "onnxruntime")


@dataclass(frozen=True)
class EngineChoice:
    """An engine and why it is this one."""

    engine: Engine
    reason: str


def create_engine(name: str, precision: str, threads: int | None, streams: int = 1) -> EngineChoice:
    """Open an engine by name, or the best one installed for "auto".

    precision: "auto" or one of PRECISIONS. threads: for CPU engines, None for all cores that this process may use.
    streams: how many runs are to go on at the same time; they share the threads.
    Raises UnknownEngine, EngineNotInstalled or PrecisionUnavailable.
    """
    if precision not in PRECISIONS:
        raise PrecisionUnavailable(f"precision must be one of {', '.join(PRECISIONS)}, but is {precision!r}")
    count = max(available_cores() if threads is None else threads, streams)
    if name == "auto":
        installed = [n for n in AUTO_ORDER if importlib.util.find_spec(ENGINES[n].package) is not None]
        if not installed:
            raise EngineNotInstalled(f"no inference engine is installed; run: {ENGINES['onnxruntime'].install}")
        missing = [n for n in AUTO_ORDER if n not in installed]
        reason = f"auto: the first installed of {', '.join(AUTO_ORDER)}"
        if missing:
            reason += f"; {', '.join(missing)} not installed ({ENGINES[missing[0]].install})"
        return EngineChoice(_open(installed[0], precision, count, streams), reason)
    if name not in ENGINES:
        raise UnknownEngine(f"there is no engine {name!r}; known are auto, {', '.join(ENGINES)}")
    if importlib.util.find_spec(ENGINES[name].package) is None:
        raise EngineNotInstalled(f"engine {name!r} is not installed; run: {ENGINES[name].install}")
    return EngineChoice(_open(name, precision, count, streams), "asked for")


def _open(name: str, precision: str, threads: int, streams: int) -> Engine:
    engine: Engine = importlib.import_module(ENGINES[name].module).create(precision, threads, streams)
    return engine


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
