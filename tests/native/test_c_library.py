"""libtinyseg: its header, what it exports, that its masks are Python's, what it says of bad input, and what it allocates."""

from __future__ import annotations

import ast
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import filelock
import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tinyseg import Prompt
from tinyseg.bench.c_api import BGR, GRAY, RGB, RGBA, Answer, CLibrary, CLibraryError, CSession, Image, c_prompt
from tinyseg.engines import offered_precisions
from tinyseg.errors import EngineNotInstalled
from tinyseg.graphs.model import MODELS, digest, open_model
from tinyseg.predict.workspace import Workspace
from tinyseg.system.c_library import NAME, engine_library

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the C library is for Linux")
MODEL = MODELS / "small"
SIZE = 200, 120
STRICT = ("-Wall", "-Wextra", "-pedantic", "-Werror")


@dataclass(frozen=True)
class Installed:
    """What `cmake --install` put into a folder of its own."""

    prefix: Path

    @property
    def library(self) -> Path:
        return self.prefix / "lib" / NAME

    @property
    def header(self) -> Path:
        return self.prefix / "include" / "tinyseg.h"


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(c) for c in command], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The library as the sources have it now, built once for all runs in the checkout's build folder."""
    for tool in ("cmake", "cc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    prefix = tmp_path_factory.mktemp("prefix")
    build = root / "build" / "c-library"
    build.parent.mkdir(exist_ok=True)
    with filelock.FileLock(build.with_suffix(".lock")):
        run("cmake", "-S", root / "native", "-B", build)
        run("cmake", "--build", build)
        run("cmake", "--install", build, "--prefix", prefix)
    return Installed(prefix)


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest) -> CLibrary:
    named = os.environ.get("TINYSEG_C_LIBRARY")  # of scripts/sanitize, with the sanitizers in it
    return CLibrary(Path(named) if named else request.getfixturevalue("installed").library)


def engine_place(engine: str) -> Path:
    try:
        return engine_library(engine)
    except EngineNotInstalled as exc:
        pytest.skip(str(exc))


