"""Begin a training from a model folder: finetune the packaged model, or go on from one whose checkpoint is lost.

A model folder holds the moving average with its batch norms folded into the convolutions. The weights are put back by
name, and every batch norm takes the mean and variance of its convolution on real samples, with scale and shift such
that the function is unchanged (as `load_backbone` does for the backbone alone).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from tinyseg.distill.model import ConvNorm, Student, norm_put_back
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


def load_folder(student: Student, folder: Path, run: Callable[[Student], None]) -> None:
    """Load a model folder's weights into a student in place.

    run: calls the student once on real samples, so that its batch norms can measure them. Raises InputError where the
    folder holds no model, or one of another architecture.
    """
    state: dict[str, Tensor] = {}
    for part in ("encoder", "decoder"):
        file = folder / f"{part}.onnx"
        if not file.is_file():
            raise InputError(f"{folder} is not a model folder: it holds no {part}.onnx")
        weights = graph_weights(onnx.load(file))
        state.update({f"{part}.{name}": torch.from_numpy(array.copy()) for name, array in weights.items()})
    norms = {name: m for name, m in student.named_modules() if isinstance(m, ConvNorm)}
    folded = {f"{name}.1" for name in norms}
    expected = {k: v for k, v in student.state_dict().items() if k.rpartition(".")[0] not in folded}
    wrong = sorted(k for k, v in expected.items() if k not in state or state[k].shape != v.shape)
    if wrong:
        raise InputError(f"{folder} holds a model of another architecture: {wrong[0]} does not fit")
    student.load_state_dict({k: state[k] for k in expected}, strict=False)

    hooks = []
    with torch.no_grad():
        for name, layer in norms.items():
            conv, norm = layer[0], layer[1]
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            hooks.append(conv.register_forward_hook(norm_put_back(norm, state[f"{name}.0.bias"])))
        was_training = student.training
        student.eval()
        run(student)
        student.train(was_training)
    for hook in hooks:
        hook.remove()
