"""What an engine is to the rest of tinyseg.

An engine turns a graph (ONNX bytes whose dimensions have names) and numbers for these names into a compiled graph of
fixed shapes. Adapters are small; everything about prompts, frames and masks stays outside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# A shape whose entries are numbers or names of dimensions.
SymbolicShape = tuple["int | str", ...]


class DeviceTensor(ABC):
    """float32 values that lie in a device's memory. ``numpy.asarray(tensor)`` copies them into this process's memory."""

    shape: tuple[int, ...]
    nbytes: int

    @abstractmethod
    def copy(self) -> DeviceTensor:
        """The same values elsewhere on the device."""

    @abstractmethod
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]: ...


Arrays = Mapping[str, NDArray[np.float32]]

CPU_PROVIDER = "CPUExecutionProvider"  # ONNX Runtime's name for itself on a processor

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class GraphSource:
    """An ONNX graph of a model, with the shapes that its model.json states. All tensors are float32."""

    name: str
    data: bytes
    inputs: Mapping[str, SymbolicShape]
    outputs: Mapping[str, SymbolicShape]
    precision: str = "fp32"  # of the graph itself: int8 graphs carry Q/DQ nodes
    sha256: str = ""  # of data
    feeds_others: bool = False  # outputs are inputs of another graph: an engine may leave them in its own memory


@dataclass(frozen=True)
class GraphInfo:
    """How a graph really runs, read back from the engine where it can tell."""

    engine: str
    version: str
    device: str
    precision: str  # of the arithmetic: fp32, bf16, fp16 or int8
    threads: int  # of all streams together
    streams: int = 1  # runs that go on at the same time


class Runner(Protocol):
    """One place to run a graph, for one thread at a time; nothing is copied."""

    def run(self, feeds: Arrays) -> Mapping[str, NDArray[np.float32]]:
        """As :meth:`CompiledGraph.run`, but what it returns is only valid until the next call."""
        ...


class CompiledGraph(Protocol):
    """A graph of fixed shapes, ready to run."""

    info: GraphInfo

    def runner(self) -> Runner:
        """A place to run it again and again, for loops."""
        ...

    def run(self, feeds: Arrays) -> dict[str, NDArray[np.float32]]:
        """Run once. feeds: C-contiguous float32 arrays of the compiled shapes, by input name.

        Returns arrays by output name that belong to the caller. Engines with memory of their own may return an
        encoder's outputs as :class:`DeviceTensor`, which their decoder takes as they are. Safe to call from several
        threads.
        """
        ...


class Engine(Protocol):
    """An adapter around one inference library, opened for a device and a precision."""

    name: str
    version: str
    precision: str

    def identity(self) -> Mapping[str, str]:
        """Everything but graph and shapes that makes a built engine useless when it changes."""
        ...

    def compile(self, graph: GraphSource, dimensions: Mapping[str, int]) -> CompiledGraph:
        """Compile a graph with every named dimension set. Raises EngineError."""
        ...

    def build(self, graph: GraphSource, dimensions: Mapping[str, int]) -> bytes:
        """Compile a graph into bytes that :meth:`restore` opens without compiling. Raises EngineError."""
        ...

    def restore(self, blob: bytes, graph: GraphSource, dimensions: Mapping[str, int]) -> CompiledGraph:
        """Open what :meth:`build` made for the same graph, dimensions and identity. Raises EngineError."""
        ...


def concrete_shapes(shapes: Mapping[str, SymbolicShape], dimensions: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Symbolic shapes with their names replaced by numbers."""
    return {name: tuple(dimensions[d] if isinstance(d, str) else d for d in shape) for name, shape in shapes.items()}
