"""What the shards say, in one place: COCO's annotations.json, YOLO's label files, errors.jsonl. Memory does not grow with images.

Ids are given here, in the order of the shards, so they do not depend on who labelled what when.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import clipped, shown
from tinyseg.errors import DataError
from tinyseg.files import commit, create_beside, write_bytes
from tinyseg.label.shard import read_stats, shard_path
from tinyseg.rle import MOST_PIXELS, decode_rle
from tinyseg.shard_rows import is_inside, read_rows
from tinyseg.system.folders import ResultFolder

ANNOTATIONS, ERRORS, WRITTEN = "annotations.json", "errors.jsonl", ".written.json"
LABELS, DATA_YAML = "labels", "data.yaml"
FINER, MOST_FINE_PIXELS = 4, 1 << 24  # polygons that cover more pixels are drawn as coarse as their picture
YOLO_TOLERANCE = 0.5  # pixels by which an outline's corners may be thinned
# What is added to a pixel's index: its readers cut it off (Ultralytics) or round it (supervision), and both get the index back.
YOLO_OFFSET = 0.25


@dataclass
class Totals:
    """What a gathered folder holds. copies: images whose bytes equal those of an earlier one."""

    images: int = 0
    annotations: int = 0
    copies: int = 0
    failed: int = 0


class Categories:
    """Names to numbers from 1: those known before, then others as they come."""

    def __init__(self, names: Sequence[str]) -> None:
        self._numbers: dict[str, int] = {}
        for name in names:
            self.number(name)

    def number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers) + 1)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return ((number, name) for name, number in self._numbers.items())


def all_rows(out: Path, shards: int, kind: str) -> Iterator[dict[str, Any]]:
    """Rows of all shards, in order. Raises DataError where one is damaged."""
    for number in range(shards):
        yield from read_rows(shard_path(out, number, kind))


def gather_errors(folder: ResultFolder, shards: int, totals: Totals) -> None:
    """errors.jsonl: a line for every picture that could not be labelled. Raises DataError."""

    def write(file: BinaryIO) -> None:
        for number in range(shards):
            for error in read_stats(folder.folder, number).errors:
                totals.failed += 1
                file.write(json.dumps(error).encode() + b"\n")

    write_streaming(folder.place(ERRORS), write)


def gather_coco(
    folder: ResultFolder, shards: int, kind: str, names: Sequence[str], info: dict[str, Any], totals: Totals,
    merged: Path | None = None,
) -> None:  # fmt: skip
    """annotations.json. merged: a corrected file that may be annotations.json itself. Raises DataError, also where somebody
    changed annotations.json since it was written."""
    path = folder.place(ANNOTATIONS)
    digests = require_unchanged(folder.folder, path, merged)
    categories = Categories(names)
    seen: dict[bytes, int] = {}
    parts = Parts(path)

    def rows() -> None:
        for row in all_rows(folder.folder, shards, kind):
            totals.images += 1
            image = {"id": totals.images, **row["image"]}
            key = bytes.fromhex(image.get("sha256", ""))
            first = seen.setdefault(key, totals.images) if key else totals.images
            if first != totals.images:
                image["duplicate_of"] = first
                totals.copies += 1
            parts.image(image)
            for annotation in row["annotations"]:
                totals.annotations += 1
                given = {k: v for k, v in annotation.items() if k != "category"}
                category = categories.number(annotation["category"])
                parts.annotation(
                    {"id": totals.annotations, "image_id": totals.images, "category_id": category, **given}
                )

    with parts:
        rows()
        tail = json.dumps([{"id": number, "name": name} for number, name in categories])
        digest = parts.finish(info, tail)
        # Before the name is given, and with the one before: a kill in between must not look like somebody's change.
        written = folder.place(WRITTEN)
        write_bytes(written, json.dumps({ANNOTATIONS: [digest, *digests]}).encode())
        parts.commit()
        write_bytes(written, json.dumps({ANNOTATIONS: [digest]}).encode())


class Parts:
    """The two long lists of a COCO file, each streamed into a file of its own, then joined."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: list[tuple[Path, BinaryIO]] = []
        self._first = [True, True]

    def __enter__(self) -> Parts:
        try:
            for _ in range(2):
                self._files.append(create_beside(self._path))
        except OSError as exc:
            self.__exit__()
            raise self._failure(exc) from exc
        return self

    def image(self, row: dict[str, Any]) -> None:
        self._add(0, row)

    def annotation(self, row: dict[str, Any]) -> None:
        self._add(1, row)

    def _add(self, which: int, row: dict[str, Any]) -> None:
        try:
            file = self._files[which][1]
            if self._first[which] and which == 0:
                file.write(b'"images": [\n')
            elif not self._first[which]:
                file.write(b",\n")
            self._first[which] = False
            file.write(json.dumps(row, separators=(",", ":")).encode())
        except OSError as exc:
            raise self._failure(exc) from exc

    def finish(self, info: dict[str, Any], categories: str) -> str:
        """Join the parts; returns the SHA-256 of the whole. Raises DataError."""
        whole, other = self._files[0], self._files[1]
        try:
            head, joined = create_beside(self._path)
            self._files.append((head, joined))
            joined.write(b'{"info": ' + json.dumps(info).encode() + b",\n")
            for _, file in (whole, other):
                file.flush()
            if self._first[0]:
                joined.write(b'"images": [')
            for (path, _), between in ((whole, b'\n],\n"annotations": [\n'), (other, b"\n],\n")):
                with path.open("rb") as part:
                    shutil.copyfileobj(part, joined, 1 << 20)
                joined.write(between)
            joined.write(f'"categories": {categories}}}\n'.encode())
            joined.flush()
            os.fsync(joined.fileno())
            return digest_of(head)
        except OSError as exc:
            raise self._failure(exc) from exc

    def commit(self) -> None:
        """Give the whole its name. Raises DataError."""
        try:
            self._files[2][1].close()
            commit(self._files[2][0], self._path)
        except OSError as exc:
            raise self._failure(exc) from exc

    def __exit__(self, *of_an_error: object) -> None:
        for path, file in self._files:
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                path.unlink()

    def _failure(self, exc: OSError) -> DataError:
        return DataError(
            f"{clipped(self._path)} cannot be written: {exc.strerror or exc}; all shards are whole, run again to gather them"
        )


