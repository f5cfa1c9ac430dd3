from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinyseg.bench.accuracy import AccuracyReport, InstanceScores, summarize
from tinyseg.bench.precisions import PrecisionRow, compare_precisions, losses, most_lost_points, table, to_card
from tinyseg.cli import main
from tinyseg.errors import InputError


def row(precision: str, lost: float | None) -> PrecisionRow:
    return PrecisionRow(
        "onnxruntime", "1", precision, 6.1, 10.0, 1.5, 1.4, 1.6, lost, {"coco": {"box": 0.7, "click1": 0.4}}
    )


def report(**groups: list[tuple[float, float]]) -> AccuracyReport:
    """Box and 1-click IoU of objects by set."""
    instances = [
        InstanceScores(group, "large", 0.5, box, box, click, click, click, click)
        for group, rows in groups.items()
        for box, click in rows
    ]
    return summarize([[i] for i in instances])


def test_the_largest_loss_counts() -> None:
    reference = report(a=[(0.70, 0.50), (0.72, 0.50)], b=[(0.80, 0.60), (0.80, 0.62)])
    other = report(a=[(0.71, 0.50), (0.73, 0.50)], b=[(0.797, 0.599), (0.797, 0.619)])
    assert most_lost_points(losses(reference, other)) == pytest.approx(0.3)
    assert most_lost_points(losses(other, reference)) == pytest.approx(1.0)
    assert most_lost_points(losses(reference, reference)) == 0.0


def test_a_set_that_two_objects_decide_tells_nothing() -> None:
    many = [(0.7, 0.5)] * 600
    reference = report(few=[(0.8, 0.8)] * 60, many=many)
    other = report(few=[(0.8, 0.3), *[(0.8, 0.8)] * 59], many=[(0.7, 0.498)] * 600)
    found = {(x.group, x.figure): x for x in losses(reference, other)}
    assert found["few", "click1"].points == pytest.approx(50 / 60) and found["few", "click1"].error > 0.3
    # It still counts among all objects.
    assert most_lost_points(list(found.values())) == pytest.approx(100 * (0.5 + 600 * 0.002) / 660)
    # Where no set is sure, the surest speaks, and no set is not "no loss".
    alone = losses(report(few=[(0.8, 0.8)] * 10), report(few=[(0.8, 0.3), *[(0.8, 0.8)] * 9]))
    assert most_lost_points([x for x in alone if x.figure == "click1"]) == pytest.approx(5.0)


def test_table_and_card() -> None:
    text = table([row("fp32", 0.0), row("int8", 0.12), row("bf16", None)])
    assert "+0.12" in text and "not measured" in text and "0.700 / 0.400" in text
    card = to_card([row("fp32", 0.0), row("int8", 0.12)], "cpu", "eval.tar")
    assert card["lost_points"] == {"fp32": 0.0, "int8": 0.12} and card["speed"] == {
        "onnxruntime": {"fp32": 1.5, "int8": 1.5}
    }


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert (
        main(["bench", "--precisions", "--model", "small", "--rounds", "3", "--json", str(tmp_path / "rows.json")]) == 0
    )
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
