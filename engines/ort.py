"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tinyseg.engines.base import Arrays, GraphInfo, GraphSource
from tinyseg.errors import EngineError, PrecisionUnavailable, engine_errors


def create(precision: str, threads: int, streams: int) -> OrtEngine:
    """Open the engine; "auto" means fp32."""
    if precision not in ("auto", "fp32"):
        raise PrecisionUnavailable(
            f"onnxruntime runs this model's graphs in fp32 only, not {precision}; use precision='fp32' or engine='openvino'"
        )
    return OrtEngine(threads, streams)


class OrtEngine:
    """Compiles graphs to ONNX Runtime sessions on the CPU provider."""

    name = "onnxruntime"
    version: str = ort.__version__
    precision = "fp32"

    def __init__(self, threads: int, streams: int) -> None:
        self._threads = threads
        self._streams = streams

    def compile(self, graph: GraphSource, dimensions: Mapping[str, int]) -> OrtGraph:
        options = ort.SessionOptions()
        # A run uses the calling thread and a share of the others; several callers are several streams.
        options.intra_op_num_threads = max(1, self._threads // self._streams)
        options.inter_op_num_threads = 1
        # Every session has its own threads, which go on spinning for work after a run. Encoder and decoder take turns,
        # so without this each waits for the other's idle threads: on two cores that doubled the time of a frame.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Arena blocks of exactly the asked size: the default doubles and holds memory that is never used.
        provider = ("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})
        options.log_severity_level = 3
        for name, value in dimensions.items():
            options.add_free_dimension_override_by_name(name, value)
        with engine_errors(self.name, f"compiling the {graph.name}"):
            session = ort.InferenceSession(graph.data, options, providers=[provider])
        if len(session.get_outputs()) != len(graph.outputs):
            raise EngineError(f"the {graph.name} has {len(session.get_outputs())} outputs, not {len(graph.outputs)}")
        return OrtGraph(
            session,
            list(graph.outputs),
            GraphInfo(self.name, self.version, "CPU", "fp32", self._threads, self._streams),
        )


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