def digest_of(path: Path) -> str:
    """SHA-256 of a file. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def require_unchanged(out: Path, path: Path, merged: Path | None) -> list[str]:
    """Digests that the file may have as we wrote it. Raises DataError where it was changed since, and is not what is merged."""
    if not path.exists():
        return []
    try:
        known = [str(d) for d in json.loads((out / WRITTEN).read_bytes())[ANNOTATIONS]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        known = []
    try:
        digest = digest_of(path)
        if digest not in known and not (merged is not None and merged.exists() and merged.samefile(path)):
            raise DataError(
                f"{clipped(path)} was changed since tinyseg wrote it; to keep the changes run tinyseg label --merge "
                f"{clipped(path)} --out {clipped(out)}, or move it away"
            )
    except OSError as exc:
        raise DataError(f"{clipped(path)} cannot be read: {exc.strerror or exc}") from exc
    return [digest]


def write_streaming(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """A file whole or not at all, written bit by bit. Raises DataError."""
    temporary: Path | None = None
    try:
        temporary, file = create_beside(path)
        with file:
            write(file)
        commit(temporary, path)
        temporary = None
    except OSError as exc:
        raise DataError(f"{clipped(path)} cannot be written: {exc.strerror or exc}") from exc
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def gather_yolo(folder: ResultFolder, shards: int, kind: str, names: Sequence[str], totals: Totals) -> None:
    """labels/NAME.txt beside images/NAME, and data.yaml, as Ultralytics reads them. Raises DataError."""
    categories = Categories(names)
    labels = folder.folder / LABELS
    for row in all_rows(folder.folder, shards, kind):
        image = row["image"]
        name = image["file_name"] if os.sep == "\\" else image["file_name"].replace("\\", "_")  # a letter like others
        if not is_inside(name):
            raise DataError(
                f"{clipped(folder.folder)} has labels of {shown(image['file_name'])}, a name that leads out of it, and no label "
                "file was written for it; label again into another --out"
            )
        totals.images += 1
        lines = []
        for annotation in row["annotations"]:
            totals.annotations += 1
            outline = yolo_outline(to_mask(annotation["segmentation"], image["height"], image["width"]))
            if outline is not None:
                shares = outline / np.array([image["width"], image["height"]])
                number = categories.number(annotation["category"]) - 1
                lines.append(f"{number} " + " ".join(f"{v:.6f}" for v in shares.ravel()) + "\n")
        place = labels / PurePosixPath(image["file_name"]).with_suffix(".txt")
        write_bytes(place, "".join(lines).encode())
    rows = [f"  {number - 1}: {json.dumps(name)}" for number, name in categories]
    text = "\n".join(["path: .", "train: images", "val: images", "names:", *rows, ""])
    write_bytes(folder.place(DATA_YAML), text.encode())


def to_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """COCO's run lengths or polygons as a (H, W) bool mask. Raises DataError."""
    try:
        if isinstance(segmentation, dict):
            mask = decode_rle(segmentation)
            if mask.shape != (height, width):
                raise DataError(
                    f"a mask of {mask.shape[1]} x {mask.shape[0]} pixels in a picture of {width} x {height}"
                )
            return mask
        if height * width > MOST_PIXELS:
            raise DataError(f"a picture of {width} x {height} pixels")
        mask = np.zeros((height, width), np.bool_)
        for polygon in segmentation:
            points = np.asarray(polygon, np.float64).reshape(-1, 2)
            if not np.isfinite(points).all():
                raise ValueError("a corner that is no finite number")
            if len(points):
                _fill(mask, points)
        return mask
    except (TypeError, ValueError) as exc:
        if isinstance(exc, DataError):
            raise
        raise DataError(f"no segmentation that COCO knows: {exc}") from exc


