"""Photos with instance masks, for training and measuring.

A dataset is a tar file or a folder with ``annotations.jsonl.gz`` and ``images/``. Every line of the annotations is
an image: ``{"file", "width", "height", "source", "instances": [[polygon, ...], ...]}`` and optionally ``"set"``, a
polygon being a list of [x, y] pixel positions. All polygons of an instance are filled together (even-odd), so inner
ones are holes.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError


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

    def read(self) -> NDArray[np.uint8]:
        """Decode to (H, W, 3) BGR."""
        with self.path.open("rb") as file:
            if self.offset is not None:
                file.seek(self.offset)
            data = file.read(self.size)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise DataError(f"{self.path}: {self.name} is not an image that OpenCV can decode")
        return np.asarray(image, np.uint8)

    def masks(self) -> NDArray[np.bool_]:
        """(instances, H, W) masks at the photo's own size."""
        out = np.zeros((len(self.instances), self.height, self.width), np.uint8)
        for mask, polygons in zip(out, self.instances):
            cv2.fillPoly(mask, [np.round(p).astype(np.int32) for p in polygons], 1)
        return out.astype(bool)


def read_photos(path: Path) -> list[Photo]:
    """All photos of a dataset (tar file or folder), in the order of its annotations. Raises DataError."""
    if not path.exists():
        raise DataError(
            f"there is no data set at {path}; give a tar file or folder with annotations.jsonl.gz and images/"
        )
    try:
        lines, places = _open_folder(path) if path.is_dir() else _open_tar(path)
        return [_photo(json.loads(line), places) for line in lines]
    except (OSError, KeyError, ValueError, TypeError, tarfile.TarError) as exc:
        raise DataError(
            f"{path} is not a data set that tinyseg reads ({type(exc).__name__}: {exc}); "
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


def _photo(row: dict[str, Any], places: _Places) -> Photo:
    name = Path(row["file"]).name
    polygons = [
        tuple(np.array(p, np.float32).reshape(-1, 2) for p in instance if len(p) >= 3) for instance in row["instances"]
    ]
    instances = tuple(i for i in polygons if i)
    return Photo(name, row["source"], row.get("set", ""), row["width"], row["height"], instances, *places[name])
