"""What a frame costs in C beside Python: python -m tinyseg.bench.c_api --size 1280x720

Both run the same step (one box, fixed buffers) on the same engine in this process, frame about frame, after their masks were
found equal. The C library is called through ctypes, which adds a few microseconds to its side.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyseg.arguments import check_whole, parse_size
from tinyseg.bench.measure import WARM_UP
from tinyseg.bench.scenarios import boxes, scene
from tinyseg.errors import EngineError, InputError, TinysegError
from tinyseg.graphs.model import model_place
from tinyseg.pixels import MAX_SIDE
from tinyseg.predict.load import load
from tinyseg.predict.workspace import Workspace
from tinyseg.prompts import Prompt
from tinyseg.system.c_library import ENGINE_LIBRARIES, NAME, c_library_prefix, engine_library

GRAY, BGR, RGB, BGRA, RGBA = range(5)
ZOOM = {"off": 0, "auto": 1}


class Options(ctypes.Structure):
    """tinyseg_options."""

    _fields_ = (
        ("size", ctypes.c_size_t), ("engine", ctypes.c_char_p), ("precision", ctypes.c_char_p), ("library", ctypes.c_char_p),
        ("threads", ctypes.c_int),
    )  # fmt: skip


class Image(ctypes.Structure):
    """tinyseg_image."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("width", ctypes.c_int), ("height", ctypes.c_int), ("row_stride", ctypes.c_ssize_t),
        ("format", ctypes.c_int),
    )  # fmt: skip


class CPrompt(ctypes.Structure):
    """tinyseg_prompt."""

    _fields_ = (
        ("points", ctypes.c_void_p), ("labels", ctypes.c_void_p), ("count", ctypes.c_size_t), ("box", ctypes.c_void_p),
        ("hint", ctypes.c_void_p),
    )  # fmt: skip


class Mask(ctypes.Structure):
    """tinyseg_mask."""

    _fields_ = (
        ("pixels", ctypes.c_void_p), ("logits", ctypes.c_void_p), ("score", ctypes.c_float), ("stability", ctypes.c_float),
        ("area", ctypes.c_int64), ("box", ctypes.c_int * 4), ("zoomed", ctypes.c_int), ("zoom", ctypes.c_int * 4),
    )  # fmt: skip


class CLibraryError(EngineError):
    """A call of the C library failed: ``status`` is the code's name, the text what the library says."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class CLibrary:
    """libtinyseg, called as a C program calls it."""

    def __init__(self, path: Path) -> None:
        self.calls = ctypes.CDLL(str(path))
        for name in ("version", "last_error", "status_name", "describe"):
            getattr(self.calls, f"tinyseg_{name}").restype = ctypes.c_char_p
        for name in ("close", "session_free"):
            getattr(self.calls, f"tinyseg_{name}").restype = None

    def check(self, status: int) -> None:
        """Raises CLibraryError where a call did not return TINYSEG_OK."""
        if status != 0:
            name = self.calls.tinyseg_status_name(status).decode()
            raise CLibraryError(name, self.calls.tinyseg_last_error().decode())

    def open(
        self, model: Path, engine: str, precision: str, threads: int, library: Path | None = None
    ) -> ctypes.c_void_p:
        opened = ctypes.c_void_p()
        named = None if library is None else str(library).encode()
        options = Options(ctypes.sizeof(Options), engine.encode(), precision.encode(), named, threads)
        self.check(self.calls.tinyseg_open(str(model).encode(), ctypes.byref(options), ctypes.byref(opened)))
        return opened


@dataclass
class Answer:
    """K masks, and the tinyseg_mask structures that describe them."""

    masks: NDArray[np.uint8]  # (K, H, W)
    logits: NDArray[np.float32]  # (K, rows, columns)
    facts: ctypes.Array[Mask]


class CSession:
    """A model and a session of it."""

    def __init__(self, library: CLibrary, model: ctypes.c_void_p) -> None:
        self.library, self.model, self.handle = library, model, ctypes.c_void_p()
        library.check(library.calls.tinyseg_session_new(model, ctypes.byref(self.handle)))

    def close(self) -> None:
        self.library.calls.tinyseg_session_free(self.handle)
        self.library.calls.tinyseg_close(self.model)

    def answer_for(self, width: int, height: int, count: int) -> Answer:
        """Buffers for so many masks of a frame."""
        rows, columns = ctypes.c_int(), ctypes.c_int()
        calls = self.library.calls
        self.library.check(calls.tinyseg_grid(self.model, width, height, ctypes.byref(rows), ctypes.byref(columns)))
        masks = np.zeros((count, height, width), np.uint8)
        logits = np.zeros((count, rows.value, columns.value), np.float32)
        facts = (Mask * count)()
        for one, mask, logit in zip(facts, masks, logits):
            one.pixels, one.logits = mask.ctypes.data, logit.ctypes.data
        return Answer(masks, logits, facts)

    def embed(self, frame: NDArray[np.uint8], layout: int = BGR) -> None:
        self.library.check(self.library.calls.tinyseg_embed(self.handle, ctypes.byref(image_of(frame, layout))))

    def predict(self, prompt: Prompt, out: Answer, zoom: str = "auto") -> None:
        held, one = c_prompt(prompt)
        calls = self.library.calls
        self.library.check(calls.tinyseg_predict(self.handle, ctypes.byref(one), ZOOM[zoom], out.facts, len(out.masks)))
        del held

    def run(
        self, frame: NDArray[np.uint8], prompts: Sequence[Prompt], out: Answer, zoom: str = "off", layout: int = BGR
    ) -> None:
        made = [c_prompt(p) for p in prompts]
        rows = (CPrompt * len(made))(*(row for _, row in made))
        image = image_of(frame, layout)
        calls = self.library.calls
        self.library.check(calls.tinyseg_run(self.handle, ctypes.byref(image), rows, len(made), ZOOM[zoom], out.facts))


def image_of(frame: NDArray[np.uint8], layout: int) -> Image:
    return Image(frame.ctypes.data, frame.shape[1], frame.shape[0], frame.strides[0], layout)


def c_prompt(prompt: Prompt) -> tuple[list[NDArray[np.generic]], CPrompt]:
    """(the arrays that have to stay, the structure that points at them)."""
    held: list[NDArray[np.generic]] = []

    def address(value: ArrayLike | None, dtype: type[np.generic]) -> int | None:
        if value is None:
            return None
        array: NDArray[np.generic] = np.ascontiguousarray(value, dtype)
        held.append(array)
        return int(array.ctypes.data)

    count = 0 if prompt.points is None else len(np.asarray(prompt.points))
    return held, CPrompt(
        address(prompt.points, np.float64), address(prompt.labels, np.int32), count, address(prompt.box, np.float64),
        address(prompt.mask, np.float32),
    )  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Milliseconds of every frame on both sides."""

    python_ms: NDArray[np.float64]
    c_ms: NDArray[np.float64]

    def __str__(self) -> str:
        python, c = np.percentile(self.python_ms, [10, 50, 90]), np.percentile(self.c_ms, [10, 50, 90])
        difference = np.median(self.python_ms - self.c_ms)
        return (
            f"one frame, p50 (p10 to p90) of {len(self.c_ms)}: Python {python[1]:.3f} ms ({python[0]:.3f} to {python[2]:.3f}), "
            f"C {c[1]:.3f} ms ({c[0]:.3f} to {c[2]:.3f}); C takes {abs(difference):.3f} ms {'less' if difference >= 0 else 'more'}, "
            "median of pairs"
        )


