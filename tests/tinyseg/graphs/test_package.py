"""Models that somebody made to do harm, and models that were damaged: one ModelError, and nothing else happens."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyseg
from tinyseg.cli import main
from tinyseg.errors import ModelError
from tinyseg.graphs.model import PACKAGED, open_model

CARD = json.loads((PACKAGED / "model.json").read_text())
GRAPHS = {row["file"]: (PACKAGED / row["file"]).read_bytes() for row in CARD["graphs"].values()}


def edited(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    card = copy.deepcopy({k: v for k, v in CARD.items() if k != "precisions"})
    change(card)
    return card


def write_zip(path: Path, card: Any = None, method: int = zipfile.ZIP_STORED, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("model.json", json.dumps(card or edited(lambda _: None)))
        for name, data in {**GRAPHS, **more}.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "name", ["../../escaped.onnx", "/tmp/escaped.onnx", "a/b.onnx", "..", "", "model.json", "C:\\x.onnx"]
)
@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_no_name_leads_out_of_a_model(name: str, kind: str, tmp_path: Path) -> None:
    """`tinyseg compile evil.zip --out DIR` wrote where the name said."""
    card = edited(lambda c: c["graphs"]["encoder"].update(file=name))
    if kind == "zip":
        place = write_zip(tmp_path / "evil.zip", card, **{name if "/" in name else "x": GRAPHS["encoder.onnx"]})
    else:
        place = tmp_path / "evil"
        place.mkdir()
        (place / "model.json").write_text(json.dumps(card))
    before = sorted(p for p in tmp_path.rglob("*"))
    with pytest.raises(ModelError, match=r"graphs\.encoder\.file must be a plain file name"):
        open_model(place)
    assert main(["compile", str(place), "--engine", "fake", "--out", str(tmp_path / "inside" / "out")]) == 3
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_compiled_parts_and_precisions_name_plain_files(tmp_path: Path) -> None:
    row = {"graph": "encoder", "dimensions": {}, "file": "../x.engine", "sha256": "0" * 64}
    part = {"engine": "fake", "precision": "fp32", "identity": {}, "engines": [row]}
    with pytest.raises(ModelError, match=r"compiled\.engines\[0\]\.file must be a plain file name"):
        open_model(write_zip(tmp_path / "a.zip", edited(lambda c: c.update(compiled=part))))
    int8 = {"graphs": {n: {"file": "../x.onnx", "sha256": "0" * 64} for n in ("encoder", "decoder", "track_decoder")}}
    with pytest.raises(ModelError, match=r"precisions\.int8\.encoder\.file must be a plain file name"):
        open_model(write_zip(tmp_path / "b.zip", edited(lambda c: c.update(precisions={"int8": int8}))))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX files")
def test_links_and_pipes_inside_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "model"
    place.mkdir()
    (place / "model.json").write_text(json.dumps(edited(lambda _: None)))
    (place / "decoder.onnx").write_bytes(GRAPHS["decoder.onnx"])
    (place / "encoder.onnx").symlink_to(PACKAGED / "encoder.onnx")
    with pytest.raises(ModelError, match=r"encoder\.onnx cannot be read \(it is a link or no regular file\)"):
        open_model(place)
    (place / "encoder.onnx").unlink()
    os.mkfifo(place / "encoder.onnx")  # opening it would wait for ever
    with pytest.raises(ModelError, match=r"encoder\.onnx cannot be read \(it is a link or no regular file\)"):
        open_model(place)
    with pytest.raises(ModelError, match="neither a model folder nor a zip"):
        open_model(place / "encoder.onnx")
    link = zipfile.ZipInfo("encoder.onnx")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr("model.json", json.dumps(edited(lambda _: None)))
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ModelError, match=r"encoder\.onnx is a link"):
        open_model(tmp_path / "link.zip")


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    """A megabyte that inflates to a gigabyte: as model.json, and as a graph."""
    place = tmp_path / "bomb.zip"
    for name in ("model.json", "encoder.onnx"):
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
            if name != "model.json":
                archive.writestr("model.json", json.dumps(edited(lambda _: None)))
            with archive.open(name, "w", force_zip64=True) as file:
                for _ in range(64):
                    file.write(bytes(1 << 20))
        tracemalloc.start()
        with pytest.raises(ModelError, match=r"bytes, (more than|which no model does)"):
            open_model(place)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 << 20


def test_a_zip_of_countless_files_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for i in range(11_000):
            archive.writestr(str(i), b"")
    with pytest.raises(ModelError, match="more files than a model has"):
        open_model(tmp_path / "many.zip")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            archive.writestr("model.json", json.dumps(edited(lambda _: None)))
    with pytest.raises(ModelError, match=r"holds 2 files of the name model\.json"):
        open_model(tmp_path / "two.zip")


def spoil(path: Path, mark: bytes, at: int, value: bytes) -> None:
    """Write into every header that starts with a mark."""
    data, start = bytearray(path.read_bytes()), 0
    while (start := data.find(mark, start)) >= 0:
        data[start + at : start + at + len(value)] = value
        start += 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: spoil(p, b"PK\1\2", 8, b"\1\0"), "is encrypted"),
        (lambda p: spoil(p, b"PK\1\2", 10, b"\x63\0"), "cannot be unpacked .NotImplementedError"),
        (lambda p: spoil(p, b"PK\3\4", 60, b"\xff" * 40), "cannot be unpacked .error|damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "neither a model folder nor a zip"),
        (lambda p: p.write_bytes(p.read_bytes()[5000:]), "neither|holds no|cannot be unpacked|damaged"),
        (lambda p: spoil(p, b"PK\1\2", 24, b"\xff\xff\xff\xff"), "bytes, more than|cannot be unpacked|damaged"),
    ],
)
def test_damaged_and_encrypted_zips(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    place = write_zip(tmp_path / "model.zip")
    damage(place)
    with pytest.raises(ModelError, match=message):
        open_model(place)


def change_dimension(card: dict[str, Any]) -> None:
    card["graphs"]["encoder"]["outputs"]["embedding"][2] = "rows99"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(long_side=0), "long_side must be a whole number from 32 to 4096, but is 0"),
        (lambda c: c.update(long_side=-5), "long_side must be .* is -5"),
        (lambda c: c.update(long_side=10**9), "long_side must be .* is 1000000000"),
        (lambda c: c.update(long_side=10**30), "more than 63 bits"),
        (lambda c: c.update(long_side=True), "long_side must be"),
        (lambda c: c.update(long_side=512.5), "long_side must be"),
        (lambda c: c.update(format=True), "format True"),
        (lambda c: c["zoom"].update(factor=float("nan")), "no finite number"),
        (lambda c: c["zoom"].update(factor=float("inf")), "no finite number"),
        (lambda c: c["zoom"].update(side=100), "zoom.side must be a multiple of 32"),
        (lambda c: c["zoom"].update(below="0.3"), "zoom.below must be a number"),
        (lambda c: c.update(name="\x1b[2Jgone"), "cannot be printed"),
        (lambda c: c.update(name="\ud800"), "cannot be printed"),
        (lambda c: c.update(name=["x"]), "name must be a line"),
        (lambda c: c.update(graphs=[]), "graphs must be an object"),
        (change_dimension, r"embedding has the dimension 'rows99'; known are height, width"),
        (lambda c: c["graphs"]["decoder"]["outputs"].pop("iou"), r"decoder.outputs: iou must be"),
        (lambda c: c["graphs"]["decoder"]["outputs"]["logits"].__setitem__(1, 3), "logits must be"),
        (lambda c: c["graphs"]["encoder"]["inputs"].update(more=[1]), "more must be left out"),
        (lambda c: c["graphs"]["decoder"].update(file="ENCODER.onnx"), "names the file ENCODER.onnx twice"),
        (lambda c: c["graphs"]["encoder"].update(sha256=None), "sha256 must be 64 hexadecimal digits"),
        (lambda c: c.update(measured={"lost_points": {"int8": "few"}}), "lost_points.int8 must be a number"),
        (lambda c: c.update(measured={"speed": 3}), "measured.speed must be an object"),
        (lambda c: c.update(precisions={"int9": {}}), "precisions.'int9' is unknown"),
        (lambda c: c.update(accuracy={"by_set": [{}]}), r"accuracy.by_set\[0\] lacks set"),
        (lambda c: c.update(compiled={"engine": "evil"}), "compiled.engine must be one of"),
        (lambda c: c.update(more=json.loads("[" * 40 + "]" * 40)), "nested deeper than 32"),
    ],
)  # fmt: skip
def test_model_json_of_a_stranger(change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path) -> None:
    place = write_zip(tmp_path / "model.zip", edited(change))
    with pytest.raises(ModelError, match=rf"model\.zip: .*{message}"):
        open_model(place)


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a":' * 100_000, b'{"format": ' + b"9" * 5000 + b"}", b"\xff", b"", b"1"]
)
def test_model_json_that_breaks_parsers(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes(text)
    with pytest.raises(ModelError, match=r"not valid JSON|nested deeper|has format"):
        open_model(tmp_path)
    (tmp_path / "model.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(ModelError, match="more than the 4,194,304"):
        open_model(tmp_path)


@pytest.mark.parametrize("place", ["x" * 300, "a\0b", "~nosuch/model", 7, b"model", ["base"]])
def test_odd_places(place: Any) -> None:
    with pytest.raises(ModelError):
        open_model(place)


def foreign_graph(name: str, tmp_path: Path, swap: bool = False) -> Path:
    """A model whose graph of that name is somebody else's ONNX, with a right checksum."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[compile]')")
    if swap:
        data = GRAPHS["decoder.onnx" if name == "encoder" else "encoder.onnx"]
    else:
        x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
        y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
        node = onnx.helper.make_node("Identity", ["x"], ["y"])
        made = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y]), ir_version=8)
        data = made.SerializeToString()
    card = edited(lambda c: c["graphs"][name].update(sha256=hashlib.sha256(data).hexdigest()))
    return write_zip(tmp_path / "foreign.zip", card, **{f"{name}.onnx": data})


