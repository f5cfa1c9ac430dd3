"""A GPU, its driver, PyCUDA and TensorRT, as far as the adapter uses them: work really runs, through ONNX Runtime.

Everything is as asynchronous and as strict as the real thing: copies and launches wait in a stream until it is
synchronised, every call wants a current context, capture refuses a first run, and a blob of another device is refused.
test_trt.py holds every class and method here against the signatures of the real bindings.
"""

from __future__ import annotations

import enum
import importlib.machinery
import json
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime

MAGIC = b"fake tensorrt engine "


class CudaError(RuntimeError):
    """pycuda.driver.Error"""


class Gpu:
    """Memory, streams and the stack of contexts; one for each test."""

    def __init__(self) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.streams: dict[int, Stream] = {}
        self.stack: list[Context] = []
        self.name = "Fake RTX"
        self.events: list[str] = []
        self.devices = 1

    def current(self) -> None:
        if not self.stack:
            raise CudaError("invalid device context")


GPU = Gpu()


class Context:
    def push(self) -> None:
        GPU.stack.append(self)

    @staticmethod
    def pop() -> None:
        GPU.stack.pop()


class Device:
    def __init__(self, number: int) -> None:
        self.number = number

    @staticmethod
    def count() -> int:
        return GPU.devices

    def retain_primary_context(self) -> Context:
        return Context()

    def name(self) -> str:
        return GPU.name

    def compute_capability(self) -> tuple[int, int]:
        return (8, 9)


class DeviceAllocation:
    def __init__(self, size: int) -> None:
        self.address = 0x1000 + sum(len(m) for m in GPU.memory.values()) + 256 * len(GPU.memory)
        GPU.memory[self.address] = np.full(size, 0xFF, np.uint8)  # NaN, until somebody writes

    def __int__(self) -> int:
        return self.address


class Stream:
    def __init__(self) -> None:
        GPU.current()
        self.handle = 7000 + len(GPU.streams)
        GPU.streams[self.handle] = self
        self.queue: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None

    def put(self, work: Callable[[], None]) -> None:
        (self.queue if self.recording is None else self.recording).append(work)

    def synchronize(self) -> None:
        GPU.current()
        assert self.recording is None, "synchronising a stream that captures is an error"
        while self.queue:
            self.queue.pop(0)()


class Driver(types.ModuleType):
    """pycuda.driver"""

    Device, Stream, Context = Device, Stream, Context

    @staticmethod
    def init() -> None: ...

    @staticmethod
    def get_driver_version() -> int:
        return 13000

    @staticmethod
    def mem_alloc(bytes: int) -> DeviceAllocation:
        GPU.current()
        return DeviceAllocation(bytes)

    @staticmethod
    def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        GPU.current()
        return np.full(shape, np.nan, dtype)

    @staticmethod
    def memcpy_htod_async(dest: Any, src: np.ndarray, stream: Stream) -> None:
        GPU.current()
        assert stream.recording is None, "a captured copy would read this array again on every launch"
        stream.put(lambda: _write(int(dest), src))

    @staticmethod
    def memcpy_dtoh_async(dest: np.ndarray, src: Any, stream: Stream) -> None:
        GPU.current()
        stream.put(lambda: np.copyto(dest, _read(int(src), dest.shape)))

    @staticmethod
    def memcpy_dtod_async(dest: int, src: int, size: int, stream: Stream) -> None:
        GPU.current()

        def copy() -> None:
            GPU.memory[dest][:size] = GPU.memory[src][:size]

        stream.put(copy)

    @staticmethod
    def memcpy_dtod(dest: int, src: int, size: int) -> None:
        GPU.current()
        GPU.memory[dest][:size] = GPU.memory[src][:size]

    @staticmethod
    def memcpy_dtoh(dest: np.ndarray, src: Any) -> None:
        GPU.current()
        np.copyto(dest, _read(int(src), dest.shape))


def _write(address: int, array: np.ndarray) -> None:
    data = np.ascontiguousarray(array, np.float32).view(np.uint8).ravel()
    GPU.memory[address][: len(data)] = data


def _read(address: int, shape: tuple[int, ...]) -> np.ndarray:
    return GPU.memory[address][: 4 * int(np.prod(shape))].view(np.float32).reshape(shape)


class CudaLibrary:
    """libcuda, by its exported names."""

    def __init__(self) -> None:
        self.graphs: dict[int, tuple[Stream, list[Callable[[], None]]]] = {}
        self.refuse = ""

    def _code(self, name: str) -> int:
        GPU.events.append(name)
        return 901 if self.refuse == name else 0

    def cuStreamBeginCapture_v2(self, stream: Any, mode: Any) -> int:
        GPU.streams[stream.value].recording = []
        return self._code("cuStreamBeginCapture_v2")

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        real = GPU.streams[stream.value]
        assert real.recording is not None
        graph._obj.value = 1 + len(self.graphs)
        self.graphs[graph._obj.value] = (real, real.recording)
        real.recording = None
        return self._code("cuStreamEndCapture")

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> int:
        executable._obj.value = graph.value
        return self._code("cuGraphInstantiateWithFlags")

    def cuGraphLaunch(self, executable: Any, stream: Any) -> int:
        real, work = self.graphs[executable.value]
        assert real.handle == stream.value
        for one in work:
            real.put(one)
        return self._code("cuGraphLaunch")


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def log(self, severity: Severity, msg: str) -> None: ...


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1


