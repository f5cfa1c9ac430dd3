from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tinyseg.cli import main
from tinyseg.detect import FunctionSource, open_detector, segment_words
from tinyseg.detect.boxes import checked_boxes
from tinyseg.detect.card import open_card
from tinyseg.detect.gate import require_parity
from tinyseg.detect.graph import image_input
from tinyseg.detect.grounding import lay_out
from tinyseg.engines import GraphInfo
from tinyseg.errors import DataError, InputError, ModelError, ParityError, PromptError
from tinyseg.images import write_image
from tinyseg.prompts.text import phrases

FRAME = np.full((100, 200, 3), 90, np.uint8)
# In the frame's pixels.
DOG, CUP = (20.0, 10.0, 80.0, 60.0), (120.0, 30.0, 180.0, 90.0)


def constant_graph(path: Path, outputs: dict[str, NDArray[Any]], width: int = 64, height: int = 64) -> None:
    """An ONNX detector that gives the same answers for any picture (its input is used, so that it stays an input)."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper, kind = onnx.helper, onnx.TensorProto
    nodes, given = [], []
    nodes.append(helper.make_node("ReduceSum", ["image"], ["sum"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["sum", "nothing"], ["zero"]))
    constants = [onnx.numpy_helper.from_array(np.float32(0), "nothing")]
    for name, values in outputs.items():
        constants.append(onnx.numpy_helper.from_array(values.astype(np.float32), f"{name}_value"))
        nodes.append(helper.make_node("Add", [f"{name}_value", "zero"], [name]))
        given.append(helper.make_tensor_value_info(name, kind.FLOAT, values.shape))
    image = helper.make_tensor_value_info("image", kind.FLOAT, [1, 3, height, width])
    graph = helper.make_graph(nodes, "detector", [image], given, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def write_card(folder: Path, **change: Any) -> Path:
    card = {
        "format": 1, "kind": "boxes", "file": "d.onnx", "outputs": ["dets", "labels"], "boxes": "dets", "scores": "labels",
        "input": {"name": "image", "width": 64, "height": 64}, "box_format": "cxcywh", "unit": "share",
        "score_kind": "logits", "labels": ["dog", "cup"],
    }  # fmt: skip
    card.update(change)
    (folder / "detector.json").write_text(json.dumps(card))
    return folder / "detector.json"


def shares(*boxes: Sequence[float]) -> NDArray[np.float32]:
    """Boxes of FRAME as centre and size, as shares of it."""
    corners = np.array(boxes) / [200, 100, 200, 100]
    return np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)[None]


@pytest.fixture
def rf_detr(tmp_path: Path) -> Path:
    """RF-DETR's layout: cxcywh shares, one logit a class and one more that stands for nothing."""
    logits = np.array([[[2.0, -4, -9], [-5, 1.0, -9], [-4, -4, 9]]])
    constant_graph(tmp_path / "d.onnx", {"dets": shares(DOG, CUP, (0, 0, 50, 50)), "labels": logits})
    return write_card(tmp_path)


def test_phrases() -> None:
    assert phrases("Dog. red   Cup.  dog.\n") == ("dog", "red cup")
    for text in ("", " . .", "x" * 3000):
        with pytest.raises(PromptError, match="text"):
            phrases(text)


def test_rf_detrs_layout(rf_detr: Path) -> None:
    source = open_detector(rf_detr.parent, "onnxruntime")
    found = source.find(FRAME)
    assert found.labels == ("dog", "cup")
    np.testing.assert_allclose(found.xyxy, [DOG, CUP], atol=1e-3)
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp([-2.0, -1.0])), atol=1e-5)
    assert source.find(FRAME, ["cup"]).labels == ("cup",)
    with pytest.raises(PromptError, match="knows dog, cup"):
        source.find(FRAME, ["horse"])


