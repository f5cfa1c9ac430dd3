from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tinyseg
from tinyseg.graphs.model import PACKAGED, digest, open_model


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGED, tmp_path / "model"))


def edit_card(folder: Path, **changes: object) -> None:
    card = json.loads((folder / "model.json").read_text())
    for key, value in changes.items():
        if value is None:
            del card[key]
        else:
            card[key] = value
    (folder / "model.json").write_text(json.dumps(card))


def test_the_packaged_model_says_where_it_comes_from() -> None:
    card = open_model(None).card
    assert card["licence"] and card["sources"] and card["training"]["step"] > 0
    rows = {r["set"]: r for r in card["accuracy"]["by_set"]}
    assert rows["coco-train2017"]["box"] > rows["coco-train2017"]["fill"]
    assert "/" not in json.dumps(card["training"]["data"])


def test_a_zip_is_the_same_model(copy: Path, tmp_path: Path) -> None:
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for part in copy.iterdir():
            file.write(part, part.name)
    assert digest(open_model(archive).graphs) == digest(open_model(copy).graphs) == digest(open_model(None).graphs)
    seg = tinyseg.load(archive, engine="fake")
    assert seg.embed(np.zeros((32, 32, 3), np.uint8)).predict(box=(1, 1, 20, 20)).masks.any()


def test_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(tinyseg.ModelError, match="no model at"):
        tinyseg.load(tmp_path / "nothing")
    with pytest.raises(tinyseg.ModelError, match=r"no model\.json"):
        tinyseg.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(tinyseg.ModelError, match="neither a model folder nor a zip"):
        tinyseg.load(tmp_path / "file")


def test_a_damaged_graph_is_noticed(copy: Path) -> None:
    data = bytearray((copy / "encoder.onnx").read_bytes())
    data[1000] ^= 1
    (copy / "encoder.onnx").write_bytes(data)
    with pytest.raises(tinyseg.ModelError, match=r"encoder\.onnx is damaged \(sha256"):
        tinyseg.load(copy)


def test_a_missing_graph_is_noticed(copy: Path) -> None:
    (copy / "decoder.onnx").unlink()
    with pytest.raises(tinyseg.ModelError, match=r"no decoder\.onnx"):
        tinyseg.load(copy)


def test_other_formats_and_broken_cards_are_refused(copy: Path) -> None:
    edit_card(copy, format=99)
    with pytest.raises(tinyseg.ModelError, match="format 99"):
        tinyseg.load(copy)
    edit_card(copy, format=1, zoom=None)
    with pytest.raises(tinyseg.ModelError, match="zoom"):
        tinyseg.load(copy)
    edit_card(copy, graphs={})
    with pytest.raises(tinyseg.ModelError, match="lacks zoom"):
        tinyseg.load(copy)
    edit_card(copy, zoom={"side": 256, "factor": 2.0, "below": 0.3})
    with pytest.raises(tinyseg.ModelError, match="names no decoder and no encoder"):
        tinyseg.load(copy)
    (copy / "model.json").write_text("{")
    with pytest.raises(tinyseg.ModelError, match="not valid JSON"):
        tinyseg.load(copy)


@pytest.mark.parametrize("stated", [{"color": "bgr"}, {"mean": 1e9}, {"std": [1, 2, 3]}, {"multiple": 14}])
def test_a_model_that_wants_another_input_is_refused(copy: Path, stated: object) -> None:
    edit_card(copy, input=stated)
    with pytest.raises(tinyseg.ModelError, match="input"):
        tinyseg.load(copy, engine="fake")
    edit_card(copy, input={"color": "rgb", "mean": 127.5, "colour_space": "sRGB"})
    tinyseg.load(copy, engine="fake")


def test_a_models_digest_does_not_depend_on_the_order_of_its_graphs() -> None:
    graphs = open_model(None).graphs
    assert digest(graphs) == digest(dict(reversed(graphs.items()))) != digest({"encoder": graphs["encoder"]})


def test_losses_are_those_of_the_engine_that_was_measured(copy: Path) -> None:
    row = {"engine": "openvino", "precision": "int8", "lost_points": 0.25}
    edit_card(
        copy, measured={"lost_points": {"int8": 0.75}, "rows": [row, {**row, "engine": "other", "lost_points": None}]}
    )
    facts = open_model(copy).precision_facts
    assert [facts.loss(engine, "int8") for engine in ("openvino", "onnxruntime", "other")] == [0.25, 0.75, 0.75]
