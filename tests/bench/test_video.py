from __future__ import annotations

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

import tinyseg
from tests.conftest import ellipse
from tinyseg.bench.sequences import read_sequences
from tinyseg.bench.video import boundary_f, measure_shared, measure_video, outline
from tinyseg.bench.video_sheet import Sheet
from tinyseg.cli import main
from tinyseg.draw import POSITIVE


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sequences of five frames: a disk that moves; two still squares, drawn as an index map."""
    folder = tmp_path / "data"
    for name in ("disk", "squares"):
        for kind in ("frames", "masks"):
            (folder / name / kind).mkdir(parents=True)
        for i in range(5):
            if name == "disk":
                mask = ellipse(160, 120, 50 + 6 * i, 60, 20, 20).astype(np.uint8) * 255
            else:
                mask = np.zeros((120, 160), np.uint8)
                mask[20:60, 20:60], mask[70:100, 90:140], mask[:5] = 1, 2, 255
            picture = np.random.default_rng(1).integers(0, 90, (120, 160, 3), np.uint8)
            picture[(mask > 0) & (mask < 255) if name == "squares" else mask > 0] += 150
            cv2.imwrite(str(folder / name / "frames" / f"{i:05d}.png"), picture)
            cv2.imwrite(str(folder / name / "masks" / f"{i:05d}.png"), mask)
    return folder


def test_sequences_are_read_from_folder_and_tar(data: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        tar.add(data, "data")
    for path in (data, tmp_path / "data.tar"):
        disk, squares = read_sequences(path)
        assert (disk.name, len(disk), len(squares)) == ("disk", 5, 5)
        colors = squares.colors()
        assert len(colors) == 2 and disk.truth(0, disk.colors()).sum() == ellipse(160, 120, 50, 60, 20, 20).sum()
        assert squares.truth(2, colors).sum((1, 2)).tolist() == [1600, 1500]
        assert next(disk.pictures()).shape == (120, 160, 3)


def test_f_is_the_official_one() -> None:
    a = np.zeros((100, 100), np.bool_)
    a[20:60, 20:60] = True
    assert boundary_f(a, a) == 1.0 and boundary_f(a, ~(a | ~a)) == 0.0 and boundary_f(a & ~a, a & ~a) == 1.0
    # Radius ceil(0.008 * 141) = 2: an outline two pixels off still counts, three off no longer.
    assert boundary_f(np.roll(a, 2, 1), a) == 1.0
    shifted = boundary_f(np.roll(a, 3, 1), a)
    assert 0.3 < shifted < 0.75
    # _seg2bmap marks the pixels left of, above and diagonal to a change.
    edge = outline(a)
    assert edge.sum() == 4 * 40 and edge[19, 19] and edge[59, 59] and not edge[60, 60] and not edge[40, 40]


def test_baselines_and_tracker(reference: tinyseg.Segmenter, data: Path) -> None:
    report = measure_video(reference, read_sequences(data), ("mask", "copy", "flow", "middle"))
    rows = {r.way: r for r in report.rows}
    assert rows["mask"].objects == 3 and rows["mask"].frames == 8
    assert rows["mask"].j > 0.75 and rows["flow"].j > rows["copy"].j > 0.5
    still = [s for s in report.objects["copy"] if s.sequence == "squares"]
    assert [s.j for s in still] == [1.0, 1.0] and [s.f for s in still] == [1.0, 1.0]
    assert "J&F" in report.to_markdown()


def test_a_sheet_shows_what_was_found_and_the_truth(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheets"
    arguments = [
        "eval",
        "--video",
        str(data),
        "--way",
        "copy",
        "--way",
        "middle",
        "--engine",
        "fake",
        "--pictures",
        str(out),
    ]
    assert main(arguments) == 0
    capsys.readouterr()
    assert sorted(p.name for p in out.iterdir()) == [
        f"{way}-{sequence}.jpg" for way in ("copy", "middle") for sequence in ("disk", "squares")
    ]
    sheet = cv2.imread(str(out / "copy-disk.jpg"))
    assert sheet.shape == (600, 1600, 3)  # five panels of 400 x 300, and three empty ones
    assert sheet[:300].any() and not sheet[310:, 410:].any()
    # The first panel shows where the object truly is, as an outline; then what is found stays behind while the truth moves on.
    start, last = sheet[:300, :400].astype(int), sheet[300:, :400].astype(int)
    green = [(np.abs(panel - POSITIVE) < 60).all(2) for panel in (start, last)]
    assert green[0][:, 60:190].sum() > 50 and not green[0][:, 200:].any() and green[1][:, 200:].sum() > 20
    inside = np.abs(last[150, 90] - start[150, 90]).max()
    assert inside > 40  # painted over


def test_every_nth_frame_has_its_sheet() -> None:
    for start in range(5):
        sheet = Sheet([*range(start % 3, 5, 3)])
        assert start in sheet.numbers and len(sheet.numbers) == len(range(start % 3, 5, 3))


def test_accuracy_beside_cost(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seg = tinyseg.load(engine="onnxruntime", precision="fp32")
    report = measure_shared(seg, read_sequences(data)[:1], [1, 8], rounds=2)
    assert [(r.objects, r.crop) for r in report.rows] == [(1, 320), (8, 160)]
    assert all(r.j_and_f > 0.7 and r.milliseconds > 0 for r in report.rows)
    assert report.rows[0].share_of_one == 1.0 and "rate against one" in report.to_markdown()
    for wrong in (
        ["--objects", "0"],
        ["--objects", "17"],
        ["--objects", "3", "--crop", "160"],
        ["--objects", "3", "--way", "box"],
        ["--objects", "3", "--pictures", "sheets"],
    ):
        assert main(["eval", "--video", str(data), "--engine", "fake", *wrong]) == 2
    assert main(["eval", str(data), "--objects", "3", "--engine", "fake"]) == 2
    capsys.readouterr()


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["eval", "--video", str(data), "--way", "copy", "--set", "squares", "--engine", "fake", "--json", "-"]
    assert main(arguments) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["rows"][0]["j_and_f"] == 1.0 and facts["rows"][0]["frames"] == 4
    for wrong in (["--way", "magic"], ["--set", "nothing"], ["--detail"], ["--every", "0"]):
        assert main(["eval", "--video", str(data), "--engine", "fake", *wrong]) == 2
    assert main(["eval", str(data), "--way", "copy", "--engine", "fake"]) == 2
    capsys.readouterr()


@pytest.mark.parametrize("broken", ["missing", "empty", "uneven", "no tar"])
def test_data_that_is_none(data: Path, tmp_path: Path, broken: str) -> None:
    path = tmp_path / "other"
    if broken == "empty":
        path.mkdir()
    elif broken == "uneven":
        (data / "disk" / "masks" / "00004.png").unlink()
        path = data
    elif broken == "no tar":
        path.write_bytes(b"x" * 2000)
    with pytest.raises(tinyseg.DataError):
        read_sequences(path)


def test_what_cannot_be_scored_is_told_and_scores_no_0(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*given: str) -> str:
        assert main(["eval", "--video", str(data), "--engine", "fake", "--way", "copy", *given]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    assert "none is scored from frame 0 on with every 4" in told("--every", "4")
    small, black = data / "squares" / "masks" / "00002.png", data / "disk" / "masks" / "00000.png"
    cv2.imwrite(str(small), np.full((60, 80), 1, np.uint8))
    assert "squares: the mask of frame 2 has 80 x 60 pixels, and its frames have 160 x 120" in told("--set", "squares")
    cv2.imwrite(str(black), np.zeros((120, 160), np.uint8))
    assert "disk shows no object in the mask of frame 0" in told("--set", "disk")
    cv2.imwrite(str(black), np.full((60, 80), 1, np.uint8))
    assert "disk: the mask of frame 0 has 80 x 60 pixels" in told("--set", "disk")
