"""libtinyseg with TensorRT: its adapter on a stand-in for TensorRT and CUDA's driver, and compiled against NVIDIA's headers."""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import filelock
import numpy as np
import pytest

import tinyseg
from tests.native.test_c_library import MODEL, PROMPTS, SIZE, engine_place, photo, require_same, run
from tinyseg import Prompt
from tinyseg.bench.c_api import CLibrary, CLibraryError, CSession
from tinyseg.engines.base import concrete_shapes
from tinyseg.geometry import letterbox
from tinyseg.graphs.model import open_model
from tinyseg.graphs.shapes import graph_shapes
from tinyseg.predict.workspace import Workspace
from tinyseg.system.c_library import NAME

HERE = Path(__file__).parent / "c" / "tensorrt"
# As native/capi/engine.hpp orders them.
DIMENSIONS = ("prompts", "points", "height", "width", "rows4", "columns4", "rows8", "columns8", "rows16", "columns16")
IDENTITY = {
    "engine": "tensorrt", "version": "10.3.0.26", "precision": "fp32", "dla": "none", "device": "Stand-in GPU",
    "compute_capability": "8.7", "driver": "12060",
}  # fmt: skip


class Facts(ctypes.Structure):
    """What the stand-in counts, and what it is told to do wrong."""

    _fields_ = tuple(
        (name, ctypes.c_int32)
        for name in (
            "pushed", "allocations", "streams", "engines", "contexts", "copied_in", "copied_out", "runs", "devices",
            "fail_allocation", "fail_run", "library_version",
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(root: Path) -> Path:
    """A folder with the library with TensorRT, built for the stand-in's headers, and the stand-in."""
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("cmake or a C++ compiler is not installed")
    build, native = root / "build" / "c-tensorrt", root / "native"
    build.parent.mkdir(exist_ok=True)
    headers = (f"-DTENSORRT_INCLUDE={HERE}", f"-DCUDA_INCLUDE={HERE}")
    # The stand-in runs ONNX as the library does, and shares nothing else with it.
    needed = ("onnxruntime", "library", "processor", "sha256")
    sources = (HERE / "stand_in.cpp", *(native / "capi" / f"{name}.cpp" for name in needed))
    flags = ("-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-I", native / "include")
    with filelock.FileLock(build.with_suffix(".lock")):
        run("cmake", "-S", native, "-B", build, "-DTINYSEG_TENSORRT=ON", "-DCMAKE_CXX_FLAGS=-Werror", *headers)
        run("cmake", "--build", build, "--parallel", "2")
        made = build / "libstand_in.so"
        if not made.exists() or made.stat().st_mtime < max(s.stat().st_mtime for s in sources):
            run("c++", *flags, *sources, "-o", made, "-ldl")
    return build


@pytest.fixture(scope="module")
def facts(built: Path) -> Facts:
    calls = ctypes.CDLL(str(built / "libstand_in.so"))
    calls.stand_in_facts.restype = ctypes.POINTER(Facts)
    found: Facts = calls.stand_in_facts().contents
    return found


@pytest.fixture
def library(built: Path, monkeypatch: pytest.MonkeyPatch) -> CLibrary:
    monkeypatch.setenv("TINYSEG_ONNXRUNTIME", str(engine_place("onnxruntime")))
    monkeypatch.setenv("TINYSEG_TENSORRT", str(built / "libstand_in.so"))
    monkeypatch.setenv("TINYSEG_CUDA", str(built / "libstand_in.so"))
    return CLibrary(built / NAME)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``tinyseg compile MODEL --engine tensorrt --size 200x120 --prompts 1 2 --out DIR`` writes, with stand-in engines."""
    folder = tmp_path_factory.mktemp("compiled") / "model"
    shutil.copytree(MODEL, folder)
    model = open_model(MODEL)
    rows = []
    for name, shapes in graph_shapes(letterbox(*SIZE, model.long_side), model.zoom.side, [1, 2]).items():
        graph = model.graphs[name]
        for i, dimensions in enumerate(shapes):
            lines = [f"stand-in {name} " + " ".join(str(dimensions.get(d, 0)) for d in DIMENSIONS)]
            for mode, tensors in (("in", graph.inputs), ("out", graph.outputs)):
                for tensor, shape in concrete_shapes(tensors, dimensions).items():
                    lines.append(f"{mode} {tensor} 0 {len(shape)} " + " ".join(map(str, shape)))
            blob = "\n".join([*lines, "graph\n"]).encode() + graph.data
            file = f"{name}-{i}.engine"
            (folder / file).write_bytes(blob)
            checksum = hashlib.sha256(blob).hexdigest()
            named = {
                d for shape in (*graph.inputs.values(), *graph.outputs.values()) for d in shape if isinstance(d, str)
            }
            used = {name: size for name, size in dimensions.items() if name in named}
            rows.append({"graph": name, "dimensions": used, "file": file, "sha256": checksum, "bytes": len(blob)})
    edit_card(folder, lambda card: card.update(compiled={
        "made_with": "tinyseg", "engine": "tensorrt", "precision": "fp32", "identity": IDENTITY, "engines": rows,
    }))  # fmt: skip
    return folder


def edit_card(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    card = json.loads((folder / "model.json").read_text())
    change(card)
    (folder / "model.json").write_text(json.dumps(card))


def test_masks_are_those_of_the_engine_bit_for_bit(library: CLibrary, compiled: Path, facts: Facts, root: Path) -> None:
    session = CSession(library, library.open(compiled, "tensorrt", "fp32", 1))
    told = library.calls.tinyseg_describe(session.model).decode()
    assert told.endswith(" on tensorrt 10.3.0, fp32, Stand-in GPU")
    seg = tinyseg.load(MODEL, "onnxruntime", "fp32", threads=1)
    frame = photo(root)
    emb = seg.embed(frame)
    session.embed(frame)
    for name, prompt in PROMPTS.items():  # with second looks
        out = session.answer_for(*SIZE, 3)
        if name == "box and clicks":  # compiled folders have decoders of four points
            with pytest.raises(
                CLibraryError, match=r"no engine of the decoder for prompts 1, points 16,.* 4 points a prompt"
            ):
                session.predict(prompt, out, "auto")
            continue
        session.predict(prompt, out, "auto")
        require_same(out, emb.predict(prompt.points, prompt.labels, prompt.box, None, True, "auto"))
    prompts = [Prompt(box=(40, 10, 160, 118)), Prompt([[100, 40]], [1])]
    pair, workspace = session.answer_for(*SIZE, 2), Workspace()
    session.run(frame, prompts, pair)
    expected = seg.run(frame, prompts, workspace)
    np.testing.assert_array_equal(pair.masks, np.concatenate([m.masks for m in expected]).view(np.uint8))
    # Features stay on the device: a step copies the frame and five prompt tensors at most in, logits and scores out.
    before = facts.copied_in, facts.copied_out, facts.runs, facts.allocations
    session.run(frame, prompts, pair)
    after = facts.copied_in, facts.copied_out, facts.runs, facts.allocations
    assert [b - a for a, b in zip(before, after)] == [1 + 4, 2, 2, 0]
    assert facts.pushed == 0  # whoever shares the context finds what was current
    session.close()
    assert (facts.allocations, facts.streams, facts.engines, facts.contexts) == (0, 0, 0, 0)


def test_what_is_refused(library: CLibrary, compiled: Path, facts: Facts, root: Path, tmp_path: Path) -> None:
    def refused(
        code: str, *words: str, folder: Path = compiled, precision: str = "fp32", size: tuple[int, int] = SIZE
    ) -> None:
        with pytest.raises(CLibraryError) as told:
            session = CSession(library, library.open(folder, "tensorrt", precision, 1))
            try:
                session.embed(photo(root, size))
            finally:
                session.close()
        assert told.value.status == code, told.value
        for word in words:
            assert word in str(told.value), told.value
        assert facts.pushed == 0 and (facts.allocations, facts.streams, facts.engines, facts.contexts) == (0, 0, 0, 0)

    refused("TINYSEG_MODEL_ERROR", "tinyseg compile MODEL --engine tensorrt", folder=MODEL)
    refused("TINYSEG_PRECISION_UNAVAILABLE", "fp16", folder=MODEL, precision="bf16")
    refused("TINYSEG_WRONG_DEVICE", "was compiled for tensorrt in fp32", precision="fp16")
    refused("TINYSEG_MODEL_ERROR", "no engine of the encoder", "width", "--size WxH", size=(120, 200))
    facts.fail_allocation = 1
    refused("TINYSEG_OUT_OF_MEMORY", "the GPU's memory is full")
    facts.fail_allocation, facts.fail_run = 0, 1
    refused("TINYSEG_ENGINE_ERROR", "does not run the encoder", "told to fail")
    facts.fail_run = 0

    def changed(name: str, change: Callable[[Path], object]) -> Path:
        folder = tmp_path / name
        shutil.copytree(compiled, folder)
        change(folder)
        return folder

    def respell(folder: Path, pattern: bytes, text: bytes) -> None:
        """Another engine of the encoder, with a checksum that fits."""
        for file in sorted(folder.glob("encoder-*.engine")):
            head, mark, graph = file.read_bytes().partition(b"graph\n")
            file.write_bytes(re.sub(pattern, text, head, count=1) + mark + graph)

        def sums(card: dict[str, object]) -> None:
            for row in card["compiled"]["engines"]:  # type: ignore[index]
                row["sha256"] = hashlib.sha256((folder / row["file"]).read_bytes()).hexdigest()

        edit_card(folder, sums)

    for i, (pattern, text, word) in enumerate((
        (rb"stand-in", b"of-another", "of another version; compile the model again on this device"),
        (rb"in image 0", b"in image 1", "another type than float32"), (rb"in image", b"in picture", "does not have it"),
        (rb"in image 0 4 1 3 \d+", b"in image 0 4 1 3 999", "not built for this shape"),
        (rb"(out \w+ 0 4 1) \d+", rb"\1 999", "gives another shape"),
        (rb"$", b"in more 0 1 1\n", "other inputs and outputs"),
    )):  # fmt: skip
        status = "TINYSEG_ENGINE_ERROR" if i == 0 else "TINYSEG_MODEL_ERROR"
        refused(status, word, folder=changed(f"respelt-{i}", lambda f, p=pattern, t=text: respell(f, p, t)))  # type: ignore[misc]
    damaged = changed("damaged", lambda f: (f / "encoder-0.engine").write_bytes(b"stand-in"))
    refused("TINYSEG_MODEL_ERROR", "encoder-0.engine is damaged", folder=damaged)
    for key, value in (("driver", "13020"), ("device", "Orin"), ("version", "10.3.1"), ("dla", "0")):

        def elsewhere(card: dict[str, object], key: str = key, value: str = value) -> None:
            card["compiled"]["identity"][key] = value  # type: ignore[index]

        folder = changed(f"elsewhere-{key}", lambda f, e=elsewhere: edit_card(f, e))  # type: ignore[misc]
        refused("TINYSEG_WRONG_DEVICE", f"{key} was {value}, here it is", folder=folder)
    for i, (row, word) in enumerate((
        ({"file": "../encoder.engine"}, "plain file name"), ({"dimensions": {"breadth": 1}}, "unknown name breadth"),
        ({"dimensions": {"width": -1}}, "whole number"), ({"graph": None}, "graph must be"),
    )):  # fmt: skip

        def spoil(card: dict[str, object], row: dict[str, object] = row) -> None:
            card["compiled"]["engines"][0].update(row)  # type: ignore[index]

        spoiled = changed(f"spoiled-{i}", lambda f, s=spoil: edit_card(f, s))  # type: ignore[misc]
        refused("TINYSEG_MODEL_ERROR", "compiled.engines[0]", word, folder=spoiled)


def test_missing_and_wrong_libraries(root: Path, built: Path, compiled: Path, tmp_path: Path) -> None:
    # In processes of their own: which library serves is settled when the first one opens.
    code = (
        "import ctypes, sys\n"
        "from pathlib import Path\n"
        "from tinyseg.bench.c_api import CLibrary, CLibraryError\n"
        "from tests.native.test_c_tensorrt import Facts\n"
        "library, stand_in, model, fact, value = sys.argv[1:]\n"
        "if fact:\n"
        "    calls = ctypes.CDLL(stand_in)\n"
        "    calls.stand_in_facts.restype = ctypes.POINTER(Facts)\n"
        "    setattr(calls.stand_in_facts().contents, fact, int(value))\n"
        "try:\n"
        "    CLibrary(Path(library)).open(Path(model), 'tensorrt', 'fp32', 1)\n"
        "except CLibraryError as exc:\n"
        "    print(exc.status, exc)\n"
    )
    stand_in = built / "libstand_in.so"
    for environment, fact, value, words in (
        ({"TINYSEG_CUDA": str(tmp_path / "none.so")}, "", "", ("TINYSEG_ENGINE_MISSING", "CUDA's driver", "TINYSEG_CUDA")),
        ({"TINYSEG_TENSORRT": str(tmp_path / "none.so")}, "", "", ("TINYSEG_ENGINE_MISSING", "pip install tensorrt")),
        ({}, "library_version", "110100", ("TINYSEG_ENGINE_MISSING", "built for TensorRT 10", "11.1.0")),
        ({}, "devices", "0", ("TINYSEG_ENGINE_ERROR", "sees no GPU")),
    ):  # fmt: skip
        both = {
            "PYTHONPATH": str(root),
            "TINYSEG_CUDA": str(stand_in),
            "TINYSEG_TENSORRT": str(stand_in),
            **environment,
        }
        told = run(sys.executable, "-c", code, built / NAME, stand_in, compiled, fact, value, **both)
        for word in words:
            assert word in told


def test_compiles_against_nvidias_headers(root: Path) -> None:
    """scripts/tensorrt-headers gets them."""
    folders = sorted((root / "build" / "tensorrt-headers").glob("tensorrt-*"))
    if not folders:
        pytest.skip("TensorRT's headers are not here (scripts/tensorrt-headers gets them)")
    cuda = root / "build" / "tensorrt-headers" / "cuda"
    for folder in folders:
        flags = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", root / "native" / "include")
        command = ("c++", *flags, "-isystem", folder, "-isystem", cuda, root / "native" / "capi" / "tensorrt.cpp")
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{folder.name}: {done.stderr[:2000]}"
