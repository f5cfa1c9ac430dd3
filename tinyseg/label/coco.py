"""COCO's instance JSON as others write it: boxes and masks by the name of their picture, checked."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tinyseg.arguments import check_path, clipped, shown
from tinyseg.errors import DataError

MOST_BYTES = 4 << 30


@dataclass(frozen=True)
class CocoRow:
    """One annotation. bbox: x, y, width, height. segmentation: polygons, run lengths, or None; row: as it was."""

    category: str
    bbox: tuple[float, float, float, float]
    segmentation: Any
    row: dict[str, Any]


@dataclass(frozen=True)
class CocoFile:
    """Annotations by picture. images: file name -> (width, height), zeros where the file does not say."""

    path: Path
    category_names: tuple[str, ...]
    images: dict[str, tuple[int, int]]
    rows: dict[str, list[CocoRow]]
    by_base: dict[str, list[str]]

    def alike(self, name: str) -> list[str]:
        """What the file may call a picture: its whole name, else those that end alike."""
        if name in self.images:
            return [name]
        return [n for n in self.by_base.get(PurePosixPath(name).name, ()) if is_same_picture(n, name)]

    def name_of(self, name: str, whole: Collection[str] = ()) -> str | None:
        """What the file calls a picture: its whole name, or the last part of it where only one has that. None: not in it.

        whole: names of the file that are the whole name of a picture, and so of no other. Raises DataError where several could be
        meant.
        """
        ending = [n for n in self.alike(name) if n == name or n not in whole]
        if len(ending) > 1:
            raise DataError(
                f"{clipped(self.path)} names several pictures that could be {name}: {', '.join(ending[:3])}"
            )
        return ending[0] if ending else None

    def of(self, name: str, whole: Collection[str] = ()) -> list[CocoRow]:
        """Annotations of a picture, none where the file does not know it."""
        known = self.name_of(name, whole)
        return [] if known is None else self.rows.get(known, [])


def is_same_picture(one: str, other: str) -> bool:
    """Whether one name is the end of the other, folder by folder: tools keep more or less of a path."""
    a, b = PurePosixPath(one.replace("\\", "/")).parts, PurePosixPath(other).parts
    shared = min(len(a), len(b))
    return a[-shared:] == b[-shared:]


def read_coco(path: Path, crowds: bool = False) -> CocoFile:
    """Read and check a file. Raises DataError.

    crowds: take in annotations with ``iscrowd``. COCO means a group of things by it, and its box is of no single one; tools that
    export corrections write it of every mask that is stored as run lengths.
    """
    path = check_path("a COCO file", path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{clipped(path)} has more than {MOST_BYTES >> 30} GiB; split it by pictures")
        content = json.loads(path.read_bytes())
        names = {c["id"]: _text(c["name"]) for c in content["categories"]}
        files = {i["id"]: _text(i["file_name"]) for i in content["images"]}
        images = {files[i["id"]]: (int(i.get("width") or 0), int(i.get("height") or 0)) for i in content["images"]}
        rows: dict[str, list[CocoRow]] = {}
        for row in content["annotations"]:
            if row.get("iscrowd") and not crowds:
                continue
            bbox = [float(v) for v in row["bbox"]]
            if len(bbox) != 4 or not all(map(math.isfinite, bbox)):
                raise ValueError(f"the box {shown(row['bbox'])}")
            found = CocoRow(
                names[row["category_id"]], (bbox[0], bbox[1], bbox[2], bbox[3]), row.get("segmentation"), row
            )
            rows.setdefault(files[row["image_id"]], []).append(found)
    except OSError as exc:
        raise DataError(f"{clipped(path)} cannot be read: {exc.strerror or exc}") from exc
    except DataError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, OverflowError, MemoryError) as exc:
        raise DataError(
            f"{clipped(path)} is no COCO file ({type(exc).__name__}: {exc}); expected JSON with images, annotations and categories"
        ) from exc
    by_base: dict[str, list[str]] = {}
    for name in images:
        by_base.setdefault(PurePosixPath(name.replace("\\", "/")).name, []).append(name)
    return CocoFile(path, tuple(dict.fromkeys(names.values())), images, rows, by_base)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"the name {shown(value)}")
    return value
