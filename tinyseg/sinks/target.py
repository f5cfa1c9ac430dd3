"""A file that a sink fills while the loop runs, and that appears whole under its name at the end."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from tinyseg.arguments import check_path, clipped, path_kind
from tinyseg.errors import DataError
from tinyseg.files import commit, create_beside

log = logging.getLogger("tinyseg.sinks")


class Target:
    """Where a sink's file goes.

    A regular file is filled under a temporary name beside it, which no other run shares, and gets its name at the end;
    through a link the file that it leads to is meant. Devices and pipes (``streamed``) are written to as they are.
    """

    def __init__(self, path: Any) -> None:
        """Raises DataError for folders and for names that no file can have."""
        self.path = check_path("a file's name", path)
        kind = path_kind(self.path)
        if kind == "folder":
            raise DataError(f"{clipped(self.path)} is a folder; name a file in it")
        self.streamed = kind == "other"
        self._place = Path(os.path.realpath(self.path))
        self.temporary: Path | None = None

    def open(self) -> BinaryIO:
        """The file to fill. Raises DataError."""
        try:
            if self.streamed:
                return self.path.open("wb", buffering=0)
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self.temporary, file = create_beside(self._place)
            return file
        except OSError as exc:
            raise self.failure(exc) from exc

    def failure(self, exc: OSError) -> DataError:
        """What to raise for an error of the system."""
        return DataError(f"{clipped(self.path)} cannot be written: {exc.strerror or exc}")

    def finish(self) -> None:
        """Give the filled, closed file its name. Raises DataError, and leaves the filled file beside it then."""
        if self.temporary is None:
            return
        try:
            commit(self.temporary, self._place)
        except OSError as exc:
            raise DataError(
                f"{clipped(self.path)} cannot be written: {exc.strerror or exc}; what was made is {self.temporary}"
            ) from exc
        self.temporary = None
        log.info(f"wrote {clipped(self.path)}")

    def discard(self) -> None:
        """Remove what was filled."""
        if self.temporary is not None:
            with suppress(OSError):
                self.temporary.unlink()
            self.temporary = None
