from __future__ import annotations

import csv
import gzip
import itertools
import json
import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

import tinyseg
from tinyseg.bench import measure, profile, report, rivals, rows, scenarios
from tinyseg.bench.rows import BenchRow
from tinyseg.cli import main
from tinyseg.sinks import CallbackSink, FrameResult

FAST = ["--seconds", "0.05", "--engine", "fake"]


@pytest.fixture(autouse=True)
def fake_is_its_own_reference(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The fake engine draws prompts; only tests of the check itself compare it with the real model. Real engines always are."""
    if "real_check" not in request.keywords:
        real = scenarios.check_against_reference
        monkeypatch.setattr(
            scenarios,
            "check_against_reference",
            lambda seg, size=scenarios.FRAME_SIZE: 1.0 if seg.info.engine == "fake" else real(seg, size),
        )


@pytest.mark.parametrize(
    "name", ["encode", "prompt", "predict", "prompts-3", "batch", "loop-latency", "track", "track-3"]
)
def test_a_scenario_gives_a_whole_row(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.json"
    command = ["bench", "--scenario", name, "--sam2", "--json", str(path), "--csv", str(tmp_path / "r.csv")]
    assert main([*command, *FAST]) == 0
    (row,) = json.loads(path.read_text())
    assert set(row) == {f.name for f in fields(BenchRow)}
    assert row["scenario"] == name and row["engine"] == "fake" and row["count"] == len(row["samples_ms"]) >= 30
    assert (
        row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        and row["median_low_ms"] <= row["p50_ms"] <= row["median_high_ms"]
    )
    frames = 16 if name == "batch" else 1
    assert row["fps"] == pytest.approx(frames * 1e3 / row["p50_ms"])
    assert row["kind"] == ("throughput" if name == "batch" else "latency")
    assert (
        row["prompts"] == {"prompts-3": 3, "track-3": 3, "encode": 0}.get(name, 1) and row["frame_size"] == "1280x720"
    )
    (line,) = csv.DictReader((tmp_path / "r.csv").open())
    assert float(line["p50_ms"]) == pytest.approx(row["p50_ms"]) and "samples_ms" not in line
    printed = capsys.readouterr().out
    assert "130.1 images/s on one A100" in printed and "Hiera-B+" in printed


def test_the_loop_is_measured_against_the_bare_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "LOOP_ROUNDS", 2)
    row = scenarios.run(scenarios.Request("loop", engine="fake", seconds=0.1, size=(320, 240)))
    assert row.kind == "throughput" and row.engine_fps and row.loop_efficiency
    assert 0 < row.loop_efficiency < 1.5 and row.fps > 0 and row.streams >= 1


def test_memory_that_grows_has_a_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    request = scenarios.Request("memory", engine="fake", frames=300, size=(320, 240))
    flat, tracking = scenarios.run(request), scenarios.run(replace(request, scenario="track-memory", frames=120))
    kept: list[mmap.mmap] = []

    class LeakingSink(CallbackSink):
        """Keeps a megabyte of every frame."""

        def write(self, result: FrameResult) -> bool | None:
            kept.append(mmap.mmap(-1, 1 << 20))  # the allocator may have that much left over from before
            kept[-1].write(bytes(1 << 20))
            return super().write(result)

    monkeypatch.setattr(scenarios, "CallbackSink", LeakingSink)
    leaking = scenarios.run(request)
    assert leaking.memory_slope_mb is not None and 500 < leaking.memory_slope_mb < 2000  # MB for 1000 frames
    for row in (flat, tracking):
        assert row.memory_slope_mb is not None and abs(row.memory_slope_mb) < 0.1 * leaking.memory_slope_mb
        assert row.peak_rss_mb
    assert "in the last fifth" in tracking.stages and "3 objects over 120 frames;" in tracking.stages
    assert tracking.prompts == 3 and "memory, track-memory: " in rows.to_markdown([tracking])


def test_a_long_run_that_is_interrupted_reports_the_frames_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    request = scenarios.Request("track-memory-1", engine="fake", frames=1000, size=(320, 240))

    def interrupted(after: int) -> Callable[[Iterable[int], str], Iterator[int]]:
        def until(items: Iterable[int], _what: str) -> Iterator[int]:
            yield from itertools.islice(items, after)
            raise KeyboardInterrupt

        return until

    monkeypatch.setattr(scenarios, "progress", interrupted(205))
    row = scenarios.run(request)
    assert row.prompts == 1 and row.count == 20
    assert "1 object over 200 frames, interrupted before 1000;" in row.stages
    monkeypatch.setattr(scenarios, "progress", interrupted(50))
    with pytest.raises(KeyboardInterrupt):  # too few to say anything
        scenarios.run(request)


def test_a_slowdown_is_of_the_last_fifth_against_the_first() -> None:
    steady = [float(i) for i in range(101)]
    assert scenarios.slowdown(steady) == 1.0
    assert scenarios.slowdown([s + s * s / 200 for s in steady]) > 1.5
    assert scenarios.slowdown([0.0, 1.0, 1.0]) == 0.0  # two gaps, the later one nothing


def test_startup_is_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "STARTUP_RUNS", 2)
    row = scenarios.run(scenarios.Request("startup", engine="fake"))
    assert row.count == 2 and row.p50_ms > 50
    with pytest.raises(tinyseg.TinysegError, match="did not get to its first mask"):
        scenarios.startup(tinyseg.load(engine="fake"), scenarios.Request("startup", model="nowhere", engine="fake"), 1)


@pytest.mark.real_check
def test_an_engine_with_wrong_masks_gets_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    """The fake engine answers with boxes where the model finds objects."""
    assert main(["bench", *FAST]) == 3
    captured = capsys.readouterr()
    assert "does not keep the masks" in captured.err and "ms" not in captured.out


def test_the_real_engines_pass_the_check(real: tinyseg.Segmenter) -> None:
    assert scenarios.check_against_reference(real) > 0.99


@pytest.mark.parametrize("name", ["walk", "prompts-0", "prompts-N", "prompts-999", ""])
def test_unknown_scenarios_are_told_before_anything_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--scenario", "predict", "--scenario", name, *FAST]) == 2
    assert "known are encode" in capsys.readouterr().err


def row_with(p50: float, low: float, high: float, **changes: object) -> BenchRow:
    row = BenchRow(**{f.name: None for f in fields(BenchRow)})  # type: ignore[arg-type]
    known = {"scenario": "predict", "kind": "latency", "engine": "e", "precision": "fp32", "prompts": 1, "device": "d"}
    return replace(row, **{**known, "p50_ms": p50, "median_low_ms": low, "median_high_ms": high, **changes})  # type: ignore[arg-type]


def test_comparison_tells_change_from_noise() -> None:
    assert "within the noise" in rows.compare([row_with(10, 9, 11)], [row_with(10.5, 9.5, 11.5)])
    assert "slower" in rows.compare([row_with(10, 9, 11)], [row_with(13, 12, 14)])
    assert "faster" in rows.compare([row_with(10, 9, 11)], [row_with(7, 6, 8)])
    assert "another device" in rows.compare([row_with(10, 9, 11)], [row_with(7, 6, 8, device="x")])
    with pytest.raises(tinyseg.DataError, match="in common"):
        rows.compare([row_with(10, 9, 11)], [row_with(7, 6, 8, engine="x")])


def test_the_command_compares_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(rows.to_json([row_with(10, 9, 11, samples_ms=(1.0,))]))
    assert main(["bench", "--compare", str(tmp_path / "a.json"), str(tmp_path / "a.json")]) == 0
    assert "within the noise" in capsys.readouterr().out
    (tmp_path / "0.json").write_text(rows.to_json([row_with(0, 9, 11, samples_ms=(1.0,))]))
    (tmp_path / "none.json").write_text(rows.to_json([row_with(10, 9, 11, samples_ms=(), median_low_ms=None)]))
    for name in ("0.json", "none.json"):
        assert main(["bench", "--compare", str(tmp_path / name), str(tmp_path / "a.json")]) == 2
        assert "holds no benchmark rows" in capsys.readouterr().err
    (tmp_path / "b.json").write_text("[{}]")
    assert main(["bench", "--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
    assert main(["bench", "--compare", str(tmp_path / "a.json"), str(tmp_path / "c.json")]) == 2


def test_stability_and_disturbance() -> None:
    steady = [10.0 + 0.01 * (i % 3) for i in range(60)]
    rng = np.random.default_rng(0)
    assert measure.is_stable(steady) and measure.disturbances(steady, 0.0) == ""
    assert not measure.is_stable(steady[:10])
    assert not measure.is_stable(rng.uniform(5, 15, 40).tolist())
    assert "slower than the first" in measure.disturbances([10.0] * 30 + [13.0] * 30, None)
    assert "busy" in measure.disturbances(steady, 0.9)
    assert "spread widely" in measure.disturbances([10.0, 20.0] * 30, None)


def test_the_profile_accounts_for_the_whole_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profile, "profile", partial(profile.profile, rounds=15))
    assert main(["bench", "--profile", "--engine", "onnxruntime", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    total = sum(found["stages_ms"].values())
    assert list(found["stages_ms"]) == ["check", "resize", "encode", "lay out", "decode", "masks"]
    assert 0.5 < total / found["step_ms"] < 1.5
    assert found["stages_ms"]["encode"] == max(found["stages_ms"].values())
    text = profile.Profile(found["stages_ms"], found["step_ms"]).to_text()
    assert all(name in text for name in found["stages_ms"]) and "#" in text
    assert main(["bench", "--profile", "--all"]) == 2


def test_a_report_is_written_whole(
    small_peer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'tinyseg[report]')")
    monkeypatch.setattr("tinyseg.commands.bench.ALL", ("encode", "predict"))
    monkeypatch.setattr(report, "PEER_NAMES", (small_peer,))
    out = tmp_path / "results"
    assert main(["bench", "--all", "--report", str(out), "--rounds", "3", *FAST]) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        ".tinyseg", "accuracy-speed.png", "accuracy-speed.svg", "report.md", "rivals.json", "rows.json"
    ]  # fmt: skip
    text = (out / "report.md").read_text()
    assert "NanoSAM" in text and "130.1 images/s" in text and "accuracy-speed.svg" in text
    assert [r.scenario for r in rows.read_json(out / "rows.json")] == ["encode", "predict"]
    assert main(["bench", "--report", str(out), *FAST]) == 2


def test_the_plot_marks_published_accuracies() -> None:
    seg = tinyseg.load(engine="fake")
    timing = measure.Timing("x (y)", (10.0,))
    one = measure.Ratio(1.0, 1.0, 1.0)
    rival = rivals.SpeedReport(seg.info, (1280, 720), timing, timing, timing, timing, one, one)
    points = report.plot_points(seg, {"mobilesam": rival})
    assert [p.measured for p in points] == [True, False] and "as published" in points[1].label
    assert points[1].frames_per_second == 100.0 and points[1].box_miou == 0.734


def test_accuracy_is_of_the_same_engine(reference: tinyseg.Segmenter, tmp_path: Path) -> None:
    """The card's figure is of one engine; with --data any engine gets its own."""
    # In fp32: where int8 is the best there is, its masks are not those of the reference to a hundredth.
    request = scenarios.Request("encode", engine="onnxruntime", precision="fp32", seconds=0.01)
    stated = scenarios.stated_accuracy(reference)
    assert stated is not None and 0.5 < stated.box_miou < 1
    assert scenarios.stated_accuracy(tinyseg.load(engine="fake")) is None
    row = scenarios.run(replace(request, accuracy=scenarios.Accuracy("onnxruntime", "fp32", "mine", 0.5)))
    assert row.accuracy_box_miou == 0.5 and row.accuracy_data == "mine" and row.reference_iou > 0.99
    (tmp_path / "images").mkdir()
    with gzip.open(tmp_path / "annotations.jsonl.gz", "wt") as file:
        square = [[40, 30], [120, 30], [120, 90], [40, 90]]
        file.write(json.dumps({"file": "a.png", "width": 160, "height": 120, "source": "s", "instances": [[square]]}))
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((120, 160, 3), np.uint8))
    measured = scenarios.measure_accuracy(scenarios.Request("encode", engine="fake"), tmp_path)
    assert measured.engine == "fake" and measured.box_miou > 0.9 and measured.data == tmp_path.name


