from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import tinyseg
from tinyseg import engines
from tinyseg.engines.base import concrete_shapes
from tinyseg.errors import engine_errors
from tinyseg.geometry import letterbox
from tinyseg.graphs.model import open_model
from tinyseg.graphs.shapes import prompt_dimensions

# Largest differences from ONNX Runtime in fp32, relative to each output's range. bf16 keeps 8 bits of mantissa and
# rounds at every layer.
TOLERANCES = {"fp32": 2e-3, "bf16": 0.15}


def random_feeds(graph: Any, dimensions: dict[str, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = concrete_shapes(graph.inputs, dimensions)
    feeds = {n: rng.normal(0, 0.5, s).astype(np.float32) for n, s in shapes.items()}
    if "labels" in feeds:
        feeds["labels"][:] = [2, 3, 1, -1]
        feeds["points"][:] = [[20, 30], [90, 100], [50, 60], [0, 0]]
        feeds["has_mask"][:] = 1
    return feeds


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_engines_agree(precision: str, name: str) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed (pip install 'tinyseg[openvino]')")
    try:
        other = engines.create_engine("openvino", precision, 2).engine
    except tinyseg.PrecisionUnavailable as exc:
        pytest.skip(str(exc))
    graph = open_model(None).graphs[name]
    dimensions = prompt_dimensions(letterbox(192, 128, 192), 3)
    feeds = random_feeds(graph, dimensions)
    expected = engines.create_engine("onnxruntime", "fp32", 2).engine.compile(graph, dimensions).run(feeds)
    compiled = other.compile(graph, dimensions)
    found = compiled.run(feeds)
    assert compiled.info.precision == precision
    shapes = concrete_shapes(graph.outputs, dimensions)
    for output, array in expected.items():
        assert found[output].shape == array.shape == shapes[output] and found[output].dtype == np.float32
        assert np.abs(found[output] - array).max() <= TOLERANCES[precision] * np.abs(array).max()


def test_results_belong_to_the_caller(real: tinyseg.Segmenter) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(2))
    kept = real.embed(first).features
    copies = {n: a.copy() for n, a in kept.items()}
    real.embed(second)
    for name, array in kept.items():
        np.testing.assert_array_equal(array, copies[name])


def test_auto_takes_the_best_installed_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    real_find = importlib.util.find_spec

    def without_openvino(name: str, *rest: Any) -> Any:
        return None if name == "openvino" else real_find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without_openvino)
    choice = engines.create_engine("auto", "auto", 1)
    assert choice.engine.name == "onnxruntime"
    assert "openvino not installed" in choice.reason and "pip install" in choice.reason
    with pytest.raises(tinyseg.EngineNotInstalled, match="pip install 'tinyseg"):
        engines.create_engine("openvino", "auto", 1)


def test_nothing_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(tinyseg.EngineNotInstalled, match="pip install onnxruntime"):
        engines.create_engine("auto", "auto", None)


@pytest.mark.parametrize(
    "engine, precision, error",
    [
        ("tensorflow", "auto", tinyseg.UnknownEngine),
        ("", "auto", tinyseg.UnknownEngine),
        ("onnxruntime", "fp8", tinyseg.PrecisionUnavailable),
        ("onnxruntime", "bf16", tinyseg.PrecisionUnavailable),
        ("fake", "int8", tinyseg.PrecisionUnavailable),
    ],
)
def test_unknown_names_are_refused(engine: str, precision: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"known are|must be one of|offers") as caught:
        tinyseg.load(engine=engine, precision=precision)
    assert isinstance(caught.value, tinyseg.TinysegError)


def test_a_graph_that_no_engine_reads_is_one_clear_error() -> None:
    graph = engines.GraphSource("encoder", b"not an onnx graph", {"image": (1, 3, 32, 32)}, {"embedding": (1,)})
    for name in ("onnxruntime", "openvino"):
        if importlib.util.find_spec(name) is None:
            continue
        with pytest.raises(tinyseg.EngineError, match=f"{name} failed while compiling the encoder"):
            engines.create_engine(name, "fp32", 1).engine.compile(graph, {})


def test_vendor_errors_are_wrapped_with_their_cause() -> None:
    with (
        pytest.raises(tinyseg.EngineError, match="x failed while testing: boom") as caught,
        engine_errors("x", "testing"),
    ):
        raise RuntimeError("boom\nsecond line")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_importing_tinyseg_imports_no_engine_and_no_torch() -> None:
    code = "import sys, tinyseg, tinyseg.cli; print([m for m in ('torch', 'onnxruntime', 'openvino', 'onnx') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_running_imports_no_torch() -> None:
    code = (
        "import sys, numpy, tinyseg; seg = tinyseg.load(engine='onnxruntime');"
        "seg.embed(numpy.zeros((64, 64, 3), 'uint8')).predict(box=[1, 1, 30, 30]);"
        "print('torch' in sys.modules, 'openvino' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False False"