class DeviceType(enum.Enum):
    GPU = 0
    DLA = 1


class BuilderFlag(enum.Enum):
    GPU_FALLBACK = 1


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class INetworkDefinition:
    __slots__ = ("graph", "typed")

    def __init__(self, typed: bool) -> None:
        self.typed = typed
        self.graph = b""


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, logger
        self._errors: list[str] = []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        try:
            proto = onnx.load_from_string(model)
            onnx.checker.check_model(proto)
        except Exception as exc:
            self._errors.append(f"not an ONNX graph: {exc}")
            return False
        for weight in proto.graph.initializer:
            if weight.data_type == onnx.TensorProto.UINT8:  # as the real one says it
                self._errors.append("Non-zero zero point is not supported")
                return False
        self._network.graph = bytes(model)
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return ParserError(self._errors[index])


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, list[Any]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = [list(min), list(opt), list(max)]


class ITimingCache:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._data + b"+")


class IBuilderConfig:
    __slots__ = ("DLA_core", "_cache", "_flags", "_pools", "_profiles", "avg_timing_iterations", "default_device_type")

    def __init__(self) -> None:
        self._profiles: list[IOptimizationProfile] = []
        self._flags: set[BuilderFlag] = set()
        self._cache: ITimingCache | None = None
        self._pools: dict[MemoryPoolType, int] = {}
        self.DLA_core = -1
        self.default_device_type = DeviceType.GPU

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Builder:
    fail = ""  # a reason to refuse every build

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(bool(flags & (1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED)))

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        GPU.current()
        GPU.events.append("build")
        if Builder.fail or not network.typed:
            self._logger.log(ILogger.Severity.ERROR, Builder.fail or "weakly typed")
            return None
        dla = config.default_device_type == DeviceType.DLA
        if dla and BuilderFlag.GPU_FALLBACK not in config._flags:
            self._logger.log(ILogger.Severity.ERROR, "DLA cannot run every layer")
            return None
        head = {"gpu": GPU.name, "shapes": config._profiles[0]._shapes, "dla": config.DLA_core}
        return IHostMemory(MAGIC + json.dumps(head).encode() + b"\n" + network.graph)


class IExecutionContext:
    def __init__(self, shapes: dict[str, Any], graph: bytes) -> None:
        self._shapes = shapes
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", "1")  # sums are exact, as on the GPU
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._addresses: dict[str, int] = {}
        self._given: dict[str, tuple[int, ...]] = {}
        self._warm = False

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._shapes[name]
        if not all(a <= x <= b for a, x, b in zip(low, shape, high)):
            return False
        self._given[name] = tuple(shape)
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        GPU.current()
        stream = GPU.streams[stream_handle]
        if stream.recording is not None and not self._warm:
            raise CudaError("operation not permitted when stream is capturing")
        self._warm = True

        def work() -> None:
            GPU.events.append("run")
            feeds = {i.name: _read(self._addresses[i.name], self._given[i.name]) for i in self._session.get_inputs()}
            for output, array in zip(self._session.get_outputs(), self._session.run(None, feeds)):
                _write(self._addresses[output.name], array)

        stream.put(work)
        return True


class ICudaEngine:
    def __init__(self, shapes: dict[str, Any], graph: bytes) -> None:
        self._shapes, self._graph = shapes, graph

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def create_execution_context(self) -> IExecutionContext:
        GPU.current()
        return IExecutionContext(self._shapes, self._graph)


class Runtime:
    __slots__ = ("DLA_core", "_logger")

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self.DLA_core = -1

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        GPU.current()
        head, _, graph = serialized_engine.removeprefix(MAGIC).partition(b"\n")
        if not serialized_engine.startswith(MAGIC) or json.loads(head)["gpu"] != GPU.name:
            self._logger.log(ILogger.Severity.ERROR, "engine plan file is not compatible with this device")
            return None
        return ICudaEngine(json.loads(head)["shapes"], graph)


API = (
    Builder, IBuilderConfig, ICudaEngine, IExecutionContext, IHostMemory, ILogger, INetworkDefinition,
    IOptimizationProfile, ITimingCache, OnnxParser, Runtime,
)  # fmt: skip
ENUMS = (NetworkDefinitionCreationFlag, MemoryPoolType, DataType, DeviceType, BuilderFlag)


def modules(version: str) -> dict[str, types.ModuleType]:
    """What goes into sys.modules."""
    trt = types.ModuleType("tensorrt")
    for one in (*API, *ENUMS):
        setattr(trt, one.__name__, one)
    trt.__version__ = version  # type: ignore[attr-defined]
    pycuda = types.ModuleType("pycuda")
    driver = Driver("pycuda.driver")
    pycuda.driver = driver  # type: ignore[attr-defined]
    found = {"tensorrt": trt, "pycuda": pycuda, "pycuda.driver": driver}
    for name, module in found.items():
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    return found
