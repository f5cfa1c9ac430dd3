"""What the command line says: advice that the command can follow, exit codes as documented, words for sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.test_rows import bench_row
from tinyseg.bench import baseline, rivals, rows
from tinyseg.cli import main
from tinyseg.engines import PrecisionFacts, choose_precision
from tinyseg.graphs.shapes import describe_shape


def test_run_advises_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "synthetic:64x48:2"]) == 2
    told = capsys.readouterr().err
    assert "--point" in told and "--mask" not in told
    assert main(["run", "synthetic:64x48:2", "--point", "9,9", "--mode", "latency", "--streams", "2"]) == 2


def test_compile_shows_a_run_that_parses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compile", "--help"])
    assert "--source" not in capsys.readouterr().out


def test_too_few_rounds_are_told_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(baseline, "load_baseline", lambda *a: pytest.fail("built"))
    assert main(["bench", "--baseline", "base-plus", "--random-weights", "--rounds", "1"]) == 2
    assert "at least 3" in capsys.readouterr().err


def test_a_missing_package_is_not_done_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Exception, match="peers"):
        rivals.load_peer("mobilesam")
    monkeypatch.setattr("tinyseg.commands.bench.load_segmenter", lambda args: None)
    assert main(["bench", "--peer", "mobilesam", "--engine", "fake"]) == 3


def test_comparing_two_machines_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = bench_row()
    there = replace(here, device="another processor", model_sha256="f" * 64, notes="busy: 40%", p50_ms=3 * here.p50_ms)
    (tmp_path / "a.json").write_text(rows.to_json([here]))
    (tmp_path / "b.json").write_text(rows.to_json([there]))
    assert main(["bench", "--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    told = capsys.readouterr().out
    assert "two machines: a processor before, another processor after" in told
    assert "other weights" in told and "disturbed after, predict: busy: 40%" in told
    assert "Not like with like" not in rows.compare([here], [here])


def test_sam2_is_named_only_where_asked() -> None:
    assert "SAM 2" not in rows.to_markdown([bench_row()])
    assert any("SAM 2" in line for line in rows.against_sam2([bench_row()]))


def test_the_cache_names_sizes() -> None:
    encoder = {"height": 288, "width": 512, "rows4": 72, "columns4": 128}
    decoder = {"rows4": 72, "columns4": 128, "columns16": 32, "prompts": 1, "points": 4}
    assert describe_shape(encoder) == "encoder of 512x288 inputs"
    assert describe_shape(decoder) == "decoder of 512x288 inputs, 1 prompt(s) of up to 4 points"


def test_the_loss_is_of_the_engine_that_runs() -> None:
    speed = {"openvino": {"fp32": 1.0, "bf16": 1.5}, "onnxruntime": {"fp32": 1.0, "bf16": 1.4}}
    lost_on = {"openvino": {"bf16": 0.11}, "onnxruntime": {"bf16": 0.2}}
    facts = PrecisionFacts(("fp32",), {"bf16": 0.2}, speed, lost_on)
    assert "loses 0.11 points" in choose_precision("openvino", ("bf16", "fp32"), facts)[1]
    assert "loses 0.20 points" in choose_precision("onnxruntime", ("bf16", "fp32"), facts)[1]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["run", "synthetic:64x64:1", "--point", "5,5", "--raw-color", "rgb"], "--raw-color is of raw frames"),
        (["find", "-", "--like", "mug.npz"], "not standard input"),
        (["compile", "--bisect", "--out", "engines"], "--bisect compares one engine and writes none"),
        (["compile", "--bisect", "--prompts", "1", "8"], "further --prompts"),
        (["cutout", "synthetic:64x64:1", "--auto", "--format", "webp", "--out", "o.webm"], "--format are for images"),
    ],
)
def test_options_that_do_nothing_there_are_told(
    given: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*given, "--engine", "fake"]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "given",
    [
        ["eval", "nowhere.tar", "--json"], ["bench", "--json"], ["bench", "--csv"],
        ["track", "synthetic:64x64:1", "--box", "1,1,20,20", "--save"], ["find", "--like", "nothing.npz", "--save"],
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_written_is_told_before_the_work(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    for place, says in (
        (tmp_path, "is a folder; name a file"),
        (tmp_path / "file" / "x", "cannot be written: nothing can be put"),
    ):
        assert main([*given, str(place), "--engine", "fake"]) == 2
        err = capsys.readouterr().err
        assert f"{given[-1]} {place}" in err and says in err and err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
