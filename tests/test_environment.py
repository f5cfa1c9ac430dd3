"""What the scripts install: locked, complete, and built without isolation nowhere but for tinyseg itself."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKED = re.compile(r"^([a-z0-9.-]+)==([^ ;\\]+)(?: ; ([^\\]+?))?(?: \\)?$")
# Where the locked files are installed.
TARGETS = [
    {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.9", "platform_machine": machine,
     "sys_platform": "linux", "os_name": "posix", "platform_system": "Linux", "implementation_name": "cpython",
     "platform_python_implementation": "CPython", "extra": "test"}
    for minor in range(10, 14) for machine in ("x86_64", "aarch64")
]  # fmt: skip


def declared(extra: str) -> list[Requirement]:
    """The requirements of the project and of an extra, read without a TOML parser (Python 3.10 has none)."""
    text = (ROOT / "pyproject.toml").read_text()
    rows = []
    for name in ("dependencies", extra):
        block = re.search(rf"^{name} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
        assert block is not None, name
        without_comments = re.sub(r"^ *#.*$", "", block[1], flags=re.MULTILINE)
        rows += [Requirement(r) for r in re.findall(r'"([^"]+)"', without_comments)]
    return rows


def locked(name: str) -> dict[str, list[tuple[str, str]]]:
    """Versions and markers by package."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
        row = LOCKED.match(line)
        if row is not None:
            rows.setdefault(row[1], []).append((row[2], row[3] or ""))
    return rows


@pytest.mark.parametrize(("name", "extra"), [("test", "test"), ("demo", "openvino")])
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t['python_version']}-{t['platform_machine']}")
def test_the_lock_has_what_the_project_declares(name: str, extra: str, target: dict[str, str]) -> None:
    rows = locked(name)
    for wanted in declared(extra):
        if wanted.name == "torch" or (wanted.marker is not None and not wanted.marker.evaluate(target)):
            continue
        versions = [
            v for v, marker in rows.get(wanted.name.lower(), [])
            if not marker or Requirement(f"x; {marker}").marker.evaluate(target)  # type: ignore[union-attr]
        ]  # fmt: skip
        assert len(versions) == 1, f"{wanted}: {versions} in requirements/{name}.txt; run scripts/lock"
        assert wanted.specifier.contains(versions[0], prereleases=True), f"{wanted} is locked as {versions[0]}"


@pytest.mark.parametrize("name", ["build", "demo", "test"])
def test_every_locked_package_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    for block in re.split(r"\n(?=[a-z0-9])", text)[1:]:
        assert "--hash=sha256:" in block, block[:80]


def test_torch_is_the_same_in_all_places() -> None:
    wanted = next(r for r in declared("test") if r.name == "torch")
    assert f"torch{wanted.specifier}" in (ROOT / "requirements" / "torch.txt").read_text().splitlines()
    assert not any(re.match(r"torch$|triton$|nvidia-|cuda-", package) for package in locked("test"))


def test_what_is_installed_for_the_tests_can_be_imported() -> None:
    """A package that is there and does not start would be one more test that is skipped as if it were missing."""
    modules: dict[str, list[str]] = {}
    for module, packages in importlib.metadata.packages_distributions().items():
        for package in packages if module.isidentifier() and not module.startswith("_") else []:
            modules.setdefault(canonicalize_name(package), []).append(module)
    installed = {m for wanted in declared("test") for m in modules.get(canonicalize_name(wanted.name), [])}
    assert {"numpy", "pytest", "xdist"} <= installed
    done = subprocess.run(
        [sys.executable, "-c", "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]]", *sorted(installed)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_only_our_own_extension_is_built_without_isolation() -> None:
    lines = [line for path in (ROOT / "scripts").iterdir() for line in path.read_text().splitlines()]
    without = [line for line in lines if "--no-build-isolation" in line]
    assert without and all("--no-deps -e ." in line for line in without)


def test_missing_python_headers_are_told(tmp_path: Path) -> None:
    cmake = shutil.which("cmake")
    if cmake is None or shutil.which("c++") is None:
        pytest.skip("cmake or a C++ compiler is not installed")
    done = subprocess.run(
        [cmake, "-S", ROOT, "-B", tmp_path, f"-DPython_EXECUTABLE={sys.executable}",
         f"-DPython_INCLUDE_DIR={tmp_path / 'nowhere'}"], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0 and "sudo apt-get install python3-dev" in " ".join(done.stderr.split())


def test_a_missing_python_is_told_in_one_line(tmp_path: Path) -> None:
    nowhere = tmp_path / "python"
    done = subprocess.run(
        [ROOT / "scripts" / "lint"], env={**os.environ, "PYTHON": str(nowhere)}, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"{nowhere} is not there; install Python 3.10") and done.stderr.count("\n") == 1


PYTHON = """#!/bin/sh
case "$*" in
  "-m venv"*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
  "-m pip"*) mkdir busy || echo overlap >>told; sleep 0.1; rmdir busy; echo pip >>told ;;
esac
"""


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed (Debian: apt-get install util-linux)")
def test_two_scripts_at_once_install_one_after_the_other(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "CMakeLists.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("native", "requirements", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    command = ["bash", "-euc", ". scripts/environment.sh; environment demo"]
    started = [
        subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHON": str(python)}, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    told = b"".join(process.communicate()[0] for process in started)
    assert [process.returncode for process in started] == [0, 0] and told.count(b"installing tinyseg") == 1
    assert set((tmp_path / "told").read_text().split()) == {"pip"}
