"""examples/close_the_loop.py at its smallest: twenty drawn photos -> labels -> a few steps -> measured on four others."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")
pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[train]')")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (pip install 'tinyseg[train]')")

from tests.conftest import ROOT
from tinyseg.dataset import read_photos


@pytest.mark.usefixtures("small_samples")
def test_label_train_measure(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, rest = tmp_path / "photos", tmp_path / "rest"
    photos.mkdir()
    (rest / "images").mkdir(parents=True)
    names, boxes = [], []
    with gzip.open(shapes / "annotations.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    for row in rows[:20]:
        name = Path(row["file"]).name
        shutil.copy(shapes / row["file"], photos / name)
        names.append({"id": len(names), "file_name": name, "width": row["width"], "height": row["height"]})
        for (outline,) in row["instances"]:
            xs, ys = zip(*outline)
            box = [min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1]
            boxes.append({"id": len(boxes), "image_id": len(names) - 1, "category_id": 1, "bbox": box})
    (tmp_path / "boxes.json").write_text(
        json.dumps({"images": names, "annotations": boxes, "categories": [{"id": 1, "name": "ellipse"}]})
    )
    with gzip.open(rest / "annotations.jsonl.gz", "wt") as file:
        for row in rows[20:]:
            shutil.copy(shapes / row["file"], rest / "images")
            file.write(json.dumps(row) + "\n")
    spec = importlib.util.spec_from_file_location("close_the_loop", ROOT / "examples" / "close_the_loop.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    arguments = [
        str(photos),
        "--measure",
        str(rest),
        "--out",
        str(tmp_path / "out"),
        "--boxes",
        str(tmp_path / "boxes.json"),
    ]
    assert example.main([*arguments, "--steps", "3", "--batch-size", "2"]) == 0
    told = capsys.readouterr().out
    assert "20 photographs, 40 masks" in told and re.search(
        r"^(not )?better: [+-]0\.\d{4} on average, on rest$", told, re.M
    )
    figures = {
        n: [float(v) for v in re.findall(r"0\.\d+", line)]
        for n, line in re.findall(r"^\| (before|after) +(.*)$", told, re.M)
    }
    assert len(figures["before"]) == len(figures["after"]) == 3
    assert figures["before"] != figures["after"] and min(figures["before"][0], figures["after"][0]) > 0.5
    learned = read_photos(tmp_path / "out" / "labels")
    assert len(learned) == 20 and sum(len(p.instances) for p in learned) == 40
