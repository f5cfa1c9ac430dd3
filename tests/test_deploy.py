"""What puts tinyseg on a board, as far as it can be checked without one."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tinyseg.cli import build_parser

ROOT = Path(__file__).parent.parent
CONTAINER = ROOT / "deploy" / "jetson" / "tinyseg"
UNIT = ROOT / "deploy" / "systemd" / "tinyseg.service"


def settings(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = UNIT.read_text()
    assert settings(unit)["ExecStart"] == "/opt/tinyseg/bin/tinyseg serve ${SOURCE} $OPTIONS"
    here = tmp_path / UNIT.name  # the program stands where this Python stands; nothing else is changed
    here.write_text(unit.replace("/opt/tinyseg/bin/tinyseg", f'"{sys.executable}"'))
    done = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert done.returncode == 0 and ours == [], done.stderr


def test_the_unit_fits_the_program() -> None:
    found = settings(UNIT.read_text())
    build_parser().parse_args(["serve", found["Environment"].rpartition("=")[2] or "/dev/video0"])
    # Restarted after a camera that is not there (2), not after a model that cannot be used (3).
    assert (found["Type"], found["Restart"], found["RestartPreventExitStatus"]) == ("notify", "on-failure", "3")
    assert (
        int(found["WatchdogSec"]) > 30
    )  # a camera may be away that long before it is given up (LiveSource's patience)


@pytest.mark.parametrize(("l4t", "names"), [(36, ["tinyseg:jp6"]), (38, ["tinyseg:jp7"]), (39, ["tinyseg:jp7"])])
def test_the_container_is_chosen_by_the_jetpack(l4t: int, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    jetson = types.ModuleType("jetson_containers")
    jetson.L4T_VERSION = types.SimpleNamespace(major=l4t)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jetson_containers", jetson)
    # jetson-containers runs the file with the Dockerfile's header in `package`.
    package: list[dict[str, Any]] = runpy.run_path(str(CONTAINER / "config.py"), {"package": header()})["package"]
    assert [p["name"] for p in package if p.get("alias") == "tinyseg"] == names
    assert all(p["depends"] == header()["depends"] for p in package)
    constraints = {p["name"]: p["build_args"]["TINYSEG_CONSTRAINTS"] for p in package}
    assert constraints == {"tinyseg:jp6": "onnxruntime==1.23.2 numpy==2.2.6", "tinyseg:jp7": ""}
    locked = (ROOT / "requirements" / "demo.txt").read_text()
    for version in constraints["tinyseg:jp6"].split():
        assert f"{version} ; python_full_version < '3.11'" in locked  # what the tests run with on Python 3.10


def header() -> dict[str, Any]:
    text = (CONTAINER / "Dockerfile").read_text()
    block = re.match(r"#---\n(.*?)#---\n", text, re.DOTALL)
    assert block is not None
    rows = dict(re.findall(r"^# (\w+): (.*)$", block[1], re.MULTILINE))
    return {**rows, "depends": rows["depends"].strip("[]").split(", ")}


def test_the_containers_header_and_files() -> None:
    found, text = header(), (CONTAINER / "Dockerfile").read_text()
    assert found["name"] == "tinyseg" and all((CONTAINER / found[k]).is_file() for k in ("config", "test", "docs"))
    arguments = re.findall(r"^ARG (\w+)", text, re.MULTILINE)
    assert arguments[0] == "BASE_IMAGE" and "FROM ${BASE_IMAGE}" in text and "TINYSEG_CONSTRAINTS" in arguments
    # No engine is built in the image: it would be one of the machine that built it.
    assert "tinyseg compile" not in text and "trtexec" not in text and "VOLUME /data/tinyseg" in text


def test_the_containers_own_test(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["test.py", "onnxruntime"])
    runpy.run_path(str(CONTAINER / "test.py"))
    assert "tinyseg OK" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["test.py", "fake"])
    with pytest.raises(SystemExit, match="gives another mask"):
        runpy.run_path(str(CONTAINER / "test.py"))


def test_the_jetson_guide_says_of_every_step_how_far_it_was_checked() -> None:
    text = (ROOT / "docs" / "jetson.md").read_text()
    steps = re.findall(r"^## (\d+)\. .*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1)) and len(steps) >= 10
    for number, body in steps:
        # No board was at hand, so each step has something that was not run there, or a table that marks it line by line.
        assert re.search(r"\b[Nn]ot run\b", body), f"step {number} does not say what was not run on the board"
        assert re.search(r"\*checked\*|\*emulated\*|[Nn]ot run on the board", body), f"step {number} has no mark"
        for row in re.findall(r"^\|(.*)\|$", body, re.MULTILINE) if "| state |" in body else ():
            state = row.split("|")[-1].strip()
            assert state in ("state", "---") or re.search(r"\*(checked|emulated)\*|not run on the board", state), row
