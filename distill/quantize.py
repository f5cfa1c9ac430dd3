"""Post-training quantization: a model's float graphs into int8 graphs with explicit Q/DQ nodes.

Weights are symmetric int8, one scale for each output channel; activations are uint8 with one scale and zero point for
each tensor, whose range minimises the squared rounding error on real feeds (calibration.py). What the rounding of the
weights does to the mean of every output channel is put right in the bias (Nagel et al., arXiv 1906.04721, section 4.2).

Q/DQ pairs stand where engines fuse them: at the input of a quantized convolution, and behind its activation, never
between the two (a pair there made ONNX Runtime requantize every map twice and run slower than fp32). Only
convolutions are quantized. Attention over a handful of tokens, LayerNorm, softmax and the last mask product cost
nothing and stay in float.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tinyseg.distill.calibration import Feeds
from tinyseg.distill.export import store_as_fp16
from tinyseg.engines.lower import load_graph
from tinyseg.engines.ort import int8_options
from tinyseg.errors import InputError
from tinyseg.graphs.model import Model
from tinyseg.graphs.package import read_member
from tinyseg.system.folders import new_folder
from tinyseg.system.progress import progress
from tinyseg.version import __version__

ACTIVATIONS = ("Clip", "Relu")
SAMPLES_PER_FEED = 2048
RANGE_FEEDS = 64  # ranges are measured on so many recorded calls of each graph
SENSITIVITY_FEEDS = 6
KEEP_ABOVE = 0.05  # relative squared error of the outputs, about -13 dB
REPORT = "quantization.json"
# Shares of a tensor's full range that are tried as its clipped range.
RANGE_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4)


@dataclass(frozen=True)
class Range:
    """What a tensor was seen to hold."""

    low: float
    high: float
    samples: NDArray[np.float32]
    channel_mean: NDArray[np.float64] | None  # of a feature map's channels

    def scale_and_zero(self) -> tuple[np.float32, np.uint8]:
        """Scale and zero point of uint8 with the least squared error on the samples; 0 is always exact."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        best = (np.inf, np.float32(1.0), np.uint8(0))
        for share in RANGE_SHARES:
            scale = np.float32(max((high - low) * share, 1e-6) / 255.0)
            zero = np.uint8(np.clip(np.round(-low * share / scale), 0, 255))
            levels = np.clip(np.round(self.samples / scale) + float(zero), 0, 255)
            error = float(np.mean(np.square((levels - float(zero)) * scale - self.samples)))
            if error < best[0]:
                best = (error, scale, zero)
        return best[1], best[2]


def convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that can be quantized, in graph order.

    Convolutions of what depends on shapes alone (the projected positional encodings) are left out: engines fold them
    into constants, and OpenVINO fails to compile them when they are quantized.
    """
    weights = {w.name for w in model.graph.initializer}
    data = {i.name for i in model.graph.input}
    found = []
    for node in model.graph.node:
        if node.op_type != "Shape" and any(name in data for name in node.input):
            data.update(node.output)
            if node.op_type == "Conv" and node.input[1] in weights:
                found.append(node)
    return found


def _consumers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def _after_activation(node: onnx.NodeProto, consumers: Mapping[str, list[onnx.NodeProto]]) -> str:
    """The tensor behind a convolution and, if there is one, its activation."""
    users = consumers.get(node.output[0], [])
    if len(users) == 1 and users[0].op_type in ACTIVATIONS:
        return str(users[0].output[0])
    return str(node.output[0])


def quantized_tensors(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Activations that get a Q/DQ pair when these convolutions are quantized, in a fixed order."""
    consumers = _consumers(model)
    outputs = {o.name for o in model.graph.output}
    chosen: dict[str, None] = {}
    for node in nodes:
        chosen[node.input[0]] = None
        behind = _after_activation(node, consumers)
        if behind not in outputs:
            chosen[behind] = None
    return list(chosen)


