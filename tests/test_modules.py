"""How the package's parts import each other: scripts/modules.py draws it, and these tests hold it to the drawing."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from tests.conftest import ROOT
from tinyseg.cli import COMMANDS


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("modules", ROOT / "scripts" / "modules.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_circle_and_no_arrow_upwards(script: ModuleType) -> None:
    graph = script.import_graph()
    assert script.problems(graph) == []
    assert "tinyseg.engines.ort" in graph  # the linked folders are looked at
    assert any(name.startswith("tinyseg.distill.") for name in graph)


def test_no_command_imports_another(script: ModuleType) -> None:
    graph = script.import_graph()
    commands = {f"tinyseg.commands.{module}" for module in COMMANDS.values()}
    assert commands <= set(graph)
    assert [name for name in graph if name.startswith("tinyseg.commands.") and graph[name] & commands] == []


def test_a_circle_and_an_arrow_upwards_are_found(script: ModuleType) -> None:
    graph = {
        "tinyseg.graphs.a": {"tinyseg.predict.b"},
        "tinyseg.predict.b": {"tinyseg.graphs.a"},
        "tinyseg.nowhere": set(),
    }
    told = script.problems(graph)
    assert any("tinyseg.graphs.a imports tinyseg.predict.b" in line for line in told)
    assert any(line.startswith("a circle") for line in told)
    assert any("tinyseg.nowhere belongs to no part" in line for line in told)
    assert len(told) == 3


def test_the_drawing_in_the_docs_is_the_one_of_the_imports(script: ModuleType) -> None:
    assert script.drawing(script.import_graph()) in (ROOT / "docs" / "design.md").read_text(), (
        "run: python scripts/modules.py --write"
    )
