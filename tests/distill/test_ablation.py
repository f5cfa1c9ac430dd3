from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")
pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[train]')")

from tinyseg.distill.__main__ import main  # noqa: E402
from tinyseg.distill.ablation import VARIANTS, AblationRow, chosen_variants, to_text  # noqa: E402
from tinyseg.distill.config import TrainConfig  # noqa: E402
from tinyseg.errors import InputError  # noqa: E402

CONFIG = TrainConfig(data=(), out="x", teacher="tinyseg:base")


def test_variants_differ_in_one_thing() -> None:
    made = {name: change(CONFIG) for name, (_, change) in VARIANTS.items()}
    assert len(set(map(str, made.values()))) == len(made)
    assert made["ground truth alone"].teacher is None and made["masks, hard prompts"].distil.hard
    assert made["no correcting rounds"].rounds == 1 and made["mosaic 0.25"].mixing.mosaic == 0.25
    untaught = TrainConfig(data=(), out="x")
    assert len(chosen_variants(untaught, [])) < len(chosen_variants(CONFIG, [])) == len(VARIANTS)
    with pytest.raises(InputError, match="needs --teacher"):
        chosen_variants(untaught, ["teacher's masks"])
    with pytest.raises(InputError, match="known are ground truth alone"):
        chosen_variants(CONFIG, ["magic"])


def test_the_table_shows_differences() -> None:
    text = to_text([AblationRow("a", 9, 0.5, 0.6, 0.4, 0.5, 0.7), AblationRow("b", 9, 0.512, 0.59, 0.4, 0.5, 0.7)])
    assert "0.512 (+1.2)" in text and "0.590 (-1.0)" in text


@pytest.mark.usefixtures("small_samples")
def test_the_command_runs_and_does_not_run_again(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "ablate", "--data", str(shapes), "--batch-size", "2", "--instances", "2", "--start", "base", "--size", "small",
        "--teacher", "tinyseg:base", "--workers", "0", "--steps", "2", "--validation-photos", "1", "--out", str(tmp_path),
        "--only", "ground truth alone", "--only", "teacher's masks",
    ]  # fmt: skip
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "| teacher's masks" in first and "stopped at step 2" in first
    rows = json.loads((tmp_path / "ablation.json").read_text())
    assert [r["variant"] for r in rows] == ["ground truth alone", "teacher's masks"] and rows[0] != rows[1]
    assert main(command) == 0
    again = capsys.readouterr().out
    assert "all of its 2 steps are done" in again and again.splitlines()[-4:] == first.splitlines()[-4:]
    assert main([*command, "--learning-rate", "2e-3"]) == 2
    assert "is a run of other options: learning_rate is 0.001 there and 0.002 now" in capsys.readouterr().err
