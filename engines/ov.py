"""OpenVINO: on the CPU, or on Intel's GPUs and NPUs by name (openvino:gpu, openvino:npu).

Only the CPU was run here; the other devices go through the same code.
"""

from __future__ import annotations

import functools
import io
import os
import threading
from collections.abc import Mapping

import numpy as np
import openvino
from numpy.typing import NDArray

from tinyseg.engines import cpu
from tinyseg.engines.base import Arrays, GraphInfo, GraphSource, concrete_shapes
from tinyseg.errors import EngineError, engine_errors

# OpenVINO's devices under our names: Intel and Arm processors, Intel GPUs, Intel NPUs.
DEVICES = ("cpu", "gpu", "npu")
# Our names and OpenVINO's.
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
CAPABILITIES = {"bf16": "BF16", "fp32": "FP32", "fp16": "FP16", "int8": "INT8"}


_STARTING = threading.Lock()


def _process_core() -> openvino.Core:
    """The process's one Core, which is never freed.

    The CPU plugin of every Core gives the thread a signal stack of its own and takes it away when the Core is freed. Of two
    Cores the first one freed unmaps the stack that the second then puts back, and the next signal (Ctrl-C) kills the
    process: seen with OpenVINO 2026.4 and two segmenters.
    """
    with _STARTING:  # of two threads that start at the same time, one makes it
        return _start()


@functools.cache
def _start() -> openvino.Core:
    core = openvino.Core()
    # The first look at a tensor's data makes a table in OpenVINO's binding, and lets other threads run Python meanwhile. One
    # that then looks at a tensor, too, waits for the table and keeps Python from the thread that makes it: both hang for good
    # (2026.4; a loop's workers look at their first outputs at the same time). So the table is made here.
    _ = openvino.Tensor(openvino.Type.f32, openvino.Shape([1])).data
    return core


def _core(device: str) -> openvino.Core:
    """OpenVINO with a device that it sees. Raises EngineError."""
    with engine_errors("openvino", "starting"):
        core = _process_core()
        seen = {d.partition(".")[0] for d in core.available_devices}
    if device.upper() not in seen:
        raise EngineError(
            f"openvino sees no {device.upper()} here, only {', '.join(sorted(seen))}; install the device's driver, or use "
            "engine='openvino'"
        )
    return core


def precisions(device: str) -> tuple[str, ...]:
    """What the device offers; bf16 first where a processor multiplies it natively, int8 where its sums are exact."""
    core = _core(device)
    with engine_errors("openvino", "asking the device for its precisions"):
        able = set(core.get_property(device.upper(), "OPTIMIZATION_CAPABILITIES"))
    found = tuple(p for p, name in CAPABILITIES.items() if name in able and not why_not(p, device))
    return found if device == "cpu" else tuple(sorted(found, key=lambda p: p != "fp16"))


def why_not(precision: str, device: str) -> str:
    """What keeps OpenVINO from a precision that it would otherwise offer on this device, with the way out; "" if nothing.

    oneDNN multiplies uint8 by int8 into saturating 16-bit sums where VNNI is missing, and OpenVINO has no property for exact
    ones (its advice is weights of 7 bits, which would be another model).
    """
    if precision == "int8" and device == "cpu" and cpu.int8_saturates():
        return (
            "this processor has no 8-bit dot product (VNNI), and OpenVINO's int8 sums saturate without it, so masks would be "
            "wrong; use precision='fp32', or engine='onnxruntime', whose int8 is exact here"
        )
    return ""


def create(precision: str, threads: int, streams: int, device: str) -> OvEngine:
    return OvEngine(_core(device), precision, threads, streams, device.upper())


