from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import tinyseg
from tinyseg.bench import baseline
from tinyseg.bench.measure import Timing, alternate, ratio
from tinyseg.bench.rivals import compare_predict, decoder_feed, load_peer, run_peer
from tinyseg.cli import main


def test_rounds_alternate() -> None:
    order: list[str] = []
    found = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 4)
    assert order[-8:] == ["a", "a", "b", "b"] * 2 and len(found["a"].samples_ms) == 4


def test_ratios_are_of_rounds_and_have_an_interval() -> None:
    slow, fast = Timing("s", (10.0, 20.0, 30.0, 40.0)), Timing("f", (1.0, 2.0, 3.0, 4.0))
    found = ratio(slow, fast)
    assert found.value == found.low == found.high == pytest.approx(10.0)
    assert slow.p50_ms == 25.0 and slow.p90_ms == pytest.approx(37.0)


def test_a_peer_without_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(tinyseg.NotInstalled, match=r"tinyseg\[peers\]"):
        load_peer("mobilesam")


# Millions of parameters. MobileSAM: TinyViT stores one attention bias for every offset, ours one for every pair; they
# are left out. EdgeSAM's paper gives 5.5 for its encoder, ResNet-18 has 11.2 without its classifier.
SIZES = {"mobilesam": (5.5, 6.2), "edgesam": (5.0, 6.0), "nanosam": (14.5, 15.5)}


@pytest.mark.parametrize("name", SIZES)
def test_the_architectures_have_the_papers_sizes_and_shapes(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[peers]')")
    from tinyseg.bench import peers  # noqa: PLC0415 - needs torch

    encoder = peers.ENCODERS[name][1]()
    parameters = sum(p.numel() for n, p in encoder.named_parameters() if not n.endswith(("attention.bias", "position")))
    assert SIZES[name][0] * 1e6 < parameters < SIZES[name][1] * 1e6
    with torch.inference_mode():
        assert encoder.eval()(torch.zeros(1, 3, 1024, 1024)).shape == (1, 256, 64, 64)
    assert 3.9e6 < sum(p.numel() for p in peers.SamDecoder().parameters()) < 4.2e6


def test_we_are_many_times_faster_than_mobilesam() -> None:
    """The project's reason to exist, with room for a noisy machine."""
    pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[peers]')")
    seg, peer = tinyseg.load(engine="onnxruntime"), run_peer(load_peer("mobilesam"), 2)
    for _ in range(4):  # other tests run beside this one: what they take can only make us look slower
        report = compare_predict(seg, peer, 3)
        if report.times_faster.value > 10 and report.prompt_times_faster.value > 3:
            break
    assert report.times_faster.value > 10 and report.prompt_times_faster.value > 3
    assert "random weights" in report.peer.label and "times faster" in report.to_text()


def test_a_rivals_files_run_as_its_graphs_do(
    small_peer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graphs = load_peer(small_peer)
    (tmp_path / "e.onnx").write_bytes(graphs.encoder)
    (tmp_path / "d.onnx").write_bytes(graphs.decoder)
    arguments = ["bench", "--peer-onnx", str(tmp_path / "e.onnx"), str(tmp_path / "d.onnx"), "--rounds", "3"]
    assert main([*arguments, "--engine", "onnxruntime", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "e.onnx and d.onnx" in found["peer"]["label"] and len(found["peer"]["samples_ms"]) == 3
    # SAM's decoder is in both: it alone takes longer than our prompt.
    assert found["prompt_times_faster"]["value"] > 1 and found["times_faster"]["value"] > 0


def test_wrong_peers_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--peer", "nobody", "--engine", "fake"]) == 2
    assert main(["bench", "--peer", "mobilesam", "--all", "--engine", "fake"]) == 2
    assert main(["bench", "--peer-onnx", "a.onnx", "b.onnx", "--engine", "fake"]) == 2
    (tmp_path / "a.onnx").write_bytes(b"junk")
    assert main(["bench", "--peer-onnx", str(tmp_path / "a.onnx"), str(tmp_path / "a.onnx"), "--engine", "fake"]) == 3
    assert capsys.readouterr().err.count("tinyseg: ") == 4
    with pytest.raises(tinyseg.DataError, match="has an input 'noise'"):
        decoder_feed("noise", np.zeros((1, 256, 64, 64), np.float32))


def test_sam2_runs_beside_us(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its smallest size, cut down to a few blocks: the plumbing, not the figure."""
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f"{package} is not installed (pip install 'tinyseg[baseline]')")
    few = baseline.HieraSize(32, 1, (1, 1, 2, 1), (3, 3, 3), (8, 4, 14, 7), 7)
    monkeypatch.setitem(baseline.SIZES, "tiny", few)
    arguments = ["bench", "--baseline", "tiny", "--random-weights", "--rounds", "3", "--engine", "onnxruntime"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "SAM 2 Hiera tiny (random weights)" in printed and "130.1 images/s" in printed and "times faster" in printed


def test_wrong_baselines_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="torch is not installed (TINYSEG_TORCH=none)")
    pytest.importorskip("transformers", reason="transformers is not installed (pip install 'tinyseg[baseline]')")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["bench", "--baseline", "huge", "--random-weights", "--engine", "fake"]) == 2
    assert main(["bench", "--baseline", "tiny", "--engine", "fake"]) == 2
    assert main(["bench", "--baseline", str(tmp_path), "--engine", "fake"]) == 2
    assert capsys.readouterr().err.count("tinyseg: ") == 3
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(tinyseg.NotInstalled, match=r"tinyseg\[baseline\]"):
        baseline.load_baseline("tiny", True)


def test_a_baseline_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    """The library would fill them at random."""
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f"{package} is not installed (pip install 'tinyseg[baseline]')")
    model = baseline.build(baseline.HieraSize(32, 1, (1, 1, 2, 1), (3, 3, 3), (8, 4, 14, 7), 7))
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("mask_decoder.")}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(tinyseg.TinysegError, match="weights are missing"):
        baseline.load_baseline(str(tmp_path), False)


def test_the_sizes_are_sam2s() -> None:
    """Hiera-B+ has 80.8 M parameters with its decoder in the paper's table; counted without running it."""
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[baseline]')")
    pytest.importorskip("transformers", reason="transformers is not installed (pip install 'tinyseg[baseline]')")
    with torch.device("meta"):
        model = baseline.build(baseline.SIZES["base-plus"])
    image_encoder = sum(p.numel() for p in model.vision_encoder.parameters())
    assert 68e6 < image_encoder < 71e6