def compare(
    library: CLibrary, model: str, engine: str, precision: str, threads: int, size: tuple[int, int], frames: int
) -> Comparison:
    """Time both sides. Raises EngineError where their masks differ."""
    seg = load(model, engine, precision, threads=threads)
    place = model_place(model)
    session = CSession(library, library.open(place, engine, precision, threads, engine_library(engine)))
    frame = scene(size=size)
    prompts = (Prompt(box=boxes(1, size)[0]),)
    workspace, out = Workspace(), session.answer_for(*size, 1)
    held, row = c_prompt(prompts[0])
    rows, image = (CPrompt * 1)(row), image_of(frame, BGR)
    calls, python_ms, c_ms = library.calls, [], []
    for _ in range(frames + WARM_UP):
        start = time.perf_counter()
        (answer,) = seg.run(frame, prompts, workspace)
        between = time.perf_counter()
        status = calls.tinyseg_run(session.handle, ctypes.byref(image), rows, 1, 0, out.facts)
        end = time.perf_counter()
        library.check(status)
        if not np.array_equal(answer.masks.view(np.uint8), out.masks):
            raise EngineError("the masks of C and Python differ; nothing is timed")
        python_ms.append(1e3 * (between - start))
        c_ms.append(1e3 * (end - between))
    session.close()
    del held
    return Comparison(np.array(python_ms[WARM_UP:]), np.array(c_ms[WARM_UP:]))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tinyseg.bench.c_api", description="What a frame costs in C beside Python."
    )
    parser.add_argument("--model", default="base", help="a packaged model's name or a model folder")
    parser.add_argument("--engine", choices=tuple(ENGINE_LIBRARIES), default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", default="1280x720", metavar="WIDTHxHEIGHT")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--library", type=Path, help=f"the C library, where it is not the installed one ({NAME})")
    args = parser.parse_args(arguments)
    try:
        size = parse_size("--size", args.size, MAX_SIDE)
        check_whole("--frames", args.frames, 1, 1_000_000)
        if not model_place(args.model).is_dir():
            raise InputError(f"{args.model} is no model folder, which the C library takes alone")
        library = CLibrary(args.library or c_library_prefix() / "lib" / NAME)
        print(f"{args.engine} {args.precision}, {args.threads} threads, {size[0]} x {size[1]}, model {args.model}")
        print(compare(library, args.model, args.engine, args.precision, args.threads, size, args.frames))
    except TinysegError as exc:
        print(f"tinyseg: {exc}", file=sys.stderr)
        return 2 if isinstance(exc, InputError) else 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
