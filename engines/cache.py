"""Built engines on disk: built once, whatever number of processes asks, and never used damaged.

An entry is a folder named by the digest of its key (graph, shapes, engine, version, device, precision, flags), with the
engine's bytes and ``entry.json`` that names key and checksum. Entries are written under a temporary name and renamed,
so a killed build leaves nothing that could be mistaken for one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from tinyseg.errors import CacheError, EngineError

T = TypeVar("T")
LOG = logging.getLogger("tinyseg.cache")
FORMAT = 1
DEFAULT_LIMIT_MB = 2048
# A large TensorRT engine takes minutes on a small board; who waits longer than this should be told.
WAIT_SECONDS = 1800.0
NOTICE_SECONDS = 3.0


def cache_root() -> Path:
    """TINYSEG_CACHE, else the platform's folder for caches (XDG on Linux)."""
    named = os.environ.get("TINYSEG_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tinyseg"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "tinyseg" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyseg"


def open_cache() -> tuple[EngineCache | None, str]:
    """(cache, what to say of it); None where the default place cannot be written.

    A device with a read-only file system works without a cache; it compiles at every start. A folder that somebody
    named and that cannot be written is a mistake. Raises CacheError, also for a TINYSEG_CACHE_MB that is no number.
    """
    limit = os.environ.get("TINYSEG_CACHE_MB", str(DEFAULT_LIMIT_MB))
    if not limit.isdigit():
        raise CacheError(f"TINYSEG_CACHE_MB must be a whole number of megabytes, but is {limit!r}")
    if int(limit) == 0:
        return None, "off (TINYSEG_CACHE_MB=0)"
    root = cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as exc:
        if os.environ.get("TINYSEG_CACHE"):
            raise CacheError(
                f"TINYSEG_CACHE={root} cannot be written ({exc.strerror}); name another folder, or set TINYSEG_CACHE_MB=0 "
                "to go without a cache"
            ) from exc
        return None, f"off ({root} cannot be written: {exc.strerror}; set TINYSEG_CACHE to a folder that can)"
    return EngineCache(root, int(limit) * 1_000_000), "on"


def entry_key(identity: Mapping[str, str], graph_sha256: str, dimensions: Mapping[str, int]) -> dict[str, object]:
    """What an engine depends on."""
    return {"format": FORMAT, **identity, "graph": graph_sha256, "dimensions": dict(sorted(dimensions.items()))}


@dataclass(frozen=True)
class Entry:
    """One engine in the cache."""

    path: Path
    key: Mapping[str, object]
    megabytes: float
    last_used: float  # seconds since the epoch
    problem: str | None  # why it would be rebuilt; None if it is whole (as far as it was checked)


class EngineCache:
    """A folder of built engines, bounded in size; safe for any number of threads and processes."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root = root
        self._engines = root / "engines"
        self._locks = root / "locks"
        self._limit = limit_bytes
        self.hits = 0
        self.builds = 0

    def get_or_build(self, key: Mapping[str, object], build: Callable[[], bytes], restore: Callable[[bytes], T]) -> T:
        """Restore the entry of a key; build it first if there is none, or if it is damaged or refused.

        One process builds, others that want the same entry wait and say so. Raises what build raises, and CacheError
        after waiting too long.
        """
        path = self._engines / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        found = self._try_restore(path, key, restore)
        if found is not None:
            return found[0]
        with self._locked(path.name):
            found = self._try_restore(path, key, restore)  # somebody may have built it while this one waited
            if found is not None:
                return found[0]
            blob = build()
            result = restore(blob)
            self.builds += 1
            try:
                self._store(path, key, blob)
                self._evict(keep=path)
            except OSError as exc:
                # The engine works; only the next start will have to build it again.
                LOG.warning("a built engine could not be kept in %s: %s", self.root, exc)
            return result

    def _try_restore(self, path: Path, key: Mapping[str, object], restore: Callable[[bytes], T]) -> tuple[T] | None:
        if not path.exists():
            return None
        try:
            blob = read_entry(path, key)
            result = restore(blob)
        except (CacheError, EngineError) as exc:
            LOG.warning("engine %s in the cache is rebuilt: %s", path.name[:12], exc)
            with self._locked("remove"):
                shutil.rmtree(path, ignore_errors=True)
            return None
        self.hits += 1
        with suppress(OSError):  # a cache on a read-only file system still serves; only its order of use is lost
            os.utime(path / "entry.json")
        return (result,)

    def _store(self, path: Path, key: Mapping[str, object], blob: bytes) -> None:
        self._engines.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix="part-", dir=self._engines))
        try:
            (temporary / "engine.bin").write_bytes(blob)
            facts = {"key": dict(key), "sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)}
            (temporary / "entry.json").write_text(json.dumps(facts, indent=1) + "\n")
            shutil.rmtree(path, ignore_errors=True)
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self._locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._locks / f"{name[:32]}.lock")
        try:
            lock.acquire(timeout=NOTICE_SECONDS)
        except Timeout:
            LOG.warning("another process is building this engine; waiting for it (at most %.0f s)", WAIT_SECONDS)
            try:
                lock.acquire(timeout=WAIT_SECONDS)
            except Timeout as exc:
                raise CacheError(
                    f"another process has been building the same engine for {WAIT_SECONDS:.0f} s; stop it, or go without "
                    "a cache: TINYSEG_CACHE_MB=0"
                ) from exc
        try:
            yield
        finally:
            lock.release()

    def _evict(self, keep: Path) -> None:
        """Remove the least recently used entries until the rest fits, and what killed builds left behind."""
        with self._locked("remove"):
            for part in self._engines.glob("part-*"):
                if time.time() - part.stat().st_mtime > WAIT_SECONDS:
                    shutil.rmtree(part, ignore_errors=True)
            entries = sorted(self.entries(check=False), key=lambda e: e.last_used)
            total = sum(e.megabytes for e in entries) * 1e6
            for entry in entries:
                if total <= self._limit:
                    return
                if entry.path != keep:
                    shutil.rmtree(entry.path, ignore_errors=True)
                    total -= entry.megabytes * 1e6

    def entries(self, check: bool) -> list[Entry]:
        """Every entry; with ``check`` each one's bytes are read and compared with its checksum."""
        found = []
        for path in sorted(self._engines.glob("[0-9a-f]*")):
            key: Mapping[str, object] = {}
            problem, size, used = None, 0, 0.0
            try:
                facts = _facts(path)
                key, size = facts["key"], int(facts["bytes"])
                used = (path / "entry.json").stat().st_mtime
                if check:
                    read_entry(path, key)
            except (CacheError, OSError) as exc:
                problem = str(exc)
            found.append(Entry(path, key, size / 1e6, used, problem))
        return found

    def clear(self) -> int:
        """Remove every entry; returns how many there were."""
        with self._locked("remove"):
            entries = self.entries(check=False)
            for path in self._engines.glob("*"):
                shutil.rmtree(path, ignore_errors=True)
        return len(entries)

    def remove(self, entry: Entry) -> None:
        with self._locked("remove"):
            shutil.rmtree(entry.path, ignore_errors=True)


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads((path / "entry.json").read_text())
        if not {"key", "sha256", "bytes"} <= set(facts):
            raise ValueError("a field is missing")
    except (OSError, ValueError, TypeError) as exc:
        raise CacheError(f"entry.json cannot be used ({exc})") from exc
    return dict(facts)


def read_entry(path: Path, key: Mapping[str, object]) -> bytes:
    """An entry's bytes, after their checksum and key were compared. Raises CacheError."""
    facts = _facts(path)
    if facts["key"] != json.loads(json.dumps(dict(key))):
        raise CacheError("it was built for something else")
    try:
        blob = (path / "engine.bin").read_bytes()
    except OSError as exc:
        raise CacheError(f"engine.bin cannot be read ({exc.strerror})") from exc
    if hashlib.sha256(blob).hexdigest() != facts["sha256"]:
        raise CacheError("its bytes do not match their checksum")
    return blob
