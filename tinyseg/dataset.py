"""Photos with instance masks, for training and measuring.

A dataset is a tar file or a folder with ``annotations.jsonl.gz`` and ``images/``. Every line of the annotations is
an image: ``{"file", "width", "height", "source", "instances": [[polygon, ...], ...]}`` and optionally ``"set"``, a
polygon being a list of [x, y] pixel positions. All polygons of an instance are filled together (even-odd), so inner
ones are holes. COCO's instance JSON, folders of ``tinyseg label`` and of SA-1B are read too.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_path, check_whole, path_kind
from tinyseg.errors import DataError
from tinyseg.pixels import MAX_SIDE
from tinyseg.rle import decode_rle
from tinyseg.shard_rows import ROWS, TAR, find_picture, read_samples

MOST_COORDINATE = 10 * MAX_SIDE  # of a polygon's points, which may lie a little outside of the picture


@dataclass(frozen=True)
class Photo:
    """One annotated image; its bytes stay in the file until they are needed."""

    name: str
    source: str
    group: str  # the evaluation set it belongs to, or ""
    width: int
    height: int
    instances: tuple[tuple[NDArray[np.float32], ...], ...]  # polygons (n, 2) of every instance
    path: Path
    offset: int | None  # position in a tar file, None for a plain file
    size: int

    def __post_init__(self) -> None:
        """Raises DataError for labels that no picture can have: they may be a stranger's."""
        for key in ("width", "height"):
            check_whole(f"{self.path}: {key} of {self.name}", getattr(self, key), 1, MAX_SIDE, DataError)
        for polygon in (p for instance in self.instances for p in instance):
            if not (np.abs(polygon) <= MOST_COORDINATE).all():  # nor where one is no number
                raise DataError(
                    f"{self.path}: a polygon of {self.name} lies far outside of any picture, or is no number; mend it, or "
                    "leave the picture out"
                )

    def read(self) -> NDArray[np.uint8]:
        """Decode to (H, W, 3) BGR."""
        with self.path.open("rb") as file:
            if self.offset is not None:
                file.seek(self.offset)
            data = file.read(self.size)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise DataError(f"{self.path}: {self.name} is not an image that OpenCV can decode")
        height, width = image.shape[:2]
        if (width, height) != (self.width, self.height):
            raise DataError(
                f"{self.path}: {self.name} is {width} x {height}, but is labelled as {self.width} x {self.height}; label it as it is"
            )
        return np.asarray(image, np.uint8)

    def masks(self) -> NDArray[np.bool_]:
        """(instances, H, W) masks at the photo's own size."""
        out = np.zeros((len(self.instances), self.height, self.width), np.uint8)
        for mask, polygons in zip(out, self.instances):
            cv2.fillPoly(mask, [np.round(p).astype(np.int32) for p in polygons], 1)
        return out.astype(bool)


def read_photos(path: Path) -> list[Photo]:
    """All photos of a dataset, in the order of its annotations. Raises DataError.

    path: a tar file or folder with annotations.jsonl.gz and images/; COCO's instances JSON with its images beside it, in
    images/ or in a folder named like the JSON's split (instances_val2017.json: val2017/, also one level up); a folder
    that ``tinyseg label`` wrote; or a folder of SA-1B (name.jpg and name.json side by side). COCO's annotations with
    ``iscrowd``, groups of things, are left out.
    """
    if path_kind(check_path("a data set", path)) is None:
        raise DataError(
            f"there is no data set at {path}; give a tar file or folder with annotations.jsonl.gz and images/, a COCO "
            "instances JSON, a folder of tinyseg label, or a folder of SA-1B"
        )
    try:
        if path.suffix == ".json":
            return _read_coco(path)
        if path.is_dir() and (path / "label.json").exists():
            return _read_labels(path)
        if path.is_dir() and not (path / "annotations.jsonl.gz").exists() and any(path.glob("*.json")):
            return [_sa1b_photo(p) for p in sorted(path.glob("*.json"))]
        lines, places = _open_folder(path) if path.is_dir() else _open_tar(path)
        return [_photo(path, json.loads(line), places) for line in lines]
    except DataError:
        raise  # says what is missing; it is a ValueError too
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
        tarfile.TarError,
        zlib.error,
    ) as exc:
        first = str(exc).partition("\n")[0].rstrip(":")  # tarfile lists what it tried, a line for each
        raise DataError(
            f"{path} is not a data set that tinyseg reads ({type(exc).__name__}: {first}); "
            "expected a tar file or folder with annotations.jsonl.gz and images/"
        ) from exc


