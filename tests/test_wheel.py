"""The wheel that users install: what is in it, how large it is, and that it works away from the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

LARGEST_MEGABYTES = 22.5  # the README says 22


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("build", "scikit_build_core", "nanobind"):
        pytest.importorskip(module, reason=f"{module} is not installed (pip install '.[test]')")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(root)]
    subprocess.run(command, check=True, capture_output=True, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def test_its_only_top_level_name_is_tinyseg(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {n.split("/")[0] for n in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"tinyseg"}
    for module in (
        "engines/ort.py",
        "distill/train.py",
        "bench/accuracy.py",
        "commands/segment.py",
        "web/core.wasm",
        "web/package-lock.json",
        "web/page/index.html",
        "web/src/core.js",
        "py.typed",
        "_native.pyi",
    ):
        assert f"tinyseg/{module}" in names
    for model in ("base", "small"):
        assert f"tinyseg/models/{model}/encoder.onnx" in names and f"tinyseg/models/{model}/decoder.int8.onnx" in names
    if sys.platform == "linux":
        for part in ("libtinyseg.so.1", "cmake/tinyseg/tinyseg-config.cmake", "pkgconfig/tinyseg.pc"):
            assert f"tinyseg/lib/{part}" in names
        assert "tinyseg/include/tinyseg.h" in names
    assert any(n.startswith("tinyseg/_native.") and n.endswith((".so", ".pyd")) for n in names)
    assert not any("node_modules" in n for n in names)
    unwanted = (".tar", ".jpg", ".png", ".npz", ".pt", ".cpp")
    assert not [
        n for n in names if (n.endswith(unwanted) and not n.startswith("tinyseg/graphs/photographs/")) or "tests/" in n
    ]


def test_its_size_is_what_we_say(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST_MEGABYTES * 1e6


def test_it_works_from_another_directory(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    code = (
        # An editable install finds modules before sys.path does; this is about the wheel.
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'Redirecting' not in type(f).__name__];"
        f"sys.path.insert(0, {str(target)!r}); import numpy, tinyseg;"
        "assert tinyseg.__file__.startswith(sys.path[0]), tinyseg.__file__;"
        "seg = tinyseg.load(engine='onnxruntime');"
        "print(seg.embed(numpy.zeros((90, 120, 3), 'uint8')).predict(box=(9, 9, 80, 80)).masks.shape);"
        "from tinyseg.cli import main; sys.exit(main(['cmake-dir']) if sys.platform == 'linux' else 0)"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True).splitlines()
    assert printed[0] == "(3, 90, 120)"
    assert printed[1:] in ([], [str(target / "tinyseg")])