def test_frame_size_and_streams_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "LOOP_ROUNDS", 2)
    row = scenarios.run(scenarios.Request("loop", engine="fake", threads=2, seconds=0.05, size=(320, 200), streams=1))
    assert row.frame_size == "320x200" and row.streams == 1
    assert scenarios.boxes(1, (640, 360)) == [(370, 100, 530, 260)]
    assert all(x1 <= 64 and y1 <= 48 for _, _, x1, y1 in scenarios.boxes(9, (64, 48)))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--precisions", "--engine", "fake"], "--engine does nothing beside --precisions"),
        (["--precisions", "--precision", "int8"], "--precision does nothing beside --precisions"),
        (["--profile", "--data", "x.tar"], "--data does nothing beside --profile"),
        (["--profile", "--seconds", "3"], "--seconds does nothing beside --profile"),
        (["--peer-onnx", "a", "b", "--sam2"], "--sam2 does nothing beside --peer-onnx"),
        (["--compare", "a", "b", "--json", "-"], "--json does nothing beside --compare"),
        (["--compare", "a", "b", "--model", "small"], "--model does nothing beside --compare"),
        (["--random-weights"], "--random-weights does nothing beside --all and --scenario"),
        (["--rounds", "9"], "--rounds does nothing beside --all and --scenario without --report"),
    ],
)
def test_options_that_a_run_does_not_heed_are_told(
    given: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *given]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
