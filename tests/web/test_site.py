"""The folder that `tinyseg web build` writes, and what it says where something is missing. No browser is needed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

import tinyseg
from tinyseg.cli import main
from tinyseg.errors import DataError, InputError, ModelError, NotInstalled
from tinyseg.web import build_site
from tinyseg.web.runtime import FILES, NAME, PACKAGE, wanted_version


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder with onnxruntime-web's names and nothing in them."""
    folder = tmp_path / NAME
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": NAME, "version": wanted_version()}))
    for names in FILES.values():
        for name in names:
            (folder / "dist" / name).write_bytes(name.encode())
    return folder


def test_a_page_asks_fewer_clicks(tmp_path: Path, runtime: Path, small_model: Path) -> None:
    card_file = shutil.copytree(small_model, tmp_path / "model") / "model.json"
    card = json.loads(card_file.read_text())
    # A margin in cells of a smaller input is told in cells of the picture's own.
    for stated, kept, side, margin in ((64, 16, 0, 1), (9, 9, 0, 1), (64, 16, card["long_side"] // 2, 2)):
        everything = {"points_per_side": stated, "sure_margin": 1, "whole_side": side}
        card_file.write_text(json.dumps({**card, "everything": everything}))
        build_site(tmp_path / "site", card_file.parent, runtime=runtime)
        rule = json.loads((tmp_path / "site" / "model" / "model.json").read_text())["everything"]
        assert (rule["points_per_side"], rule["sure_margin"], rule["whole_side"]) == (kept, margin, 0)


def test_every_file_is_there_and_named_by_its_sum(tmp_path: Path, runtime: Path, small_model: Path) -> None:
    out = tmp_path / "site"
    site = build_site(out, small_model, runtime=runtime)
    assert site.engines == ("wasm",) and set(site.files) == {
        p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and p.name != ".tinyseg"
    }
    named = json.loads((out / "files.js").read_text().removeprefix("self.SITE = ").rstrip(";\n"))["files"]
    assert set(site.files) - set(named) == {"files.js", "sw.js", "_headers"}
    for name, row in named.items():
        data = (out / name).read_bytes()
        assert row == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    told = json.loads((out / "site.json").read_text())
    assert set(told["files"]) == set(named) - {"site.json"}
    wasm = told["engines"]["wasm"]
    assert (
        wasm["provider"] == "wasm"
        and (out / wasm["encoder"]).read_bytes() == (small_model / "encoder.onnx").read_bytes()
    )
    card = json.loads((out / "model" / "model.json").read_text())
    assert card["long_side"] == 384 and card["everything"]["score"] == 0.3 and "Apache" in card["licence"]
    # What a script or style sheet of the page names is in the folder.
    for script in out.rglob("*.js"):
        for name in re.findall(r'from "(\./.+?)"', script.read_text()):
            assert (script.parent / name).is_file(), f"{script.name} imports {name}"
    index = (out / "index.html").read_text()
    for name in re.findall(r'(?:href|src)="([^":]+)"', index):
        assert (out / name).is_file(), name
    # Nothing comes from elsewhere.
    policy = re.search(r'Content-Security-Policy" content="(.+?)"', index)
    assert policy is not None and "default-src 'none'" in policy[1] and "unsafe-inline" not in policy[1]
    for file in (*out.glob("*.*"), *(out / "tinyseg").glob("*.js")):
        assert "http://" not in file.read_text(errors="ignore").replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in file.read_text(errors="ignore")


def test_webgpu_and_int8(tmp_path: Path, runtime: Path, small_model: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[compile]')")
    out = tmp_path / "site"
    site = build_site(out, small_model, precision="int8", webgpu=True, runtime=runtime)
    engines = json.loads((out / "site.json").read_text())["engines"]
    assert [(name, e["provider"], e["precision"]) for name, e in engines.items()] == [
        ("wasm", "wasm", "int8"), ("webgpu", "webgpu", "fp16"), ("webgpu-fp32", "webgpu", "fp32"),
    ]  # fmt: skip
    assert (out / engines["wasm"]["decoder"]).read_bytes() == (small_model / "decoder.int8.onnx").read_bytes()
    assert site.files[engines["webgpu"]["encoder"]] > 1e6
    assert {f"ort/{name}" for names in FILES.values() for name in names} <= set(site.files)


def test_another_site_is_replaced_and_other_files_are_not(tmp_path: Path, runtime: Path, small_model: Path) -> None:
    out = tmp_path / "site"
    for _ in range(2):
        build_site(out, small_model, runtime=runtime)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"mine\.txt"):
        build_site(out, small_model, runtime=runtime)
    assert (out / "index.html").is_file()


def test_the_command_that_shows_it_can_be_pasted(
    tmp_path: Path, runtime: Path, small_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my site"
    given = ["--out", str(out), "--model", str(small_model), "--onnxruntime-web", str(runtime)]
    assert main(["web", "build", *given]) == 0
    assert shlex.split(capsys.readouterr().out)[-2:] == ["--directory", str(out)]


def test_what_is_missing_is_named(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "site"
    with pytest.raises(InputError, match="precision"):
        build_site(out, precision="fp16", runtime=runtime)
    with pytest.raises(ModelError, match="no model at"):
        build_site(out, tmp_path / "nothing", runtime=runtime)
    with pytest.raises(DataError, match="holds no npm package"):
        build_site(out, runtime=tmp_path)
    (runtime / "dist" / FILES["wasm"][0]).unlink()
    with pytest.raises(DataError, match=re.escape(FILES["wasm"][0])):
        build_site(out, runtime=runtime)
    os.mkfifo(runtime / "dist" / FILES["wasm"][0])  # nothing waits for what is written into it
    with pytest.raises(DataError, match=re.escape(FILES["wasm"][0])):
        build_site(out, runtime=runtime)
    (runtime / "package.json").write_text('{"name": "onnxruntime-web", "version": "1.0.0"}')
    assert main(["web", "build", "--out", str(out), "--onnxruntime-web", str(runtime)]) == 2
    assert f"onnxruntime-web 1.0.0; give the folder of onnxruntime-web {wanted_version()}" in capsys.readouterr().err
    (runtime / "package.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="holds no npm package"):
        build_site(out, runtime=runtime)
    monkeypatch.setattr("tinyseg.web.runtime.PACKAGE", tmp_path / "installed")
    modules = tmp_path / "installed" / "node_modules"
    (modules / NAME).mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PACKAGE / name, tmp_path / "installed" / name)
    with pytest.raises(DataError, match=re.escape(f"or remove {modules}")):  # nobody gave a folder
        build_site(out)
    shutil.rmtree(modules)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match="npm is not installed"):
        build_site(out)
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error network ENOTFOUND' >&2\nexit 1\n")
    npm.chmod(0o755)
    assert main(["web", "build", "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "npm says npm error network ENOTFOUND" in told and "--onnxruntime-web" in told and "\n" not in told.strip()
    assert not out.exists()


def test_the_lock_file_fixes_every_package() -> None:
    package = json.loads((PACKAGE / "package.json").read_text())
    lock = json.loads((PACKAGE / "package-lock.json").read_text())
    assert package["version"] == tinyseg.__version__
    rows = {name: row for name, row in lock["packages"].items() if name}
    assert rows[f"node_modules/{NAME}"]["version"] == wanted_version()
    assert all(row["integrity"].startswith("sha512-") for row in rows.values())
