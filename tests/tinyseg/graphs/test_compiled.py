"""The parity gate, compiled folders, and finding the layer that went wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyseg
from tinyseg.cli import main
from tinyseg.engines import GraphSource, create_engine, why_not
from tinyseg.engines.cache import open_cache
from tinyseg.errors import DataError, ModelError, ParityError, WrongDevice
from tinyseg.geometry import letterbox
from tinyseg.graphs.bisect import bisect
from tinyseg.graphs.compiled import Builder, write_folder
from tinyseg.graphs.model import open_model
from tinyseg.graphs.parity import Parity, Reference, measure
from tinyseg.graphs.shapes import graph_shapes

onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[compile]')")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def shapes() -> dict[str, list[dict[str, int]]]:
    return graph_shapes(letterbox(160, 96, 160), 128, [1, 3])


def spoiled(graph: GraphSource, bias: str, by: float) -> GraphSource:
    """The graph with one convolution's bias moved: a build that computes something else."""
    model = onnx.load_from_string(graph.data)
    (weight,) = [w for w in model.graph.initializer if w.name.removesuffix("_fp16") == bias]
    array = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array((array + by).astype(array.dtype), weight.name))
    return replace(graph, data=model.SerializeToString(), sha256="00" * 32)


def test_shapes_cover_the_frame_and_second_looks() -> None:
    found = shapes()
    assert [(d["width"], d["height"]) for d in found["encoder"]] == [(160, 96), (128, 128)]
    assert [(d["columns4"], d["rows4"], d["prompts"]) for d in found["decoder"]] == [
        (40, 24, 1),
        (40, 24, 4),
        (32, 32, 1),
    ]


def test_shapes_are_those_of_the_graphs_that_a_model_has() -> None:
    """A graph's row says what it is asked about; the encoder serves the others."""
    found = graph_shapes(letterbox(160, 96, 160), 128, [1], ("encoder", "decoder", "track_decoder"))
    assert {n: rows for n, rows in found.items() if n == "decoder"} == {
        "decoder": [shapes()["decoder"][i] for i in (0, 2)]
    }
    assert [(d["columns4"], d["rows4"], d["prompts"]) for d in found["track_decoder"]] == [(80, 80, 1)]
    assert [(d["width"], d["height"]) for d in found["encoder"]] == [(160, 96), (128, 128), (320, 320)]


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_the_reference_agrees_with_itself(name: str) -> None:
    model = open_model(None)
    dimensions = shapes()[name][-1]
    compiled = create_engine("onnxruntime", "fp32", 2).engine.compile(model.graphs[name], dimensions)
    parity = measure(Reference(model), name, compiled, dimensions, "fp32")
    assert parity.passed and parity.mask_iou == 1.0 and parity.noise < 1e-4 and parity.masks >= 3