def measure_ranges(model: onnx.ModelProto, tensors: Sequence[str], feeds: Sequence[Feeds]) -> dict[str, Range]:
    """Run the float graph on every feed and watch the tensors."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {o.name for o in probe.graph.output} | {i.name for i in probe.graph.input}
    probe.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in known)
    session = session_of(probe)
    names = [t for t in tensors if t not in {i.name for i in probe.graph.input}]
    low = dict.fromkeys(tensors, np.inf)
    high = dict.fromkeys(tensors, -np.inf)
    samples: dict[str, list[NDArray[np.float32]]] = {t: [] for t in tensors}
    sums: dict[str, list[NDArray[np.float64]]] = {t: [] for t in tensors}
    rng = np.random.default_rng(0)
    for feed in progress(feeds, "calibration runs"):
        arrays = dict(zip(names, session.run(names, dict(feed))))
        for tensor in tensors:
            array = arrays[tensor] if tensor in arrays else feed[tensor]
            low[tensor] = min(low[tensor], float(array.min()))
            high[tensor] = max(high[tensor], float(array.max()))
            samples[tensor].append(rng.choice(array.ravel(), SAMPLES_PER_FEED))
            if array.ndim == 4:
                sums[tensor].append(array.mean((0, 2, 3), dtype=np.float64))
    return {
        t: Range(low[t], high[t], np.concatenate(samples[t]), np.mean(sums[t], 0) if sums[t] else None)
        for t in tensors
    }  # fmt: skip


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for key, value in int8_options().items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def quantize_weight(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(O, ...) weights -> int8 of the same shape and one scale for each output channel."""
    flat = np.abs(weight.reshape(len(weight), -1)).max(1)
    scale = np.maximum(flat, 1e-8).astype(np.float32) / np.float32(127.0)
    shape = (-1, *(1,) * (weight.ndim - 1))
    return np.clip(np.round(weight / scale.reshape(shape)), -127, 127).astype(np.int8), scale


