"""TensorRT 10 and 11 on NVIDIA GPUs and Jetsons, through PyCUDA on the primary context.

Graphs are strongly typed (lower.py), so one builder serves both versions. Buffers are allocated once for each shape;
small arrays travel through pinned memory; what the encoder makes stays on the device until the decoder has read it.

Built with NVIDIA's builder in tests, run on a fake device only: not run on an NVIDIA GPU yet.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.engines.base import Arrays, DeviceTensor, GraphInfo, GraphSource, concrete_shapes
from tinyseg.engines.cache_place import own_folder
from tinyseg.engines.cudagraph import CapturedGraph, load_driver
from tinyseg.engines.lower import to_fp16, to_symmetric
from tinyseg.errors import DataError, EngineError, EngineNotInstalled, engine_errors
from tinyseg.files import write_bytes

OLDEST = 10
WORKSPACE_BYTES = 1 << 30
# TensorRT times kernels once or twice by its own; small boards are noisy.
TIMING_ITERATIONS = 4


# The GPU, or one of a Jetson's deep learning accelerators (layers that it lacks run on the GPU).
DEVICES = ("gpu", "dla0", "dla1")


def precisions(device: str) -> tuple[str, ...]:
    return ("fp16", "fp32", "int8")


def create(precision: str, threads: int, streams: int, device: str) -> TrtEngine:
    """Open the engine on the GPU that CUDA_VISIBLE_DEVICES puts first. Raises EngineError or EngineNotInstalled."""
    trt = _import("tensorrt", "pip install tensorrt (on a Jetson: sudo apt-get install tensorrt, comes with JetPack)")
    major = int(trt.__version__.partition(".")[0])
    if major < OLDEST:
        raise EngineError(
            f"TensorRT {trt.__version__} is too old: graphs are strongly typed, which needs {OLDEST}.0 (JetPack 6) or newer"
        )
    driver = _import(
        "pycuda.driver", "pip install pycuda (builds with the CUDA toolkit: sudo apt-get install cuda-toolkit)"
    )
    dla = int(device.removeprefix("dla")) if device.startswith("dla") else None
    return TrtEngine(trt, Cuda(driver), precision, streams, dla)


def _import(module: str, install: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise EngineNotInstalled(f"TensorRT needs {module.partition('.')[0]} ({exc}); run: {install}") from exc


class Cuda:
    """The first GPU's primary context, which torch and others in the same process share.

    A context of its own would make every allocation of theirs invalid while it is current (TensorRT issues 1133, 4608).
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        with engine_errors("tensorrt", "opening the GPU"):
            driver.init()
            if driver.Device.count() == 0:
                raise EngineError("CUDA sees no GPU; check nvidia-smi, and CUDA_VISIBLE_DEVICES")
            self.device = driver.Device(0)
            self._context = self.device.retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current for this thread, and put back what was."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def identity(self) -> dict[str, str]:
        major, minor = self.device.compute_capability()
        return {
            "device": str(self.device.name()), "compute_capability": f"{major}.{minor}",
            "driver": str(self.driver.get_driver_version()),
        }  # fmt: skip


class Messages:
    """What TensorRT logs while it works: its exceptions say little, its log says why."""

    def __init__(self, trt: Any) -> None:
        self.lines: list[str] = []
        severe = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
        lines = self.lines

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in severe:
                    lines.append(msg)

        self.logger = Logger()

    def last(self) -> str:
        return self.lines[-1].strip() if self.lines else "TensorRT gave no reason"


def typed_graph(graph: GraphSource, precision: str) -> bytes:
    """The ONNX that a strongly typed builder is given for a precision."""
    if precision == "int8":
        return to_symmetric(graph.data)
    return to_fp16(graph.data) if precision == "fp16" else graph.data