@pytest.mark.parametrize("prompts", [1, 3, 4, 8])
def test_a_decoder_is_judged_by_every_prompt(prompts: int) -> None:
    """However many it takes at once: one prompt's mask would say little."""
    model = open_model(None)
    dimensions = {**shapes()["decoder"][0], "prompts": prompts}
    compiled = create_engine("onnxruntime", "fp32", 2).engine.compile(model.graphs["decoder"], dimensions)
    asked: list[np.ndarray] = []

    class Spy:
        def run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
            asked.append(feeds["points"].copy())
            return compiled.run(feeds)

    reference = Reference(model)
    parity = measure(reference, "decoder", Spy(), dimensions, "fp32")  # type: ignore[arg-type]
    assert parity.passed and parity.masks > 3 * 4  # those of the first round, and those of the second
    assert all(len(points) == prompts for points in asked)
    assert len(asked) == 3 * 2 * -(-4 // prompts)  # photographs, rounds, calls


@pytest.mark.parametrize(
    ("name", "bias"), [("encoder", "lateral8.0.bias"), ("decoder", "layers.0.block.project.0.bias")]
)
def test_a_build_that_computes_something_else_is_refused(name: str, bias: str, cache: Path) -> None:
    model = open_model(None)
    engine = create_engine("onnxruntime", "int8", 2).engine
    builder = Builder(model, engine, open_cache()[0])
    builder(model.variant("int8")[name], shapes()[name][0])
    with pytest.raises(ParityError, match=rf"the {name} .* does not keep the masks in int8.*--bisect"):
        builder(spoiled(model.graphs[name], bias, 3.0), shapes()[name][0])
    assert len(list((cache / "engines").glob("[0-9a-f]*"))) == 1  # the good one; the other was never kept


def test_nan_does_not_pass() -> None:
    assert not Parity("encoder", "fp16", 1.0, float("inf"), 9).passed
    assert not Parity("encoder", "fp16", 0.0, 0.0, 0).passed


def test_bisect_names_the_layer() -> None:
    model = open_model(None)
    engine = create_engine("onnxruntime", "fp32", 2).engine
    dimensions = shapes()["encoder"][0]
    clean = bisect(model, model.graphs["encoder"], engine, dimensions)
    assert clean.first_wrong is None and len(clean.layers) > 60 and "none of" in clean.to_text()
    found = bisect(model, spoiled(model.graphs["encoder"], "blocks.7.layers.2.0.bias", 2.0), engine, dimensions)
    assert found.first_wrong is not None and "blocks.7/layers/layers.2" in found.first_wrong.name
    assert "first wrong at Conv /blocks.7/" in found.to_text()


def box_answer(seg: tinyseg.Segmenter) -> tinyseg.Masks:
    frame = np.full((96, 160, 3), 50, np.uint8)
    frame[20:70, 40:110] = 210
    return seg.embed(frame).predict(box=(40, 20, 110, 70), multimask=False)


@pytest.mark.parametrize(
    ("engine", "precision"), [("onnxruntime", "int8"), ("openvino", "int8"), ("onnxruntime", "fp32")]
)
def test_compiled_folder(
    engine: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed (pip install 'tinyseg[openvino]')")
        if reason := why_not(engine, precision):
            pytest.skip(reason)
    out = tmp_path / "compiled"
    command = ["compile", "--engine", engine, "--precision", precision, "--size", "160x96"]
    assert main([*command, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "6 engines for 160x96 frames" in told and ("mask IoU" in told) == (precision == "int8")
    assert main(command) == 0
    assert "6 of them from the cache" in capsys.readouterr().out
    expected = box_answer(tinyseg.load(engine=engine, precision=precision))

    # The folder needs neither the cache nor a compiler.
    monkeypatch.setenv("TINYSEG_CACHE_MB", "0")
    module = {"onnxruntime": "ort.OrtEngine", "openvino": "ov.OvEngine"}[engine]

    def compiles(*_: object) -> None:
        raise AssertionError("a compiled folder must not compile")

    monkeypatch.setattr(f"tinyseg.engines.{module}.compile", compiles)
    seg = tinyseg.load(out)
    assert np.array_equal(box_answer(seg).logits, expected.logits)
    assert seg.info.engine == engine and seg.info.precision == precision and "compiled folder" in seg.info.reason


@pytest.fixture(scope="module")
def made_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "compiled"
    command = [
        "compile",
        "small",
        "--engine",
        "onnxruntime",
        "--precision",
        "int8",
        "--size",
        "64x64",
        "--out",
        str(out),
    ]
    assert main(command) == 0
    return out


@pytest.fixture
def out(made_folder: Path, tmp_path: Path) -> Path:
    """A compiled folder of the test's own."""
    return Path(shutil.copytree(made_folder, tmp_path / "compiled"))


def test_compiled_folder_refuses_what_it_was_not_made_for(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    with pytest.raises(WrongDevice, match="holds engines for onnxruntime in int8"):
        tinyseg.load(out, engine="openvino")
    with pytest.raises(WrongDevice, match="holds engines for onnxruntime in int8"):
        tinyseg.load(out, precision="fp32")
    assert main(["compile", str(out)]) == 3
    assert "compiled already" in capsys.readouterr().err
    card = json.loads((out / "model.json").read_text())
    card["compiled"]["identity"]["device"] = "armv9-000000000000"
    card["compiled"]["identity"]["version"] = "0.1"
    (out / "model.json").write_text(json.dumps(card))
    with pytest.raises(WrongDevice, match=r"(?s)version was 0.1, here it is .*device was armv9.*tinyseg compile"):
        tinyseg.load(out)


def test_damaged_compiled_folder(out: Path) -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    engine = out / "encoder-0.engine"
    whole = engine.read_bytes()
    middle = len(whole) // 2
    engine.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(ModelError, match=r"encoder-0.engine is damaged; compile the model again"):
        tinyseg.load(out).embed(frame)
    engine.write_bytes(whole)
    (out / "decoder-0.engine").unlink()
    with pytest.raises(ModelError, match=r"holds no decoder-0.engine"):
        tinyseg.load(out).embed(frame).predict(points=[[9, 9]], labels=[1], zoom="off")
    card = json.loads((out / "model.json").read_text())
    del card["compiled"]["engines"]
    (out / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="compiled lacks engines"):
        tinyseg.load(out)


def test_a_folder_of_somebody_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`compile --out theses` deleted what was there."""
    theses = tmp_path / "theses"
    theses.mkdir()
    (theses / "mine.tex").write_text("years")
    command = ["compile", "--engine", "fake", "--size", "64x64", "--out"]
    assert main([*command, str(theses)]) == 2
    assert "holds mine.tex, which tinyseg did not write" in capsys.readouterr().err
    assert main([*command, str(theses / "mine.tex")]) == 2
    assert [p.name for p in theses.iterdir()] == ["mine.tex"]
    for _ in range(2):  # what it wrote itself it may replace
        assert main([*command, str(tmp_path / "out")]) == 0


def test_a_failed_compilation_leaves_no_folder(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinyseg.graphs.compiled.read_member", full)
    assert (
        main(
            ["compile", "small", "--engine", "onnxruntime", "--precision", "int8", "--size", "64x64", "--out", str(out)]
        )
        == 2
    )
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "big"], "--size takes WIDTHxHEIGHT"),
        (["--prompts", "0"], "--prompts takes positive"),
        (["missing-model"], "there is no model at missing-model"),
        (["a", "--model", "b"], "given twice"),
        (["--precision", "fp16", "--engine", "onnxruntime"], "offers fp32, int8 on this device, not fp16"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", *arguments]) in (2, 3)
    assert message in capsys.readouterr().err


def test_out_of_disk_while_writing_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    builder = Builder(open_model(None), create_engine("fake", "auto", 1).engine, None)

    def nothing(graph: GraphSource, dimensions: Mapping[str, int]) -> bytes:
        return b""

    with pytest.raises(DataError, match="cannot be written"):
        write_folder(builder, {}, {}, tmp_path / "file" / "out", nothing)


def test_a_model_without_int8_says_how_to_make_it(tmp_path: Path) -> None:
    model = open_model(None)
    folder = tmp_path / "plain"
    shutil.copytree(model.path, folder)
    card = json.loads((folder / "model.json").read_text())
    card.pop("precisions"), card.pop("measured", None)
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(tinyseg.PrecisionUnavailable, match=r"carries no int8 graphs.*tinyseg.distill quantize"):
        tinyseg.load(folder, precision="int8")


def test_the_gate_asks_for_masks_and_logits_both() -> None:
    good = Parity("decoder", "int8", 0.98, 0.05, 9)
    assert good.passed
    good.require("here")
    worse: tuple[dict[str, Any], ...] = (
        {"mask_iou": 0.96}, {"noise": 0.13}, {"masks": 0}, {"noise": float("nan")}, {"mask_iou": float("nan")},
        {"precision": "fp32"}, {"precision": "bf16"},
    )  # fmt: skip
    for change in worse:
        with pytest.raises(ParityError, match="does not keep the masks"):
            replace(good, **change).require("here")


def test_a_click_is_judged_by_the_readings_that_a_user_sees() -> None:
    """And a box by mask 0."""
    reference = Reference(open_model("small"))

    class Spoiled:
        """The reference's decoder, with some of its masks turned inside out."""

        def __init__(self, which: slice) -> None:
            self.which = which

        def run(self, feeds: Any) -> Any:
            logits = reference.run("decoder", feeds)["logits"].copy()
            logits[:, self.which] *= -1
            return {"logits": logits}

    dimensions = shapes()["decoder"][0]
    readings, first = (
        measure(reference, "decoder", Spoiled(which), dimensions, "fp32")  # type: ignore[arg-type]
        for which in (slice(1, 4), slice(0, 1))
    )
    assert 0 < readings.mask_iou < 0.8 and 0 < first.mask_iou < 0.8 and not readings.passed and not first.passed


def test_numbers_that_are_none_fail_where_masks_are_right() -> None:
    reference = Reference(open_model("small"))

    class Spoiled:
        """The reference's decoder, with NaN wherever its masks are not."""

        def run(self, feeds: Any) -> Any:
            out = reference.run("decoder", feeds)
            return {**out, "logits": np.where(out["logits"] > 0, out["logits"], np.float32("nan"))}

    parity = measure(reference, "decoder", Spoiled(), shapes()["decoder"][0], "fp32")  # type: ignore[arg-type]
    assert parity.mask_iou == 1 and parity.masks > 0 and not parity.passed
