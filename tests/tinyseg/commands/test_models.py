from __future__ import annotations

import json
from pathlib import Path

import pytest

import tinyseg
from tinyseg.cli import main
from tinyseg.errors import ModelError
from tinyseg.graphs.model import PACKAGED, model_place, open_model, packaged_models, shown_place


def test_packaged_models_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert next(iter(packaged_models())) == "base" and packaged_models()["base"] == PACKAGED
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    assert model_place("base") == model_place(None) == model_place("packaged") == PACKAGED
    assert [shown_place(p) for p in packaged_models().values()] == ["packaged", "packaged: small"]
    assert shown_place(tmp_path) == str(tmp_path)
    assert model_place("./base") == Path("base") and model_place(Path("base")) == Path("base")
    assert tinyseg.load("base", engine="fake").info.model_path == "packaged"
    with pytest.raises(ModelError, match="packaged one: base"):
        open_model("basic")


def test_the_list_tells_size_and_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = {r["name"]: r for r in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(packaged_models())
    sets = {r["set"]: r for r in open_model(None).card["accuracy"]["by_set"]}
    assert rows["base"]["box"] == sets["all"]["box"] and rows["base"]["long_side"] == 512
    assert rows["base"]["megabytes"]["int8"] < rows["base"]["megabytes"]["fp32"]
    assert main(["models"]) == 0
    assert "| base  | 512 px |" in capsys.readouterr().out
    assert main(["models", "--engine", "onnxruntime"]) == 2
    assert "add --time" in capsys.readouterr().err


def test_models_are_timed_together(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.commands.models.ROUNDS", 2)
    assert main(["models", "--time", "--engine", "onnxruntime", "--precision", "fp32", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["against_default"] == pytest.approx(1.0) and rows[0]["predict_ms"] > 0
    assert all(r["chosen"] == "onnxruntime fp32" for r in rows)
