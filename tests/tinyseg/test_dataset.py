"""Data sets of others: COCO's JSON and SA-1B's folders."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import tinyseg
from tests.conftest import ellipse, mask_iou
from tinyseg.dataset import read_photos
from tinyseg.errors import DataError
from tinyseg.masks import encode_rle

MASK = ellipse(64, 48, 30, 20, 15, 10)


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((48, 64, 3), 90, np.uint8))


def run_lengths(mask: np.ndarray) -> list[int]:
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges, len(flat)]).tolist()
    return lengths if flat[0] == 0 else [0, *lengths]


@pytest.mark.parametrize("place", ["images", "val2017", "../val2017", "."])
def test_coco(place: str, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    folder = tmp_path / "annotations"
    folder.mkdir()
    write_image((folder / place / "a.jpg").resolve())
    square = [10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0]  # edges: 20 x 10 pixels
    rows = [
        {"image_id": 1, "segmentation": [square], "iscrowd": 0},
        {"image_id": 1, "segmentation": {"size": [48, 64], "counts": run_lengths(MASK)}, "iscrowd": 0},
        {"image_id": 1, "segmentation": {"size": [48, 64], "counts": run_lengths(MASK)}, "iscrowd": 1},
    ]
    images = [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}]
    path = folder / "instances_val2017.json"
    path.write_text(json.dumps({"images": images, "annotations": rows}))
    (photo,) = read_photos(path)
    first, second = photo.masks()
    expected = np.zeros((48, 64), bool)
    expected[10:20, 10:30] = True
    assert mask_iou(first, expected) > 0.85 and mask_iou(second, MASK) == 1.0
    assert len(photo.instances) == 2 and photo.read().shape == (48, 64, 3)


def test_sa_1b(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    write_image(tmp_path / "sa_1.jpg")
    rle = encode_rle(MASK)
    image = {"image_id": 1, "file_name": "sa_1.jpg", "width": 64, "height": 48}
    (tmp_path / "sa_1.json").write_text(json.dumps({"image": image, "annotations": [{"segmentation": rle}]}))
    (photo,) = read_photos(tmp_path)
    assert mask_iou(photo.masks()[0], MASK) == 1.0 and photo.source == "sa-1b"


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(
        json.dumps({"images": [{"id": 1, "file_name": "b.jpg", "width": 1, "height": 1}], "annotations": []})
    )
    with pytest.raises(DataError, match=r"instances\.json names b\.jpg, which is in none of"):
        read_photos(path)
    (tmp_path / "images").mkdir()
    row = {"file": "c.jpg", "width": 1, "height": 1, "source": "s", "instances": []}
    with gzip.open(tmp_path / "annotations.jsonl.gz", "wt") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"^\S+: its annotations name c\.jpg, which is not among its images/"):
        read_photos(tmp_path)
    write_image(tmp_path / "c.jpg")
    with pytest.raises(
        DataError, match=r"^\S+c\.jpg is not a data set that tinyseg reads \(ReadError.*\); expected.*\Z"
    ):
        read_photos(tmp_path / "c.jpg")  # in one line
    path.write_text("[]")
    with pytest.raises(tinyseg.DataError, match="not a data set that tinyseg reads"):
        read_photos(path)


@pytest.mark.parametrize(
    "changed, says",
    [
        ({"width": 48}, "is 64 x 48, but is labelled as 48 x 48"),
        ({"width": -5}, "width of a.jpg must be a whole number"),
        ({"height": "48"}, "height of a.jpg must be a whole number"),
        ({"height": 320.5}, "height of a.jpg must be a whole number"),
        ({"width": 10**6}, "width of a.jpg must be a whole number"),
        ({"instances": [[[[0, 0], [9, float("nan")], [9, 9]]]]}, "a polygon of a.jpg"),
        ({"instances": [[[[0, 0], [9, 1e30], [9, 9]]]]}, "a polygon of a.jpg"),
    ],
)
def test_labels_that_no_picture_can_have_are_told(changed: dict[str, object], says: str, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    row = {
        "file": "images/a.jpg",
        "width": 64,
        "height": 48,
        "source": "",
        "instances": [[[[1, 1], [30, 1], [30, 30]]]],
    }
    with gzip.open(tmp_path / "annotations.jsonl.gz", "wt") as file:
        file.write(json.dumps({**row, **changed}))
    with pytest.raises(DataError, match=says):
        read_photos(tmp_path)[0].read()
