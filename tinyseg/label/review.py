"""A contact sheet of the masks that the model was least sure of: one static HTML file, to see what needs correcting first."""

from __future__ import annotations

import base64
import heapq
import html
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_choice, check_path, check_whole, clipped
from tinyseg.draw import overlay
from tinyseg.errors import DataError, InputError
from tinyseg.files import write_bytes
from tinyseg.images import decode_image, read_image
from tinyseg.label.gather import to_mask
from tinyseg.label.job import WEBDATASET, read_job
from tinyseg.label.shard import is_done, open_binary, shard_path
from tinyseg.shard_rows import ROWS, TAR, find_picture, read_samples
from tinyseg.system.folders import ResultFolder

TILE = 240  # pixels of a tile's longer side
MARGIN = 0.25  # of a mask's box, around it
MOST_TILES = 5000
MEASURES = {"score": "score", "stability": "stability_score"}

STYLE = """body{font:14px system-ui,sans-serif;margin:1rem;background:#fff;color:#222}
main{display:flex;flex-wrap:wrap;gap:.75rem}figure{margin:0;width:240px}img{max-width:240px;display:block}
figcaption{overflow-wrap:anywhere}.none{width:240px;height:120px;background:#eee}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}.none{background:#333}}"""


@dataclass(frozen=True)
class Doubt:
    """One mask that may be wrong. id: of its annotation in annotations.json; place: of its picture in a shard's tar."""

    id: int
    shard: int
    place: tuple[int, int] | None
    image: dict[str, Any]
    annotation: dict[str, Any]


def review(out: str | Path, count: int = 200, by: str = "score", page: str | Path | None = None) -> Path:
    """Write the contact sheet of a label folder; returns its place.

    count: tiles, the least certain first. by: "score" (predicted IoU, or likeness) or "stability" of the mask. page: the HTML file,
    None for review.html in the folder. Corrected masks are left out. Raises DataError or InputError.
    """
    check_whole("count", count, 1, MOST_TILES)
    measure = MEASURES[check_choice("by", by, tuple(MEASURES))]
    place = check_path("a folder of labels", out)
    job = read_job(place)
    kind = TAR if job["job"]["output"] == WEBDATASET else ROWS
    numbers = [n for n in range(int(job["shards"])) if is_done(place, n, kind)]
    order = itertools.count()
    doubts = heapq.nsmallest(
        count, ((float(d.annotation[measure]), next(order), d) for d in _scored(place, numbers, kind, measure))
    )
    tiles = {}
    for _, group in itertools.groupby(sorted((d for _, _, d in doubts), key=_picture_of), key=_picture_of):
        members = list(group)
        frame, problem = _read(place, Path(job["root"]), kind, members[0])
        for doubt in members:
            tiles[doubt.id] = _tile(doubt, frame, problem)
    body = "\n".join(tiles[d.id] for _, _, d in doubts) or "<p>No mask with a score.</p>"
    title = f"{len(doubts)} least certain masks, by {html.escape(by)}"
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1><main>\n{body}\n</main></html>\n"
    )
    target = check_path("page", page) if page is not None else ResultFolder(place).place("review.html")
    write_bytes(target, text.encode(errors="backslashreplace"))  # a file's name may be no UTF-8
    return target


def _scored(out: Path, numbers: list[int], kind: str, measure: str) -> Iterator[Doubt]:
    """All masks that have the figure, with the ids that annotations.json gives them."""
    id = 0
    for number in numbers:
        for row, place in read_samples(shard_path(out, number, kind)):
            for annotation in row["annotations"]:
                id += 1
                if isinstance(annotation.get(measure), (int, float)):
                    yield Doubt(id, number, place, row["image"], annotation)


def _picture_of(doubt: Doubt) -> tuple[int, str]:
    return doubt.shard, str(doubt.image["file_name"])


def _read(out: Path, root: Path, kind: str, doubt: Doubt) -> tuple[NDArray[np.uint8] | None, str]:
    """The picture, or why there is none."""
    name = str(doubt.image["file_name"])
    try:
        if doubt.place is not None:
            with open_binary(shard_path(out, doubt.shard, kind)) as file:
                file.seek(doubt.place[0])
                return decode_image(file.read(doubt.place[1]), name), ""
        path = find_picture(out, root, name)
        if path is None:
            return None, "the picture was not kept"
        return read_image(path), ""
    except DataError as exc:
        return None, str(exc)


def _tile(doubt: Doubt, frame: NDArray[np.uint8] | None, problem: str) -> str:
    annotation, image = doubt.annotation, doubt.image
    figures = [f"{n} {float(annotation[k]):.2f}" for n, k in MEASURES.items() if k in annotation]
    told = " · ".join([*figures, str(annotation["category"]), f"annotation {doubt.id}"])
    caption = f"<figcaption>{html.escape(told)}<br>{html.escape(str(image['file_name']))}</figcaption>"
    if frame is None:
        return f'<figure><div class="none">{html.escape(problem)}</div>{caption}</figure>'
    try:
        mask = to_mask(annotation["segmentation"], frame.shape[0], frame.shape[1])
    except DataError as exc:
        return f'<figure><div class="none">{html.escape(str(exc))}</div>{caption}</figure>'
    x, y, w, h = (int(v) for v in annotation["bbox"])
    margin = max(8, round(MARGIN * max(w, h)))
    x0, y0 = max(0, x - margin), max(0, y - margin)
    x1, y1 = min(frame.shape[1], x + w + margin), min(frame.shape[0], y + h + margin)
    scale = TILE / max(x1 - x0, y1 - y0)
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    crop = cv2.resize(frame[y0:y1, x0:x1], size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    part = cv2.resize(mask[y0:y1, x0:x1].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    done, data = cv2.imencode(".jpg", overlay(np.asarray(crop, np.uint8), [part], ()), [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not done:
        raise InputError(f"{clipped(str(image['file_name']))}: OpenCV cannot write its tile")
    source = base64.b64encode(data.tobytes()).decode("ascii")
    return f'<figure><img alt="" src="data:image/jpeg;base64,{source}">{caption}</figure>'
