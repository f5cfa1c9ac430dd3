from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import tinyseg
from tinyseg.bench.measure import Timing, alternate, ratio
from tinyseg.bench.rivals import compare_predict, load_peer, peer_calls


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


def test_mobilesams_architecture_has_the_papers_size_and_shapes() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[peers]')")
    from tinyseg.bench import peers  # noqa: PLC0415 - needs torch

    encoder, decoder = peers.MobileSamEncoder(), peers.SamDecoder()
    # 6.1 M without the doubled attention biases, which TinyViT stores once per offset; SAM's decoder has 4.06 M.
    biases = sum(p.numel() for n, p in encoder.named_parameters() if n.endswith("attention.bias"))
    assert 5.5e6 < sum(p.numel() for p in encoder.parameters()) - biases < 6.2e6
    assert 3.9e6 < sum(p.numel() for p in decoder.parameters()) < 4.2e6
    with torch.inference_mode():
        features = encoder.eval()(torch.zeros(1, 3, 1024, 1024))
    assert features.shape == (1, 256, 64, 64)


def test_we_are_many_times_faster_than_mobilesam() -> None:
    """The project's reason to exist, with room for a noisy machine: the README's figure is above 20."""
    pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[peers]')")
    report = compare_predict(tinyseg.load(engine="onnxruntime"), "mobilesam", 3)
    assert report.times_faster.value > 10 and report.prompt_times_faster.value > 3
    assert "random weights" in report.peer.label and "times faster" in report.to_text()


def test_peer_calls_run(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[peers]')")
    encode, decode = peer_calls(load_peer("mobilesam"), 2)
    assert set(encode()) == {"features"} and set(decode()) == {"masks", "iou"}  # type: ignore[call-overload]