def build_serialized(
    trt: Any,
    data: bytes,
    graph: GraphSource,
    dimensions: Mapping[str, int],
    *,
    dla: int | None = None,
    timing_cache: Path | None = None,
    compute_capability: str | None = None,
) -> bytes:
    """Build a typed ONNX graph at fixed shapes.

    trt: the module, tensorrt or tensorrt_rtx. timing_cache: a file of measured kernels, made if it is missing. compute
    capability: "SM89", ... to build ahead of time without that GPU (TensorRT for RTX alone). Raises EngineError.
    """
    messages = Messages(trt)
    with engine_errors("tensorrt", f"building the {graph.name}"):
        builder = trt.Builder(messages.logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, messages.logger)
        if not parser.parse(data):
            told = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)) or messages.last()
            raise EngineError(f"TensorRT cannot read the {graph.name}: {told.splitlines()[0]}")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
        profile = builder.create_optimization_profile()
        shapes = concrete_shapes(graph.inputs, dimensions)
        for name, largest in shapes.items():
            # A decoder for N prompts also takes fewer; everything else is fixed by the frame's size.
            batched = graph.inputs[name][:1] == ("prompts",)
            smallest = (1, *largest[1:]) if batched else largest
            profile.set_shape(name, smallest, largest, largest)
        config.add_optimization_profile(profile)
        if compute_capability is not None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, compute_capability), 0)
        if dla is not None:
            config.default_device_type = trt.DeviceType.DLA
            config.DLA_core = dla
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        cache = None
        if timing_cache is not None:
            config.avg_timing_iterations = TIMING_ITERATIONS
            known = timing_cache.read_bytes() if timing_cache.is_file() else b""
            cache = config.create_timing_cache(known)
            config.set_timing_cache(cache, False)  # a cache of another device is refused, and started anew
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise EngineError(f"TensorRT could not build the {graph.name}: {messages.last()}")
        if timing_cache is not None:
            _keep(timing_cache, bytes(config.get_timing_cache().serialize()))
        return bytes(serialized)


def _keep(path: Path, data: bytes) -> None:
    """Write a timing cache atomically; without it the next build only takes longer."""
    try:
        write_bytes(path, data)
    except DataError:
        return


class TrtEngine:
    """Builds graphs for the GPU and opens them."""

    name = "tensorrt"

    def __init__(self, trt: Any, cuda: Cuda, precision: str, streams: int, dla: int | None) -> None:
        self._trt, self._cuda, self._dla = trt, cuda, dla
        self.version: str = trt.__version__
        self.precision = precision
        self._streams = streams
        self._driver = load_driver()

    def identity(self) -> dict[str, str]:
        return {
            "engine": self.name, "version": self.version, "precision": self.precision,
            "dla": "none" if self._dla is None else str(self._dla), **self._cuda.identity(),
        }  # fmt: skip

    def build(self, graph: GraphSource, dimensions: Mapping[str, int]) -> bytes:
        facts = self._cuda.identity()
        name = f"{self.version}-{facts['device'].replace(' ', '-')}-{facts['driver']}.timing"
        kept = own_folder("timing")
        with self._cuda.current():
            return build_serialized(
                self._trt, typed_graph(graph, self.precision), graph, dimensions, dla=self._dla,
                timing_cache=kept / name if kept else None,
            )  # fmt: skip

    def restore(self, blob: bytes, graph: GraphSource, dimensions: Mapping[str, int]) -> TrtGraph:
        messages = Messages(self._trt)
        with self._cuda.current(), engine_errors(self.name, f"opening the {graph.name}"):
            runtime = self._trt.Runtime(messages.logger)
            if self._dla is not None:
                runtime.DLA_core = self._dla
            engine = runtime.deserialize_cuda_engine(blob)
            if engine is None:
                raise EngineError(f"TensorRT refuses the {graph.name}'s engine: {messages.last()}")
        device = self._cuda.identity()["device"] + ("" if self._dla is None else f", DLA {self._dla}")
        info = GraphInfo(self.name, self.version, device, self.precision, 0, self._streams)
        return TrtGraph(self._trt, self._cuda, self._driver, (runtime, engine), graph, dimensions, info)

    def compile(self, graph: GraphSource, dimensions: Mapping[str, int]) -> TrtGraph:
        return self.restore(self.build(graph, dimensions), graph, dimensions)


class TrtGraph:
    """An engine and as many execution contexts as threads have asked at the same time."""

    def __init__(
        self,
        trt: Any,
        cuda: Cuda,
        driver: Any,
        opened: tuple[Any, Any],
        graph: GraphSource,
        dimensions: Mapping[str, int],
        info: GraphInfo,
    ) -> None:
        self._trt, self._cuda, self._driver = trt, cuda, driver
        self._runtime, self._engine = opened  # the runtime has to outlive its engine
        self._inputs = concrete_shapes(graph.inputs, dimensions)
        self._outputs = concrete_shapes(graph.outputs, dimensions)
        # Features are read by the decoder, on the device; logits are wanted here.
        self._stays = graph.feeds_others
        self.info = info
        self._free: list[TrtRunner] = []
        self._lock = threading.Lock()

    def runner(self) -> TrtRunner:
        with self._cuda.current(), engine_errors(self.info.engine, "making an execution context"):
            return TrtRunner(
                self._trt, self._cuda, self._driver, self._engine, self._inputs, self._outputs, self._stays
            )

    def run(self, feeds: Arrays) -> dict[str, Any]:
        with self._lock:
            runner = self._free.pop() if self._free else None
        runner = runner or self.runner()
        # What the caller gets must outlive the next run: device tensors are copied on the device.
        outputs = {name: value.copy() for name, value in runner.run(feeds).items()}
        with self._lock:
            self._free.append(runner)
        return outputs


