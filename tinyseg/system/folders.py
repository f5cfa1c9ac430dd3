"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyseg.errors import DataError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder to fill, which takes the place of ``out`` at the end; on an error ``out`` stays as it was.

    Raises DataError where the system refuses to write (a read-only or full disk, a file in the way).
    """
    temporary: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        yield temporary
        for file in temporary.iterdir():
            file.chmod(0o644)
        temporary.chmod(0o755)
        before = temporary.with_name(temporary.name + ".before")
        if out.exists():
            os.rename(out, before)
        try:
            os.rename(temporary, out)
        except OSError:
            if before.exists():
                os.rename(before, out)
            raise
        shutil.rmtree(before, ignore_errors=True)
    except OSError as exc:
        raise DataError(f"{out} cannot be written ({exc.strerror}); nothing was changed there") from exc
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
