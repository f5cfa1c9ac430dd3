"""Run pytest with another build of the pixel core: TINYSEG_NATIVE names the file. See scripts/sanitize."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

spec = importlib.util.spec_from_file_location("tinyseg._native", os.environ["TINYSEG_NATIVE"])
assert spec is not None and spec.loader is not None
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
sys.modules["tinyseg._native"] = core
import tinyseg  # noqa: E402 - after its core is there

tinyseg._native = core  # type: ignore[attr-defined]  # "from tinyseg import _native" asks the package first
sys.exit(pytest.main(sys.argv[1:]))