EVERYWHERE = [("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "fp32")]
SOMEWHERE = [("openvino", "bf16"), ("openvino", "int8")]


@pytest.fixture(scope="session", params=EVERYWHERE + SOMEWHERE, ids=" ".join)
def both(request: pytest.FixtureRequest, library: CLibrary) -> Iterator[tuple[tinyseg.Segmenter, CSession]]:
    """The same model on the same engine, in Python and in C."""
    engine, precision = request.param
    place = engine_place(engine)
    if request.param in SOMEWHERE and precision not in offered_precisions(engine):
        pytest.skip(f"{engine} does not offer {precision} on this processor")
    session = CSession(library, library.open(MODEL, engine, precision, 1, place))
    yield tinyseg.load(MODEL, engine, precision, threads=1), session
    session.close()


@pytest.fixture(scope="session")
def session(library: CLibrary) -> Iterator[CSession]:
    made = CSession(library, library.open(MODEL, "onnxruntime", "fp32", 1, engine_place("onnxruntime")))
    yield made
    made.close()


def photo(root: Path, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    picture = cv2.imread(str(root / "examples" / "astronaut.jpg"))
    assert picture is not None
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def require_same(answer: Answer, masks: tinyseg.Masks) -> None:
    """Every bit: pixels, logits, scores, stability, areas, boxes, and where the second look was."""
    np.testing.assert_array_equal(answer.masks, masks.masks.view(np.uint8))
    np.testing.assert_array_equal(answer.logits, masks.logits)
    facts = answer.facts
    np.testing.assert_array_equal(np.array([f.score for f in facts], np.float32), masks.scores)
    np.testing.assert_array_equal(np.array([f.stability for f in facts], np.float32), masks.stability)
    assert [f.area for f in facts] == masks.areas.tolist() and [list(f.box) for f in facts] == masks.boxes.tolist()
    for f in facts:
        assert (tuple(f.zoom) if f.zoomed else None) == masks.zoom


PROMPTS = {
    "click": Prompt([[100, 40]], [1]),
    "small thing": Prompt([[126, 65]], [1]),
    "two clicks": Prompt([[100, 40], [10, 100]], [1, 0]),
    "box": Prompt(box=(40.5, 10, 160, 118.25)),
    "small box": Prompt(box=(70, 20, 95, 44)),
    "box past the edge": Prompt(box=(-20, -5, 90, 400)),
    "box and clicks": Prompt([[100, 40], [199, 119], [0, 0]], [1, 0, 0], box=(40, 10, 160, 118)),
    "small box and click": Prompt([[80, 30], [190, 100]], [1, 0], box=(70, 20, 95, 44)),
}


def test_masks_are_pythons_bit_for_bit(both: tuple[tinyseg.Segmenter, CSession], root: Path) -> None:
    seg, session = both
    frame = photo(root)
    emb = seg.embed(frame)
    session.embed(frame)
    looked_twice = 0
    for prompt in PROMPTS.values():
        for count in (1, 3):
            for zoom in ("auto", "off"):
                out = session.answer_for(*SIZE, count)
                session.predict(prompt, out, zoom)
                expected = emb.predict(prompt.points, prompt.labels, prompt.box, None, count == 3, zoom)
                require_same(out, expected)
                looked_twice += expected.zoom is not None
        hinted = Prompt(prompt.points, prompt.labels, prompt.box, expected.logits[0])
        for zoom in ("auto", "off"):
            out = session.answer_for(*SIZE, 1)
            session.predict(hinted, out, zoom)
            require_same(out, emb.predict(hinted.points, hinted.labels, hinted.box, hinted.mask, False, zoom))
    assert looked_twice >= 4


def test_a_hint_may_lie_where_its_answer_goes(session: CSession, root: Path) -> None:
    frame, points, labels = photo(root), [[165, 15]], [1]
    session.embed(frame)
    out = session.answer_for(*SIZE, 1)
    session.predict(Prompt(points, labels), out)
    emb = tinyseg.load(MODEL, "onnxruntime", "fp32", threads=1).embed(frame)
    expected = emb.predict(points, labels, mask=out.logits[0].copy(), multimask=False)
    assert expected.zoom is not None  # the first look's answer is written before the second look takes the hint
    again = Prompt(points, labels, None, out.logits[0])
    object.__setattr__(again, "mask", out.logits[0])  # not a copy
    session.predict(again, out)
    require_same(out, expected)


def test_the_step_of_a_loop_is_pythons(both: tuple[tinyseg.Segmenter, CSession], root: Path) -> None:
    seg, session = both
    workspace = Workspace()
    sizes = (SIZE, (120, 200), SIZE) if seg.info.precision == "fp32" and seg.info.engine == "onnxruntime" else (SIZE,)
    for i, size in enumerate(sizes):  # every shape on another engine is first compared with the reference
        frame = photo(root, size)
        width, height = size
        prompts = [
            Prompt(box=(width * 0.2, height * 0.1, width * 0.9, height * 0.95)),
            Prompt([[width // 2, height // 3]], [1]),
        ]
        prompts += [Prompt(box=(70, 20, 95, 44))] * i
        out = session.answer_for(width, height, len(prompts))
        for zoom in ("off", "auto"):
            expected = seg.run(frame, prompts, workspace, zoom=zoom)
            session.run(frame, prompts, out, zoom)
            for k, masks in enumerate(expected):
                one = slice(k, k + 1)
                facts = (type(out.facts[0]) * 1)(out.facts[k])
                require_same(Answer(out.masks[one], out.logits[one], facts), masks)


def test_more_prompts_than_a_call_takes(session: CSession, root: Path) -> None:
    frame = photo(root)
    rng = np.random.default_rng(0)
    prompts = [Prompt([[int(rng.integers(0, SIZE[0])), int(rng.integers(0, SIZE[1]))]], [1]) for _ in range(67)]
    out = session.answer_for(*SIZE, len(prompts))
    session.run(frame, prompts, out, "off")
    seg = tinyseg.load(MODEL, "onnxruntime", "fp32", threads=1)
    expected = seg.embed(frame).predict_batch(prompts)
    np.testing.assert_array_equal(out.masks, np.concatenate([m.masks for m in expected]).view(np.uint8))


def test_formats_and_strides(session: CSession, root: Path) -> None:
    frame = photo(root)
    out, other = session.answer_for(*SIZE, 1), session.answer_for(*SIZE, 1)
    box = [Prompt(box=(40, 10, 160, 118))]
    session.run(frame, box, out)
    wide = np.zeros((SIZE[1], SIZE[0] + 7, 3), np.uint8)
    wide[:, : SIZE[0]] = frame
    rgba = np.dstack([frame[..., ::-1], np.full(frame.shape[:2], 9, np.uint8)])
    upside_down = np.ascontiguousarray(frame[::-1])[::-1]  # bottom up: a negative stride
    for view, layout in (
        (wide[:, : SIZE[0]], BGR),
        (np.ascontiguousarray(frame[..., ::-1]), RGB),
        (rgba, RGBA),
        (upside_down, BGR),
    ):
        session.run(view, box, other, layout=layout)
        np.testing.assert_array_equal(other.masks, out.masks)
    grey = np.ascontiguousarray(frame[..., 1])
    session.run(grey, box, other, layout=GRAY)
    session.run(np.dstack([grey] * 3), box, out, layout=BGR)
    np.testing.assert_array_equal(other.masks, out.masks)


def test_several_threads(library: CLibrary, session: CSession, root: Path) -> None:
    frame = photo(root)
    out = session.answer_for(*SIZE, 1)
    prompts = [Prompt(box=(40, 10, 160, 118))]
    session.run(frame, prompts, out)
    same: list[bool] = []

    def work() -> None:
        handle = ctypes.c_void_p()
        library.check(library.calls.tinyseg_session_new(session.model, ctypes.byref(handle)))
        own = CSession.__new__(CSession)
        own.library, own.model, own.handle = library, session.model, handle
        answer = own.answer_for(*SIZE, 1)
        for _ in range(3):
            own.run(frame, prompts, answer)
            same.append(np.array_equal(answer.masks, out.masks))
        # Errors are each thread's own.
        with pytest.raises(CLibraryError, match="labels must be"):
            bad = Prompt([[5, 5]], [1])
            object.__setattr__(bad, "labels", np.array([7]))
            own.run(frame, [bad], answer)
        library.calls.tinyseg_session_free(handle)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 9


def test_bad_frames_and_prompts(library: CLibrary, session: CSession, root: Path) -> None:
    frame = photo(root)
    out = session.answer_for(*SIZE, 1)
    calls = library.calls

    def refused(status: int, code: str, *words: str) -> None:
        with pytest.raises(CLibraryError) as told:
            library.check(status)
        assert told.value.status == code
        for word in words:
            assert word in str(told.value), told.value

    invalid = "TINYSEG_INVALID_ARGUMENT"
    image = Image(frame.ctypes.data, *SIZE, 0, BGR)
    fresh = CSession(library, library.open(MODEL, "onnxruntime", "fp32", 1))
    _, good = c_prompt(Prompt([[5, 5]], [1]))
    refused(
        calls.tinyseg_predict(fresh.handle, ctypes.byref(good), 0, out.facts, 1), "TINYSEG_NOT_READY", "tinyseg_embed"
    )
    refused(calls.tinyseg_embed(None, ctypes.byref(image)), invalid, "session")
    refused(calls.tinyseg_embed(fresh.handle, None), invalid, "image")
    for spoiled, word in (
        (Image(None, *SIZE, 0, BGR), "NULL"), (Image(1, 0, 5, 0, BGR), "0 x 5"), (Image(1, 5, -1, 0, BGR), "5 x -1"),
        (Image(1, 16385, 5, 0, BGR), "16384"), (Image(1, 100, 5, 299, BGR), "row_stride"), (Image(1, *SIZE, 0, 9), "format"),
        (Image(1, *SIZE, (1 << 63) - 1, BGR), "row_stride"), (Image(1, *SIZE, -(1 << 63), BGR), "row_stride"),
    ):  # fmt: skip
        refused(calls.tinyseg_embed(fresh.handle, ctypes.byref(spoiled)), invalid, word)
    # A frame that was refused leaves no frame behind.
    fresh.embed(frame)
    calls.tinyseg_embed(fresh.handle, ctypes.byref(Image(1, 0, 5, 0, BGR)))
    assert calls.tinyseg_predict(fresh.handle, ctypes.byref(good), 0, out.facts, 1) == 0
    refused(calls.tinyseg_predict(fresh.handle, ctypes.byref(good), 0, out.facts, 2), invalid, "count must be 1")
    refused(calls.tinyseg_predict(fresh.handle, ctypes.byref(good), 5, out.facts, 1), invalid, "zoom")
    refused(calls.tinyseg_predict(fresh.handle, None, 0, out.facts, 1), invalid, "prompt")
    refused(calls.tinyseg_run(fresh.handle, ctypes.byref(image), None, 1, 0, out.facts), invalid, "prompts")
    missing = (type(out.facts[0]) * 1)()
    refused(calls.tinyseg_predict(fresh.handle, ctypes.byref(good), 0, missing, 1), invalid, "pixels")

    def asked(**parts: object) -> None:
        prompt = Prompt([[5, 5]], [1])
        for name, value in {"points": None, "labels": None, **parts}.items():
            object.__setattr__(prompt, name, value)
        fresh.predict(prompt, out)

    hint = np.zeros(out.logits.shape[1:], np.float32)
    hint[3, 3] = np.nan
    nan, inf = float("nan"), float("inf")
    for parts, word in (
        ({}, "empty"), ({"points": [[nan, 5]], "labels": [1]}, "finite"), ({"points": [[5, inf]], "labels": [1]}, "finite"),
        ({"points": [[201, 5]], "labels": [1]}, "(201, 5)"), ({"points": [[5, -1]], "labels": [1]}, "outside the frame of 200 x 120"),
        ({"points": [[5, 5]], "labels": [2]}, "labels must be"), ({"points": [[5, 5]]}, "labels"),
        ({"points": np.ones((255, 2)), "labels": np.ones(255)}, "254"), ({"box": (0, 0, nan, 5)}, "finite"),
        ({"box": (5, 0, 5, 5)}, "x0 < x1"), ({"box": (300, 0, 400, 5)}, "outside"), ({"mask": hint}, "hint must be finite"),
    ):  # fmt: skip
        with pytest.raises(CLibraryError, match=re.escape(word)) as told:
            asked(**parts)
        assert told.value.status == invalid
    with pytest.raises(CLibraryError, match="prompt 1: the box lies"):
        fresh.run(frame, [Prompt([[5, 5]], [1]), Prompt(box=(300, 0, 400, 5))], session.answer_for(*SIZE, 2))
    for width, height, prompts, points in ((0, 5, 1, 1), (5, 5, 0, 1), (5, 5, 1, 257), (5, 99999, 1, 1)):
        with pytest.raises(CLibraryError):
            status = calls.tinyseg_warm_up(
                fresh.handle, width, height, ctypes.c_size_t(prompts), ctypes.c_size_t(points)
            )
            library.check(status)
    fresh.close()
    calls.tinyseg_close(None)
    calls.tinyseg_session_free(None)
    assert calls.tinyseg_describe(None) == b"" and calls.tinyseg_status_name(99) == b"an unknown status"


def copied(model: Path, to: Path) -> Path:
    shutil.copytree(model, to)
    return to


def test_bad_models_and_engines(library: CLibrary, tmp_path: Path) -> None:
    place = engine_place("onnxruntime")

    def refused(
        code: str, *words: str, model: Path = MODEL, engine: str = "onnxruntime", precision: str = "fp32"
    ) -> None:
        with pytest.raises(CLibraryError) as told:
            library.open(model, engine, precision, 1, place)
        assert told.value.status == code, told.value
        for word in words:
            assert word in str(told.value), told.value

    refused("TINYSEG_INVALID_ARGUMENT", "no engine nonsense", "onnxruntime", engine="nonsense")
    refused("TINYSEG_INVALID_ARGUMENT", "precision must be", precision="int4")
    refused("TINYSEG_PRECISION_UNAVAILABLE", "fp32 and int8", precision="bf16")
    refused("TINYSEG_MODEL_ERROR", "there is no model", model=tmp_path / "none")
    (tmp_path / "m.zip").write_bytes(b"PK")
    refused("TINYSEG_MODEL_ERROR", "unpacked", model=tmp_path / "m.zip")
    (tmp_path / "empty").mkdir()
    refused("TINYSEG_MODEL_ERROR", "holds no model.json", model=tmp_path / "empty")
    damaged = copied(MODEL, tmp_path / "damaged")
    with (damaged / "decoder.onnx").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff\xff")
    refused("TINYSEG_MODEL_ERROR", "decoder.onnx is damaged", "get the model again", model=damaged)
    linked = copied(MODEL, tmp_path / "linked")
    (linked / "encoder.onnx").unlink()
    (linked / "encoder.onnx").symlink_to(MODEL / "encoder.onnx")
    refused("TINYSEG_MODEL_ERROR", "link", model=linked)
    float_only = copied(MODEL, tmp_path / "float")
    card = json.loads((float_only / "model.json").read_text())
    del card["precisions"]
    (float_only / "model.json").write_text(json.dumps(card))
    refused("TINYSEG_PRECISION_UNAVAILABLE", "carries no int8", "quantize", model=float_only, precision="int8")
    card["compiled"] = {
        "engine": "onnxruntime", "precision": "fp32", "engines": [],
        "identity": {"device": "aarch64-0123456789ab", "version": "1.0"},
    }  # fmt: skip
    (float_only / "model.json").write_text(json.dumps(card))
    refused("TINYSEG_WRONG_DEVICE", "aarch64-0123456789ab", "tinyseg compile MODEL", model=float_only)
    refused("TINYSEG_WRONG_DEVICE", "for onnxruntime in fp32", model=float_only, engine="openvino")
    for text, word in (("{", "not valid JSON"), ("[" * 50, "nested"), ("[]", "no object"), ('{"format": 2}', "format")):
        (float_only / "model.json").write_text(text)
        refused("TINYSEG_MODEL_ERROR", word, model=float_only)


def test_missing_and_wrong_libraries(installed: Installed, tmp_path: Path) -> None:
    # In a process of its own: which library serves an engine is settled when the first one opens.
    code = (
        "import ctypes, sys\n"
        "calls = ctypes.CDLL(sys.argv[1])\n"
        "class Options(ctypes.Structure):\n"
        "    _fields_ = [('size', ctypes.c_size_t)] + [(n, ctypes.c_char_p) for n in 'epl'] + [('threads', ctypes.c_int)]\n"
        "engine, place = (a.encode() for a in sys.argv[3:])\n"
        "options, model = Options(ctypes.sizeof(Options), engine, None, place, 1), ctypes.c_void_p()\n"
        "calls.tinyseg_last_error.restype = ctypes.c_char_p\n"
        "print(calls.tinyseg_open(sys.argv[2].encode(), ctypes.byref(options), ctypes.byref(model)))\n"
        "print(calls.tinyseg_last_error().decode())\n"
    )

    def told(engine: str, place: str, **environment: str) -> str:
        status, message = run(
            sys.executable, "-S", "-c", code, installed.library, MODEL, engine, place, **environment
        ).split("\n", 1)
        assert status == "3", message  # TINYSEG_ENGINE_MISSING
        return message

    nowhere = {"TINYSEG_ONNXRUNTIME": "", "TINYSEG_OPENVINO": ""}
    for engine, variable, command in (
        ("onnxruntime", "TINYSEG_ONNXRUNTIME", "pip install onnxruntime"),
        ("openvino", "TINYSEG_OPENVINO", "pip install 'tinyseg[openvino]'"),
    ):
        for answer in (told(engine, "", **nowhere), told(engine, "", **{variable: str(tmp_path / "none.so")})):
            assert command in answer and variable in answer
        (tmp_path / "text.so").write_text("no library")
        assert "text.so" in told(engine, str(tmp_path / "text.so"))
        # A library, but another one.
        assert "another library, or too old" in told(engine, str(installed.library))


# The process may use so many cores; Python's engine and libtinyseg are asked for so many threads.
OPENVINO_SETTINGS = """
import os, sys
from pathlib import Path
import tinyseg
from tinyseg.bench.c_api import CLibrary, CSession
from tinyseg.engines import create_engine
library, model, place, cores, threads = *map(Path, sys.argv[1:4]), *map(int, sys.argv[4:])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
print(create_engine("openvino", "fp32", threads).engine.identity(), flush=True)
calls = CLibrary(library)
session = CSession(calls, calls.open(model, "openvino", "fp32", threads, place))
calls.check(calls.calls.tinyseg_warm_up(session.handle, 64, 64, 1, 2))
"""


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (2, 2), (1, 2)])
def test_openvino_is_set_up_as_python_sets_it_up(
    cores: int, threads: int, root: Path, installed: Installed, tmp_path: Path
) -> None:
    """Every property of both, by a library that stands before OpenVINO's: bound to cores, one thread would be on the first."""
    if cores > len(os.sched_getaffinity(0)):
        pytest.skip(f"{cores} cores are needed")
    place = engine_place("openvino")
    before = tmp_path / "libopenvino_calls.so"
    link = ("-Wl,--no-as-needed", place, f"-Wl,-rpath,{place.parent}", "-ldl")
    run("cc", "-std=c99", *STRICT, "-fPIC", "-shared", root / "tests/native/c/openvino_calls.c", "-o", before, *link)
    code = ("-c", OPENVINO_SETTINGS, installed.library, MODEL, before, str(cores), str(threads))
    identity, *compiled = run(sys.executable, *code, PYTHONPATH=str(root)).splitlines()
    expected = ast.literal_eval(identity)
    assert len(compiled) >= 2  # encoder, decoder, and where the second look needs others
    for line in compiled:
        given = dict(word.split("=") for word in line.split())
        taken = given.pop("taken")
        bound = {"True": "YES", "False": "NO"}[expected["ENABLE_CPU_PINNING"]]
        assert given == {name: expected[name] for name in given} | {"ENABLE_CPU_PINNING": bound}
        assert len(given) == 5 and (taken == "NO" or bound == "YES")


def test_the_wheels_engine_is_found(installed: Installed, tmp_path: Path) -> None:
    place = engine_place("onnxruntime")
    site = tmp_path / "site-packages"
    (site / "tinyseg" / "lib").mkdir(parents=True)
    shutil.copy(installed.library, site / "tinyseg" / "lib")
    (site / "onnxruntime").symlink_to(place.parent.parent)
    code = (
        "import ctypes, sys\n"
        "calls, model = ctypes.CDLL(sys.argv[1]), ctypes.c_void_p()\n"
        "print(calls.tinyseg_open(sys.argv[2].encode(), None, ctypes.byref(model)))\n"
    )
    library = site / "tinyseg" / "lib" / NAME
    assert run(sys.executable, "-S", "-c", code, library, MODEL, TINYSEG_ONNXRUNTIME="").strip() == "0"


def test_the_header_is_c_and_cpp(installed: Installed, tmp_path: Path) -> None:
    source = tmp_path / "only.c"
    source.write_text('#include "tinyseg.h"\nint main(void) { return TINYSEG_OK; }\n')
    flags = (*STRICT, "-I", installed.header.parent, "-fsyntax-only")
    for standard in ("c89", "c99", "c11"):
        run("cc", f"-std={standard}", *flags, source)
    for standard in ("c++11", "c++17", "c++20"):
        run("c++", "-x", "c++", f"-std={standard}", *flags, source)


def test_only_our_names_are_exported(installed: Installed) -> None:
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    lines = run("nm", "-D", "--defined-only", installed.library).splitlines()
    exported = {line.split()[-1].partition("@")[0] for line in lines if line.split()[-2] in "TWVBDR"}
    declared = set(re.findall(r"^TINYSEG_API .*?(tinyseg_\w+)\(", installed.header.read_text(), re.M))
    assert exported == declared and len(declared) == 14


def test_examples_build_with_one_line_and_run(root: Path, installed: Installed, tmp_path: Path) -> None:
    build = tmp_path / "examples"
    run(
        "cmake",
        "-S",
        root / "examples" / "c",
        "-B",
        build,
        f"-DCMAKE_PREFIX_PATH={installed.prefix}",
        "-DCMAKE_C_FLAGS=-Werror",
    )
    run("cmake", "--build", build)
    frame = photo(root, (320, 240))
    cv2.imwrite(str(tmp_path / "in.ppm"), frame)
    environment = {"TINYSEG_ONNXRUNTIME": str(engine_place("onnxruntime")), "THREADS": "1"}
    seg = tinyseg.load(MODEL, "onnxruntime", "fp32", threads=1)
    for words, asked in (
        (("click", "160", "80"), {"points": [[160, 80]], "labels": [1]}),
        (("box", "100", "20", "250", "235"), {"box": (100, 20, 250, 235)}),
    ):
        run(build / "photo", MODEL, tmp_path / "in.ppm", tmp_path / "out.pgm", *words, **environment)
        mask = cv2.imread(str(tmp_path / "out.pgm"), cv2.IMREAD_UNCHANGED)
        expected = seg(frame, multimask=False, **asked)
        np.testing.assert_array_equal(mask, np.where(expected.masks[0], 255, 0))
    (tmp_path / "bad.ppm").write_bytes(b"P6 10 10 255 too short")
    for command, word in (
        ((build / "photo", MODEL, tmp_path / "bad.ppm", tmp_path / "o.pgm", "click", "1", "1"), "cannot be read"),
        ((build / "photo", MODEL, tmp_path / "in.ppm", tmp_path / "o.pgm", "click", "900", "1"), "outside the frame"),
        ((build / "photo", MODEL, tmp_path / "in.ppm", tmp_path / "o.pgm", "click", "1O0", "1"), "1O0 is no number"),
        ((build / "camera", MODEL, "/dev/none"), "there is no such device"),
        ((build / "camera", MODEL, "/dev/null"), "it is no video device"),
    ):  # fmt: skip
        done = subprocess.run(
            [str(c) for c in command], env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and word in done.stderr


def test_pkg_config(root: Path, installed: Installed, tmp_path: Path) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("pkg-config is not installed")
    flags = run(
        "pkg-config", "--cflags", "--libs", "tinyseg", PKG_CONFIG_PATH=str(installed.prefix / "lib" / "pkgconfig")
    )
    source = tmp_path / "version.c"
    source.write_text(
        "#include <stdio.h>\n#include <tinyseg.h>\nint main(void) { return puts(tinyseg_version()) < 0; }\n"
    )
    run("cc", source, "-o", tmp_path / "version", *flags.split())
    assert run(tmp_path / "version").strip() == tinyseg.__version__


def test_nothing_is_allocated_after_the_first_frames(root: Path, installed: Installed, tmp_path: Path) -> None:
    here = root / "tests" / "native" / "c"
    counter, program = tmp_path / "libcount_allocations.so", tmp_path / "steady"
    run("c++", "-std=c++17", "-O1", "-fPIC", "-shared", here / "count_allocations.cpp", "-o", counter, "-ldl")
    link = ("-I", installed.header.parent, installed.library, f"-Wl,-rpath,{installed.library.parent}", "-ldl")
    run("cc", "-std=c99", *STRICT, here / "steady.c", "-o", program, *link)
    told = run(program, MODEL, LD_PRELOAD=str(counter), TINYSEG_ONNXRUNTIME=str(engine_place("onnxruntime")))
    found = re.match(r"allocations (\d+) of (\d+), second looks (\d+)", told)
    assert found is not None, told
    ours, everybody, looks = (int(n) for n in found.groups())
    assert ours == 0 and everybody > 0 and looks >= 8  # the engine's own were seen, so ours would have been


def test_what_it_says_of_itself(session: CSession, library: CLibrary) -> None:
    model = open_model(MODEL)
    told = library.calls.tinyseg_describe(session.model).decode()
    graphs = {role: model.graphs[role] for role in ("encoder", "decoder")}  # it does not track
    assert told.startswith(f"model {model.name} ({digest(graphs)[:12]}) on onnxruntime ") and told.endswith(
        "fp32, 1 thread"
    )
    assert library.calls.tinyseg_version().decode() == tinyseg.__version__
