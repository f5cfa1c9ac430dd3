"""TensorRT: the adapter on a fake device, its calls against the real signatures, and NVIDIA's own builder."""

from __future__ import annotations

import inspect
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[compile]')")

import tinyseg
from tinyseg.cli import main
from tinyseg.engines import create_engine, trt
from tinyseg.engines.base import concrete_shapes
from tinyseg.engines.cudagraph import load_driver
from tinyseg.engines.lower import to_fp16, to_symmetric
from tinyseg.errors import EngineError, EngineNotInstalled, WrongDevice
from tinyseg.geometry import letterbox
from tinyseg.graphs.model import open_model
from tinyseg.graphs.parity import Reference, measure
from tinyseg.graphs.shapes import graph_shapes
from tinyseg.predict.load import graphs_for

from . import fake_trt

SHAPES = graph_shapes(letterbox(160, 96, 160), 128, [2])


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> fake_trt.CudaLibrary:
    """A machine with the fake GPU; returns its CUDA driver library."""
    monkeypatch.setattr(fake_trt, "GPU", fake_trt.Gpu())
    monkeypatch.setattr(fake_trt.Builder, "fail", "")
    for name, module in fake_trt.modules("11.4.0.106").items():
        monkeypatch.setitem(sys.modules, name, module)
    library = fake_trt.CudaLibrary()
    monkeypatch.setattr(trt, "load_driver", lambda: library)
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path / "cache"))
    return library


def frame() -> np.ndarray:
    image = np.full((96, 160, 3), 50, np.uint8)
    image[20:70, 40:110] = 210
    return image


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_masks_through_the_whole_adapter(precision: str) -> None:
    seg = tinyseg.load("small", "tensorrt", precision)
    expected = tinyseg.load("small", "onnxruntime", "fp32").embed(frame()).predict(box=(40, 20, 110, 70))
    emb = seg.embed(frame())
    out = emb.predict(box=(40, 20, 110, 70))
    assert seg.info.precision == precision and seg.info.device == "Fake RTX" and seg.info.engine_version == "11.4.0.106"
    iou = (out.masks[0] & expected.masks[0]).sum() / (out.masks[0] | expected.masks[0]).sum()
    assert iou > (0.9 if precision == "int8" else 0.99)
    # Features stay on the device, and still are what the encoder said after other frames were encoded.
    assert all(isinstance(f, trt.TrtTensor) for f in emb.features.values())
    before = np.asarray(emb.features["embedding"])
    seg.embed(255 - frame())
    assert np.array_equal(before, np.asarray(emb.features["embedding"]))
    assert np.array_equal(emb.predict(box=(40, 20, 110, 70)).logits, out.logits)
    assert fake_trt.GPU.stack == []  # every context that was pushed was popped


@pytest.mark.usefixtures("library")
def test_a_graph_is_captured_on_the_second_run_and_launched_afterwards() -> None:
    model = open_model(None)
    engine = create_engine("tensorrt", "fp32", None).engine
    runner = engine.compile(model.graphs["encoder"], SHAPES["encoder"][0]).runner()
    image = np.random.default_rng(0).normal(size=(1, 3, 96, 160)).astype(np.float32)
    events = fake_trt.GPU.events
    events.clear()
    first = np.asarray(runner.run({"image": image})["embedding"]).copy()
    assert events == ["run"]
    events.clear()
    second = np.asarray(runner.run({"image": image})["embedding"]).copy()
    capture = ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"]
    assert events == [*capture, "cuGraphLaunch", "run"]
    events.clear()
    other = np.asarray(runner.run({"image": image * 2})["embedding"]).copy()
    assert events == ["cuGraphLaunch", "run"]
    assert np.array_equal(first, second) and not np.array_equal(first, other)


