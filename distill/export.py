"""A checkpoint into a model folder: two ONNX graphs with named dimensions, and model.json.

The graphs are compared with torch on random inputs of two shapes before anything is written; an export that computes
something else is an error, not a file.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tinyseg.distill.checkpoint import load_checkpoint
from tinyseg.distill.model import EMBED_DIM, NUM_MASKS, SKIP4_DIM, SKIP8_DIM, ConvNorm, Student
from tinyseg.distill.pace import is_finite
from tinyseg.distill.shape import StudentShape
from tinyseg.distill.warm_start import load_whole
from tinyseg.errors import InputError, ParityError
from tinyseg.graphs.card import FORMAT, INPUT, CardProblem, parse_card
from tinyseg.graphs.roles import TRACK_DECODER
from tinyseg.system.folders import new_folder
from tinyseg.track.hints import MATCHES
from tinyseg.version import __version__

OPSET = 18
# Largest differences from torch that are accepted, relative to each output's largest value: of the traced graph, and
# of the graph whose weights were rounded to fp16.
TRACE_TOLERANCE = 1e-4
STORED_TOLERANCE = 2e-2
FEATURES: dict[str, list[int | str]] = {
    "embedding": [1, EMBED_DIM, "rows16", "columns16"],
    "skip8": [1, SKIP8_DIM, "rows8", "columns8"],
    "skip4": [1, SKIP4_DIM, "rows4", "columns4"],
}
SHAPES: dict[str, dict[str, dict[str, list[int | str]]]] = {
    "encoder": {"inputs": {"image": [1, 3, "height", "width"]}, "outputs": FEATURES},
    "decoder": {
        "inputs": {
            **FEATURES,
            "points": ["prompts", "points", 2],
            "labels": ["prompts", "points"],
            "mask": ["prompts", 1, "rows4", "columns4"],
            "has_mask": ["prompts"],
        },
        "outputs": {"logits": ["prompts", NUM_MASKS, "rows4", "columns4"], "iou": ["prompts", NUM_MASKS]},
    },
    TRACK_DECODER: {
        "inputs": {
            **FEATURES,
            "points": ["prompts", "points", 2],
            "labels": ["prompts", "points"],
            "mask": ["prompts", 1, "rows4", "columns4"],
            "last": ["prompts", 1, "rows4", "columns4"],
            "memory": ["prompts", MATCHES, "rows16", "columns16"],
        },
        "outputs": {"logits": ["prompts", 1, "rows4", "columns4"], "iou": ["prompts", 1]},
    },
}
OF_STUDENT = ("encoder", "decoder")


def fold_batch_norm(module: nn.Module) -> None:
    """Fold every batch norm into the convolution before it, in place."""
    for child in module.modules():
        if isinstance(child, ConvNorm) and isinstance(child[1], nn.BatchNorm2d):
            conv, norm = child[0], child[1]
            assert isinstance(conv, nn.Conv2d)
            child[0], child[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


def example_inputs(graph: str, rows: int, columns: int, prompts: int) -> tuple[Tensor, ...]:
    """Random inputs; rows and columns count cells of the embedding."""
    generator = torch.Generator().manual_seed(rows * 1000 + columns)
    if graph == "encoder":
        return (torch.rand(1, 3, rows * 16, columns * 16, generator=generator) * 2 - 1,)
    points = torch.rand(prompts, 4, 2, generator=generator) * 16 * min(rows, columns)
    points[:, 1] = points[:, 0] + 40
    labels = torch.tensor([[2.0, 3.0, 1.0, -1.0]]).repeat(prompts, 1)
    told = (
        torch.randn(1, EMBED_DIM, rows, columns, generator=generator),
        torch.randn(1, SKIP8_DIM, rows * 2, columns * 2, generator=generator),
        torch.randn(1, SKIP4_DIM, rows * 4, columns * 4, generator=generator),
        points,
        labels,
        torch.randn(prompts, 1, rows * 4, columns * 4, generator=generator),
    )
    if graph == TRACK_DECODER:
        last = torch.randn(prompts, 1, rows * 4, columns * 4, generator=generator) * 4
        return (*told, last, torch.randn(prompts, MATCHES, rows, columns, generator=generator))
    return (*told, torch.arange(prompts).float() % 2)


def to_onnx(module: nn.Module, graph: str) -> onnx.ModelProto:
    """Trace an encoder or decoder (eval mode, batch norm folded) into ONNX with named dimensions."""
    inputs, outputs = SHAPES[graph]["inputs"], SHAPES[graph]["outputs"]
    named = {
        name: {i: d for i, d in enumerate(shape) if isinstance(d, str)} for name, shape in {**inputs, **outputs}.items()
    }
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The tracer warns of what it cannot prove; require_close() checks what it made.
        warnings.simplefilter("ignore")
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            module, example_inputs(graph, 4, 6, 2), path, dynamo=False, opset_version=OPSET,
            input_names=list(inputs), output_names=list(outputs), dynamic_axes=named,
        )  # fmt: skip
        model = onnx.load(path)
    # The tracer numbers output dimensions itself where it cannot prove them; state what they are.
    for value in model.graph.output:
        for dim, known in zip(value.type.tensor_type.shape.dim, outputs[value.name]):
            if isinstance(known, str):
                dim.dim_param = known
            else:
                dim.dim_value = known
    model.producer_name, model.producer_version = "tinyseg", __version__
    onnx.checker.check_model(model)
    return model


def store_as_fp16(model: onnx.ModelProto, smallest: int = 256) -> None:
    """Keep large weights as fp16 with a Cast to fp32 behind each: half the size, the same arithmetic.

    Engines fold the casts when they load the graph. Rounding moves logits far less than bf16 arithmetic does.
    """
    casts = []
    for weight in model.graph.initializer:
        array = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or array.size < smallest:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(array.astype(np.float16), name + "_fp16"))
        casts.append(helper.make_node("Cast", [name + "_fp16"], [name], name + "_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)


def require_close(module: nn.Module, model: onnx.ModelProto, graph: str, tolerance: float) -> bytes:
    """Run a graph at three shapes beside torch; ParityError if any output differs, else the serialised graph."""
    data: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for rows, columns, prompts in ((4, 6, 2), (18, 32, 1), (16, 16, 3)):
        inputs = example_inputs(graph, rows, columns, prompts)
        found = session.run(None, {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs)})
        with torch.inference_mode():
            expected = module(*inputs)
        for value, a, b in zip(session.get_outputs(), found, expected):
            difference = float(np.abs(a - b.numpy()).max() / max(float(b.abs().max()), 1e-6))
            if not difference <= tolerance:  # also nan
                raise ParityError(
                    f"the {graph}'s {value.name} at {rows} x {columns} cells differs from torch by {difference:.2g} "
                    f"of its range, allowed {tolerance}"
                )
    return data


def write_graph(module: nn.Module, graph: str, folder: Path) -> dict[str, Any]:
    """Write a graph (eval mode, batch norm folded) whose numbers are torch's; returns its row of model.json."""
    model = to_onnx(module, graph)
    require_close(module, model, graph, TRACE_TOLERANCE)
    store_as_fp16(model)
    data = require_close(module, model, graph, STORED_TOLERANCE)
    (folder / f"{graph}.onnx").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return {"file": f"{graph}.onnx", "sha256": digest, "bytes": len(data), **SHAPES[graph]}


