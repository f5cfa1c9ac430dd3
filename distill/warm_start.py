"""Begin a training from weights: a checkpoint of another training, or a model folder such as the packaged model.

A model folder holds the moving average with its batch norms folded into the convolutions. The weights are put back by
name, and every batch norm takes the mean and variance of its convolution on real samples, with scale and shift such
that the function is unchanged (as `load_backbone` does for the backbone alone).

A smaller student takes the blocks and layers that it shares with a larger one; a wider one begins by computing what the
narrower did.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from tinyseg.distill.checkpoint import load_checkpoint
from tinyseg.distill.model import ConvNorm, Student, put_norms_back, widened
from tinyseg.distill.shape import StudentShape
from tinyseg.errors import InputError

FP16_SUFFIX = "_fp16"  # as export.store_as_fp16 names its weights


def graph_weights(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Parameters of an exported graph under torch's names.

    The exporter keeps the names of convolutions, norms and biases. The weight of a linear layer lies transposed under a
    name of the exporter's own, and is known by the bias that is added to its product.
    """
    arrays = {
        w.name.removesuffix(FP16_SUFFIX): numpy_helper.to_array(w).astype(np.float32) for w in model.graph.initializer
    }
    producers = {name: node for node in model.graph.node for name in node.output}
    found = {name: array for name, array in arrays.items() if not name.startswith("onnx::")}
    for node in model.graph.node:
        if node.op_type != "Add":
            continue
        for bias, product in (node.input, reversed(node.input)):
            matmul = producers.get(product)
            if bias.endswith(".bias") and bias in arrays and matmul is not None and matmul.op_type == "MatMul":
                found[bias.removesuffix("bias") + "weight"] = arrays[matmul.input[1]].T
    tokens = [a for name, a in arrays.items() if name.startswith("onnx::") and a.ndim == 3]
    if len(tokens) == 1:  # the output tokens, expanded to the number of prompts
        found["output_tokens"] = tokens[0][0]
    return found


def fit(state: Mapping[str, Tensor], source: StudentShape, target: StudentShape) -> dict[str, Tensor]:
    """Weights of a student of one shape under the names of another; what the other lacks is left out. Raises InputError."""
    if target.width % source.width:
        raise InputError(f"a student of width {target.width} cannot start from one of width {source.width}")
    place = {whole: i for i, whole in enumerate(target.kept_blocks)}
    fitted = {}
    for name, value in state.items():
        graph, _, rest = name.partition(".")
        kind, _, rest = rest.partition(".")
        index, _, rest = rest.partition(".")
        if (graph, kind) == ("encoder", "blocks"):
            whole = source.kept_blocks[int(index)]
            if whole in place:
                fitted[f"encoder.blocks.{place[whole]}.{rest}"] = value
        elif (graph, kind) == ("decoder", "score_head") and target.score_width != source.score_width:
            continue  # learned last, for the masks of one student
        elif (graph, kind) != ("decoder", "layers") or int(index) < target.decoder_layers:
            fitted[name] = value
    factor = target.width // source.width
    return {
        name: widened(name.removeprefix("encoder."), value, factor) if name.startswith("encoder.") else value
        for name, value in fitted.items()
    }


def misfit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """The first name in ``expected`` that a state lacks or holds in another shape, if any."""
    wrong = (k for k, v in sorted(expected.items()) if k not in state or state[k].shape != v.shape)
    return next(wrong, None)


def load_whole(module: nn.Module, state: Mapping[str, Tensor], checkpoint: Path) -> None:
    """Load weights that a checkpoint holds of a student or tracking decoder of this very shape. Raises InputError where they are
    not."""
    expected = module.state_dict()
    wrong = misfit(state, expected) or next((k for k in sorted(state) if k not in expected), None)
    if wrong:
        raise InputError(
            f"{checkpoint} does not hold the network that it states: {wrong} does not fit; give another checkpoint"
        )
    module.load_state_dict(state)