@pytest.mark.usefixtures("library")
def test_threads_have_their_own_contexts() -> None:
    seg = tinyseg.load("small", "tensorrt", "fp32", streams=2)
    expected = seg.embed(frame()).predict(box=(40, 20, 110, 70)).logits
    wrong: list[int] = []

    def ask() -> None:
        for _ in range(3):
            # The fake driver's context stack is one for all threads, so only one runs at a time.
            with lock:
                if not np.array_equal(seg.embed(frame()).predict(box=(40, 20, 110, 70)).logits, expected):
                    wrong.append(1)

    lock = threading.Lock()
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_what_can_go_wrong(library: fake_trt.CudaLibrary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = open_model(None)
    graph, dimensions = model.graphs["encoder"], SHAPES["encoder"][0]
    engine = create_engine("tensorrt", "fp32", None).engine
    with pytest.raises(EngineError, match="TensorRT cannot read the encoder: not an ONNX graph"):
        engine.build(replace(graph, data=b"nonsense"), dimensions)
    blob = engine.build(graph, dimensions)
    assert list((tmp_path / "cache" / "timing").glob("11.4.0.106-Fake-RTX-13000.timing"))
    monkeypatch.setattr(fake_trt.Builder, "fail", "Out of memory")
    with pytest.raises(EngineError, match="could not build the encoder: Out of memory"):
        engine.build(graph, dimensions)
    monkeypatch.setattr(fake_trt.Builder, "fail", "")
    with pytest.raises(EngineError, match=r"was not built for image of shape \(1, 3, 128, 128\)"):
        engine.restore(blob, graph, SHAPES["encoder"][1]).runner()
    runner = engine.restore(blob, graph, dimensions).runner()
    with pytest.raises(EngineError, match="must have shape"):
        runner.run({"image": np.zeros((1, 3, 32, 32), np.float32)})
    image = {"image": np.zeros((1, 3, 96, 160), np.float32)}
    runner.run(image)
    library.refuse = "cuStreamBeginCapture_v2"
    with pytest.raises(EngineError, match="refused cuStreamBeginCapture_v2"):
        runner.run(image)
    fake_trt.GPU.name = "Another GPU"
    with pytest.raises(EngineError, match="refuses the encoder's engine: engine plan file is not compatible"):
        engine.restore(blob, graph, dimensions)
    assert fake_trt.GPU.stack == []


@pytest.mark.usefixtures("library")
def test_decoders_take_fewer_prompts_than_they_were_built_for() -> None:
    model = open_model(None)
    engine = create_engine("tensorrt", "fp32", None).engine
    two, one = SHAPES["decoder"][0], {**SHAPES["decoder"][0], "prompts": 1}
    blob = engine.build(model.graphs["decoder"], two)
    engine.restore(blob, model.graphs["decoder"], one).runner()


@pytest.mark.usefixtures("library")
def test_a_compiled_folder_is_refused_on_another_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "compiled"
    command = ["compile", "small", "--engine", "tensorrt", "--precision", "fp16", "--size", "160x96", "--out", str(out)]
    assert main(command) == 0
    seg = tinyseg.load(out)
    assert seg.embed(frame()).predict(box=(40, 20, 110, 70), multimask=False, zoom="off").masks.any()
    fake_trt.GPU.name = "Another GPU"
    with pytest.raises(WrongDevice, match="device was Fake RTX, here it is Another GPU"):
        tinyseg.load(out)


@pytest.mark.usefixtures("library")
def test_dla() -> None:
    engine = create_engine("tensorrt:dla1", "fp16", None).engine
    compiled = engine.compile(open_model(None).graphs["encoder"], SHAPES["encoder"][0])
    assert compiled.info.device == "Fake RTX, DLA 1" and engine.identity()["dla"] == "1"


@pytest.mark.usefixtures("library")
def test_missing_parts_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sys.modules["tensorrt"].__version__ = "8.6.1"  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match=r"TensorRT 8.6.1 is too old.*JetPack 6"):
        create_engine("tensorrt", "fp16", None)
    sys.modules["tensorrt"].__version__ = "10.3.0"  # type: ignore[attr-defined]
    assert create_engine("tensorrt", "fp16", None).engine.version == "10.3.0"
    fake_trt.GPU.devices = 0
    with pytest.raises(EngineError, match="CUDA sees no GPU"):
        create_engine("tensorrt", "fp16", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(EngineNotInstalled, match="pip install pycuda"):
        create_engine("tensorrt", "fp16", None)


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("tinyseg.engines.cudagraph.ctypes.CDLL", missing)
    with pytest.raises(EngineError, match="install the NVIDIA driver"):
        load_driver()


def signatures(root: Path) -> tuple[dict[str, dict[str, list[list[str]] | None]], dict[str, set[str]]]:
    """({class: {method: parameter names of every overload, None for a property}}, {enum: members}) of TensorRT 11.4."""
    classes: dict[str, dict[str, list[list[str]] | None]] = {}
    enums: dict[str, set[str]] = {}
    for line in (root / "tests" / "engines" / "tensorrt-11.4-api.txt").read_text().splitlines():
        if line.startswith("enum "):
            name, _, members = line.removeprefix("enum ").partition(": ")
            enums[name] = set(members.split())
        elif line.startswith("class "):
            methods = classes.setdefault(line.removeprefix("class "), {})
        elif line.startswith("    ."):
            methods[line.split()[0].removeprefix(".")] = None
        elif "(" in line and not line.startswith("#"):
            name = line.strip().partition("(")[0]
            overloads = re.findall(rf"{name}\((self[^)]*)\)", line)
            methods[name] = [re.findall(r"(?:^|, )(\w+): ", f", {o}")[1:] for o in overloads]
    return classes, enums


def test_the_fake_device_has_the_real_signatures(root: Path) -> None:
    """What the adapter calls exists on the fake device (or the tests above would fail), and so in TensorRT 11.4."""
    classes, enums = signatures(root)
    checked = 0
    for fake in fake_trt.API:
        real = classes[fake.__name__]
        for name, member in vars(fake).items():
            if name.startswith("_") or name in ("fail", "Severity", "typed", "graph"):
                continue
            assert name in real, f"TensorRT has no {fake.__name__}.{name}"
            overloads = real[name]
            if isinstance(member, property) or not callable(member):
                assert overloads is None, f"{fake.__name__}.{name} is a method"
                continue
            assert overloads is not None, f"{fake.__name__}.{name} is a property"
            parameters = list(inspect.signature(member).parameters)[1:]
            assert parameters in [o[: len(parameters)] for o in overloads], (fake.__name__, name, parameters, overloads)
            checked += 1
    assert checked >= 20
    for fake_enum in fake_trt.ENUMS:
        assert {m.name for m in fake_enum} <= enums[fake_enum.__name__]


@pytest.mark.parametrize("name", ["encoder", "decoder"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_nvidias_own_builder_takes_our_graphs(name: str, precision: str) -> None:
    """TensorRT for RTX compiles on a processor, ahead of time for a GPU that is not here: it is built, not run."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (pip install tensorrt-rtx)")
    model = open_model(None)
    graph = graphs_for(model, precision)[name]
    data = trt.typed_graph(graph, precision)
    built = trt.build_serialized(rtx, data, graph, SHAPES[name][0], compute_capability="SM89")
    assert len(built) > 100_000


def test_nvidias_own_builder_says_why_not() -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (pip install tensorrt-rtx)")
    graph = open_model(None).variant("int8")["encoder"]  # with zero points, which it does not take
    with pytest.raises(EngineError, match=r"TensorRT cannot read the encoder: .*zero point"):
        trt.build_serialized(rtx, graph.data, graph, SHAPES["encoder"][0], compute_capability="SM89")


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_typed_graphs_keep_the_masks(name: str) -> None:
    model = open_model(None)
    reference, engine = Reference(model), create_engine("onnxruntime", "fp32", 2).engine
    dimensions = SHAPES[name][0]
    for precision, data in (
        ("fp16", to_fp16(model.graphs[name].data)),
        ("int8", to_symmetric(model.variant("int8")[name].data)),
    ):
        compiled = engine.compile(replace(model.graphs[name], data=data), dimensions)
        parity = measure(reference, name, compiled, dimensions, precision)
        assert parity.passed, parity
        assert {n: a.dtype for n, a in compiled.run(zeros(model, name, dimensions)).items()} == dict.fromkeys(
            model.graphs[name].outputs, np.dtype(np.float32)
        )


def zeros(model: Any, name: str, dimensions: dict[str, int]) -> dict[str, np.ndarray]:
    shapes = concrete_shapes(model.graphs[name].inputs, dimensions)
    return {n: np.zeros(s, np.float32) for n, s in shapes.items()}


def test_float_graphs_cannot_be_made_symmetric() -> None:
    with pytest.raises(EngineError, match="quantize it first"):
        to_symmetric(open_model(None).graphs["encoder"].data)
    with pytest.raises(EngineError, match="reading a graph"):
        to_fp16(b"nonsense")
