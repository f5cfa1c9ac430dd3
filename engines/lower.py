"""Graphs as strongly typed builders want them: precision stated in the graph, not in a builder's flags.

TensorRT 11 takes nothing else, TensorRT 10 takes it too (STRONGLY_TYPED). Needs the onnx package, at build time only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyseg.errors import EngineError, NotInstalled, engine_errors

# Kept in fp32 inside an fp16 graph: sums over many numbers, and exponents.
# A Cast states its type itself, and constants of a shape are fp32.
FLOAT_OPERATIONS = (
    "LayerNormalization", "Softmax", "Exp", "Sin", "Cos", "Tanh", "Sigmoid", "ReduceMean", "Cast", "ConstantOfShape",
)  # fmt: skip
# Layers that start the half-precision part. What lies before them handles positions in pixels, of which fp16 resolves
# only every second between 1024 and 2048, and every half one between 512 and 1024.
HEAVY = ("Conv", "Gemm", "MatMul")
POSITIONS = "frequencies"  # the weight of the one product that belongs to the positions


def _onnx() -> Any:
    try:
        import onnx  # noqa: PLC0415 - the runtime does not need it
    except ModuleNotFoundError as exc:
        raise NotInstalled("typed graphs are made with onnx; run: pip install 'tinyseg[compile]'") from exc
    return onnx


def load_graph(data: bytes) -> Any:
    """Bytes -> onnx.ModelProto with fp16-stored weights as plain fp32 initializers. Raises EngineError."""
    onnx = _onnx()
    with engine_errors("onnx", "reading a graph"):
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model)
    weights = {w.name: w for w in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in weights:
            weight = weights[node.input[0]]
            array = onnx.numpy_helper.to_array(weight).astype(np.float32)
            weight.CopyFrom(onnx.numpy_helper.from_array(array, node.output[0]))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def to_fp16(data: bytes) -> bytes:
    """An fp32 graph with weights and arithmetic in fp16; inputs, outputs, norms, softmax and positions stay fp32."""
    onnx = _onnx()
    model = load_graph(data)
    with engine_errors("onnx", "inferring the types of a graph"):
        typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    floats = {
        v.name
        for v in (*typed.graph.value_info, *typed.graph.input, *typed.graph.output)
        if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    weights = {w.name: w for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT}
    half = _half_nodes(model.graph.node)
    in_half = {name for i in half for name in model.graph.node[i].output if name in floats}
    outputs = {o.name for o in model.graph.output}
    nodes: list[Any] = []
    halved: dict[str, Any] = {}  # weights in fp16
    casts: dict[tuple[str, int], str] = {}

    def cast(name: str, to: int) -> str:
        if (name, to) not in casts:
            casts[name, to] = f"{name}_as_{'fp16' if to == onnx.TensorProto.FLOAT16 else 'fp32'}"
            nodes.append(onnx.helper.make_node("Cast", [name], [casts[name, to]], casts[name, to], to=to))
        return casts[name, to]

    for i, node in enumerate(model.graph.node):
        for k, name in enumerate(node.input):
            if node.op_type == "Resize" and k > 0:
                continue  # region and scales are fp32 by definition
            if i in half and name in weights:
                halved[name] = onnx.numpy_helper.to_array(weights[name]).astype(np.float16)
                node.input[k] = f"{name}_half"
            elif i in half and name in floats and name not in in_half:
                node.input[k] = cast(name, onnx.TensorProto.FLOAT16)
            elif i not in half and name in in_half:
                node.input[k] = cast(name, onnx.TensorProto.FLOAT)
        nodes.append(node)
    # Outputs of the graph stay fp32 under their own names.
    finals = []
    for name in sorted(outputs & in_half):
        for node in nodes:
            node.input[:] = [f"{name}_half" if x == name else x for x in node.input]
            node.output[:] = [f"{name}_half" if x == name else x for x in node.output]
        finals.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_out", to=onnx.TensorProto.FLOAT))
    used = {name for node in nodes for name in node.input}
    kept = [w for w in model.graph.initializer if w.name in used]
    kept += [onnx.numpy_helper.from_array(a, f"{name}_half") for name, a in halved.items()]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *finals])
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]
    with engine_errors("onnx", "checking the fp16 graph"):
        onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _half_nodes(nodes: Any) -> set[int]:
    """Indices of the nodes that compute in fp16: heavy layers and what follows them, but what is kept in fp32."""
    inside: set[str] = set()
    half = set()
    for i, node in enumerate(nodes):
        starts = node.op_type in HEAVY and not any(POSITIONS in name for name in node.input)
        if starts or any(name in inside for name in node.input):
            inside.update(node.output)
            if node.op_type not in FLOAT_OPERATIONS:
                half.add(i)
    return half


def to_symmetric(data: bytes) -> bytes:
    """An int8 graph (uint8 activations with zero points, int32 biases) with symmetric int8 activations and float biases.

    GPU kernels know no zero points. The range of every activation stays; what only ever was positive loses a bit.
    """
    onnx = _onnx()
    model = load_graph(data)
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    changed: dict[str, Any] = {}
    nodes = []
    quantizers = ("QuantizeLinear", "DequantizeLinear")
    for node in model.graph.node:
        zero = weights.get(node.input[2]) if node.op_type in quantizers and len(node.input) > 2 else None
        if zero is not None and zero.dtype == np.uint8:
            scale = weights[node.input[1]]
            largest = max(float(zero), 255.0 - float(zero)) * float(scale)
            changed[node.input[1]] = np.asarray(largest / 127.0, np.float32)
            changed[node.input[2]] = np.asarray(0, np.int8)
        if zero is not None and zero.dtype == np.int32:
            levels, scale = weights[node.input[0]], weights[node.input[1]]
            changed[node.output[0]] = (levels * scale).astype(np.float32)
            continue
        nodes.append(node)
    if not changed:
        raise EngineError("the graph carries no Q/DQ nodes to make symmetric; quantize it first")
    used = {name for node in nodes for name in node.input}
    arrays = {**weights, **changed}
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.initializer[:]
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items() if name in used
    )
    return bytes(model.SerializeToString())
