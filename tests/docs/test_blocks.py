"""The documentation says what the program does: code blocks run, command lines parse, links lead somewhere.

Markdown files of the checkout, fenced blocks of ``python`` and ``sh``. What needs a GPU, a data set, a camera or an hour is parsed by
the program's own parsers and not run.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyseg
from tinyseg.cli import build_parser
from tinyseg.predict.sam import model as sam_model
from tinyseg.predict.sam import onnx_pair

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    p for p in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("results/*.md"))
    if p.name != "CHANGELOG.md"
]  # fmt: skip
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:tinyseg|python -m tinyseg[\w.]*) [^`\n]+)`")
# What stands for something in a command line: capitals, dots.
PLACEHOLDER = re.compile(r"\.\.\.|\b(?:MODEL|DIR|FILE|SOURCE|PHOTOS|NAME|COMMAND|HOST|[NPSXY])\b")


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(page.read_text()) if name == language]


def named(pages: list[Path]) -> list[Any]:
    return [pytest.param(p, id=str(p.relative_to(ROOT))) for p in pages]


def command_lines(text: str) -> Iterator[list[str]]:
    """The commands of a shell text, as words; pipes and lists taken apart, comments and redirections left out."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            pytest.fail(f"no shell line: {line}")
        command: list[str] = []
        for word in [*words, ";"]:
            if word in ("|", ";", "&&", "||"):
                if command:
                    yield command
                command = []
            else:
                command.append(word)


def without_redirections(words: list[str]) -> list[str]:
    kept = words
    for sign in (">", ">>", "<"):
        if sign in kept:
            kept = kept[: kept.index(sign)]
    return kept


tinyseg_parser = functools.cache(build_parser)


@functools.cache
def distill_parser() -> argparse.ArgumentParser:
    from tinyseg.distill.__main__ import build_parser  # noqa: PLC0415 - needs torch

    return build_parser()


def parse(parser: argparse.ArgumentParser, words: list[str], capsys: pytest.CaptureFixture[str]) -> str | None:
    """What is wrong with a command line, None if nothing is."""
    try:
        parser.parse_args(without_redirections(words))
    except SystemExit as stopped:
        if stopped.code:
            return f"{shlex.join(words)}: {capsys.readouterr().err.strip().splitlines()[-1]}"
    return None


def check_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> str | None:
    """What is wrong with a command that we ship, by its own parser; other commands are passed over."""
    if words[0] == "tinyseg":
        return parse(tinyseg_parser(), words[1:], capsys)
    if words[0].startswith("scripts/") and not (ROOT / words[0]).is_file():
        return f"there is no {words[0]}"
    if "-m" in words and words[words.index("-m") + 1].startswith("tinyseg."):
        module, arguments = words[words.index("-m") + 1], words[words.index("-m") + 2 :]
        if module != "tinyseg.distill":
            return None if importlib.util.find_spec(module) else f"there is no {module}"
        pytest.importorskip("torch", reason="training needs torch (pip install '.[train]')")
        return parse(distill_parser(), arguments, capsys)
    if words[:2] == ["pip", "install"]:
        asked = {e for group in re.findall(r"\[(.+?)\]", " ".join(words)) for e in group.split(",")}
        offered = re.findall(r"^([a-z-]+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        if not asked <= set(offered):
            return f"there is no extra {', '.join(asked - set(offered))}"
    return None


@pytest.mark.parametrize("page", named([p for p in PAGES if blocks(p, "sh")]))
def test_command_lines_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks(page, "sh"):
        for words in command_lines(block):
            wrong = check_command(words, capsys)
            assert wrong is None, wrong


@pytest.mark.parametrize("page", named([p for p in PAGES if INLINE.search(p.read_text())]))
def test_commands_within_the_text_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in INLINE.findall(re.sub(FENCE, "", page.read_text())):
        shown = text.replace("\\|", "|")
        if PLACEHOLDER.search(shown):
            continue
        for words in command_lines(shown):
            wrong = check_command(words, capsys) if words[0] == "tinyseg" and len(words) > 2 else None
            # The text may show a part of a command, but no option or choice that there is not.
            assert wrong is None or not re.search("unrecognized|invalid", wrong), wrong


# On the engine that compiles fastest, and what it compiled serves all pages.
load_once = functools.cache(functools.partial(tinyseg.load, engine="onnxruntime", precision="fp32"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Examples run in a folder with the example photographs."""
    for module in (tinyseg, sam_model, onnx_pair):
        monkeypatch.setattr(module, "load", load_once)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)


def assumed() -> dict[str, Any]:
    """What a page may take as known without saying it: a segmenter, and a photograph with a box on it."""
    frame = tinyseg.read_image(ROOT / "examples" / "coffee.jpg")
    mask = np.zeros(frame.shape[:2], bool)
    mask[40:360, 110:460] = True
    return {
        "tinyseg": tinyseg, "np": np, "seg": tinyseg.load(), "frame": frame, "image": frame, "box": (90, 20, 480, 390),
        "background": np.zeros_like(frame), "reference_frame": frame, "first": frame, "frames": [frame, frame],
        "mask": mask, "a": frame, "mask_a": mask, "b": frame, "box_b": (90, 20, 480, 390),
    }  # fmt: skip


@pytest.mark.parametrize("page", named([p for p in PAGES if blocks(p, "python")]))
@pytest.mark.usefixtures("quick")
def test_python_blocks_run(page: Path) -> None:
    names = assumed()
    for block in blocks(page, "python"):
        exec(compile(block, str(page.relative_to(ROOT)), "exec"), names)
    if page.name == "README.md":
        assert names["mask"].dtype == np.bool_ and Path("coffee.masks.png").is_file()


@pytest.mark.parametrize("page", named(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(FENCE, "", page.read_text())
    for target in re.findall(r"\]\(([^)#\s]+)", re.sub(r"`[^`\n]*`", "", text)):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for target in re.findall(r"`((?:docs|examples|results|scripts|tests)/[\w./-]+)`", text):
        assert (ROOT / target).exists(), f"{page.name} names {target}"


def test_tables_are_what_was_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["tables.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "tables.py"), run_name="__main__")
    assert ended.value.code == 0, capsys.readouterr().out + "run: python scripts/tables.py"


def test_every_row_of_coming_from_is_answered() -> None:
    for line in (ROOT / "docs" / "coming-from.md").read_text().splitlines():
        if line.startswith("| "):
            assert all(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]), line


def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings", reason="the site needs the docs extra (pip install '.[docs]')")
    from mkdocs.commands.build import build  # noqa: PLC0415 - an extra
    from mkdocs.config import load_config  # noqa: PLC0415

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path)))
    api = (tmp_path / "api" / "index.html").read_text()
    assert "predict_torch" in api and ":class:" not in api


def test_every_public_name_is_in_the_api() -> None:
    entries = re.findall(
        r"^::: (\S+)\n(?:    options:\n      members: \[(.*)\]\n)?",
        (ROOT / "docs" / "api.md").read_text(),
        re.MULTILINE,
    )
    told = {place.rpartition(".")[2] for place, _ in entries} | {
        m for _, members in entries for m in members.split(", ")
    }
    errors = {name for name, value in vars(tinyseg.errors).items() if isinstance(value, type)}
    assert set(tinyseg.__all__) - errors - told == {"__version__"}