# Where an image's bytes lie: file, offset in it (None: from its start), length.
_Places = dict[str, tuple[Path, "int | None", int]]


def _open_folder(path: Path) -> tuple[list[str], _Places]:
    with gzip.open(path / "annotations.jsonl.gz", "rt") as file:
        lines = file.read().splitlines()
    return lines, {f.name: (f, None, f.stat().st_size) for f in (path / "images").iterdir()}


def _open_tar(path: Path) -> tuple[list[str], _Places]:
    with tarfile.open(path) as tar:
        members = {m.name.removeprefix("./"): m for m in tar.getmembers()}
        packed = tar.extractfile(members["annotations.jsonl.gz"])
        if packed is None:
            raise KeyError("annotations.jsonl.gz")
        with gzip.open(io.BytesIO(packed.read()), "rt") as file:
            lines = file.read().splitlines()
    images = {n: m for n, m in members.items() if n.startswith("images/")}
    return lines, {Path(n).name: (path, m.offset_data, m.size) for n, m in images.items()}


def _photo(path: Path, row: dict[str, Any], places: _Places) -> Photo:
    name = Path(row["file"]).name
    if name not in places:
        raise DataError(f"{path}: its annotations name {name}, which is not among its images/; add it or drop its line")
    polygons = [
        tuple(np.array(p, np.float32).reshape(-1, 2) for p in instance if len(p) >= 3) for instance in row["instances"]
    ]
    instances = tuple(i for i in polygons if i)
    return Photo(name, row["source"], row.get("set", ""), row["width"], row["height"], instances, *places[name])


def _read_coco(path: Path) -> list[Photo]:
    content = json.loads(path.read_text())
    split = path.stem.rpartition("_")[2]
    folders = [path.parent, path.parent / "images", path.parent / split, path.parent.parent / split]
    by_image: dict[int, list[Any]] = {}
    for row in content["annotations"]:
        if not row.get("iscrowd"):
            by_image.setdefault(row["image_id"], []).append(row["segmentation"])
    photos = []
    for image in content["images"]:
        name = image["file_name"]
        file = next((f / name for f in folders if (f / name).is_file()), None)
        if file is None:
            raise DataError(
                f"{path} names {name}, which is in none of {', '.join(str(f) for f in dict.fromkeys(folders))}"
            )
        instances = [_polygons_of(s) for s in by_image.get(image["id"], [])]
        kept = tuple(i for i in instances if i)
        photos.append(
            Photo(file.name, "coco", "", image["width"], image["height"], kept, file, None, file.stat().st_size)
        )
    return photos


def _read_labels(path: Path) -> list[Photo]:
    """What ``tinyseg label`` wrote: its shards, with the pictures in them, in images/, or where they were labelled."""
    root = Path(json.loads((path / "label.json").read_text())["root"])
    photos = []
    for shard in sorted([*(path / "shards").glob("*" + ROWS), *(path / "shards").glob("*" + TAR)]):
        for row, place in read_samples(shard):
            image = row["image"]
            name = str(image["file_name"])
            file, offset, size = (shard, *place) if place is not None else (find_picture(path, root, name), None, 0)
            if file is None:
                raise DataError(
                    f"{path} has labels of {name}, which is neither in its images/ nor in {root}; put it back, or label again "
                    "with --images copy"
                )
            instances = [_polygons_of(a["segmentation"]) for a in row["annotations"]]
            kept = tuple(i for i in instances if i)
            length = size or file.stat().st_size
            photos.append(Photo(name, "labels", "", image["width"], image["height"], kept, file, offset, length))
    return photos


def _sa1b_photo(path: Path) -> Photo:
    content = json.loads(path.read_text())
    image = content["image"]
    file = path.with_name(image["file_name"])
    instances = [_polygons_of(row["segmentation"]) for row in content["annotations"]]
    kept = tuple(i for i in instances if i)
    return Photo(file.name, "sa-1b", "", image["width"], image["height"], kept, file, None, file.stat().st_size)


def _polygons_of(segmentation: Any) -> tuple[NDArray[np.float32], ...]:
    """COCO's polygons or run lengths -> polygons (n, 2) of pixel positions."""
    if isinstance(segmentation, list):
        # COCO's corners lie on pixel edges, ours name pixels.
        flat = [np.array(p, np.float32).reshape(-1, 2) - 0.5 for p in segmentation]
        return tuple(p for p in flat if len(p) >= 3)
    mask = decode_rle(segmentation).astype(np.uint8)
    found, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return tuple(np.asarray(c, np.float32).reshape(-1, 2) for c in found if len(c) >= 3)
