"""ONNX Runtime: on the CPU, or on any of its execution providers by name (onnxruntime:cuda, ...).

Only the CPU provider was run here; the others go through the same code, bound to their own memory.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.engines import cpu
from tinyseg.engines.base import CPU_PROVIDER, Arrays, DeviceTensor, GraphInfo, GraphSource
from tinyseg.engines.lower import to_fp16
from tinyseg.engines.quiet import CPUINFO, held_back
from tinyseg.errors import EngineError, EngineNotInstalled, engine_errors

LOADING: AbstractContextManager[None] = held_back(CPUINFO) if platform.machine() == "aarch64" else nullcontext()
with LOADING:
    import onnxruntime as ort

# ONNX Runtime's execution providers under our names, and the wheel that brings each.
PROVIDERS = {
    "cpu": (CPU_PROVIDER, "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "qnn": ("QNNExecutionProvider", "onnxruntime-qnn"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime (macOS)"),
    "xnnpack": ("XnnpackExecutionProvider", "onnxruntime built with --use_xnnpack"),
}
DEVICES = tuple(PROVIDERS)
# These keep arrays in memory of their own: inputs and outputs are bound, and features stay there.
ON_DEVICE = {"cuda": "cuda", "tensorrt": "cuda"}
HALF = ("cuda", "tensorrt", "coreml")
# x86 without VNNI multiplies uint8 by int8 into sums of 16 bits that saturate: int8 masks were wrong on AVX2 alone. This
# option makes uint8 by uint8 products of these, which are exact. It is for these processors only: its documentation says that
# it does nothing elsewhere, but with AMX it leaves the fast kernels unused and int8 takes twice the time, for the same sums.
EXACT_INT8 = ("session.x64quantprecision", "1")


def int8_options() -> dict[str, str]:
    """What a session is told so that sums of 8-bit products are exact on this processor: key -> value."""
    return dict([EXACT_INT8]) if cpu.int8_may_saturate() else {}


def precisions(device: str) -> tuple[str, ...]:
    """fp32, int8 for models that carry quantized graphs, and fp16 where the provider computes in it."""
    return ("fp16", "fp32", "int8") if device in HALF else ("fp32", "int8")


def create(precision: str, threads: int, streams: int, device: str) -> OrtEngine:
    """Raises EngineNotInstalled where this build of ONNX Runtime lacks the provider."""
    provider, wheel = PROVIDERS[device]
    if provider not in ort.get_available_providers():
        raise EngineNotInstalled(
            f"this onnxruntime has no {provider} (only {', '.join(ort.get_available_providers())}); install the build that "
            f"has it in place of this one: pip uninstall -y onnxruntime; pip install {wheel}"
        )
    return OrtEngine(precision, threads, streams, device)


class OrtEngine:
    """Compiles graphs to ONNX Runtime sessions on one execution provider."""

    name = "onnxruntime"
    version: str = ort.__version__

    def __init__(self, precision: str, threads: int, streams: int, device: str = "cpu") -> None:
        self.precision = precision
        self._threads = threads
        self._streams = streams
        self._device = device

    def identity(self) -> dict[str, str]:
        return {
            "engine": self.name, "version": self.version, "provider": PROVIDERS[self._device][0],
            "device": cpu.fingerprint(), "precision": self.precision, **int8_options(),
        }  # fmt: skip

    def _options(self, dimensions: Mapping[str, int]) -> ort.SessionOptions:
        options = ort.SessionOptions()
        # A run uses the calling thread and a share of the others; several callers are several streams.
        options.intra_op_num_threads = max(1, self._threads // self._streams)
        options.inter_op_num_threads = 1
        # Every session has its own threads, which go on spinning for work after a run. Encoder and decoder take turns,
        # so without this each waits for the other's idle threads: on two cores that doubled the time of a frame.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        for key, value in int8_options().items():
            options.add_session_config_entry(key, value)
        options.log_severity_level = 3
        for name, size in dimensions.items():
            options.add_free_dimension_override_by_name(name, size)
        return options

    def _session(self, data: bytes, options: ort.SessionOptions, graph: GraphSource, doing: str) -> OrtGraph | OrtBound:
        provider = PROVIDERS[self._device][0]
        # Arena blocks of exactly the asked size: the default doubles and holds memory that is never used.
        settings = {"arena_extend_strategy": "kSameAsRequested"} if self._device in ("cpu", "cuda") else {}
        with engine_errors(self.name, f"{doing} the {graph.name}"):
            session = ort.InferenceSession(data, options, providers=[(provider, settings)])
            used = session.get_providers()
        if used[0] != provider:  # ONNX Runtime goes on with the CPU, and only logs that it does
            raise EngineError(
                f"onnxruntime could not start {provider} and would use {used[0]}; its driver or libraries do not load "
                f"(set engine='onnxruntime' to use the CPU)"
            )
        if len(session.get_outputs()) != len(graph.outputs):
            raise EngineError(f"the {graph.name} has {len(session.get_outputs())} outputs, not {len(graph.outputs)}")
        info = GraphInfo(
            self.name, self.version, self._device.upper(), self.precision, self._threads, self._streams
        )  # fmt: skip
        memory = ON_DEVICE.get(self._device)
        if memory is None:
            return OrtGraph(session, list(graph.outputs), info)
        return OrtBound(session, list(graph.outputs), info, memory, stays=graph.feeds_others)

    def _typed(self, graph: GraphSource) -> bytes:
        return to_fp16(graph.data) if self.precision == "fp16" else graph.data

    def compile(self, graph: GraphSource, dimensions: Mapping[str, int]) -> OrtGraph | OrtBound:
        return self._session(self._typed(graph), self._options(dimensions), graph, "compiling")

    def build(self, graph: GraphSource, dimensions: Mapping[str, int]) -> bytes:
        """The optimised graph at fixed shapes, with the memory layouts that this processor wants.

        Providers that compile parts of the graph cannot save them: for these it is the typed graph as it is.
        """
        data = self._typed(graph)
        if self._device != "cpu":
            self._session(data, self._options(dimensions), graph, "compiling")
            return data
        options = self._options(dimensions)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimised.onnx"
            options.optimized_model_filepath = str(path)
            self._session(data, options, graph, "compiling")
            return path.read_bytes()

    def restore(self, blob: bytes, graph: GraphSource, dimensions: Mapping[str, int]) -> OrtGraph | OrtBound:
        options = self._options(dimensions)
        if self._device == "cpu":
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # build() did that
        return self._session(blob, options, graph, "restoring")


class OrtGraph:
    """A session; ``InferenceSession.run`` may be called from several threads and returns new arrays."""

    def __init__(self, session: ort.InferenceSession, outputs: list[str], info: GraphInfo) -> None:
        self._session = session
        self._outputs = outputs
        self.info = info

    def runner(self) -> OrtGraph:
        return self  # a session keeps nothing between runs, and its outputs are new arrays already

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.float32]]:
        with engine_errors(self.info.engine, "running a graph"):
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds))))


class OrtTensor(DeviceTensor):
    """An OrtValue on a device."""

    def __init__(self, value: ort.OrtValue) -> None:
        self.value = value
        self.shape = tuple(value.shape())
        self.nbytes = 4 * int(np.prod(self.shape))

    def copy(self) -> OrtTensor:
        return self  # every run of a bound session allocates its outputs anew

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array: NDArray[Any] = self.value.numpy()
        return array if dtype is None else array.astype(dtype)


class OrtBound:
    """A session whose arrays lie on a device: features stay there from the encoder to the decoder."""

    def __init__(
        self, session: ort.InferenceSession, outputs: list[str], info: GraphInfo, memory: str, stays: bool
    ) -> None:
        self._session, self._outputs, self._memory, self._stays = session, outputs, memory, stays
        self.info = info

    def runner(self) -> OrtBound:
        return self  # a binding is made for each run: it is a list of addresses

    def run(self, feeds: Arrays) -> dict[str, Any]:
        with engine_errors(self.info.engine, "running a graph"):
            binding = self._session.io_binding()
            for name, value in feeds.items():
                if isinstance(value, OrtTensor):
                    binding.bind_ortvalue_input(name, value.value)
                else:
                    binding.bind_cpu_input(name, np.ascontiguousarray(value, np.float32))
            for name in self._outputs:
                binding.bind_output(name, self._memory if self._stays else "cpu")
            self._session.run_with_iobinding(binding)
            if not self._stays:
                return dict(zip(self._outputs, binding.copy_outputs_to_cpu()))
            return {name: OrtTensor(value) for name, value in zip(self._outputs, binding.get_outputs())}
