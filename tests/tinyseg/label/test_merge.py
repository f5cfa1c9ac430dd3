"""Corrections come back, and a page says what to correct first."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ellipse
from tests.tinyseg.label.conftest import Job, contents, write_boxes, write_pictures
from tinyseg.cli import main
from tinyseg.dataset import read_photos
from tinyseg.errors import DataError, InputError
from tinyseg.label import BoxFile, Everything, label, merge, review
from tinyseg.label.coco import read_coco
from tinyseg.rle import decode_rle, encode_rle

MASK = ellipse(96, 64, 40, 30, 20, 12)
SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0]  # edges: 20 x 10 pixels


def corrected(path: Path, pictures: dict[str, list[Any]], **size: int) -> Path:
    """A COCO file with these segmentations of these pictures, all of them cats."""
    images = [{"id": 7 + i, "file_name": n, "width": 96, "height": 64, **size} for i, n in enumerate(pictures)]
    rows = [
        {"id": 1, "image_id": 7 + i, "category_id": 2, "segmentation": s, "bbox": [0, 0, 1, 1], "iscrowd": 0}
        for i, some in enumerate(pictures.values())
        for s in some
    ]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": [{"id": 2, "name": "cat"}]}))
    return path


@pytest.mark.parametrize("format", ["coco", "yolo", "webdataset"])
def test_corrections_replace_labels(format: str, job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job.label(out, format=format)
    file = corrected(
        tmp_path / "c.json", {"001.png": [encode_rle(MASK), [SQUARE]], "some/folder/005.png": [], "x.png": [[SQUARE]]}
    )
    report = merge(file, out)
    assert (report.images, report.before, report.after, report.unknown) == (2, 2, 2, 1)
    photos = {p.name: p for p in read_photos(out)}
    assert len(photos) == 10 and len(photos["005.png"].instances) == 0 and len(photos["000.png"].instances) == 1
    first, second = photos["001.png"].masks()
    np.testing.assert_array_equal(first, MASK)
    assert second[10:20, 10:30].all() and second.sum() == 200
    before = contents(out)
    assert merge(file, out).before == 2 and contents(out) == before  # again: nothing changes
    assert job.label(out, format=format).shards_before == 4 and contents(out) == before  # and labelling keeps them
    if format == "coco":
        content = json.loads((out / "annotations.json").read_text())
        assert [c["name"] for c in content["categories"]][:2] == ["cup", "dog"]
        cats = [a for a in content["annotations"] if a.get("corrected")]
        assert len(cats) == 2 and all("score" not in a for a in cats) and cats[0]["area"] == MASK.sum()
    if format == "yolo":
        assert (out / "labels" / "005.txt").read_bytes() == b""
        assert [line.split()[0] for line in (out / "labels" / "001.txt").read_text().splitlines()] == ["2", "2"]


def test_a_name_of_two_pictures_is_refused_and_failures_stay_told(tmp_path: Path) -> None:
    folders = [tmp_path / "in" / name for name in "ab"]
    for seed, folder in enumerate(folders):
        write_pictures(folder, 2, seed)
    (folders[0] / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    label([tmp_path / "in"], out, Everything(points_per_side=1), engine="fake")
    errors = (out / "errors.jsonl").read_text()
    assert "a/bad.png" in errors
    with pytest.raises(DataError, match=r"001.png could be a/001.png or b/001.png; give it a longer name"):
        merge(corrected(tmp_path / "c.json", {"001.png": []}), out)
    assert merge(corrected(tmp_path / "c.json", {"b/001.png": [[SQUARE]]}), out).images == 1
    assert (out / "errors.jsonl").read_text() == errors


def test_a_whole_name_goes_before_ends(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for seed, name in enumerate((".", "a", "b")):
        write_pictures(folder / name, 2, seed)
    label([folder], out, Everything(points_per_side=1), engine="fake", shard=1)
    for names in (["000.png"], ["a/000.png", "b/000.png"], ["000.png", "b/000.png"]):
        assert merge(corrected(tmp_path / "c.json", {n: [[SQUARE], [SQUARE]] for n in names}), out).images == len(names)
    assert [len(p.instances) for p in read_photos(out)] == [2, 1, 2, 1, 2, 1]
    # The same of boxes: sub/000.png ends like 000.png, and is not meant by it; in whichever shard or process it is.
    boxes = BoxFile(str(write_boxes(tmp_path / "boxes.json", ["000.png", "b/001.png"])))
    for processes in (1, 2):
        place = tmp_path / f"boxes{processes}"
        assert label([folder], place, boxes, engine="fake", shard=1, processes=processes).annotations == 2
        assert [p.name for p in read_photos(place) if p.instances] == ["000.png", "b/001.png"]
    with pytest.raises(DataError, match=r"001.png, which could be a/001.png or b/001.png; give it longer names"):
        boxes = BoxFile(str(write_boxes(tmp_path / "two.json", ["001.png"])))
        label([folder / "a", folder / "b"], tmp_path / "no", boxes, engine="fake")


def test_masks_that_exporters_call_crowds_are_kept(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job.label(out)
    content = json.loads((out / "annotations.json").read_text())
    for row in content["annotations"]:
        row["iscrowd"] = 1  # as datumaro writes masks
    file = tmp_path / "crowd.json"
    file.write_text(json.dumps(content))
    report = merge(file, out)
    assert (report.images, report.before, report.after) == (10, 10, 10)
    assert all(len(p.instances) == 1 for p in read_photos(out))
    assert {a["iscrowd"] for a in json.loads((out / "annotations.json").read_text())["annotations"]} == {0}
    assert not read_coco(file).rows  # boxes to label of crowds are left out, as docs/label.md says


def test_an_edited_annotations_file_comes_back_in_its_own_place(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job.label(out)
    path = out / "annotations.json"
    content = json.loads(path.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 2]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="--merge"):
        job.label(out)
    assert main(["label", "--merge", str(path), "--out", str(out)]) == 0
    assert job.label(out).annotations == 9


def test_what_cannot_be_merged_changes_nothing(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="no folder that tinyseg label wrote"):
        merge(corrected(tmp_path / "c.json", {"001.png": []}), out)
    job.label(out)
    before = contents(out)
    for pictures, size, told in [
        ({"001.png": [None]}, {}, "has no mask"),
        ({"001.png": [{"size": [64, 96], "counts": "zz"}]}, {}, "no run lengths"),
        ({"001.png": [{"size": [4, 4], "counts": [16]}]}, {}, "a mask of 4 x 4"),
        ({"001.png": [[[float("nan"), 1, 2, 3]]]}, {}, "finite"),
        ({"001.png": []}, {"width": 95}, "95 x 64 pixels there"),
        ({"nobody.png": []}, {}, "names no picture"),
        ({"000.png": [[SQUARE]], "001.png": ["abc"]}, {}, "no segmentation"),
    ]:
        with pytest.raises(DataError, match=told):
            merge(corrected(tmp_path / "c.json", pictures, **size), out)
        assert contents(out) == before, told
    (out / "shards" / "00001_stats.json").unlink()
    with pytest.raises(DataError, match="1 of 4 shards"):
        merge(corrected(tmp_path / "c.json", {"001.png": []}), out)


@pytest.mark.parametrize("format", ["coco", "webdataset"])
def test_the_contact_sheet_shows_the_least_certain(format: str, job: Job, tmp_path: Path) -> None:
    (job.inputs / "000.png").rename(job.inputs / "<b>.png")
    job.boxes.write_text(job.boxes.read_text().replace("000.png", "<b>.png"))
    out = tmp_path / "out"
    job.label(out, format=format)
    merge(corrected(tmp_path / "c.json", {"001.png": [encode_rle(MASK)]}), out)
    page = review(out, count=4)
    text = page.read_text()
    assert page == out / "review.html" and text.count("<figure>") == 4 and text.count("data:image/jpeg") == 4
    assert "<b>" not in text and "001.png" not in text and "score 0." in text
    assert "http" not in text and "<script" not in text  # all of it is in the file
    text = review(out, count=100, by="stability", page=tmp_path / "page.html").read_text()
    assert text.count("<figure>") == 9 and "&lt;b&gt;.png" in text
    values = [float(v) for v in re.findall(r"stability ([0-9.]+)", text)]
    assert values == sorted(values) and len(values) == 9
    ids = [int(v) for v in re.findall(r"annotation (\d+)", text)]
    assert len(set(ids)) == 9
    if format == "coco":
        rows = {a["id"]: a for a in json.loads((out / "annotations.json").read_text())["annotations"]}
        assert all(abs(rows[i]["stability_score"] - v) < 0.006 for i, v in zip(ids, values))
        (job.inputs / "002.png").unlink()
        assert "was not kept" in review(out).read_text()


def test_the_contact_sheet_bears_any_name(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 1)
    try:
        (tmp_path / "in" / "000.png").rename(tmp_path / "in" / "\udcff.png")
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    label([tmp_path / "in"], tmp_path / "out", Everything(points_per_side=1), engine="fake")
    assert r"\udcff.png" in review(tmp_path / "out").read_text()


def test_review_errors(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", str(tmp_path)]) == 2
    assert "no folder that tinyseg label wrote" in capsys.readouterr().err
    job.label(tmp_path / "out")
    with pytest.raises(InputError, match="count"):
        review(tmp_path / "out", count=0)
    (tmp_path / "out" / "review.html").write_text("mine")
    with pytest.raises(DataError, match="not written by tinyseg"):
        review(tmp_path / "out")


def test_run_lengths_of_strangers() -> None:
    mask = ellipse(30, 20, 12, 9, 8, 5)
    rle = encode_rle(mask)
    np.testing.assert_array_equal(decode_rle(rle), mask)
    np.testing.assert_array_equal(decode_rle({"size": [2, 3], "counts": [1, 5]}), [[0, 1, 1], [1, 1, 1]])
    wrongs: list[Any] = [None, {}, {"size": [20, 30]}, {**rle, "size": [20, 31]}, {**rle, "counts": rle["counts"][:-1]}]
    wrongs += [{"size": [1 << 20, 1 << 20], "counts": ""}, {**rle, "counts": "\x00\xff"}, {**rle, "counts": "o" * 1000}]
    wrongs += [{"size": ["2", 3], "counts": [6]}]
    wrongs += [{"size": [2, 3], "counts": counts} for counts in ([9, -3], [[6], [6]], [1 << 80])]
    for wrong in wrongs:
        with pytest.raises(DataError, match="no run lengths of a mask"):
            decode_rle(wrong)
