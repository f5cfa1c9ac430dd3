"""onnxruntime-web, the engine that the page runs: taken from a folder, or from npm as the lock file says."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tinyseg.errors import DataError, NotInstalled
from tinyseg.files import read_regular

PACKAGE = Path(__file__).parent
NAME = "onnxruntime-web"
NPM_SECONDS = 900
MOST_CARD_BYTES = 1 << 20
# What the page loads, by engine; without their maps, which only debuggers read.
FILES = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}


def wanted_version() -> str:
    """The version that package.json asks for and every test runs with."""
    version: str = json.loads((PACKAGE / "package.json").read_text())["dependencies"][NAME]
    return version


@contextmanager
def runtime_folder(given: Path | None) -> Iterator[Path]:
    """The package's folder while files are taken from it: ``given``, or what npm installs. Raises NotInstalled, DataError."""
    if given is None:
        modules = PACKAGE / "node_modules"  # of a checkout in which somebody ran `npm ci`
        given = modules / NAME
        if not given.exists():
            with TemporaryDirectory(prefix="tinyseg-web-") as temporary:
                yield install(Path(temporary))
            return
        _check(
            given,
            f"run npm ci --ignore-scripts in {PACKAGE}, or remove {modules}: npm then fetches {NAME} {wanted_version()}",
        )
    else:
        _check(
            given,
            f"give the folder of {NAME} {wanted_version()} with --onnxruntime-web, or leave it out: npm fetches it",
        )
    yield given


def _check(folder: Path, hint: str) -> None:
    try:
        card = json.loads(read_regular((folder / "package.json").resolve(), MOST_CARD_BYTES))
        found = (card["name"], card["version"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise DataError(f"{folder} holds no npm package; {hint}") from exc
    if found != (NAME, wanted_version()):
        raise DataError(f"{folder} holds {found[0]!s:.80} {found[1]!s:.40}; {hint}")


def install(folder: Path) -> Path:
    """``npm ci`` in a folder: the lock file's versions, their hashes checked, none of their scripts run. -> the package."""
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstalled(
            f"the page runs {NAME} {wanted_version()}, which npm fetches, and npm is not installed (Debian, Ubuntu: sudo "
            f"apt-get install npm); or give a folder that holds the package: --onnxruntime-web node_modules/{NAME}"
        )
    for file in ("package.json", "package-lock.json"):
        shutil.copy(PACKAGE / file, folder / file)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=NPM_SECONDS, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise DataError(f"{NAME} could not be fetched: npm did not end ({exc!s:.200})") from exc
    if done.returncode != 0:
        told = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise DataError(
            f"{NAME} could not be fetched: npm says {told:.400}; without a network give a folder that holds the package "
            f"with --onnxruntime-web"
        )
    return folder / "node_modules" / NAME