def _fill(mask: NDArray[np.bool_], points: NDArray[np.float64]) -> None:
    """Draw a polygon (n, 2) whose corners lie on pixel edges: the pixels whose middle it holds."""
    height, width = mask.shape
    points = np.clip(points, -width - height, 2 * (width + height))
    x0, y0 = np.clip(np.floor(points.min(0)), 0, [width, height]).astype(int)
    x1, y1 = np.clip(np.ceil(points.max(0)), 0, [width, height]).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    # OpenCV fills the pixels of the outline too: drawn finer than it is, and looked at in the middle of each pixel.
    fine = FINER if (x1 - x0) * (y1 - y0) <= MOST_FINE_PIXELS else 1
    drawn = np.zeros(((y1 - y0) * fine, (x1 - x0) * fine), np.uint8)
    corners = np.round((points - [x0, y0]) * fine - 0.5).astype(np.int32)
    cv2.fillPoly(drawn, [corners], 1)
    mask[y0:y1, x0:x1] |= drawn[fine // 2 :: fine, fine // 2 :: fine] > 0


def yolo_outline(mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """One closed outline (n, 2) of a mask through its outer pixels, None for one without area. YOLO's format knows neither holes nor parts.

    Holes are filled. Parts are joined by lines there and back between their nearest corners, as Ultralytics' own converter does.
    """
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    thinned = [cv2.approxPolyDP(c, YOLO_TOLERANCE, True).reshape(-1, 2) for c in found]
    parts = sorted(
        (p.astype(np.float64) + YOLO_OFFSET for p in thinned if len(p) >= 3), key=lambda p: -np.ptp(p, 0).prod()
    )
    if not parts:
        return None
    whole = parts[0]
    for part in parts[1:]:
        distances = ((whole[:, None] - part[None]) ** 2).sum(2)
        at, to = divmod(int(distances.argmin()), len(part))
        there = np.concatenate([part[to:], part[: to + 1]])
        whole = np.concatenate([whole[: at + 1], there, whole[at:]])
    return whole
