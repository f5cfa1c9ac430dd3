"""On 64-bit Arm the hot loops are NEON's: what the compiler makes of the same sources, with the build's own flags."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

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


def compiler() -> str | None:
    if platform.machine() == "aarch64":
        return shutil.which("c++") or shutil.which("g++")
    return shutil.which("aarch64-linux-gnu-g++")


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made = compiler()
    if made is None:
        pytest.skip("no compiler for 64-bit Arm (Debian: g++-aarch64-linux-gnu)")
    build = (ROOT / "native" / "CMakeLists.txt").read_text()
    flags = re.search(r"target_compile_options\(tinyseg_core PRIVATE ([^)]*)\)", build)
    assert flags is not None
    contracted = dict(re.findall(r"set_source_files_properties\(([^)]*?) PROPERTIES COMPILE_OPTIONS ([^)]*)\)", build))
    folder, texts = tmp_path_factory.mktemp("neon"), {}
    for name in sorted({file for file, *_ in LOOPS}):
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
        texts[name] = out.read_text()
    return texts


def body(text: str, part: str) -> str:
    """The instructions of all functions whose mangled names hold a part, references left out."""
    found = re.findall(r"^(_ZN\w+):\n(.*?)^\s+\.size\s+\1", text, re.MULTILINE | re.DOTALL)
    return "\n".join(lines for name, lines in found if part in name and "reference" not in name)


@pytest.mark.parametrize(("file", "function", "instruction", "what"), LOOPS, ids=[f"{f}-{w}" for f, _, _, w in LOOPS])
def test_loops_are_vectorised(file: str, function: str, instruction: str, what: str, assembly: dict[str, str]) -> None:
    text = body(assembly[file], function)
    assert text, f"{file}.cpp has no function {function}"
    assert re.search(rf"^\s+{instruction}", text, re.MULTILINE), what
