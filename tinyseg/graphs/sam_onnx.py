"""A model as the pair of ONNX files that clients of segment-anything run: its signature around our graphs.

The decoder has the inputs and outputs of segment-anything's ``scripts/export_onnx_model.py`` (utils/onnx.py, SamOnnxModel);
the encoder follows samexporter: one image (H, W, 3) float32, RGB, 0 to 255, longest side 1024, without a batch axis, and all
preparation inside. Our three maps travel in the one tensor (1, 256, 64, 64) that such clients pass on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyseg.errors import ModelError, NotInstalled
from tinyseg.geometry import INPUT_MULTIPLE, LOGIT_STRIDE, MEAN, STD
from tinyseg.graphs.model import Model
from tinyseg.prompts.layout import HINT_LIMIT, LABEL_BOX_TOP_LEFT

if TYPE_CHECKING:
    import onnx

SAM_SIDE = 1024  # longest side of SAM's input, in whose pixels its points are
SAM_GRID = 256  # side of its low-resolution masks
EMBEDDING = (1, 256, 64, 64)
MAPS = ("embedding", "skip8", "skip4")  # in the order in which they are packed, at strides 16, 8 and 4
STRIDES = (16, 8, 4)
OPSET = 18  # of our graphs; antialiased Resize needs it


def _onnx() -> Any:
    try:
        import onnx  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise NotInstalled("onnx is not installed; run: pip install 'tinyseg[compile]'") from exc
    return onnx


@dataclass
class _Wrapper:
    """Nodes that are put around a graph; every name of theirs begins with ``sam/``."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, value: Any, kind: type = np.float32) -> str:
        name = f"sam/constant{len(self.constants)}"
        self.constants.append(_onnx().numpy_helper.from_array(np.array(value, kind), name))
        return name

    def whole(self, *values: int) -> str:
        """A constant vector of int64."""
        return self.constant(values, np.int64)

    def __call__(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"sam/{kind}{len(self.nodes)}"
        self.nodes.append(
            _onnx().helper.make_node(kind, list(inputs), [name], name=f"sam/{len(self.nodes)}", **attributes)
        )
        return name

    def split(self, value: str, count: int) -> list[str]:
        """A vector's entries, (1,) each."""
        return [self("Slice", value, self.whole(i), self.whole(i + 1), self.whole(0)) for i in range(count)]

    def cast(self, value: str, kind: int) -> str:
        return self("Cast", value, to=kind)

    def to_int(self, value: str) -> str:
        return self.cast(value, _onnx().TensorProto.INT64)

    def to_float(self, value: str) -> str:
        return self.cast(value, _onnx().TensorProto.FLOAT)

    def round_up(self, value: str) -> str:
        """int64 up to a multiple of the encoder's deepest stride."""
        step = self.whole(INPUT_MULTIPLE)
        return self("Mul", self("Div", self("Add", value, self.whole(INPUT_MULTIPLE - 1)), step), step)


def _model(
    wrapper: _Wrapper, inner: Any, name: str, inputs: Sequence[Any], outputs: Sequence[Any], before: int
) -> onnx.ModelProto:
    """inner's nodes between the wrapper's: ``before`` of those come first."""
    tools = _onnx()
    graph = tools.helper.make_graph(
        [*wrapper.nodes[:before], *inner.graph.node, *wrapper.nodes[before:]], name, inputs, outputs,
        [*inner.graph.initializer, *wrapper.constants],
    )  # fmt: skip
    model: onnx.ModelProto = tools.helper.make_model(
        graph,
        opset_imports=[tools.helper.make_opsetid("", OPSET)],
        producer_name="tinyseg",
        ir_version=inner.ir_version,
    )
    tools.checker.check_model(model)
    return model


def _inner(model: Model, role: str) -> Any:
    inner = _onnx().load_from_string(model.graphs[role].data)
    if [(one.domain, one.version) for one in inner.opset_import] != [("", OPSET)] or inner.functions:
        raise ModelError(f"{model.path}: its {role} is not plain ONNX of opset {OPSET}; export the model again")
    return inner


def _channels(model: Model) -> list[int]:
    shapes = model.graphs["encoder"].outputs
    if tuple(shapes) != MAPS:
        raise ModelError(f"{model.path}: its encoder gives {', '.join(shapes)}, but {', '.join(MAPS)} are expected")
    channels = [int(shapes[name][1]) for name in MAPS]
    capacity = int(np.prod(EMBEDDING))
    needed = sum(c * (model.long_side // s) ** 2 for c, s in zip(channels, STRIDES))
    if needed > capacity:
        raise ModelError(f"{model.path}: its maps have {needed} numbers, and SAM's embedding has room for {capacity}")
    return channels


def sam_encoder(model: Model) -> onnx.ModelProto:
    """The encoder: ``input_image`` (H, W, 3) float32 RGB 0..255, longest side 1024 -> ``image_embeddings`` (1, 256, 64, 64).

    Raises ModelError or NotInstalled.
    """
    onnx = _onnx()
    _channels(model)
    inner = _inner(model, "encoder")
    w = _Wrapper()
    height, width = w.split(w("Shape", "input_image"), 2)
    scale = w.constant([model.long_side / SAM_SIDE])
    content = [w.to_int(w("Round", w("Mul", w.to_float(v), scale))) for v in (height, width)]
    chw = w("Unsqueeze", w("Transpose", "input_image", perm=[2, 0, 1]), w.whole(0))
    sizes = w("Concat", w.whole(1, 3), *content, axis=0)
    small = w("Resize", chw, "", "", sizes, mode="linear", antialias=1, coordinate_transformation_mode="half_pixel")
    normal = w("Div", w("Sub", small, w.constant(MEAN)), w.constant(STD))
    missing = [w("Sub", w.round_up(v), v) for v in content]
    pads = w("Concat", w.whole(0, 0, 0, 0, 0, 0), *missing, axis=0)
    w("Pad", normal, pads, output="image")
    before = len(w.nodes)
    flat = [w("Reshape", name, w.whole(-1)) for name in MAPS]
    packed = w("Concat", *flat, axis=0)
    capacity = int(np.prod(EMBEDDING))
    rest = w("Concat", w.whole(0), w("Sub", w.whole(capacity), w("Shape", packed)), axis=0)
    w("Reshape", w("Pad", packed, rest), w.whole(*EMBEDDING), output="image_embeddings")
    values = onnx.helper.make_tensor_value_info
    return _model(
        w, inner, f"{model.name}-sam-encoder",
        [values("input_image", onnx.TensorProto.FLOAT, ["image_height", "image_width", 3])],
        [values("image_embeddings", onnx.TensorProto.FLOAT, EMBEDDING)], before,
    )  # fmt: skip


def sam_decoder(model: Model, all_masks: bool = False) -> onnx.ModelProto:
    """The decoder with segment-anything's own signature.

    all_masks: four masks, the one that answers an unambiguous prompt first and three readings of an ambiguous one after it,
    instead of the first alone. Raises ModelError or NotInstalled.
    """
    onnx = _onnx()
    channels = _channels(model)
    inner = _inner(model, "decoder")
    count = 4 if all_masks else 1
    w = _Wrapper()
    # The image in SAM's own frame: ResizeLongestSide's rule, floor(scale * size + 0.5).
    fit = w("Div", w.constant([SAM_SIDE]), w("ReduceMax", "orig_im_size", w.whole(0)))
    in_sam = w("Floor", w("Add", w("Mul", "orig_im_size", fit), w.constant([0.5])))  # (2,) height, width
    content = w("Round", w("Mul", in_sam, w.constant([model.long_side / SAM_SIDE])))
    rows, columns = (w.round_up(v) for v in w.split(w.to_int(content), 2))

    # Our three maps, out of the one tensor.
    flat = w("Reshape", "image_embeddings", w.whole(-1))
    start = w.whole(0)
    for name, depth, stride in zip(MAPS, channels, STRIDES):
        r, c = w("Div", rows, w.whole(stride)), w("Div", columns, w.whole(stride))
        end = w("Add", start, w("Mul", w("Mul", r, c), w.whole(depth)))
        part = w("Slice", flat, start, end, w.whole(0))
        w("Reshape", part, w("Concat", w.whole(1, depth), r, c, axis=0), output=name)
        start = end
    grid = [w("Div", rows, w.whole(LOGIT_STRIDE)), w("Div", columns, w.whole(LOGIT_STRIDE))]

    # Points name pixels and get half of one; corners of boxes are edges already.
    labels = w("Identity", "point_labels", output="labels")
    corner = w("GreaterOrEqual", labels, w.constant([LABEL_BOX_TOP_LEFT]))
    half = w("Unsqueeze", w("Where", corner, w.constant([0.0]), w.constant([0.5])), w.whole(2))
    yx = w("Div", content, in_sam)
    to_xy = w.whole(1, 0)
    scaled = w("Mul", w("Add", "point_coords", half), w("Gather", yx, to_xy, axis=0))
    kept = w("Min", w("Max", scaled, w.constant([0.0])), w("Gather", content, to_xy, axis=0))
    used = w("Unsqueeze", w("GreaterOrEqual", labels, w.constant([0.0])), w.whole(2))
    w("Where", used, kept, w.constant([0.0]), output="points")

    side = model.long_side // LOGIT_STRIDE
    hint = w(
        "Resize", "mask_input", "", "", w.whole(1, 1, side, side), mode="linear", antialias=1,
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    cut = w("Slice", hint, w.whole(0, 0), w("Concat", *grid, axis=0), w.whole(2, 3))
    w("Clip", cut, w.constant(-HINT_LIMIT), w.constant(HINT_LIMIT), output="mask")
    w("Identity", "has_mask_input", output="has_mask")
    before = len(w.nodes)

    logits = w("Slice", "logits", w.whole(0), w.whole(count), w.whole(1))
    w("Slice", "iou", w.whole(0), w.whole(count), w.whole(1), output="iou_predictions")
    # One more row and column of the same, so that the last pixels are there whatever rounding does; then cut to size.
    wider = w("Pad", logits, w.whole(0, 0, 0, 0, 0, 0, 1, 1), mode="edge")
    up = w("Div", w("Mul", "orig_im_size", w.constant([LOGIT_STRIDE])), content)
    scales = w("Concat", w.constant([1.0, 1.0]), up, axis=0)
    large = w("Resize", wider, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
    w("Slice", large, w.whole(0, 0), w.to_int("orig_im_size"), w.whole(2, 3), output="masks")
    missing = [w("Sub", w.whole(side), v) for v in grid]
    square = w("Pad", logits, w("Concat", w.whole(0, 0, 0, 0, 0, 0), *missing, axis=0), mode="edge")
    w(
        "Resize", square, "", "", w.whole(1, count, SAM_GRID, SAM_GRID), mode="linear", output="low_res_masks",
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    values, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    return _model(
        w, inner, f"{model.name}-sam-decoder",
        [
            values("image_embeddings", kind, EMBEDDING), values("point_coords", kind, [1, "num_points", 2]),
            values("point_labels", kind, [1, "num_points"]), values("mask_input", kind, [1, 1, SAM_GRID, SAM_GRID]),
            values("has_mask_input", kind, [1]), values("orig_im_size", kind, [2]),
        ],
        [
            values("masks", kind, [1, count, "height", "width"]), values("iou_predictions", kind, [1, count]),
            values("low_res_masks", kind, [1, count, SAM_GRID, SAM_GRID]),
        ],
        before,
    )  # fmt: skip