class TrtRunner:
    """One execution context with its stream and buffers, for one thread at a time.

    The first run goes launch by launch (TensorRT allocates then); the second is captured as a CUDA graph, and from the
    third on the graph is launched. Addresses never change, so the graph stays valid.
    """

    def __init__(
        self,
        trt: Any,
        cuda: Cuda,
        driver: Any,
        engine: Any,
        inputs: Mapping[str, tuple[int, ...]],
        outputs: Mapping[str, tuple[int, ...]],
        stays: bool,
    ) -> None:
        self._cuda, self._stays = cuda, stays
        self._inputs, self._outputs = dict(inputs), dict(outputs)
        self._context = engine.create_execution_context()
        if self._context is None:
            raise EngineError("TensorRT could not make an execution context; the GPU's memory may be full")
        self._stream = cuda.driver.Stream()
        self._device: dict[str, Any] = {}
        self._pinned: dict[str, NDArray[np.float32]] = {}
        for name, shape in {**self._inputs, **self._outputs}.items():
            if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
                raise EngineError(f"the engine's {name} is not float32; build it from a graph of tinyseg")
            self._device[name] = cuda.driver.mem_alloc(4 * int(np.prod(shape)))
            self._context.set_tensor_address(name, int(self._device[name]))
            if name in self._inputs and not self._context.set_input_shape(name, shape):
                raise EngineError(f"the engine was not built for {name} of shape {shape}")
        self._graph = CapturedGraph(driver, self._stream.handle)
        self._runs = 0

    def _pinned_for(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if name not in self._pinned:
            self._pinned[name] = self._cuda.driver.pagelocked_empty(shape, np.float32)
        return self._pinned[name]

    def run(self, feeds: Arrays) -> dict[str, Any]:
        cuda = self._cuda.driver
        with self._cuda.current(), engine_errors("tensorrt", "running a graph"):
            for name, shape in self._inputs.items():
                value = feeds[name]
                if value.shape != shape:
                    raise EngineError(f"input {name} must have shape {shape}, but {value.shape} was fed")
                if isinstance(value, TrtTensor):
                    cuda.memcpy_dtod_async(int(self._device[name]), value.address, value.nbytes, self._stream)
                else:
                    staged = self._pinned_for(name, shape)
                    np.copyto(staged, np.asarray(value))
                    cuda.memcpy_htod_async(self._device[name], staged, self._stream)
            self._execute()
            found: dict[str, Any] = {}
            for name, shape in self._outputs.items():
                if self._stays:
                    found[name] = TrtTensor(self._cuda, self._device[name], shape)
                else:
                    found[name] = self._pinned_for(name, shape)
                    cuda.memcpy_dtoh_async(found[name], self._device[name], self._stream)
            self._stream.synchronize()
            return found

    def _execute(self) -> None:
        self._runs += 1
        if self._runs == 1:
            self._enqueue()
            return
        if self._runs == 2:
            self._stream.synchronize()  # copies belong to every run, not to the graph
            self._graph.begin()
            self._enqueue()
            self._graph.end()
        self._graph.launch()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError("TensorRT could not enqueue the graph")


class TrtTensor(DeviceTensor):
    """float32 values in the GPU's memory; numpy.asarray() brings them here."""

    def __init__(self, cuda: Cuda, memory: Any, shape: tuple[int, ...]) -> None:
        self._cuda, self._memory, self.shape = cuda, memory, shape
        self.nbytes = 4 * int(np.prod(shape))

    @property
    def address(self) -> int:
        return int(self._memory)

    def copy(self) -> TrtTensor:
        with self._cuda.current():
            memory = self._cuda.driver.mem_alloc(self.nbytes)
            self._cuda.driver.memcpy_dtod(int(memory), self.address, self.nbytes)
        return TrtTensor(self._cuda, memory, self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        out = np.empty(self.shape, np.float32)
        with self._cuda.current():
            self._cuda.driver.memcpy_dtoh(out, self._memory)
        return out if dtype is None else out.astype(dtype)