def test_a_graph_names_no_files(tmp_path: Path) -> None:
    """OpenVINO would read weights from any file under the working directory."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[compile]')")
    model = onnx.load_from_string(GRAPHS["encoder.onnx"])
    weight = max(model.graph.initializer, key=lambda w: len(w.raw_data))
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="secret.bin")
    data = model.SerializeToString()
    place = tmp_path / "model"
    place.mkdir()
    card = edited(lambda c: c["graphs"]["encoder"].update(sha256=hashlib.sha256(data).hexdigest()))
    (place / "model.json").write_text(json.dumps(card))
    (place / "encoder.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=r"encoder\.onnx seems to keep weights in files beside it"):
        open_model(place)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["encoder", "decoder"])
@pytest.mark.parametrize("swap", [True, False])
def test_a_wrong_graph_is_an_engine_error(engine: str, name: str, swap: bool, tmp_path: Path) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed (pip install 'tinyseg[openvino]')")
    place = tmp_path / "model"
    with zipfile.ZipFile(foreign_graph(name, tmp_path, swap)) as archive:
        archive.extractall(place)  # the later one of two files of a name
    with pytest.raises(tinyseg.EngineError):
        seg = tinyseg.load(place, engine=engine, precision="fp32")
        seg.embed(np.zeros((64, 64, 3), np.uint8)).predict(box=(8, 8, 40, 40), zoom="off")


def test_cards_that_are_too_much_or_contradict_themselves(tmp_path: Path) -> None:
    def told(name: str, change: Callable[[dict[str, Any]], object]) -> str:
        card = copy.deepcopy(CARD)
        change(card)
        with pytest.raises(ModelError) as caught:
            open_model(write_zip(tmp_path / f"{name}.zip", card, zipfile.ZIP_DEFLATED))
        return str(caught.value)

    assert "more than 200,000 values" in told("values", lambda c: c.update(extra=[0] * 200_001))
    deep = [1] * 9
    assert "at most 8 dimensions" in told("rank", lambda c: c["graphs"]["encoder"]["outputs"].update(odd=deep))
    other = {"image": [1, 3, 32, 32]}
    assert "must be those of the fp32 graph" in told(
        "shapes", lambda c: c["precisions"]["int8"]["graphs"]["encoder"].update(inputs=other)
    )
