"""Corrections come back: a COCO file that an annotation tool wrote takes the place of the labels of its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyseg.arguments import check_path, clipped
from tinyseg.errors import DataError
from tinyseg.label.coco import CocoFile, CocoRow, read_coco
from tinyseg.label.gather import to_mask
from tinyseg.label.inputs import plain_path
from tinyseg.label.job import WEBDATASET, gather, opened, read_job
from tinyseg.label.shard import ShardWriter, copy_pictures, is_done, read_stats, shard_path
from tinyseg.rle import encode_rle
from tinyseg.shard_rows import ROWS, TAR, read_rows


@dataclass(frozen=True)
class MergeReport:
    """images: whose labels were replaced; before, after: how many annotations these had; unknown: the file's other images."""

    images: int
    before: int
    after: int
    unknown: int


def merge(corrected: str | Path, out: str | Path) -> MergeReport:
    """Replace the labels of every picture that a COCO file names by what it says of it; nothing at all is an answer too.

    corrected: as CVAT and others export it; polygons and run lengths are taken, those with ``iscrowd`` too, boxes alone are not.
    Names are matched as a whole or by their end. Replaced annotations carry ``"corrected": true`` and no score. A shard is
    rewritten whole or not at all, and doing it again changes nothing. Raises DataError.
    """
    source = plain_path(check_path("corrected", corrected))
    place = plain_path(check_path("out", out))
    job = read_job(place)
    kind = TAR if job["job"]["output"] == WEBDATASET else ROWS
    shards = int(job["shards"])
    with opened(place, None) as folder:
        missing = [n for n in range(shards) if not is_done(place, n, kind)]
        if missing:
            raise DataError(
                f"{len(missing)} of {shards} shards of {clipped(place)} are not done yet; run its command to the end"
            )
        content = read_coco(source, crowds=True)
        matched = match(content, place, shards, kind)
        before = after = 0
        for number, names in sorted(matched.items()):
            removed, added = rewrite(place, number, kind, names, content)
            before, after = before + removed, after + added
        if not matched:
            raise DataError(
                f"{clipped(source)} names no picture of {clipped(place)}; names must be equal, or end alike"
            )
        gather(folder, job["job"]["output"], kind, shards, [*job["categories"], *content.category_names], source)
    count = sum(map(len, matched.values()))
    return MergeReport(count, before, after, len(content.images) - count)


def match(content: CocoFile, out: Path, shards: int, kind: str) -> dict[int, dict[str, str]]:
    """Shard -> names of its pictures that the file corrects -> what the file calls them. Everything is checked before anything is
    changed. Raises DataError."""
    alike: list[tuple[int, str, int, int]] = []
    for number in range(shards):
        for row in read_rows(shard_path(out, number, kind)):
            image = row["image"]
            if content.alike(image["file_name"]):
                alike.append((number, image["file_name"], image["width"], image["height"]))
    whole = content.images.keys() & {picture for _, picture, _, _ in alike}
    found: dict[int, dict[str, str]] = {}
    taken: dict[str, str] = {}
    for number, picture, width, height in alike:
        name = content.name_of(picture, whole)
        if name is None:
            continue
        if name in taken:
            raise DataError(
                f"{clipped(content.path)}: {name} could be {taken[name]} or {picture}; give it a longer name"
            )
        taken[name] = picture
        size = content.images[name]
        if all(size) and size != (width, height):
            raise DataError(
                f"{clipped(content.path)}: {name} has {size[0]} x {size[1]} pixels there, and {width} x {height} in "
                f"{clipped(out)}"
            )
        for one in content.rows.get(name, []):
            annotation_of(one, content.path, width, height)
        found.setdefault(number, {})[picture] = name
    return found


def annotation_of(one: CocoRow, path: Path, width: int, height: int) -> dict[str, Any]:
    """A corrected annotation as we store it: its mask as run lengths. Raises DataError."""
    if not one.segmentation:
        raise DataError(
            f"{clipped(path)}: annotation {one.row.get('id')} has no mask; export masks or polygons, not boxes alone"
        )
    try:
        mask = to_mask(one.segmentation, height, width)
    except DataError as exc:
        raise DataError(f"{clipped(path)}: annotation {one.row.get('id')}: {exc}") from exc
    ys, xs = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    box = [int(xs[0]), int(ys[0]), int(xs[-1] - xs[0]) + 1, int(ys[-1] - ys[0]) + 1] if len(ys) else [0, 0, 0, 0]
    row: dict[str, Any] = {
        "category": one.category, "iscrowd": 0, "segmentation": encode_rle(mask), "bbox": box, "area": int(mask.sum()),
        "corrected": True,
    }  # fmt: skip
    if type(one.row.get("track_id")) is int:
        row["track_id"] = one.row["track_id"]
    return row


def rewrite(out: Path, number: int, kind: str, names: dict[str, str], content: CocoFile) -> tuple[int, int]:
    """One shard with other labels; returns how many went and how many came. Raises DataError."""
    path = shard_path(out, number, kind)
    removed = added = 0
    errors = read_stats(out, number).errors
    with ShardWriter(out, number, kind) as writer:
        for error in errors:
            writer.fail(error["name"], error["error"])
        for row, picture in copy_pictures(path):
            image = row["image"]
            known = names.get(image["file_name"])
            if known is not None:
                removed += len(row["annotations"])
                rows = content.rows.get(known, [])
                row["annotations"] = [annotation_of(r, content.path, image["width"], image["height"]) for r in rows]
                added += len(rows)
            writer.add(row, picture)
    return removed, added