def bias_correction(
    weight: NDArray[np.float32], rounded: NDArray[np.float32], channel_mean: NDArray[np.float64], groups: int
) -> NDArray[np.float32]:
    """What rounding the weights adds to the mean of every output channel, (O,): (W - W') E[x]."""
    difference = (weight - rounded).sum((2, 3))  # (O, I / groups)
    outputs, inputs = difference.shape
    means = channel_mean.reshape(groups, inputs)
    return np.einsum("goi,gi->go", difference.reshape(groups, outputs // groups, inputs), means).reshape(-1)


class _Writer:
    """New nodes and weights of a graph that is being quantized."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def constant(self, name: str, array: NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def quantize(self, tensor: str, scale: np.float32, zero: np.uint8) -> None:
        """A Q/DQ pair behind a tensor; what comes back is called ``{tensor}_dq``."""
        parameters = [
            self.constant(f"{tensor}_scale", np.asarray(scale)), self.constant(f"{tensor}_zero", np.asarray(zero)),
        ]  # fmt: skip
        self.nodes.append(helper.make_node("QuantizeLinear", [tensor, *parameters], [f"{tensor}_q"], f"{tensor}_q"))
        inputs = [f"{tensor}_q", *parameters]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{tensor}_dq"], f"{tensor}_dq"))

    def stored(self, name: str, levels: NDArray[np.int8] | NDArray[np.int32], scale: NDArray[np.float32]) -> str:
        """Integers (O, ...) with a scale for each output channel and the DQ node that reads them."""
        inputs = [
            self.constant(f"{name}_levels", levels), self.constant(f"{name}_scale", scale),
            self.constant(f"{name}_zero", np.zeros(len(scale), levels.dtype)),
        ]  # fmt: skip
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], f"{name}_dq", axis=0))
        return f"{name}_dq"


def quantize_graph(model: onnx.ModelProto, ranges: Mapping[str, Range], keep: Collection[str] = ()) -> onnx.ModelProto:
    """A float graph with Q/DQ pairs around its convolutions, except those named in ``keep``.

    ranges: of every tensor that quantized_tensors() names for the nodes that are quantized. Raises InputError for a
    name that is no convolution of the graph.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    names = [n.name for n in convolutions(out)]
    unknown = sorted(set(keep) - set(names))
    if unknown:
        raise InputError(f"there is no convolution {unknown[0]!r} to keep in float; known are {', '.join(names)}")
    nodes = [n for n in convolutions(out) if n.name not in keep]
    weights = {w.name: numpy_helper.to_array(w) for w in out.graph.initializer}
    writer = _Writer()
    scales: dict[str, np.float32] = {}
    for tensor in quantized_tensors(out, nodes):
        scales[tensor], zero = ranges[tensor].scale_and_zero()
        writer.quantize(tensor, scales[tensor], zero)
    for node in out.graph.node:  # whoever reads a quantized tensor reads what came back from it
        for i, name in enumerate(node.input):
            if name in scales:
                node.input[i] = f"{name}_dq"
    for node in nodes:
        source = node.input[0].removesuffix("_dq")
        weight = weights[node.input[1]]
        bias = weights[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight), np.float32)
        levels, scale = quantize_weight(weight)
        mean = ranges[source].channel_mean
        if mean is not None:
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            bias = bias + bias_correction(weight, levels * scale.reshape(-1, 1, 1, 1), mean, groups)
        # int32 in units of the product of both scales: what integer kernels add before they scale.
        unit = (scale * scales[source]).astype(np.float32)
        limit = np.iinfo(np.int32).max / 2
        bias_levels = np.clip(np.round(bias / unit), -limit, limit).astype(np.int32)
        inputs = [
            node.input[0], writer.stored(node.input[1], levels, scale),
            writer.stored(f"{node.input[1]}_bias", bias_levels, unit),
        ]  # fmt: skip
        del node.input[:]
        node.input.extend(inputs)
    every = [*writer.nodes, *out.graph.node]
    used = {name for node in every for name in node.input}
    kept = [w for w in [*out.graph.initializer, *writer.weights] if w.name in used]
    ordered = _in_order(every, {i.name for i in out.graph.input} | {w.name for w in kept})
    del out.graph.node[:]
    out.graph.node.extend(ordered)
    del out.graph.initializer[:]
    out.graph.initializer.extend(kept)
    onnx.checker.check_model(out)
    return out


def _in_order(nodes: Sequence[onnx.NodeProto], known: set[str]) -> list[onnx.NodeProto]:
    """Nodes so that every one stands behind what it reads (ONNX asks for it)."""
    waiting = list(nodes)
    known = {*known, ""}  # an optional input that is left out has no name
    out: list[onnx.NodeProto] = []
    readers: dict[str, list[int]] = {}
    missing: list[int] = []
    for i, node in enumerate(waiting):
        needs = {name for name in node.input if name not in known}
        missing.append(len(needs))
        for name in needs:
            readers.setdefault(name, []).append(i)
    ready = [i for i, count in enumerate(missing) if count == 0]
    while ready:
        i = ready.pop(0)
        out.append(waiting[i])
        for name in waiting[i].output:
            for j in readers.get(name, []):
                missing[j] -= 1
                if missing[j] == 0:
                    ready.append(j)
    assert len(out) == len(waiting), "the graph has a cycle"
    return out


@dataclass(frozen=True)
class Sensitivity:
    """How much the outputs move when one convolution alone is quantized."""

    node: str
    noise: float  # mean over outputs of |difference|^2 / |output|^2, on calibration feeds


def output_noise(reference: Sequence[NDArray[np.float32]], other: Sequence[NDArray[np.float32]]) -> float:
    """Mean over outputs of the relative squared error."""
    return float(
        np.mean([np.square(b - a).sum() / max(np.square(a).sum(), 1e-12) for a, b in zip(reference, other)])
    )  # fmt: skip


def sensitivity(
    model: onnx.ModelProto, ranges: Mapping[str, Range], feeds: Sequence[Feeds], names: Sequence[str] | None = None
) -> list[Sensitivity]:
    """Quantize each convolution alone and compare the graph's outputs with the float graph's; worst first."""
    every = [n.name for n in convolutions(model)]
    run = session_of(model)
    outputs = [o.name for o in model.graph.output]
    references = [run.run(outputs, dict(feed)) for feed in feeds]
    rows = []
    for name in progress(every if names is None else names, "sensitivity"):
        session = session_of(quantize_graph(model, ranges, keep=[n for n in every if n != name]))
        noise = [output_noise(r, session.run(outputs, dict(f))) for r, f in zip(references, feeds)]
        rows.append(Sensitivity(name, float(np.mean(noise))))
    return sorted(rows, key=lambda r: -r.noise)


@dataclass(frozen=True)
class GraphReport:
    """What became of one graph."""

    graph: str
    convolutions: int
    kept: tuple[str, ...]  # left in float, by name or for their noise
    megabytes: float
    float_megabytes: float
    noise: float  # relative squared error of the outputs with everything quantized
    sensitivity: tuple[Sensitivity, ...]


def kept_nodes(model: Model, keep: Collection[str]) -> dict[str, set[str]]:
    """``graph:name`` of convolutions by graph. Raises InputError for one that the model does not have."""
    kept: dict[str, set[str]] = {name: set() for name in model.graphs}
    for text in keep:
        graph, _, node = text.partition(":")
        if graph not in kept:
            raise InputError(
                f"--keep {text}: GRAPH:NODE is wanted, and the model has no graph {graph!r}; it has {', '.join(kept)}"
            )
        names = [n.name for n in convolutions(load_graph(model.graphs[graph].data))]
        if node not in names:
            raise InputError(f"--keep {text}: the {graph} has no convolution {node!r}; known are {', '.join(names)}")
        kept[graph].add(node)
    return kept


def quantize_model(
    model: Model, feeds: Mapping[str, Sequence[Feeds]], *, keep: Collection[str] = (), keep_above: float = KEEP_ABOVE
) -> tuple[dict[str, bytes], list[GraphReport]]:
    """int8 graphs of a model by name, and a report on each.

    feeds: as record_feeds() returns them; graphs without any are left out. keep:
    convolutions to leave in float, as ``graph:name``. keep_above: those
    that add more relative squared error than this on their own are left in float as well. Raises InputError.
    """
    kept_by_name = kept_nodes(model, keep)
    graphs: dict[str, bytes] = {}
    reports = []
    for name, source in model.graphs.items():
        if name not in feeds:
            continue
        rng = np.random.default_rng(0)
        chosen = [feeds[name][i] for i in rng.permutation(len(feeds[name]))[:RANGE_FEEDS]]
        float_model = load_graph(source.data)
        tensors = quantized_tensors(float_model, convolutions(float_model))
        ranges = measure_ranges(float_model, tensors, chosen)
        rows = sensitivity(float_model, ranges, chosen[:SENSITIVITY_FEEDS])
        kept = sorted(kept_by_name[name] | {r.node for r in rows if r.noise > keep_above})
        quantized = quantize_graph(float_model, ranges, kept)
        run, reference = session_of(quantized), session_of(float_model)
        outputs = [o.name for o in float_model.graph.output]
        noise = [
            output_noise(reference.run(outputs, dict(f)), run.run(outputs, dict(f))) for f in chosen[:SENSITIVITY_FEEDS]
        ]
        store_as_fp16(quantized)
        quantized.producer_name, quantized.producer_version = "tinyseg", __version__
        graphs[name] = quantized.SerializeToString()
        reports.append(
            GraphReport(
                name,
                len(rows),
                tuple(kept),
                len(graphs[name]) / 1e6,
                len(source.data) / 1e6,
                float(np.mean(noise)),
                tuple(rows),
            )
        )
    return graphs, reports


def write_folder(
    model: Model, graphs: Mapping[str, bytes], reports: Sequence[GraphReport], calibration: Mapping[str, Any], out: Path
) -> None:
    """Write a model folder with the model's own graphs and the int8 ones; replaces ``out`` only when all is written."""
    with new_folder(out) as folder:
        for row in model.card["graphs"].values():
            (folder / row["file"]).write_bytes(read_member(model.path, row["file"]))
        rows = {}
        for name, data in graphs.items():
            file = f"{name}.int8.onnx"
            (folder / file).write_bytes(data)
            rows[name] = {"file": file, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        int8 = {
            "graphs": rows,
            "made_with": f"tinyseg {__version__}, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}",
            "calibration": dict(calibration),
        }
        card = {k: v for k, v in model.card.items() if k != "measured"}  # figures of other graphs
        card["precisions"] = {**model.card.get("precisions", {}), "int8": int8}
        (folder / "model.json").write_text(json.dumps(card, indent=1) + "\n")
        (folder / REPORT).write_text(json.dumps([asdict(r) for r in reports], indent=1) + "\n")


def record_measured(folder: Path, measured: Mapping[str, Any], accuracy: Mapping[str, Any] | None = None) -> None:
    """Put figures of speed and accuracy into a folder's model.json; "auto" chooses a precision by them.

    accuracy: the tables of ``tinyseg eval`` of the fp32 graphs; None leaves those that are there.
    """
    card = json.loads((folder / "model.json").read_text())
    card["measured"] = dict(measured)
    if accuracy is not None:
        card["accuracy"] = dict(accuracy)
    temporary = folder / "model.json.part"
    temporary.write_text(json.dumps(card, indent=1) + "\n")
    os.replace(temporary, folder / "model.json")


def to_text(reports: Sequence[GraphReport], worst: int = 8) -> str:
    """What was quantized, and the convolutions that it costs most."""
    lines = []
    for r in reports:
        lines.append(
            f"{r.graph}: {r.convolutions - len(r.kept)} of {r.convolutions} convolutions in int8, "
            f"{r.float_megabytes:.1f} -> {r.megabytes:.1f} MB, output error {10 * math.log10(max(r.noise, 1e-12)):.1f} dB"
        )
        lines += [f"  kept in float: {name}" for name in r.kept]
        lines.append("  most sensitive, alone in int8:")
        lines += [f"    {10 * math.log10(max(s.noise, 1e-12)):6.1f} dB  {s.node}" for s in r.sensitivity[:worst]]
    return "\n".join(lines)
