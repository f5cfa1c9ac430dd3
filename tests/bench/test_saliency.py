from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tinyseg.bench.saliency import WAYS, f_measure, measure_salient
from tinyseg.dataset import Photo
from tinyseg.errors import DataError
from tinyseg.images import write_image


def test_f_measure_is_the_fields() -> None:
    truth = np.zeros((4, 4), np.bool_)
    truth[:2] = True
    found = np.zeros_like(truth)
    found[0] = found[2] = True  # precision 0.5, recall 0.5
    assert f_measure(found, truth) == pytest.approx(0.5)
    assert f_measure(truth, truth) == 1 and f_measure(~truth, truth) == 0 and f_measure(found & False, truth) == 0
    found = np.zeros_like(truth)
    found[0] = True  # precision 1, recall 0.5
    assert f_measure(found, truth) == pytest.approx(1.3 * 0.5 / (0.3 + 0.5))


def test_every_way_is_scored(
    fake: tinyseg.Segmenter, scene: tuple[NDArray[np.uint8], NDArray[np.bool_]], tmp_path: Path
) -> None:
    write_image(tmp_path / "p.png", scene[0])
    box = np.array([[100, 60], [240, 60], [240, 160], [100, 160]], np.float32)
    size = (tmp_path / "p.png").stat().st_size
    photo = Photo("p", "s", "duts", 320, 240, ((box,),), tmp_path / "p.png", None, size)
    bare = Photo("q", "s", "duts", 320, 240, (), tmp_path / "p.png", None, size)
    report = measure_salient(fake, [photo, bare])
    assert [r.way for r in report.rows] == list(WAYS) and all(r.photos == 1 for r in report.rows)
    assert all(0 <= v <= 1 for r in report.rows for v in (r.mae, r.f, r.iou))
    assert "MAE" in report.to_markdown() and len(report.to_json()["salient"]) == len(WAYS)
    with pytest.raises(DataError, match="no labelled object"):
        measure_salient(fake, [bare])