def test_yolos_layout_with_letterbox_and_nms(tmp_path: Path) -> None:
    # 200 x 100 in 64 x 64: scaled by 0.32, 16 rows of padding above.
    def packed(box: Sequence[float], *scores: float) -> list[float]:
        x0, y0, x1, y1 = np.array(box) * 0.32 + [0, 16, 0, 16]
        return [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, *scores]

    near = (22.0, 12.0, 82.0, 62.0)
    rows = [packed(DOG, 0.9, 0.1), packed(near, 0.8, 0.1), packed(CUP, 0.1, 0.7), packed(near, 0.1, 0.6)]
    constant_graph(tmp_path / "d.onnx", {"output0": np.array(rows).T[None]})
    card = write_card(
        tmp_path, kind="yolo", outputs=["output0"], boxes="output0", box_format=None, unit=None, score_kind=None
    )
    read = json.loads(card.read_text())
    card.write_text(json.dumps({k: v for k, v in read.items() if v is not None}))
    found = open_detector(card, "onnxruntime").find(FRAME)
    assert found.labels == ("dog", "cup", "cup")  # the second dog is the first one; a cup in the same place stays
    np.testing.assert_allclose(found.xyxy[:2], [DOG, CUP], atol=0.05)
    image = image_input(FRAME, open_card(card))
    assert image.shape == (1, 3, 64, 64)
    np.testing.assert_allclose([image[0, 0, 0, 0], image[0, 0, 32, 32]], [114 / 255, 90 / 255], atol=1e-4)


def test_boxes_with_scores_and_classes(tmp_path: Path) -> None:
    outputs = {"xyxy": np.array([[6.4, 6.4, 25.6, 38.4]]), "conf": np.array([0.6]), "cls": np.array([1.0])}
    constant_graph(tmp_path / "d.onnx", outputs)
    card = write_card(
        tmp_path, outputs=["xyxy", "conf", "cls"], boxes="xyxy", scores="conf", classes="cls", box_format="xyxy", unit="pixels",
        score_kind="probabilities",
    )  # fmt: skip
    found = open_detector(card, "onnxruntime").find(FRAME)
    assert found.labels == ("cup",)
    np.testing.assert_allclose(found.xyxy, [[20, 10, 80, 60]], atol=1e-3)
    assert len(open_detector(card, "onnxruntime", threshold=0.7).find(FRAME)) == 0
    write_card(tmp_path, outputs=["xyxy", "conf", "cls"], boxes="conf", scores="xyxy")
    with pytest.raises(ModelError, match="graph's order"):
        open_detector(card, "onnxruntime").find(FRAME)


def test_what_an_engine_built_is_kept_and_compared(
    rf_detr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed (pip install 'tinyseg[openvino]')")
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path / "cache"))
    first = open_detector(rf_detr, "openvino").find(FRAME)
    expected = open_detector(rf_detr, "onnxruntime").find(FRAME)
    assert first.labels == expected.labels == ("dog", "cup")
    np.testing.assert_allclose(first.xyxy, expected.xyxy, atol=1e-3)
    entries = list((tmp_path / "cache" / "engines").iterdir())
    assert len(entries) == 1

    def builds_again(*_: object) -> bytes:
        raise AssertionError("it was built before")

    from tinyseg.engines import ov  # noqa: PLC0415 - after the skip

    monkeypatch.setattr(ov.OvEngine, "build", builds_again)
    np.testing.assert_array_equal(open_detector(rf_detr, "openvino").find(FRAME).xyxy, first.xyxy)

    # Another graph's engine in place of its own: what is built must answer as the graph does.
    other = tmp_path / "other"
    other.mkdir()
    constant_graph(
        other / "d.onnx", {"dets": shares(CUP, DOG, DOG), "labels": np.array([[[2.0, -4], [1, -5], [-4, -4]]])}
    )
    wrong = (entries[0] / "engine.bin").read_bytes()
    monkeypatch.setattr(ov.OvEngine, "build", lambda *_: wrong)
    with pytest.raises(ParityError, match="finds 0 of 9 boxes"):
        open_detector(write_card(other), "openvino")


