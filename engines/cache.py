"""Built engines on disk: built once, whatever number of processes asks, and never used damaged or forged.

An entry is a folder named by the digest of its key (graph, shapes, engine, version, device, precision, flags), with the
engine's bytes and ``entry.json`` that names key, checksum and a code (HMAC) that only this user's key file can make.
Entries are written under a temporary name and renamed, so a killed build leaves nothing that could be mistaken for one.

What lies there is read as data of a stranger. What is wrong is set aside and built anew; what this user did not write is
compared with the fp32 reference before it is used.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tinyseg.engines.cache_place import find_place
from tinyseg.errors import CacheError, EngineError
from tinyseg.files import read_regular

if TYPE_CHECKING:
    from filelock import FileLock

T = TypeVar("T")
LOG = logging.getLogger("tinyseg.cache")
FORMAT = 2
DEFAULT_LIMIT_MB = 2048
MOST_FACTS_BYTES = 64 << 10
MOST_ENGINE_BYTES = 4 << 30
KEY_BYTES = 32
MOST_ASIDE = 8  # entries that were set aside and are kept for whoever wants to look at them
# A large TensorRT engine takes minutes on a small board; who waits longer than this should be told.
WAIT_SECONDS = 1800.0
NOTICE_SECONDS = 3.0
ENTRY_NAMES = "[0-9a-f]" * 64


def open_cache() -> tuple[EngineCache | None, str]:
    """(cache, what to say of it); None where nothing can be kept, or TINYSEG_CACHE_MB=0 says so.

    Raises CacheError where TINYSEG_CACHE names a folder that cannot be used, or that others can write to, and for a
    TINYSEG_CACHE_MB that is no number.
    """
    limit = os.environ.get("TINYSEG_CACHE_MB", str(DEFAULT_LIMIT_MB))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10):
        raise CacheError(f"TINYSEG_CACHE_MB must be a whole number of megabytes, but is {limit!r}")
    if int(limit) == 0:
        return None, "off (TINYSEG_CACHE_MB=0)"
    place = find_place()
    if place is None:
        return None, "off (there is neither a folder for caches nor a temporary one)"
    return EngineCache(place.root, int(limit) * 1_000_000, place.own, place.writable), place.told


def entry_key(identity: Mapping[str, str], graph_sha256: str, dimensions: Mapping[str, int]) -> dict[str, object]:
    """What an engine depends on."""
    return {"format": FORMAT, **identity, "graph": graph_sha256, "dimensions": dict(sorted(dimensions.items()))}


@dataclass(frozen=True)
class Entry:
    """One engine in the cache."""

    path: Path
    key: Mapping[str, object]  # empty where it cannot be read
    megabytes: float
    last_used: float  # seconds since the epoch
    problem: str | None  # why it would be rebuilt; None if it is whole (as far as it was checked)


class EngineCache:
    """A folder of built engines, bounded in size; safe for any number of threads and processes.

    own: nobody else can have written there, so entries that carry this user's code are believed. writable: entries may be
    added and removed.
    """

    def __init__(self, root: Path, limit_bytes: int, own: bool = True, writable: bool = True) -> None:
        self.root, self.own = root, own
        self._writable = writable
        self._engines = root / "engines"
        self._aside = root / "aside"
        self._locks = root / "locks"
        self._limit = limit_bytes
        self.hits = 0
        self.builds = 0

    def get_or_build(
        self,
        key: Mapping[str, object],
        build: Callable[[], bytes],
        restore: Callable[[bytes], T],
        check: Callable[[T], object] | None = None,
    ) -> T:
        """Restore the entry of a key; build it first if there is none, or if it is damaged or refused.

        check: compares a restored engine with its reference and raises EngineError where it differs; asked for entries
        that somebody else may have written. One process builds, others that want the same entry wait and say so. Raises
        what build raises, and CacheError after waiting too long.
        """
        path = self._engines / hashlib.sha256(_canonical(key)).hexdigest()
        found = self._try_restore(path, key, restore, check)
        if found is not None:
            return found[0]
        with self._locked(path.name):
            found = self._try_restore(path, key, restore, check)  # somebody may have built it while this one waited
            if found is not None:
                return found[0]
            blob = build()
            result = restore(blob)
            self.builds += 1
            if not self._writable:
                return result
            try:
                self._store(path, key, blob)
                self._evict(keep=path)
            except OSError as exc:
                # The engine works; only the next start will have to build it again.
                LOG.warning("a built engine could not be kept in %s: %s", self.root, exc)
            return result

    def _try_restore(
        self, path: Path, key: Mapping[str, object], restore: Callable[[bytes], T], check: Callable[[T], object] | None
    ) -> tuple[T] | None:
        if not os.path.lexists(path):
            return None
        try:
            blob = self.read_entry(path, key)
            result = restore(blob)
            if check is not None and not self.own:
                check(result)
        except (CacheError, EngineError) as exc:
            LOG.warning("engine %s in the cache is rebuilt: %s", path.name[:12], exc)
            self.set_aside(path)
            return None
        self.hits += 1
        with suppress(OSError):  # a cache on a read-only file system still serves; only its order of use is lost
            os.utime(path / "entry.json", follow_symlinks=False)
        return (result,)

    def read_entry(self, path: Path, key: Mapping[str, object]) -> bytes:
        """An entry's bytes, after its key, checksum and code were compared. Raises CacheError."""
        facts = self._facts(path)
        if facts["key"] != json.loads(_canonical(key)):
            raise CacheError("it was built for something else")
        if self.own and not hmac.compare_digest(str(facts["code"]), self._code(facts)):
            raise CacheError("its code is not of this user's key: somebody else wrote it, or it was copied here")
        try:
            blob = read_regular(path / "engine.bin", min(int(facts["bytes"]), MOST_ENGINE_BYTES))
        except OSError as exc:
            raise CacheError(f"engine.bin cannot be read ({exc.strerror or exc})") from exc
        if hashlib.sha256(blob).hexdigest() != facts["sha256"]:
            raise CacheError("its bytes do not match their checksum")
        return blob

    def _facts(self, path: Path) -> dict[str, Any]:
        """What entry.json says, checked. Raises CacheError."""
        try:
            if path.is_symlink() or not path.is_dir():
                raise CacheError("a link or a file is in its place")
            if self.own and hasattr(os, "getuid") and path.lstat().st_uid != os.getuid():
                raise CacheError(f"it belongs to user {path.lstat().st_uid}")
            facts = json.loads(read_regular(path / "entry.json", MOST_FACTS_BYTES))
        except (OSError, ValueError, RecursionError) as exc:
            raise CacheError(f"entry.json cannot be used ({getattr(exc, 'strerror', None) or exc})") from exc
        texts = ("sha256", "code")
        if not isinstance(facts, dict) or not all(_is_digest(facts.get(name)) for name in texts):
            raise CacheError("entry.json cannot be used (checksum or code are missing)")
        if type(facts.get("bytes")) is not int or not 0 <= facts["bytes"] <= MOST_ENGINE_BYTES:
            raise CacheError("entry.json cannot be used (no sensible size)")
        if not _is_key(facts.get("key")):
            raise CacheError("entry.json cannot be used (its key is not one)")
        return facts

    def _code(self, facts: Mapping[str, Any]) -> str:
        """HMAC-SHA256 (RFC 2104) of what entry.json states, by this user's key; "" in a cache of several users."""
        if not self.own:
            return "0" * 64
        told = _canonical({name: facts[name] for name in ("key", "sha256", "bytes")})
        return hmac.new(self._user_key(), told, hashlib.sha256).hexdigest()

    def _user_key(self) -> bytes:
        """The user's key, made at first use; a key file that is not private is replaced. Raises CacheError."""
        path = self.root / "key"
        secret = _private_key(path)
        if secret is not None:
            return secret
        with self._locked("key"):  # else one process takes for a bad key what another one has just made
            return self._made_key(path)

    def _made_key(self, path: Path) -> bytes:
        """The key that is there by now, else a new one. Raises CacheError."""
        for _ in range(3):
            secret = _private_key(path)
            if secret is not None:
                return secret
            # Made whole and then named, where no name is yet: of many processes that start at once, one wins.
            temporary = self.root / f"key.{secrets.token_hex(8)}"
            try:
                if os.path.lexists(path):
                    self._move_aside(path)
                handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(secrets.token_bytes(KEY_BYTES))
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    pass
                except OSError:  # a file system without hard links; here the last one wins
                    os.rename(temporary, path)
            except OSError as exc:
                raise CacheError(f"the cache's key {path} cannot be made ({exc.strerror or exc})") from exc
            finally:
                with suppress(OSError):
                    temporary.unlink()
        raise CacheError(f"the cache's key {path} cannot be made; remove what is in its place")

    def _store(self, path: Path, key: Mapping[str, object], blob: bytes) -> None:
        self._engines.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix="part-", dir=self._engines))
        try:
            facts: dict[str, Any] = {"key": dict(key), "sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)}
            facts["code"] = self._code(facts)
            (temporary / "engine.bin").write_bytes(blob)
            (temporary / "entry.json").write_text(json.dumps(facts, indent=1) + "\n")
            if not self.own:  # others are to read it
                temporary.chmod(0o755)
            if os.path.lexists(path):
                self._move_aside(path)
            os.replace(temporary, path)
        except CacheError as exc:
            shutil.rmtree(temporary, ignore_errors=True)
            raise OSError(None, str(exc)) from exc
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def set_aside(self, path: Path) -> bool:
        """Move an entry out of the way, whatever it is; False where the system does not let us."""
        if not self._writable:
            return False
        try:
            with self._locked("remove"):
                self._move_aside(path)
                return True
        except (OSError, CacheError) as exc:
            LOG.warning("%s could not be set aside (%s)", path, exc)
            return False

    def _move_aside(self, path: Path) -> None:
        """Raises OSError."""
        self._aside.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # somebody else was faster
            os.rename(path, self._aside / f"{path.name[:64]}.{secrets.token_hex(4)}")
        old = sorted(self._aside.iterdir(), key=lambda p: p.lstat().st_mtime, reverse=True)[MOST_ASIDE:]
        for one in old:
            remove(one)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Held by one process at a time; where the system allows no lock (a read-only or foreign folder), by everyone."""
        from filelock import Timeout  # noqa: PLC0415 - programs whose engine keeps nothing start sooner without it

        lock = self._lock(name) if self._writable else None
        try:
            if lock is not None:
                lock.acquire(timeout=NOTICE_SECONDS)
        except OSError as exc:
            if not isinstance(exc, Timeout):
                LOG.debug("no lock in %s: %s", self._locks, exc)
                lock = None
        if lock is not None and not lock.is_locked:
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
            if lock is not None:
                lock.release()

    def _lock(self, name: str) -> FileLock | None:
        from filelock import FileLock  # noqa: PLC0415

        path = self._locks / f"{name[:32]}.lock"
        try:
            self._locks.mkdir(parents=True, exist_ok=True)
            # A link that somebody put there would have its target emptied.
            return None if path.is_symlink() or self._locks.is_symlink() else FileLock(path)
        except OSError as exc:
            LOG.debug("no lock in %s: %s", self._locks, exc)
            return None

    def _evict(self, keep: Path) -> None:
        """Remove the least recently used entries until the rest fits, and what killed builds left behind."""
        with self._locked("remove"):
            for part in self._engines.glob("part-*"):
                with suppress(OSError):
                    if time.time() - part.lstat().st_mtime > WAIT_SECONDS:
                        remove(part)
            entries = sorted(self.entries(check=False), key=lambda e: e.last_used)
            total = sum(e.megabytes for e in entries) * 1e6
            for entry in entries:
                if total <= self._limit:
                    return
                if entry.path != keep:
                    remove(entry.path)
                    total -= entry.megabytes * 1e6

    def entries(self, check: bool) -> list[Entry]:
        """Every entry; with ``check`` each one's bytes are read and compared with checksum and code. Raises nothing."""
        try:
            places = sorted(self._engines.glob(ENTRY_NAMES))
        except OSError:
            return []
        return [self._entry(path, check) for path in places]

    def _entry(self, path: Path, check: bool) -> Entry:
        key: Mapping[str, object] = {}
        problem, size, used = None, 0, 0.0
        try:
            used = path.lstat().st_mtime
            facts = self._facts(path)
            key, size = facts["key"], facts["bytes"]
            used = (path / "entry.json").lstat().st_mtime
            size = max(size, (path / "engine.bin").lstat().st_size)  # what it takes, whatever it says
            if check:
                self.read_entry(path, key)
        except (CacheError, OSError) as exc:
            problem = str(exc)
        return Entry(path, key, size / 1e6, used, problem)

    def clear(self) -> int:
        """Remove every entry and what was set aside; returns how many entries went. What is not the cache's stays."""
        with self._locked("remove"):
            gone = 0
            for pattern, folder in ((ENTRY_NAMES, self._engines), ("part-*", self._engines), ("*", self._aside)):
                with suppress(OSError):
                    for path in list(folder.glob(pattern)):
                        gone += remove(path) and pattern == ENTRY_NAMES
        return gone


def remove(path: Path) -> bool:
    """Remove a folder, a file or a link (not what it leads to); whether it is gone."""
    with suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)


def _private_key(path: Path) -> bytes | None:
    """The key in a file that only this user can read and write; None where there is no such file."""
    try:
        found = path.lstat()
        secret = read_regular(path, KEY_BYTES)
    except OSError:
        return None
    private = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
    return secret if private and len(secret) == KEY_BYTES else None


def _canonical(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _is_key(key: object) -> bool:
    """Whether this is a key as :func:`entry_key` makes them: short printable texts, whole numbers, dimensions."""
    if not isinstance(key, dict) or len(key) > 64 or not isinstance(key.get("dimensions"), dict):
        return False
    values = [v for k, v in key.items() if k != "dimensions"]
    dimensions = key["dimensions"]
    return (
        len(dimensions) <= 64
        and all(type(v) is int and 0 <= v < 1 << 63 for v in dimensions.values())
        and all(isinstance(v, str) or (type(v) is int and 0 <= v < 1 << 63) for v in values)
        and all(t.isprintable() and len(t) < 1000 for t in (*key, *dimensions, *values) if isinstance(t, str))
    )
