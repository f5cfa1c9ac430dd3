"""Regular files that appear whole or not at all; everything else that a path may name is only written to."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tinyseg.errors import DataError


def is_replaceable(path: Path) -> bool:
    """Whether a rename onto ``path`` destroys nothing but a regular file's former content.

    False for devices, pipes, sockets and links, which have to be opened and written to (``/dev/null`` would become a file
    otherwise), and for folders.
    """
    return not path.is_symlink() and (path.is_file() or not path.exists())


def commit(temporary: Path, path: Path) -> None:
    """Give a finished file its name, in one step. Raises OSError, also where another kind of thing has the name."""
    if not is_replaceable(path):
        raise OSError(None, "another kind of thing than a regular file has this name")
    os.replace(temporary, path)


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file of at most so many bytes. Raises OSError, also for links, pipes and devices."""
    # Looked at before it is opened: opening a pipe waits, and opening some devices does something.
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(None, "it is a link or no regular file")
    # Without following a link that came in between, or waiting for a pipe that did.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise OSError(None, f"it has {size:,} bytes, more than the {most_bytes:,} that such a file may have")
        return file.read(most_bytes)


def create_beside(path: Path) -> tuple[Path, BinaryIO]:
    """A new, empty file in the folder of ``path`` to fill and :func:`commit`, with the mode of the file that is there."""
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    if path.exists():
        temporary.chmod(path.stat().st_mode & 0o777)
    return temporary, os.fdopen(handle, "wb")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; links, devices and pipes are written to, not replaced. Raises DataError."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not is_replaceable(path):
            with path.open("wb") as opened:
                opened.write(data)
            return
        temporary, file = create_beside(path)
        with file:
            file.write(data)
        commit(temporary, path)
        temporary = None
    except (OSError, ValueError) as exc:  # ValueError: a name with a null byte
        raise DataError(f"{path} cannot be written: {getattr(exc, 'strerror', None) or exc}") from exc
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
