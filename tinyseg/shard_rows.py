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

from tinyseg.arguments import clipped, shown
from tinyseg.errors import DataError

ROWS, TAR = ".jsonl.gz", ".tar"
MOST_ROW_BYTES = 1 << 30
MOST_SIDE, MOST_FIGURE = 1 << 20, 1e9  # what no picture has

# A row, and where its picture's bytes lie in the tar (offset, size); None without a picture.
Sample = tuple[dict[str, Any], "tuple[int, int] | None"]


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a shard, one after the other. Raises DataError where it is damaged."""
    return (row for row, _ in read_samples(path))


def read_samples(path: Path) -> Iterator[Sample]:
    """The same, with where the pictures lie. Raises DataError where it is damaged."""
    try:
        yield from _tar_rows(path) if path.name.endswith(TAR) else _gzip_rows(path)
    except DataError:
        raise
    except (
        OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError, tarfile.TarError, zlib.error,
    ) as exc:  # fmt: skip
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
    """A row whose fields are what their readers take them for. Raises ValueError, KeyError or TypeError."""
    image, annotations = row["image"], row["annotations"]
    if not isinstance(image, dict) or not isinstance(annotations, list):
        raise ValueError("a row that is none")
    sides = image.get("width"), image.get("height")
    if not isinstance(image.get("file_name"), str) or not all(type(s) is int and 0 < s <= MOST_SIDE for s in sides):
        raise ValueError(f"an image without name or size: {shown(image)}")
    bytes.fromhex(image.get("sha256", ""))
    for one in annotations:
        if not isinstance(one, dict) or not isinstance(one.get("category"), str):
            raise ValueError(f"an annotation without category: {shown(one)}")
        box = one.get("bbox")
        if not isinstance(one.get("segmentation"), (dict, list)) or not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"an annotation without mask or box: {shown(one)}")
        for figure in (*box, *(one[name] for name in ("score", "stability_score") if name in one)):
            if not isinstance(figure, (int, float)) or not abs(figure) <= MOST_FIGURE:  # also of one that is no number
                raise ValueError(f"an annotation with the figure {shown(figure)}")
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
