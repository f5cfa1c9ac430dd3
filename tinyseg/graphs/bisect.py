"""Where a compiled graph first leaves the fp32 reference: every layer's output of both, in graph order.

Needs the onnx package, which the runtime does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyseg.engines import Engine, GraphSource, create_engine
from tinyseg.errors import NotInstalled
from tinyseg.graphs.model import Model
from tinyseg.graphs.roles import ROLES, Arrays

# Layers whose outputs are worth comparing: the ones that compute.
COMPUTING = ("Conv", "ConvTranspose", "MatMul", "Gemm", "LayerNormalization", "Softmax", "Add", "Mul", "Resize")
# Mean |difference| over the standard deviation of a layer's output from which it counts as wrong. Rounding stays
# well below it in every precision; a wrong layer is far above.
WRONG = {"fp32": 0.01, "bf16": 0.1, "fp16": 0.05, "int8": 0.25}
QUANTIZED_SUFFIX = "_dq"


@dataclass(frozen=True)
class Layer:
    """One layer's distance from the reference."""

    name: str
    operation: str
    noise: float  # mean |difference| over the standard deviation of the reference's output


@dataclass(frozen=True)
class Bisection:
    """All layers of a graph that could be compared, in graph order."""

    graph: str
    precision: str
    layers: tuple[Layer, ...]

    @property
    def first_wrong(self) -> Layer | None:
        return next((x for x in self.layers if not x.noise <= WRONG[self.precision]), None)

    def to_text(self) -> str:
        worst = max(self.layers, key=lambda x: np.nan_to_num(x.noise, nan=np.inf))
        if self.first_wrong is None:
            return (
                f"{self.graph}: none of {len(self.layers)} layers is off by more than {WRONG[self.precision]} of its "
                f"spread; the farthest is {worst.operation} {worst.name} ({worst.noise:.4f})"
            )
        return (
            f"{self.graph}: first wrong at {self.first_wrong.operation} {self.first_wrong.name}, off by "
            f"{self.first_wrong.noise:.3f} of its spread; the farthest is {worst.operation} {worst.name} ({worst.noise:.3f})"
        )


def bisect(model: Model, graph: GraphSource, engine: Engine, dimensions: Mapping[str, int]) -> Bisection:
    """Compile a graph with every layer as an output, and compare it with the reference's layers of the same names.

    Raises NotInstalled without the onnx package, EngineError where the graph does not compile at all.
    """
    reference_engine = create_engine("onnxruntime", "fp32", None).engine
    expected_graph, operations = expose(model.graphs[graph.name], None)
    found_graph, _ = expose(graph, set(operations))
    feeds = _feeds(model, graph.name, dimensions, reference_engine)
    expected = reference_engine.compile(expected_graph, dimensions).run(feeds)
    found = engine.compile(found_graph, dimensions).run(feeds)
    layers = []
    for name, operation in operations.items():
        if name in found:
            a, b = expected[name], found[name]
            spread = max(float(a.std()), 1e-6)
            layers.append(Layer(name, operation, float(np.abs(b - a).mean(dtype=np.float64)) / spread))
    return Bisection(graph.name, engine.precision, tuple(layers))


def expose(graph: GraphSource, only: set[str] | None) -> tuple[GraphSource, dict[str, str]]:
    """(graph with computing layers' float outputs as outputs, {output: operation} in graph order)."""
    try:
        import onnx  # noqa: PLC0415 - only this needs it
    except ModuleNotFoundError as exc:
        raise NotInstalled("--bisect needs onnx; run: pip install 'tinyseg[compile]'") from exc
    proto: Any = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph.data))
    floats = {v.name for v in proto.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    declared = [o.name for o in proto.graph.output]
    operations: dict[str, str] = {}
    for node in proto.graph.node:
        for name in node.output:
            known = name in floats or name in declared
            if node.op_type in COMPUTING and known and (only is None or name in only):
                operations[name] = node.op_type
    extra = [name for name in operations if name not in declared]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
    outputs = {**graph.outputs, **{name: () for name in extra}}
    return replace(graph, data=proto.SerializeToString(), outputs=outputs), operations


def _feeds(model: Model, graph: str, dimensions: Mapping[str, int], engine: Engine) -> Arrays:
    """The graph's first trial, made with the model's other graphs on the reference engine."""

    def run(name: str, feeds: Arrays) -> Arrays:
        return engine.compile(model.graphs[name], {}).run(feeds)

    return next(ROLES[graph].cases(run, dimensions)).feeds
