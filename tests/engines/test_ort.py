"""ONNX Runtime beyond the CPU provider: what can be shown without its devices."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import onnxruntime
import pytest

import tinyseg
from tinyseg.engines import cpu, create_engine, ort
from tinyseg.engines.quiet import CPUINFO, held_back
from tinyseg.geometry import letterbox
from tinyseg.graphs.model import open_model
from tinyseg.graphs.shapes import graph_shapes
from tinyseg.predict.segmenter import Segmenter


@pytest.mark.parametrize("device", [d for d in ort.DEVICES if d != "cpu"])
def test_a_provider_that_this_build_lacks_is_told(device: str) -> None:
    if ort.PROVIDERS[device][0] in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has the {device} provider")
    with pytest.raises(
        tinyseg.EngineNotInstalled, match=rf"has no {ort.PROVIDERS[device][0]}.*pip install onnxruntime"
    ):
        tinyseg.load(engine=f"onnxruntime:{device}")


def test_unknown_devices() -> None:
    with pytest.raises(tinyseg.UnknownEngine, match="has no device 'tpu'; known are onnxruntime:cpu, onnxruntime:cuda"):
        create_engine("onnxruntime:tpu", "auto", 1)
    with pytest.raises(tinyseg.UnknownEngine, match="known are openvino:cpu, openvino:gpu, openvino:npu"):
        create_engine("openvino:dla", "auto", 1)


def test_a_device_that_openvino_does_not_see() -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed (pip install 'tinyseg[openvino]')")
    if "NPU" in openvino.Core().available_devices:
        pytest.skip("this machine has an NPU")
    with pytest.raises(tinyseg.EngineError, match=r"openvino sees no NPU here, only .*CPU"):
        tinyseg.load(engine="openvino:npu")


def test_falling_back_to_the_processor_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ort.PROVIDERS, "cuda", ("CUDAExecutionProvider", "onnxruntime-gpu"))
    monkeypatch.setattr(ort.ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    real = ort.ort.InferenceSession

    def falls_back(data: bytes, options: Any, providers: Any) -> Any:
        assert providers[0][0] == "CUDAExecutionProvider"
        return real(data, options, providers=["CPUExecutionProvider"])  # as it does where libcublas is missing

    monkeypatch.setattr(ort.ort, "InferenceSession", falls_back)
    engine = create_engine("onnxruntime:cuda", "fp32", 1).engine
    with pytest.raises(tinyseg.EngineError, match="could not start CUDAExecutionProvider and would use CPU"):
        engine.compile(open_model(None).graphs["encoder"], {"height": 64, "width": 64})


def test_bound_sessions_keep_features_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of GPUs, with the processor's memory as the device."""
    monkeypatch.setitem(ort.ON_DEVICE, "cpu", "cpu")
    model = open_model(None)
    engine = create_engine("onnxruntime", "fp32", 2).engine
    seg = Segmenter(model, engine.compile, "test")
    rng = np.random.default_rng(0)
    frame, other = (rng.integers(0, 255, (96, 160, 3), np.uint8) for _ in range(2))
    emb = seg.embed(frame)
    assert all(isinstance(f, ort.OrtTensor) for f in emb.features.values())
    before = np.asarray(emb.features["embedding"]).copy()
    seg.embed(other)
    out = emb.predict(points=[[80, 40]], labels=[1])
    monkeypatch.undo()
    expected = tinyseg.load(engine="onnxruntime", precision="fp32").embed(frame).predict(points=[[80, 40]], labels=[1])
    assert np.array_equal(np.asarray(emb.features["embedding"]), before)
    np.testing.assert_allclose(out.logits, expected.logits, atol=1e-4)


def test_half_precision_graphs_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "HALF", ("cpu",))
    pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[compile]')")
    engine = create_engine("onnxruntime", "fp16", 2).engine
    graph = open_model(None).graphs["encoder"]
    dimensions = graph_shapes(letterbox(160, 96, 160), 128, [1])["encoder"][0]
    image = {"image": np.random.default_rng(0).normal(size=(1, 3, 96, 160)).astype(np.float32)}
    found = engine.compile(graph, dimensions).run(image)["embedding"]
    expected = create_engine("onnxruntime", "fp32", 2).engine.compile(graph, dimensions).run(image)["embedding"]
    assert found.dtype == np.float32 and 0 < np.abs(found - expected).mean() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("needed", [True, False])
def test_exact_int8_sums_are_asked_for_where_they_are_not_exact_by_themselves(
    needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the option int8 graphs fail the gate on AVX2 alone; with it they take twice the time where AMX is.

    It is part of what a built engine depends on, and the sums, and so every bit, are the same either way where the
    processor's own are exact.
    """
    graph = open_model(None).variant("int8")["encoder"]
    dimensions = graph_shapes(letterbox(160, 96, 160), 128, [1])["encoder"][0]
    image = {"image": np.random.default_rng(0).normal(size=(1, 3, 96, 160)).astype(np.float32)}
    exact = not cpu.int8_may_saturate()
    plain = create_engine("onnxruntime", "int8", 1).engine.compile(graph, dimensions).run(image)["embedding"]
    monkeypatch.setattr(ort.cpu, "int8_may_saturate", lambda: needed)
    engine = create_engine("onnxruntime", "int8", 1).engine
    assert engine.identity().get("session.x64quantprecision") == ("1" if needed else None)
    found = engine.compile(graph, dimensions).run(image)["embedding"]
    if exact or needed:
        np.testing.assert_array_equal(found, plain)


def test_noise_while_loading_is_held_back_and_nothing_else(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The lines that ONNX Runtime writes on an Arm machine whose /sys is hidden; from C, past Python's own stream."""
    noise = [
        "Error in cpuinfo: failed to parse both lists of possible and present processors",
        "onnxruntime cpuid_info warning: Unknown CPU vendor. cpuinfo_vendor value: 0",
    ]
    with caplog.at_level("DEBUG", logger="tinyseg.engines"), held_back(CPUINFO):
        for line in (*noise, "something else", "Error in cpuinfo"):
            os.write(2, f"{line}\n".encode())
    told = capfd.readouterr().err.splitlines()
    if sys.platform == "linux":
        assert told == ["something else", "Error in cpuinfo"] and all(line in caplog.text for line in noise)
    with pytest.raises(ImportError), held_back(CPUINFO):
        os.write(2, b"why\n")
        raise ImportError
    assert "why" in capfd.readouterr().err
