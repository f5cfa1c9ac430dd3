from __future__ import annotations

import gzip
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import tinyseg
from tinyseg.bench.zoom_rules import Trial, _given, looks_of, measure_zoom_rules
from tinyseg.cli import main
from tinyseg.dataset import read_photos
from tinyseg.errors import DataError
from tinyseg.graphs.model import ZoomRule


def trial(share: float, first: float, look: float, looked: bool = True) -> Trial:
    return Trial("box", "small", share, first, 2.0, (look,), (looked,), (12.0,))


def test_a_rule_takes_the_second_look_below_its_limit_only() -> None:
    rows = [trial(0.1, 0.5, 0.9), trial(0.3, 0.6, 0.7), trial(0.6, 0.8, 0.2), trial(0.1, 0.4, 0.4, looked=False)]
    assert _given(rows, 0, 0.0) == (pytest.approx((0.5 + 0.6 + 0.8 + 0.4) / 4), 0.0, 2.0)
    mean, share, ms = _given(rows, 0, 0.2)
    assert (mean, share) == (pytest.approx((0.9 + 0.6 + 0.8 + 0.4) / 4), 0.25) and ms == pytest.approx(2 + 0.25 * 10)
    assert _given(rows, 0, 1.0)[:2] == (pytest.approx((0.9 + 0.7 + 0.2 + 0.4) / 4), 0.75)


def test_the_models_own_look_comes_first_and_none_twice() -> None:
    looks = looks_of(ZoomRule(256, 2.0, 0.3))
    assert (looks[0].side, looks[0].factor) == (256, 2.0) and len(set(looks)) == len(looks) == 5


SQUARE = [[40, 40], [60, 40], [60, 60], [40, 60]]
LARGE = [[100, 40], [300, 40], [300, 220], [100, 220]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of one photo with a small and a large object."""
    frame = np.full((240, 320, 3), 60, np.uint8)
    for outline in (SQUARE, LARGE):
        cv2.fillPoly(frame, [np.array(outline)], (40, 140, 230))
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0.png"), frame)
    row = {"file": "images/0.png", "width": 320, "height": 240, "source": "test", "instances": [[SQUARE], [LARGE]]}
    with gzip.open(tmp_path / "annotations.jsonl.gz", "wt") as file:
        file.write(json.dumps(row) + "\n")
    return tmp_path


def test_measured_through_the_runtime(folder: Path, reference: tinyseg.Segmenter) -> None:
    (photo,) = read_photos(folder)
    report = measure_zoom_rules(reference, [photo])
    own = next(r for r in report.rules if r.is_models)
    assert ZoomRule(own.side, own.factor, own.below) == reference.model.zoom and own.box_looks == 0.5
    none = next(r for r in report.rules if r.below == 0)
    assert none.box_looks == 0 and none.box_ms > 0 and own.box_ms > 0
    small = next(r for r in report.by_size if (r.prompt, r.size) == ("box", "small"))
    # What the runtime answers by itself is what the table says of the rule.
    truth = photo.masks()[0]
    mask = reference.embed(photo.read()).predict(box=(40, 40, 61, 61), multimask=False).masks[0]
    assert small.rule == pytest.approx((mask & truth).sum() / (mask | truth).sum()) and small.looks == 1
    assert report.to_markdown().count("the model's rule") == 1
    with pytest.raises(DataError, match="no object"):
        measure_zoom_rules(reference, [])


def test_command(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(folder), "--zoom-rules", "--engine", "fake", "--json", str(tmp_path / "z.json")]) == 0
    assert "second looks on" in capsys.readouterr().out
    assert json.loads((tmp_path / "z.json").read_text())["rules"][0]["below"] == 0.0
    assert main(["eval", str(folder), "--zoom-rules", "--detail"]) == 2
    assert "run of its own" in capsys.readouterr().err