def test_rows_that_change_places_are_the_same_boxes() -> None:
    class Answers:
        """A compiled graph whose answers are known."""

        info = GraphInfo("fake", "1", "none", "fp32", 1)

        def __init__(self, boxes: NDArray[Any], scores: NDArray[Any]) -> None:
            self.out = {"boxes": boxes.astype(np.float32), "scores": scores.astype(np.float32)}

        def runner(self) -> Answers:
            return self

        def run(self, feeds: object) -> dict[str, NDArray[np.float32]]:
            return self.out

    boxes = np.arange(40.0).reshape(10, 4) * 10
    scores = np.linspace(0.9, 0.5, 10)
    reference = Answers(boxes, scores)
    rest = (lambda photograph: {}, lambda out: (out["boxes"], out["scores"]), 400, "here")
    require_parity(reference, Answers(boxes[::-1], scores[::-1]), *rest)
    require_parity(reference, Answers(boxes + 3, scores), *rest)
    for changed in (Answers(boxes + 5, scores), Answers(boxes, scores - 0.02), Answers(boxes[:9], scores[:9])):
        with pytest.raises(ParityError, match="here finds"):
            require_parity(reference, changed, *rest)
    nothing = Answers(np.zeros((0, 4)), np.zeros(0))
    require_parity(nothing, nothing, *rest)
    with pytest.raises(ParityError, match="finds 0 of"):
        require_parity(nothing, reference, *rest)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"format": 2}, "format"), ({"kind": "magic"}, "kind must"), ({"file": "../d.onnx"}, "plain name"),
        ({"file": "none.onnx"}, "none.onnx"), ({"sha256": "0"}, "damaged"), ({"labels": []}, "labels must"),
        ({"input": {"name": "image", "width": 1, "height": 64}}, "width and height"), ({"input": {}}, "lacks"),
        ({"scores": "x"}, "not among outputs"), ({"unit": "miles"}, "unit must"), ({"threshold": 3}, "threshold"),
        ({"kind": "grounding-dino"}, "text belongs"), ({"outputs": 3}, "misstates"), ({"outputs": []}, "outputs must"),
        ({"labels": "dog"}, "labels must be a list"), ({"labels": {"0": "dog"}}, "labels must be a list"),
    ],
)  # fmt: skip
def test_bad_cards_are_told(rf_detr: Path, change: dict[str, Any], says: str) -> None:
    write_card(rf_detr.parent, **change)
    with pytest.raises((ModelError, DataError), match=says):
        open_detector(rf_detr)


def test_a_missing_file_is_no_misstated_field(rf_detr: Path) -> None:
    write_card(rf_detr.parent, file="none.onnx")
    with pytest.raises(
        DataError, match=r"none\.onnx, which detector\.json names, cannot be read: .*; put the file itself there"
    ):
        open_card(rf_detr)
    text = {"length": 8, "separators": [1], "tokenizer": "none.json"}
    write_card(rf_detr.parent, kind="grounding-dino", text=text)
    with pytest.raises(DataError, match=r"none\.json, which detector\.json names, cannot be read"):
        open_detector(rf_detr)


def test_no_card(tmp_path: Path) -> None:
    for place, kind in ((tmp_path / "none", DataError), (tmp_path, DataError)):
        with pytest.raises(kind):
            open_detector(place)
    (tmp_path / "detector.json").write_text("[")
    with pytest.raises(ModelError, match="not JSON"):
        open_detector(tmp_path)
    with pytest.raises(InputError, match="threshold"):
        open_detector(tmp_path, threshold=2)


def test_functions_and_supervision_are_sources(fake: tinyseg.Segmenter) -> None:
    source = FunctionSource(lambda frame: ([DOG, CUP], ["dog", "cup"], [0.5, 0.9]))
    named = segment_words(fake, FRAME, source, "Dog. cup")
    assert named.boxes.labels == ("cup", "dog") and len(named) == 2
    assert named.answers[1].boxes[0].tolist() == [20, 10, 80, 60]
    assert segment_words(fake, FRAME, source, "horse").answers == ()
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    detections = supervision.Detections(
        xyxy=np.array([DOG], np.float32),
        confidence=np.array([0.4]),
        class_id=np.array([3]),
        data={"class_name": np.array(["dog"])},
    )
    assert FunctionSource(lambda frame: detections).find(FRAME).labels == ("dog",)
    bare = SimpleNamespace(xyxy=np.array([CUP]), confidence=None, class_id=None, data={})
    assert FunctionSource(lambda frame: bare).find(FRAME).labels == ("object",)
    for given in (None, ([DOG], ["dog"]), ([DOG], ["dog", "cup"], [0.5]), ("x", "y", "z")):
        with pytest.raises(InputError):
            FunctionSource(lambda frame, given=given: given).find(FRAME)


def test_boxes_are_cut_to_the_frame_and_nonsense_is_left_out() -> None:
    rows = [(-50, -50, 40, 40), (np.nan, 0, 9, 9), (300, 0, 400, 50), (5, 5, 5, 50), (0, 0, 9, 9)]
    found = checked_boxes(rows, "abcde", [0.2, 0.9, 0.9, 0.9, np.inf], FRAME)
    assert found.labels == ("a",) and found.xyxy.tolist() == [[0, 0, 40, 40]]