class OvEngine:
    """Compiles graphs for a device: for the latency of one run, or for the throughput of several streams."""

    name = "openvino"
    version: str = openvino.__version__.split("-")[0]

    def __init__(self, core: openvino.Core, precision: str, threads: int, streams: int, device: str = "CPU") -> None:
        self._core, self._device = core, device
        self.precision = precision
        self._threads = threads
        self._streams = streams
        # What an int8 graph leaves in float (half of a decoder's time) is computed in bf16 where the processor has it.
        with engine_errors(self.name, "asking the device for its precisions"):
            half = "BF16" in core.get_property(self._device, "OPTIMIZATION_CAPABILITIES")
        self._hint = HINTS.get(precision, "bf16" if half else "f32")

    def _config(self) -> dict[str, str | int]:
        config: dict[str, str | int] = {
            "PERFORMANCE_HINT": "LATENCY" if self._streams == 1 else "THROUGHPUT",
            "NUM_STREAMS": self._streams,
            "INFERENCE_PRECISION_HINT": self._hint,
        }
        if self._device != "CPU":
            return config
        # Bound to cores, the threads of every process that is given a part of them would share the first ones.
        bound = 1 < self._threads >= cpu.available_cores()
        return {**config, "INFERENCE_NUM_THREADS": self._threads, "ENABLE_CPU_PINNING": bound}

    def identity(self) -> dict[str, str]:
        config = {name: str(value) for name, value in self._config().items()}
        # The whole version with its build number: exported models are tied to it.
        return {
            "engine": self.name, "version": openvino.__version__, "device": self._device_identity(),
            "precision": self.precision, **config,
        }  # fmt: skip

    def _device_identity(self) -> str:
        if self._device == "CPU":
            return cpu.fingerprint()
        with engine_errors(self.name, "asking the device for its name"):
            return str(self._core.get_property(self._device, "FULL_DEVICE_NAME"))

    def _compile(self, graph: GraphSource, dimensions: Mapping[str, int]) -> openvino.CompiledModel:
        with engine_errors(self.name, f"compiling the {graph.name}"):
            model = self._core.read_model(graph.data, b"")
            model.reshape(concrete_shapes(graph.inputs, dimensions))
            return self._core.compile_model(model, self._device, self._config())

    def _open(self, compiled: openvino.CompiledModel, graph: GraphSource) -> OvGraph:
        with engine_errors(self.name, f"opening the {graph.name}"):
            hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            threads = int(compiled.get_property("INFERENCE_NUM_THREADS")) if self._device == "CPU" else 0
            streams = int(compiled.get_property("NUM_STREAMS"))
        effective = next((ours for ours, theirs in HINTS.items() if theirs == hint), hint)
        if graph.precision == "int8":
            effective = "int8"
        info = GraphInfo(self.name, self.version, self._device, effective, threads, streams)
        return OvGraph(compiled, list(graph.outputs), info)

    def compile(self, graph: GraphSource, dimensions: Mapping[str, int]) -> OvGraph:
        return self._open(self._compile(graph, dimensions), graph)

    def build(self, graph: GraphSource, dimensions: Mapping[str, int]) -> bytes:
        compiled = self._compile(graph, dimensions)
        with engine_errors(self.name, f"exporting the {graph.name}"):
            stream = io.BytesIO()
            compiled.export_model(stream)
            return stream.getvalue()

    def restore(self, blob: bytes, graph: GraphSource, dimensions: Mapping[str, int]) -> OvGraph:
        with engine_errors(self.name, f"restoring the {graph.name}"):
            compiled = self._core.import_model(blob, self._device, self._config())
        return self._open(compiled, graph)


def require_own(process: int | None) -> None:
    """Raises EngineError in a fork of the process that a graph was compiled in, where a run would wait for ever."""
    if process not in (None, os.getpid()):
        raise EngineError(
            "this model was loaded before the process was forked, and OpenVINO's streams stayed behind; call tinyseg.load() in "
            "the new process, or start processes with multiprocessing's 'spawn'"
        )


class OvRunner:
    """One infer request. Inputs are read where they lie, outputs are views of the request's own memory.

    Shapes are fixed, so addresses are too: an input that is the same array as last time is not bound again, and the
    views of the outputs are made once. In a loop nothing but the inference is left.
    """

    def __init__(
        self, request: openvino.InferRequest, outputs: list[str], engine: str, process: int | None = None
    ) -> None:
        """process: the only one in which it runs; None for any."""
        self._request, self._engine, self._process = request, engine, process
        self._bound: dict[str, NDArray[np.float32]] = {}
        self._views = {name: request.get_tensor(name).data for name in outputs}

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.float32]]:
        require_own(self._process)
        with engine_errors(self._engine, "running a graph"):
            for name, array in feeds.items():
                if self._bound.get(name) is not array:
                    # OpenVINO shares writable memory only; what an Embedding keeps is read-only and is copied, once.
                    self._request.set_tensor(name, openvino.Tensor(array, shared_memory=array.flags.writeable))
                    self._bound[name] = array
            self._request.infer(share_outputs=True)
        return dict(self._views)


class OvGraph:
    """A compiled model and as many infer requests as threads have asked at the same time."""

    def __init__(self, compiled: openvino.CompiledModel, outputs: list[str], info: GraphInfo) -> None:
        self._compiled = compiled
        self._outputs = outputs
        self.info = info
        # A single stream runs in the calling thread; several have threads of their own, which a fork leaves behind.
        self._process = os.getpid() if info.streams > 1 else None
        self._free: list[OvRunner] = []
        self._lock = threading.Lock()

    def runner(self) -> OvRunner:
        require_own(self._process)
        with engine_errors(self.info.engine, "making an infer request"):
            request = self._compiled.create_infer_request()
            return OvRunner(request, self._outputs, self.info.engine, self._process)

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.float32]]:
        with self._lock:
            runner = self._free.pop() if self._free else None
        runner = runner or self.runner()
        outputs = {name: array.copy() for name, array in runner.run(feeds).items()}
        with self._lock:
            self._free.append(runner)
        return outputs
