"""Where built engines are kept, and whether the folder is one's own: only then is it believed without a comparison.

A cache is private: made with mode 0700, and refused where another user owns it or could write to it, as ssh refuses a
loose key. A folder for several users is an explicit choice (TINYSEG_CACHE_SHARED=1), or one that the system's
administrator filled and nobody else can write; what comes from either passes the parity gate again at every start.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tinyseg.errors import CacheError

LOG = logging.getLogger("tinyseg.cache")
OTHERS_WRITE = 0o022


@dataclass(frozen=True)
class CachePlace:
    """A folder for built engines."""

    root: Path
    own: bool  # nobody else can have written there
    writable: bool
    told: str  # what to say of it


def cache_root() -> Path:
    """TINYSEG_CACHE, else the platform's folder for a user's caches. Raises RuntimeError where there is no home."""
    named = os.environ.get("TINYSEG_CACHE")
    if named:
        root = Path(named).expanduser()
    else:
        import platformdirs  # noqa: PLC0415 - programs whose engine keeps nothing start sooner without it

        root = platformdirs.user_cache_path("tinyseg", appauthor=False)
    if root.parts[:1] == ("~",):
        raise RuntimeError("there is no home directory")
    return root


def find_place() -> CachePlace | None:
    """The folder to use, made if it is missing; None where not even a temporary one can be made.

    Without a home, and where the default place cannot be used, a temporary folder serves this process; that is said once.
    A folder that somebody named and that cannot be used is a mistake. Raises CacheError.
    """
    named = os.environ.get("TINYSEG_CACHE")
    try:
        root = cache_root()
    except RuntimeError as exc:
        return _temporary(f"TINYSEG_CACHE={named}: {exc}" if named else str(exc))
    try:
        return _examined(root, os.environ.get("TINYSEG_CACHE_SHARED") == "1")
    except OSError as exc:
        told = f"{root} cannot be written ({exc.strerror or exc})"
    except CacheError as exc:
        told = str(exc)
    if named:
        raise CacheError(f"TINYSEG_CACHE={told}; name another folder, or set TINYSEG_CACHE_MB=0 to go without a cache")
    return _temporary(f"{told}; set TINYSEG_CACHE to a folder that can")


def own_folder(name: str) -> Path | None:
    """A folder inside the cache for other things that are worth keeping; None where the cache is not one's own."""
    try:
        place = find_place()
    except CacheError:
        return None
    return place.root / name if place is not None and place.own and place.writable else None


def _examined(root: Path, shared: bool) -> CachePlace:
    """Raises OSError, and CacheError where others could have written there."""
    if not root.exists():
        root.mkdir(parents=True, mode=0o777 if shared else 0o700)
    if not root.is_dir():
        raise CacheError(f"{root} cannot be written (it is a file, not a folder)")
    found = root.stat()
    writable = os.access(root, os.W_OK | os.X_OK)
    if hasattr(os, "getuid"):  # on Windows a user's own folders are private by their access lists
        mode = found.st_mode & 0o777
        if shared:
            return CachePlace(root, False, writable, "on, shared: every engine is compared with the reference again")
        if found.st_uid != os.getuid() or mode & OTHERS_WRITE:
            if found.st_uid == 0 and not mode & OTHERS_WRITE and not writable:
                return CachePlace(
                    root, False, False, "on, read-only: every engine is compared with the reference again"
                )
            raise CacheError(
                f"{root} belongs to user {found.st_uid} and has mode {mode:04o}, so somebody else could have put engines "
                f"there; make it your own (chmod 700 {root}), or set TINYSEG_CACHE_SHARED=1 to use it and compare every "
                "engine with the reference again"
            )
    with tempfile.TemporaryFile(dir=root):  # what access() promises, a full or read-only file system may not keep
        pass
    return CachePlace(root, True, True, "on")


@functools.cache
def _temporary(reason: str) -> CachePlace | None:
    """One folder for the process, removed at its end."""
    try:
        root = Path(tempfile.mkdtemp(prefix="tinyseg-cache-"))
    except OSError as exc:
        LOG.warning("engines are not kept: %s; nor can a temporary folder be made (%s)", reason, exc)
        return None
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    LOG.warning("built engines are kept for this process only: %s", reason)
    return CachePlace(root, True, True, f"temporary ({reason})")
