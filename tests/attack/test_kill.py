"""kill -9 before every single thing that a write does to the file system: what was there, or what was to be, never half.

A child process counts what it does under its folder (Python's audit events: open, rename, remove, mkdir, ...) and kills
itself before the n-th, for every n.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.killed import dies
from tinyseg.engines.cache import EngineCache, entry_key
from tinyseg.files import write_bytes
from tinyseg.system.folders import ResultFolder, new_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
KEY = entry_key({"engine": "fake", "version": "1", "precision": "fp32"}, "ab" * 32, {"height": 64})
OLD, NEW = b"old" * 5000, b"new!" * 5000


def write_file(root: Path, data: bytes) -> None:
    write_bytes(root / "result.json", data)


def write_folder(root: Path, data: bytes) -> None:
    with new_folder(root / "out") as folder:
        (folder / "a").write_bytes(data)
        (folder / "b").write_bytes(data)


def write_result(root: Path, data: bytes) -> None:
    write_bytes(ResultFolder(root / "results").place("report.md"), data)


def write_cache(root: Path, data: bytes) -> None:
    key = {**KEY, "version": str(data[:3])}
    EngineCache(root / "cache", 10**9).get_or_build(key, lambda: data, lambda blob: blob)


def read_file(root: Path) -> set[bytes]:
    return {(root / "result.json").read_bytes()}


def read_folder(root: Path) -> set[bytes]:
    return {(root / "out" / name).read_bytes() for name in ("a", "b")}


def read_result(root: Path) -> set[bytes]:
    return {(root / "results" / "report.md").read_bytes()}


def read_cache(root: Path) -> set[bytes]:
    """The old entry is always there and whole; the new one is there whole, or has to be built (then OLD stands for it)."""
    cache = EngineCache(root / "cache", 10**9)
    assert all(e.problem is None for e in cache.entries(check=True))
    assert cache.get_or_build({**KEY, "version": str(OLD[:3])}, lambda: b"lost", bytes) == OLD
    return {cache.get_or_build({**KEY, "version": str(NEW[:3])}, lambda: OLD, bytes)}


@pytest.mark.parametrize(
    ("write", "read"),
    [(write_file, read_file), (write_folder, read_folder), (write_result, read_result), (write_cache, read_cache)],
)
def test_old_or_new_never_half(
    write: Callable[[Path, bytes], None], read: Callable[[Path], set[bytes]], tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    seen: list[set[bytes]] = []
    for at in range(200):
        root = tmp_path / str(at)
        root.mkdir()
        write(root, OLD)
        child = context.Process(target=dies, args=(partial(write, root, NEW), root, at))
        child.start()
        child.join(60)
        assert child.exitcode in (0, -signal.SIGKILL)
        seen.append(read(root))
        assert seen[-1] in ({OLD}, {NEW}), f"after a kill before action {at}"
        if child.exitcode == 0:
            break
    else:
        raise AssertionError("it never came to an end")
    assert at >= 3 and seen[0] == {OLD} and seen[-1] == {NEW}


def test_what_a_killed_write_leaves_is_in_nobodys_way(tmp_path: Path) -> None:
    """Temporary names are hidden or of the cache's own, and the next write works."""
    context = multiprocessing.get_context("fork")
    write_folder(tmp_path, OLD)
    for at in range(4, 12):
        child = context.Process(target=dies, args=(partial(write_folder, tmp_path, NEW), tmp_path, at))
        child.start()
        child.join(60)
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["out"]
    write_folder(tmp_path, NEW)
    assert read_folder(tmp_path) == {NEW}
