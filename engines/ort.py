"""ONNX Runtime on the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tinyseg.engines import cpu
from tinyseg.engines.base import Arrays, GraphInfo, GraphSource
from tinyseg.errors import EngineError, engine_errors


def precisions() -> tuple[str, ...]:
    """fp32, and int8 for models that carry quantized graphs; the CPU provider computes in no other float type."""
    return ("fp32", "int8")


def create(precision: str, threads: int, streams: int) -> OrtEngine:
    return OrtEngine(precision, threads, streams)


class OrtEngine:
    """Compiles graphs to ONNX Runtime sessions on the CPU provider."""

    name = "onnxruntime"
    version: str = ort.__version__

    def __init__(self, precision: str, threads: int, streams: int) -> None:
        self.precision = precision
        self._threads = threads
        self._streams = streams

    def identity(self) -> dict[str, str]:
        return {"engine": self.name, "version": self.version, "device": cpu.fingerprint(), "precision": self.precision}

    def _options(self, dimensions: Mapping[str, int]) -> ort.SessionOptions:
        options = ort.SessionOptions()
        # A run uses the calling thread and a share of the others; several callers are several streams.
        options.intra_op_num_threads = max(1, self._threads // self._streams)
        options.inter_op_num_threads = 1
        # Every session has its own threads, which go on spinning for work after a run. Encoder and decoder take turns,
        # so without this each waits for the other's idle threads: on two cores that doubled the time of a frame.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 3
        for name, value in dimensions.items():
            options.add_free_dimension_override_by_name(name, value)
        return options

    def _session(self, data: bytes, options: ort.SessionOptions, graph: GraphSource, doing: str) -> OrtGraph:
        # Arena blocks of exactly the asked size: the default doubles and holds memory that is never used.
        provider = ("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})
        with engine_errors(self.name, f"{doing} the {graph.name}"):
            session = ort.InferenceSession(data, options, providers=[provider])
        if len(session.get_outputs()) != len(graph.outputs):
            raise EngineError(f"the {graph.name} has {len(session.get_outputs())} outputs, not {len(graph.outputs)}")
        info = GraphInfo(self.name, self.version, "CPU", self.precision, self._threads, self._streams)
        return OrtGraph(session, list(graph.outputs), info)

    def compile(self, graph: GraphSource, dimensions: Mapping[str, int]) -> OrtGraph:
        return self._session(graph.data, self._options(dimensions), graph, "compiling")

    def build(self, graph: GraphSource, dimensions: Mapping[str, int]) -> bytes:
        """The optimised graph at fixed shapes, with the memory layouts that this processor wants."""
        options = self._options(dimensions)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimised.onnx"
            options.optimized_model_filepath = str(path)
            self._session(graph.data, options, graph, "compiling")
            return path.read_bytes()

    def restore(self, blob: bytes, graph: GraphSource, dimensions: Mapping[str, int]) -> OrtGraph:
        options = self._options(dimensions)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # that was done by build()
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
            return dict(zip(self._outputs, self._session.run(None, dict(feeds))))
