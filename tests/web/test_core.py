"""core.wasm is what the sources in native/ build."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.tinyseg.serve.browser import missing
from tinyseg.web.runtime import PACKAGE

LARGEST = 200_000


@pytest.fixture(scope="module")
def script(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("web_core", root / "scripts" / "web_core.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_belongs_to_the_sources(script: ModuleType) -> None:
    card = json.loads((PACKAGE / "core.json").read_text())
    wasm = (PACKAGE / "core.wasm").read_bytes()
    assert card["sources"] == script.digest(), "native/ has changed: run python scripts/web_core.py"
    assert card["sha256"] == hashlib.sha256(wasm).hexdigest()
    assert len(wasm) < LARGEST
    names = {path.name for path in script.files()}
    assert {"web.cpp", "mask.cpp", "mask.hpp", "geometry.hpp", "simd.hpp"} <= names
    assert not any("bindings" in name for name in names)


def test_the_same_compiler_makes_the_same_bytes(script: ModuleType, tmp_path: Path) -> None:
    version = script.compiler()
    if version is None:
        missing("emcc is not installed (Debian: apt-get install emscripten)")
    stated = json.loads((PACKAGE / "core.json").read_text())["compiler"]
    script.build(tmp_path / "core.wasm")
    if version != stated:
        pytest.skip(f"built, but by {version}; the committed file is of {stated}")
    assert (tmp_path / "core.wasm").read_bytes() == (PACKAGE / "core.wasm").read_bytes()
