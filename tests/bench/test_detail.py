from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import tinyseg
from tests.bench.test_accuracy import data  # noqa: F401 - a fixture
from tests.conftest import ellipse
from tinyseg.bench.detail import (
    boundary_f,
    boundary_iou,
    calibration,
    measure_detail,
    noisy_box,
)
from tinyseg.cli import main
from tinyseg.dataset import read_photos
from tinyseg.errors import DataError


def test_edges_are_judged_by_edges() -> None:
    truth = ellipse(400, 300, 200, 150, 100, 80)
    larger = ellipse(400, 300, 200, 150, 103, 83)
    holed = truth & ~ellipse(400, 300, 200, 150, 60, 50)
    assert boundary_iou(truth, truth) == boundary_f(truth, truth) == 1.0
    assert 0.5 < boundary_iou(larger, truth) < 0.8  # a region of 10 pixels moved by 3
    assert boundary_f(larger, truth) == 1.0  # within the tolerance of 4 pixels
    assert boundary_f(holed, truth) < 0.8 and boundary_f(~truth & False, truth) == 0.0
    far = ellipse(400, 300, 200, 150, 112, 92)
    assert boundary_f(far, truth) < 0.1


def test_the_border_of_the_frame_is_an_edge() -> None:
    everything = np.ones((100, 100), np.bool_)
    half = everything.copy()
    half[:, 50:] = False
    assert boundary_iou(everything, half) < 0.7


def test_noisy_boxes_stay_boxes_in_the_frame() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        x0, y0, x1, y1 = noisy_box((0, 95, 3, 100), 10, (100, 120), rng)
        assert 0 <= x0 < x1 <= 120 and 0 <= y0 < y1 <= 100 and x1 - x0 >= 2 and y1 - y0 >= 2


def test_calibration_error() -> None:
    rows, error = calibration([0.95, 0.95, 0.25], [0.85, 0.85, 0.25])
    assert rows[9] == (0.95, 0.85, 2) and rows[2] == (0.25, 0.25, 1) and rows[5] == (0.0, 0.0, 0)
    assert error == pytest.approx(0.2 / 3)


def test_figures_of_the_fake_engine(data: Path, tmp_path: Path, fake: tinyseg.Segmenter) -> None:  # noqa: F811
    found = measure_detail(fake, read_photos(data), tmp_path / "pictures")
    assert found.instances == 3 and found.box > found.box_noise[10] > 0
    # The fake engine draws disks around clicks: large things take many, and the curve only ends where they are done.
    assert 1 <= found.clicks_to["0.85"] <= found.clicks_to["0.90"] <= 20 and len(found.click_curve) == 20
    assert sum(n for _, _, n in found.box_calibration) == 3
    names = sorted(p.name for p in (tmp_path / "pictures").iterdir())
    assert len(names) == 12 and names[0].startswith("box-best-1-") and names[-1].startswith("click-worst-3-")


@pytest.mark.parametrize("what", [[], ["--detail"], ["--zoom-rules"]])
def test_photos_without_an_object_are_told(
    what: list[str],
    data: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    with gzip.open(data / "annotations.jsonl.gz", "rt") as file:
        rows = [{**json.loads(line), "instances": []} for line in file]
    with gzip.open(data / "annotations.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    assert main(["eval", str(data), "--engine", "fake", *what]) == 2
    out, err = capsys.readouterr()
    assert "hold no object to ask for" in err and err.count("\n") == 1 and not out
    if what == ["--detail"]:
        with pytest.raises(DataError, match="no object"):
            measure_detail(tinyseg.load(engine="fake"), read_photos(data))


def test_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    command = ["eval", str(data), "--engine", "fake", "--detail"]
    assert main([*command, "--json", str(tmp_path / "detail.json")]) == 0
    told = capsys.readouterr().out
    assert "boundary IoU" in told and "off by 10 px" in told and "| 0.90 " in told and "calibration error" in told
    assert json.loads((tmp_path / "detail.json").read_text())["detail"]["instances"] == 3
    assert main(["eval", str(data), "--engine", "fake", "--pictures", "x"]) == 2
    assert "--pictures goes with --detail" in capsys.readouterr().err