def names_only(config: Mapping[str, Any]) -> dict[str, Any]:
    """A training configuration whose paths are cut down to file names: a card says what, not where."""
    row = dict(config)
    row.pop("out", None)
    row["data"] = [Path(p).name for p in config["data"]]
    if "averaged" in config:
        row["averaged"] = [names_only(c) for c in config["averaged"]]
    for key in ("backbone", "start", "answers"):
        row[key] = Path(config[key]).name if config.get(key) else None
    if config.get("teacher"):  # hub names stay, folders lose their path
        row["teacher"] = re.sub(
            r"[^,:]+", lambda m: Path(m[0]).name if Path(m[0]).exists() else m[0], config["teacher"]
        )
    return row


def export(
    checkpoint: Path,
    out: Path,
    *,
    name: str = "tinyseg",
    long_side: int = 512,
    zoom: Mapping[str, float] | None = None,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model folder from the moving average of a checkpoint; replaces ``out`` only when all is well.

    Raises InputError for a checkpoint or settings that make no model, ParityError where the graphs differ from torch's.
    """
    saved = load_checkpoint(checkpoint, torch.device("cpu"))
    if "kind" in saved:
        raise InputError(
            f"{checkpoint} holds no student but a part of one; put it into a model folder with: export-track"
        )
    shape = StudentShape.of(saved["shape"])
    student = Student(shape)
    load_whole(student, saved["average"], checkpoint)
    if not is_finite(student):
        raise InputError(
            f"{checkpoint} holds weights that are no finite numbers, of a training that ran away; export another one (best.pt), "
            "or train again with a lower --learning-rate"
        )
    student.eval()
    fold_batch_norm(student)
    with new_folder(out) as folder:
        rows: dict[str, Any] = {}
        for graph in OF_STUDENT:
            rows[graph] = write_graph(copy.deepcopy(getattr(student, graph)), graph, folder)
        content = {
            "format": FORMAT,
            "name": name,
            "made_with": f"tinyseg {__version__}, torch {torch.__version__}, opset {OPSET}",
            "architecture": asdict(shape),
            "long_side": long_side,
            "input": dict(INPUT),
            "labels": {"padding": -1, "negative": 0, "positive": 1, "box_top_left": 2, "box_bottom_right": 3},
            "masks": {"0": "answer to an unambiguous prompt", "1-3": "readings of an ambiguous prompt"},
            "zoom": dict(zoom or {"side": 256, "factor": 2.0, "below": 0.3}),
            "graphs": rows,
            "training": {
                **names_only(saved["config"]),
                "step": saved["step"],
                "minutes": round(saved["spent"] / 60, 1),  # spent, where the configuration has the budget
            },
            **(card or {}),
        }
        text = json.dumps(content, indent=1) + "\n"
        try:
            parse_card(text.encode())  # what nothing could open is not written
        except CardProblem as exc:
            raise InputError(f"nothing was exported: {exc}; change the option or the --card that says so") from exc
        (folder / "model.json").write_text(text)
    return out
