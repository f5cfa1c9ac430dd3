from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinyseg.bench.precisions import PrecisionRow, compare_precisions, most_lost_points, table, to_card
from tinyseg.cli import main
from tinyseg.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path / "cache"))


def row(precision: str, lost: float | None) -> PrecisionRow:
    return PrecisionRow(
        "onnxruntime", "1", precision, 6.1, 10.0, 1.5, 1.4, 1.6, lost, {"coco": {"box": 0.7, "click1": 0.4}}
    )


def test_the_largest_loss_counts() -> None:
    reference = {"a": {"box": 0.70, "click1": 0.50}, "b": {"box": 0.80, "click1": 0.60}}
    other = {"a": {"box": 0.71, "click1": 0.50}, "b": {"box": 0.797, "click1": 0.599}}
    assert most_lost_points(reference, other) == pytest.approx(0.3)
    assert most_lost_points(reference, {g: {n: v + 0.01 for n, v in r.items()} for g, r in reference.items()}) < 0


def test_table_and_card() -> None:
    text = table([row("fp32", 0.0), row("int8", 0.12), row("bf16", None)])
    assert "+0.12" in text and "not measured" in text and "0.700 / 0.400" in text
    card = to_card([row("fp32", 0.0), row("int8", 0.12)], "cpu", "eval.tar")
    assert card["lost_points"] == {"fp32": 0.0, "int8": 0.12} and card["speed"] == {
        "onnxruntime": {"fp32": 1.5, "int8": 1.5}
    }


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["bench", "--precisions", "--rounds", "3", "--json", str(tmp_path / "rows.json")]) == 0
    out = capsys.readouterr().out
    assert "| onnxruntime" in out and "int8" in out and "1.00 (1.00 to 1.00)" in out
    assert {r["precision"] for r in json.loads((tmp_path / "rows.json").read_text())["rows"]} >= {"fp32", "int8"}
    assert main(["bench", "--precisions", "--all"]) == 2
    assert "run of its own" in capsys.readouterr().err
    assert main(["bench", "--precisions", "--size", "640x480"]) == 2
    assert "belong to scenarios" in capsys.readouterr().err


def test_nothing_to_compare() -> None:
    with pytest.raises(InputError, match="no engine"):
        compare_precisions(None, only=[("tensorrt", "fp8")])
