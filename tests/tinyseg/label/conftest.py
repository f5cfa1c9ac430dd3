"""Pictures with a box each, small and quick to label on the engine without a network."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tinyseg.label import BoxFile, LabelReport, label


def write_pictures(folder: Path, count: int, seed: int = 0) -> list[str]:
    """Noise of 96 x 64, no two alike; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    names = [f"{i:03d}.png" for i in range(count)]
    for name in names:
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (64, 96, 3), np.uint8))
    return names


def write_boxes(path: Path, names: list[str]) -> Path:
    """A COCO file with a box for every picture, of two categories in turn."""
    images = [{"id": i, "file_name": n, "width": 96, "height": 64} for i, n in enumerate(names)]
    rows = [
        {"id": i, "image_id": i, "category_id": 3 + i % 2, "bbox": [10 + i % 9, 8, 40, 30], "iscrowd": 0, "area": 1200}
        for i in range(len(names))
    ]
    categories = [{"id": 3, "name": "cup"}, {"id": 4, "name": "dog"}]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return path


class Job:
    """A folder of pictures, and how to label it."""

    def __init__(self, root: Path, count: int) -> None:
        self.inputs = root / "in"
        self.names = write_pictures(self.inputs, count)
        self.boxes = write_boxes(root / "boxes.json", self.names)

    def label(self, out: Path, **options: object) -> LabelReport:
        given = {"engine": "fake", "shard": 3, **options}
        return label([self.inputs], out, BoxFile(str(self.boxes)), **given)  # type: ignore[arg-type]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path, 10)


def contents(out: Path) -> dict[str, bytes]:
    """Everything that a job leaves but how long it took."""
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    for name in [n for n in found if n.endswith("_stats.json")]:
        found[name] = json.dumps({**json.loads(found[name]), "seconds": 0}).encode()
    return found
