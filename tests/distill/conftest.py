"""A data set of drawn shapes, small enough to train on in a test."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos of 160 x 120 with two ellipses each."""
    folder = tmp_path_factory.mktemp("shapes")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    with gzip.open(folder / "annotations.jsonl.gz", "wt") as file:
        for i in range(24):
            frame = np.full((120, 160, 3), rng.integers(0, 120, 3), np.uint8)
            instances = []
            for _ in range(2):
                centre = (int(rng.integers(30, 130)), int(rng.integers(30, 90)))
                axes = (int(rng.integers(10, 30)), int(rng.integers(10, 30)))
                outline = cv2.ellipse2Poly(centre, axes, 0, 0, 360, 12)
                cv2.fillPoly(frame, [outline], [int(v) for v in rng.integers(130, 255, 3)])
                instances.append([outline.tolist()])
            cv2.imwrite(str(folder / "images" / f"{i}.png"), frame)
            row = {
                "file": f"images/{i}.png",
                "width": 160,
                "height": 120,
                "source": f"s{i % 2}",
                "instances": instances,
            }
            file.write(json.dumps(row) + "\n")
    return folder


@pytest.fixture(scope="session")
def few_shapes(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two of them, to measure on."""
    folder = tmp_path_factory.mktemp("few-shapes")
    (folder / "images").symlink_to(shapes / "images")
    with (
        gzip.open(shapes / "annotations.jsonl.gz", "rt") as rows,
        gzip.open(folder / "annotations.jsonl.gz", "wt") as few,
    ):
        few.writelines(itertools.islice(rows, 2))
    return folder


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of 64 pixels, validation to match and no drawn curves: the loop, not the result, is tested."""
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")
    from tinyseg.distill import data, validation  # noqa: PLC0415

    monkeypatch.setattr(data.TrainingBatches, "SIZES", ((64, 1.0, 0.5),))
    monkeypatch.setattr(data.TrainingBatches, "NOMINAL_SIZE", 64)
    monkeypatch.setattr("tinyseg.distill.train.calibration_images", lambda _: torch.zeros(1, 3, 64, 64))
    for kind, size in (("frame", 128), ("zoom", 64)):
        monkeypatch.setitem(validation.VIEW_SIZES, kind, size)
    monkeypatch.setattr("tinyseg.distill.train.draw_curves", lambda _: None)
