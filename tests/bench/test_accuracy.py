from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tinyseg
from tests.conftest import ellipse
from tinyseg.bench.accuracy import iou, measure, most_interior, next_click
from tinyseg.cli import main
from tinyseg.dataset import read_photos


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of three photos in two sets: a small box, a large box, and a ring."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    rows = []
    squares = {"a": [[10, 10], [19, 10], [19, 19], [10, 19]], "b": [[20, 10], [149, 10], [149, 99], [20, 99]]}
    for name, square in squares.items():
        rows.append({"instances": [[square]], "set": name})
    outer, inner = (cv2.ellipse2Poly((80, 60), (r, r), 0, 0, 360, 10).tolist() for r in (40, 15))
    rows.append({"instances": [[outer, inner]], "set": "b"})
    with gzip.open(folder / "annotations.jsonl.gz", "wt") as file:
        for i, row in enumerate(rows):
            cv2.imwrite(str(folder / "images" / f"{i}.png"), np.full((120, 160, 3), 80, np.uint8))
            file.write(
                json.dumps({"file": f"images/{i}.png", "width": 160, "height": 120, "source": "test", **row}) + "\n"
            )
    return folder


def test_a_tar_holds_the_same_photos_as_its_folder(data: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        tar.add(data, arcname=".")
    from_folder, from_tar = read_photos(data), read_photos(tmp_path / "data.tar")
    assert [p.name for p in from_tar] == [p.name for p in from_folder] == ["0.png", "1.png", "2.png"]
    for a, b in zip(from_folder, from_tar):
        np.testing.assert_array_equal(a.read(), b.read())
        np.testing.assert_array_equal(a.masks(), b.masks())


def test_inner_polygons_are_holes(data: Path) -> None:
    ring = read_photos(data)[2].masks()[0]
    assert not ring[60, 80] and ring[60, 50] and ring[60, 110]


def test_the_box_is_measured_against_filling_it(data: Path, fake: tinyseg.Segmenter) -> None:
    report = measure(fake, read_photos(data))
    rows = {r.set: r for r in report.by_set}
    assert set(rows) == {"a", "b", "all"} and rows["all"].instances == 3 and rows["b"].photos == 2
    # The fake answers a box with the box, so both figures are alike.
    assert abs(rows["b"].box_off - rows["b"].fill) < 0.02 and rows["a"].fill == 1.0
    assert rows["b"].click1 < rows["b"].fill
    assert [r.set for r in report.by_size] == ["small", "large"]


def test_the_command_prints_and_writes_the_table(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(data), "--set", "b", "--json", str(tmp_path / "r.json"), "--engine", "fake"]) == 0
    printed = capsys.readouterr().out
    assert "| set" in printed and "box filled" in printed
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["by_set"][0]["set"] == "b" and content["segmenter"]["engine"] == "fake"
    assert main(["eval", str(data), "--set", "c", "--engine", "fake"]) == 2
    assert "its sets are a, b" in capsys.readouterr().err
    assert main(["eval", str(tmp_path / "nothing")]) == 2
    assert main(["eval", str(tmp_path)]) == 2
    assert "annotations.jsonl.gz" in capsys.readouterr().err


def test_another_input_size_is_measured_where_that_is_meant(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = []
    embed = tinyseg.Segmenter.embed

    def spy(seg: tinyseg.Segmenter, *args: Any, **named: Any) -> tinyseg.Embedding:
        made = embed(seg, *args, **named)
        sides.append(max(made.geometry.input))
        return made

    monkeypatch.setattr(tinyseg.Segmenter, "embed", spy)
    assert main(["eval", str(data), "--long-side", "320", "--engine", "fake"]) == 0
    assert set(sides) == {320}
    capsys.readouterr()
    assert main(["eval", str(data), "--long-side", "321", "--engine", "fake"]) == 2
    assert main(["eval", str(data), "--long-side", "320", "--detail", "--engine", "fake"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "multiple of 32" in first and "--long-side is of mean IoU alone" in second


def test_iou_of_known_masks() -> None:
    a, b = np.zeros((4, 4), np.bool_), np.zeros((4, 4), np.bool_)
    assert iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert iou(a, b) == pytest.approx(1 / 3)


def test_clicks_go_deep_into_the_larger_error() -> None:
    truth = ellipse(100, 80, 50, 40, 30, 20)
    x, y = most_interior(truth)
    assert abs(x - 50) <= 2 and abs(y - 40) <= 2
    assert next_click(truth, truth) is None
    click = next_click(truth, np.zeros_like(truth))
    assert click is not None and click[1] == 1
    click = next_click(truth, np.ones_like(truth))
    assert click is not None and click[1] == 0 and not truth[click[0][1], click[0][0]]
    corner = np.zeros((50, 50), np.bool_)
    corner[:20, :20] = True  # touches the frame's border, which counts as outside
    x, y = most_interior(corner)
    assert 7 <= x <= 12 and 7 <= y <= 12
