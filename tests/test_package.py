"""``import tinyseg`` is light, and every public name is still there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tinyseg


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = "import sys, tinyseg; print(sorted({'numpy', 'cv2', 'typing', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {script}"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_every_public_name_has_its_home() -> None:
    tree = ast.parse(Path(tinyseg.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    stated = {
        alias.name: node.module
        for node in block.body if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }  # fmt: skip
    assert stated == tinyseg._NAMES and set(tinyseg.__all__) == {*stated, "__version__"}
    for name in tinyseg.__all__:
        assert getattr(tinyseg, name) is not None and name in dir(tinyseg)
    for name in tinyseg._MODULES:
        assert getattr(tinyseg, name).__name__ == f"tinyseg.{name}"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tinyseg.nothing  # type: ignore[attr-defined]  # noqa: B018
