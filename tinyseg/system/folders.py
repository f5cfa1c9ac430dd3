"""Folders that appear whole or not at all, and folders of results; neither replaces what tinyseg did not write.

A folder that tinyseg writes holds a file ``.tinyseg`` with the names of what it wrote there, one a line. What is named may
be replaced by a later run; whatever else lies there belongs to somebody, and is kept.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tinyseg.errors import DataError

MARKER = ".tinyseg"
HEAD = "# Written by tinyseg, which may replace the files named here."
MOST_MARKER_BYTES = 64 << 20  # a stranger's marker is not read without a bound
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def written_files(folder: Path) -> set[str]:
    """Names, relative to the folder, of what tinyseg wrote there by its marker; empty without one. Raises OSError."""
    marker = folder / MARKER
    if marker.is_symlink() or not marker.is_file() or marker.stat().st_size > MOST_MARKER_BYTES:
        return set()
    head, *names = marker.read_text(errors="replace").splitlines() or [""]
    return set(names) | {MARKER} if head == HEAD else set()


def require_replaceable(out: Path) -> None:
    """Raises DataError where ``out`` is, or holds, anything that tinyseg did not write, or cannot be looked at."""
    if out.name in ("", ".."):
        # Who works in a folder whose place a new one takes is left in one that is gone.
        raise DataError(
            f"{out} has no name of its own, by which a new folder could take its place; name a folder inside it"
        )
    try:
        if not out.exists():
            return
        if not out.is_dir():
            raise DataError(f"{out} is a file, and a folder is to be written; name another folder, or remove the file")
        known = written_files(out)
        strange = sorted(
            str(p.relative_to(out))
            for p in out.rglob("*")
            if p.is_symlink() or (not p.is_dir() and p.relative_to(out).as_posix() not in known)
        )
    except OSError as exc:
        raise DataError(f"{out} cannot be looked at: {exc.strerror or exc}; name another folder") from exc
    if strange:
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise DataError(
            f"{out} holds {strange[0]}{more}, which tinyseg did not write there; name another folder, or move it away first"
        )


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder to fill, which takes the place of ``out`` at the end; on an error ``out`` stays as it was.

    A link is followed: the folder that it leads to is replaced. Raises DataError where the system refuses to write (a
    read-only or full disk, a file in the way), and where ``out`` holds what tinyseg did not write, before and after filling.
    """
    if "\0" in str(out):
        raise DataError(f"{str(out)!r} is no name for a folder: it holds a null byte")
    temporary: Path | None = None
    try:
        place = Path(os.path.realpath(out)) if out.is_symlink() else out
        require_replaceable(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name[:100]}.", dir=place.parent))
        yield temporary
        names = sorted(p.relative_to(temporary).as_posix() for p in temporary.rglob("*") if not p.is_dir())
        (temporary / MARKER).write_text("\n".join([HEAD, *(n for n in names if n != MARKER)]) + "\n")
        for file in temporary.iterdir():
            file.chmod(0o755 if file.is_dir() else 0o644)
        temporary.chmod(0o755)
        require_replaceable(place)  # somebody may have put something there while it was filled
        _put_in_place(temporary, place)
    except OSError as exc:
        raise DataError(f"{out} cannot be written ({exc.strerror}); nothing was changed there") from exc
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, place: Path) -> None:
    """Rename; where something is, exchange in one step if the system can, so that there is always one or the other."""
    if not place.exists():
        os.rename(temporary, place)
        return
    if _exchange(temporary, place):
        return  # what was there has the temporary name now
    before = temporary.with_name(temporary.name + ".before")
    os.rename(place, before)
    try:
        os.rename(temporary, place)
    except OSError:
        os.rename(before, place)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names (renameat2 of Linux); False where kernel, C library or file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return rename is not None and not rename(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE)


class ResultFolder:
    """A folder that results are written into one by one; files that tinyseg did not write are not replaced."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError where it cannot be made."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._known = written_files(folder)
        except (OSError, ValueError) as exc:
            raise DataError(f"{folder} cannot be written: {getattr(exc, 'strerror', None) or exc}") from exc

    def holds(self, name: str, source: Path) -> bool:
        """Whether a result that tinyseg wrote lies there, not older than the file that it was made of. Raises DataError."""
        path = self.folder / name
        try:
            return (
                name in self._known
                and not path.is_symlink()
                and path.is_file()
                and path.stat().st_mtime_ns >= source.stat().st_mtime_ns
            )
        except OSError as exc:
            raise DataError(f"{path} cannot be looked at: {exc.strerror or exc}") from exc

    def without_own(self, images: Sequence[str], named: Sequence[str]) -> list[str]:
        """Images without those that tinyseg wrote into this folder, but for those that the user named one by one.

        Where the folder of images is that of the results too, results would otherwise be taken for images. Raises DataError
        where nothing else is left.
        """
        here = os.path.realpath(self.folder)

        def own(image: str) -> bool:
            folder, name = os.path.split(image)
            return image not in named and name in self._known and os.path.realpath(folder or ".") == here

        left = [image for image in images if not own(image)]
        if images and not left:
            raise DataError(f"{self.folder} holds nothing but what tinyseg wrote there; name the images themselves")
        return left

    def place(self, name: str) -> Path:
        """The path of a file to write; from now on it is one of tinyseg's. Raises DataError where it is somebody's."""
        path = self.folder / name
        if name in self._known:
            return path
        try:
            if self._stranger(name) is not None:
                self._known |= written_files(self.folder)  # what another run wrote there meanwhile is tinyseg's too
            stranger = self._stranger(name)
            if stranger is not None:
                raise DataError(
                    f"{stranger} is there and was not written by tinyseg; name another folder, or move it away first"
                )
            if name in self._known:
                return path
            with (self.folder / MARKER).open("a") as file:
                file.write(f"{name}\n" if MARKER in self._known else f"{HEAD}\n{name}\n")
        except OSError as exc:
            raise DataError(f"{path} cannot be written: {exc.strerror or exc}") from exc
        self._known |= {name, MARKER}
        return path

    def _stranger(self, name: str) -> Path | None:
        """What is in the way of a file and, by what is known, was not written by tinyseg. Raises OSError."""
        wanted = [self.folder / each for each in (name, MARKER) if each not in self._known]
        return next((path for path in wanted if path.is_symlink() or path.exists()), None)