def start_from(student: Student, place: Path, run: Callable[[Student], None]) -> None:
    """Load the weights of a checkpoint (``*.pt``) or a model folder into a student. Raises InputError."""
    if place.suffix == ".pt":
        load_weights(student, place)
    else:
        load_folder(student, place, run)


def load_weights(student: Student, checkpoint: Path) -> None:
    """Load the moving average of a training's checkpoint. Raises InputError."""
    saved = load_checkpoint(checkpoint, torch.device("cpu"))
    state = fit(saved["average"], StudentShape.of(saved["shape"]), student.shape)
    wrong = misfit(state, student.state_dict())
    if wrong:
        raise InputError(f"{checkpoint} holds a student that this one cannot start from: {wrong} does not fit")
    student.load_state_dict(state)


def student_of(checkpoint: Path) -> Student:
    """The moving average of a training's checkpoint. Raises InputError."""
    student = Student(StudentShape.of(load_checkpoint(checkpoint, torch.device("cpu"))["shape"]))
    load_weights(student, checkpoint)
    return student


def folder_shape(folder: Path) -> StudentShape:
    """The architecture that a model folder states. Raises InputError."""
    try:
        card = json.loads((folder / "model.json").read_text())
        return StudentShape.of(card["architecture"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise InputError(f"{folder} is not a model folder of a student: its model.json states no architecture") from exc


def load_folder(student: Student, folder: Path, run: Callable[[Student], None]) -> None:
    """Load a model folder's weights into a student in place.

    run: calls the student once on real samples, so that its batch norms can measure them. Raises InputError where the
    folder holds no model, or one of another architecture.
    """
    state = {
        f"{part}.{name}": value for part in ("encoder", "decoder") for name, value in graph_state(folder, part).items()
    }
    state = fit(state, folder_shape(folder), student.shape)
    load_folded(student, state, folder, lambda: run(student))


def graphs_digest(folder: Path) -> str:
    """A short digest of a student's graphs in a model folder. Raises InputError."""
    digest = hashlib.sha256()
    try:
        for graph in ("encoder", "decoder"):
            digest.update((folder / f"{graph}.onnx").read_bytes())
    except OSError as exc:
        raise InputError(f"{folder} holds no {graph}.onnx that can be read ({exc.strerror or exc})") from exc
    return digest.hexdigest()[:16]


def graph_state(folder: Path, graph: str) -> dict[str, Tensor]:
    """The weights of a graph of a model folder under torch's names, norms folded. Raises InputError."""
    file = folder / f"{graph}.onnx"
    if not file.is_file():
        raise InputError(f"{folder} holds no {graph}.onnx; give a model folder that does")
    try:
        weights = graph_weights(onnx.load(file))
    except Exception as exc:  # onnx raises whatever the bytes lead it to
        raise InputError(f"{file} is not a graph that can be read ({type(exc).__name__}); get the model again") from exc
    return {name: torch.from_numpy(array.copy()) for name, array in weights.items()}


def load_folded(module: nn.Module, state: Mapping[str, Tensor], folder: Path, run: Callable[[], object]) -> None:
    """Load exported weights into a module in place, and put its batch norms back.

    run: calls the module once, so that its norms can measure what they meet. folder: where the weights come from, for the
    InputError where they are of another architecture.
    """
    norms = [name for name, m in module.named_modules() if isinstance(m, ConvNorm)]
    folded = {f"{name}.1" for name in norms}
    expected = {k: v for k, v in module.state_dict().items() if k.rpartition(".")[0] not in folded}
    wrong = misfit(state, expected)
    if wrong:
        raise InputError(f"{folder} holds a model of another architecture: {wrong} does not fit")
    module.load_state_dict({k: state[k] for k in expected}, strict=False)
    put_norms_back(module, {name: state[f"{name}.0.bias"] for name in norms}, run)