def test_text_is_laid_out_as_transformers_does() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    module = pytest.importorskip("transformers.models.grounding_dino.modeling_grounding_dino", reason="no transformers")
    for ids in ([101, 500, 1012, 600, 601, 1012, 102], [101, 7, 8, 9, 1012, 102], [101, 1012, 5, 1029, 1012, 102]):
        text = lay_out(ids, 12, module.SPECIAL_TOKENS)
        mask, positions = module.generate_masks_with_special_tokens_and_transfer_map(
            torch.tensor([ids]), torch.tensor(module.SPECIAL_TOKENS)
        )
        count = len(ids)
        np.testing.assert_array_equal(text.mask[0, :count, :count], mask[0].numpy())
        np.testing.assert_array_equal(text.positions[0, :count], positions[0].numpy())
        np.testing.assert_array_equal(text.mask[0, count:], np.eye(12)[count:])
    assert lay_out([101, 500, 1012, 600, 601, 1012, 102], 8, (101, 102, 1012)).phrase.tolist() == [
        -1,
        0,
        -1,
        1,
        1,
        -1,
        -1,
        -1,
    ]
    with pytest.raises(PromptError, match="12 tokens"):
        lay_out(list(range(12)), 8, (101,))


def test_the_command_segments_words(rf_detr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, out = tmp_path / "p.png", tmp_path / "out"
    write_image(picture, FRAME)
    base = [
        "segment",
        str(picture),
        "--detector",
        str(rf_detr),
        "--out",
        str(out),
        "--zoom",
        "off",
        "--engine",
        "onnxruntime",
    ]
    assert main([*base, "--text", "cup. dog", "--json", "--format", "coco"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert [o["label"] for o in row["objects"]] == ["dog", "cup"]
    coco = json.loads((out / "coco.json").read_text())
    names = {c["id"]: c["name"] for c in coco["categories"]}
    assert [names[a["category_id"]] for a in coco["annotations"]] == ["dog", "cup"]
    assert main([*base, "--text", "cup", "--text-threshold", "0.99", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] == []
    cut = [
        "cutout",
        str(picture),
        "--detector",
        str(rf_detr),
        "--text",
        "dog",
        "--out",
        str(out),
        "--engine",
        "onnxruntime",
    ]
    assert main(cut) == 0 and (out / "p.cutout.png").exists()
    for extra, says in (
        (["--text", "horse"], "does not know"),
        (["--text", " "], "names nothing"),
        (["--point", "3,3"], "leave out"),
    ):
        assert main([*base, *extra]) == 2
        assert says in capsys.readouterr().err
    assert main(["segment", str(picture), "--text", "dog"]) == 2
    assert "--detector" in capsys.readouterr().err


def test_a_card_of_another_size_than_its_graphs_is_told(rf_detr: Path) -> None:
    write_card(rf_detr.parent, input={"name": "image", "width": 32, "height": 96})
    with pytest.raises(tinyseg.EngineError, match=r"images of 32 x 96: if it takes others, mend width and height"):
        open_detector(rf_detr, "onnxruntime").find(FRAME)


@pytest.mark.parametrize(
    "outputs, change",
    [
        ({"dets": np.zeros((1, 3, 4)), "labels": np.zeros((1, 5))}, {}),
        ({"dets": np.zeros(()), "labels": np.zeros((1, 3, 3))}, {}),
        ({"dets": np.zeros((1, 0, 4)), "labels": np.zeros((1, 3, 3))}, {}),
        ({"dets": np.zeros((2, 6, 9)), "labels": np.zeros((1, 3, 3))}, {"kind": "yolo"}),
    ],
)
def test_outputs_that_are_not_as_described_are_told(
    tmp_path: Path, outputs: dict[str, NDArray[Any]], change: dict[str, Any]
) -> None:
    constant_graph(tmp_path / "d.onnx", outputs)
    with pytest.raises(ModelError, match=r"outputs \(dets \(.*\), labels \(.*\)\) do not belong together"):
        open_detector(write_card(tmp_path, **change), "onnxruntime").find(FRAME)


def test_a_detector_keeps_to_its_engines_errors(rf_detr: Path) -> None:
    (rf_detr.parent / "d.onnx").write_bytes(b"no graph")
    with pytest.raises(tinyseg.EngineError):
        open_detector(rf_detr, "onnxruntime")
