"""On 64-bit Arm the hot loops are NEON's, and answer as they do here: what the compiler makes of the same sources, with the
build's own flags, read and run."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tinyseg import _native
from tinyseg.geometry import letterbox
from tinyseg.pixels import check_frame, prepare, resample_grid, threshold

ROOT = Path(__file__).parent.parent.parent
# Function of the core, an instruction on vectors that its loop must hold, and what it is.
LOOPS = [
    ("frame", "10sum_rows_3", r"umull2?\s+v\d+\.4s", "vertical sums in fixed point, four products at a time"),
    ("frame", "10sum_rows_3", r"(ucvtf|scvtf)\s+v\d+\.4s", "bytes and sums to floats"),
    ("frame", "15resample_rows_2", r"fmla\s+v\d+\.4s", "horizontal pass, a pixel's channels at once"),
    ("frame", "15resample_rows_6", r"fmla\s+v\d+\.4s", "the same for strong shrinking"),
    ("mask", "9threshold", r"fmla\s+v\d+\.4s", "interpolated logits"),
    ("mask", "9threshold", r"fcmg[te]\s+v\d+\.4s", "their comparison with the threshold"),
    ("resample", "13resample_grid", r"fmla\s+v\d+\.4s", "grids of logits at another size"),
    ("grid", "10grid_stats", r"fcmg[te]\s+v\d+\.4s", "stability counts"),
]
# What the answers' program needs besides.
OTHERS = ("geometry", "specks")
PROCESSORS = ("cortex-a76", "cortex-a72")


def compiler() -> str | None:
    if platform.machine() == "aarch64":
        return shutil.which("c++") or shutil.which("g++")
    return shutil.which("aarch64-linux-gnu-g++")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of assembly, by source."""
    made = compiler()
    if made is None:
        pytest.skip("no compiler for 64-bit Arm (Debian: g++-aarch64-linux-gnu)")
    build = (ROOT / "native" / "CMakeLists.txt").read_text()
    flags = re.search(r"target_compile_options\(tinyseg_core PRIVATE ([^)]*)\)", build)
    assert flags is not None
    contracted = dict(re.findall(r"set_source_files_properties\(([^)]*?) PROPERTIES COMPILE_OPTIONS ([^)]*)\)", build))
    folder, files = tmp_path_factory.mktemp("neon"), {}
    for name in sorted({file for file, *_ in LOOPS} | set(OTHERS)):
        own = next(option for files, option in contracted.items() if f"{name}.cpp" in files.split())
        out = folder / f"{name}.s"
        command = [
            made,
            "-std=c++17",
            *flags[1].split(),
            own,
            "-S",
            "-o",
            str(out),
            str(ROOT / "native" / f"{name}.cpp"),
        ]
        subprocess.run(command, check=True)
        files[name] = out
    return files


@pytest.fixture(scope="module")
def assembly(compiled: dict[str, Path]) -> dict[str, str]:
    return {name: file.read_text() for name, file in compiled.items()}


def body(text: str, part: str) -> str:
    """The instructions of all functions whose mangled names hold a part, references left out."""
    found = re.findall(r"^(_ZN\w+):\n(.*?)^\s+\.size\s+\1", text, re.MULTILINE | re.DOTALL)
    return "\n".join(lines for name, lines in found if part in name and "reference" not in name)


@pytest.mark.parametrize(("file", "function", "instruction", "what"), LOOPS, ids=[f"{f}-{w}" for f, _, _, w in LOOPS])
def test_loops_are_vectorised(file: str, function: str, instruction: str, what: str, assembly: dict[str, str]) -> None:
    text = body(assembly[file], function)
    assert text, f"{file}.cpp has no function {function}"
    assert re.search(rf"^\s+{instruction}", text, re.MULTILINE), what


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_core_answers_as_it_does_here(processor: str, compiled: dict[str, Path], tmp_path: Path) -> None:
    emulator: list[str] = []
    if platform.machine() != "aarch64":
        found = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
        if found is None:
            pytest.skip("no emulator of 64-bit Arm (Debian: qemu-user-static)")
        emulator = [found]
    made = compiler()
    assert made is not None
    program, source = tmp_path / "core_answers", Path(__file__).parent / "c" / "core_answers.cpp"
    subprocess.run([made, "-std=c++17", "-O1", "-static", source, *compiled.values(), "-o", program], check=True)

    width, height = 451, 300
    view = letterbox(width, height, 256)
    crop = letterbox(width, height, 256, (100, 50, 260, 210), square=True)
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (height, width, 3), np.uint8)
    rows, columns = view.grid
    coarse = np.kron(rng.normal(0, 6, (8, 8)), np.ones((-(-rows // 8), -(-columns // 8))))[:rows, :columns]
    logits = np.ascontiguousarray(coarse + rng.normal(0, 2, (rows, columns)), np.float32)
    (tmp_path / "frame").write_bytes(frame.tobytes())
    (tmp_path / "logits").write_bytes(logits.tobytes())
    command = [*emulator, program, tmp_path / "frame", tmp_path / "logits", tmp_path / "out"]
    subprocess.run(command, check=True, env={**os.environ, "QEMU_CPU": processor})

    data, place = (tmp_path / "out").read_bytes(), 0

    def take(dtype: type, *shape: int) -> np.ndarray:
        nonlocal place
        count = int(np.prod(shape))
        found = np.frombuffer(data, dtype, count, place).reshape(shape)
        place += found.nbytes
        return found

    # What fused multiply-adds may change, and no more: rounding of pixels, and of logits beside a threshold.
    np.testing.assert_allclose(
        take(np.float32, 1, 3, *view.input[::-1]), prepare(check_frame(frame, "bgr"), view), atol=1e-5
    )
    mask = np.zeros((height, width), np.bool_)
    stats = threshold(logits, view, mask)
    assert np.count_nonzero(take(np.uint8, height, width) != mask) <= 2 and mask.any() and not mask.all()
    np.testing.assert_allclose(take(np.int64, 7)[:5], (*stats.box, stats.area), atol=2)
    # Decisions and what logits are added to are the same bits on every processor.
    clean = np.empty((1, rows, columns), np.float32)
    assert _native.without_specks(logits[None], [], clean)
    np.testing.assert_array_equal(take(np.float32, rows, columns), clean[0])
    np.testing.assert_array_equal(take(np.float32, *crop.grid), resample_grid(logits, view, crop))
    assert place == len(data)
