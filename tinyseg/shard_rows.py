"""Rows of the shards that ``tinyseg label`` writes: gzipped JSON lines, or WebDataset tars with the pictures in them.

A row is ``{"image": {"file_name", "width", "height", ...}, "annotations": [{"category", "segmentation", "bbox", ...}]}``.
"""

from __future__ import annotations

import gzip
import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tinyseg.arguments import clipped
from tinyseg.errors import DataError

ROWS, TAR = ".jsonl.gz", ".tar"
MOST_ROW_BYTES = 1 << 30

# A row, and where its picture's bytes lie in the tar (offset, size); None without a picture.
Sample = tuple[dict[str, Any], "tuple[int, int] | None"]


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a shard, one after the other. Raises DataError where it is damaged."""
    return (row for row, _ in read_samples(path))


def read_samples(path: Path) -> Iterator[Sample]:
    """The same, with where the pictures lie. Raises DataError where it is damaged."""
    try:
        yield from _tar_rows(path) if path.name.endswith(TAR) else _gzip_rows(path)
    except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError, tarfile.TarError, zlib.error) as exc:
        if isinstance(exc, DataError):
            raise
        raise DataError(
            f"{clipped(path)} is damaged ({exc}); delete it and run the command again, which labels its pictures anew"
        ) from exc


def _gzip_rows(path: Path) -> Iterator[Sample]:
    with gzip.open(path, "rb") as file:
        while line := file.readline(MOST_ROW_BYTES):
            yield _checked(json.loads(line)), None


def _tar_rows(path: Path) -> Iterator[Sample]:
    with tarfile.open(path, "r:") as tar:
        place: tuple[int, int] | None = None
        for member in tar:
            if member.name.endswith(".json"):
                file: Any = tar.extractfile(member)
                yield _checked(json.loads(file.read(MOST_ROW_BYTES))), place
                place = None
            else:
                place = member.offset_data, member.size
            tar.members.clear()  # type: ignore[attr-defined] # it keeps every header otherwise


def _checked(row: Any) -> dict[str, Any]:
    if not isinstance(row["image"], dict) or not isinstance(row["annotations"], list):
        raise ValueError("a row that is none")
    checked: dict[str, Any] = row
    return checked


def is_inside(name: str) -> bool:
    """Whether a stranger's name for a file stays inside the folder that it is joined to."""
    path = PurePosixPath(name)
    return (
        bool(path.name) and not path.is_absolute() and ".." not in path.parts and "\0" not in name and "\\" not in name
    )


def find_picture(out: Path, root: Path, name: str) -> Path | None:
    """Where a picture of a label folder lies: kept in it, or still where it was labelled. None: nowhere any more."""
    if not is_inside(name):
        return None
    return next((p for p in (out / "images" / name, root / name) if p.is_file()), None)
