from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import tinyseg
from tests.conftest import ellipse
from tinyseg.bench.everything import (
    FULL_GRID,
    OWN_RULE,
    PhotoResult,
    compare_everything,
    matched,
    measure_everything,
    overlaps_with,
    report_of,
    scale_to_bench,
    summary,
)
from tinyseg.bench.rivals import Rival
from tinyseg.cli import main
from tinyseg.dataset import Photo
from tinyseg.errors import InputError
from tinyseg.images import write_image

RULE = tinyseg.EverythingRule(points_per_side=4, coarse_per_side=2, score=0.5, stability=0.3)


def test_matching_is_cocos() -> None:
    # The best scored region takes the instance that it overlaps most, and no instance is taken twice.
    overlaps = np.array([[0.6, 0.9], [0.2, 0.8], [0.55, 0.1]], np.float32)
    assert matched(overlaps, 0.5) == 2 and matched(overlaps[:2], 0.5) == 1 and matched(overlaps, 0.85) == 1
    assert matched(np.zeros((0, 3), np.float32), 0.5) == 0 and matched(np.zeros((3, 0), np.float32), 0.5) == 0
    assert matched(np.array([[0.9, 0.8], [0.9, 0.1]], np.float32), 0.5) == 1  # greedy: the second finds its own taken


def test_matching_agrees_with_pycocotools() -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    from pycocotools.coco import COCO  # noqa: PLC0415
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415

    rng = np.random.default_rng(0)
    truths = np.stack([ellipse(64, 64, *rng.uniform(8, 56, 2), *rng.uniform(6, 20, 2)) for _ in range(8)])
    moved = [np.roll(t, rng.integers(-4, 5, 2), (0, 1)) for t in truths for _ in range(2)]
    found = np.stack(moved)
    overlaps = np.array([[(f & t).sum() / (f | t).sum() for t in truths] for f in found], np.float32)
    from tinyseg.masks import encode_rle  # noqa: PLC0415

    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1, "width": 64, "height": 64}], "categories": [{"id": 1}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": int(t.sum()), "segmentation": encode_rle(t)}
            for i, t in enumerate(truths)
        ],
    }  # fmt: skip
    coco.createIndex()
    rows = [
        {"image_id": 1, "category_id": 1, "segmentation": encode_rle(f), "score": 1 - i / 100}
        for i, f in enumerate(found)
    ]
    evaluation = COCOeval(coco, coco.loadRes(rows), "segm")
    evaluation.params.maxDets = [1, 10, 100]
    evaluation.evaluate()
    evaluation.accumulate()
    recalls = evaluation.eval["recall"][:, 0, 0, :]  # thresholds, budgets
    for k, budget in ((1, 10), (2, 100)):
        for i, threshold in enumerate(np.arange(0.5, 0.96, 0.05)):
            assert matched(overlaps[:budget], threshold) / 8 == pytest.approx(recalls[i, k])


def test_figures_of_a_set() -> None:
    results = [
        PhotoResult("a", np.array([[0.96, 0.0], [0.0, 0.61]], np.float32), 0.2),
        PhotoResult("b", np.zeros((0, 2), np.float32), 0.4),
    ]
    row = summary("all", OWN_RULE, results)
    assert (row.photos, row.instances, row.regions) == (2, 4, 1.0) and row.ms == pytest.approx(300)
    assert row.recall50 == 0.5 and row.recall75 == 0.25 and row.best_iou == pytest.approx((0.96 + 0.61) / 4)
    assert row.ar10 == pytest.approx((10 + 3) / 40)  # IoU 0.6 is reached at 0.50, 0.55 and 0.60
    report = report_of({OWN_RULE: results, FULL_GRID: [replace(r, seconds=r.seconds * 4) for r in results]})
    assert report.kept_recall == 1.0 and report.share_of_time == pytest.approx(0.25)
    assert [r.set for r in report.rows] == ["a", "a", "b", "b", "all", "all"]
    assert "full grid" in report.to_markdown() and json.loads(json.dumps(report.to_json()))["kept_recall"] == 1.0


def test_overlaps_of_regions_with_masks(fake: tinyseg.Segmenter) -> None:
    regions = fake.everything(np.zeros((200, 320, 3), np.uint8), rule=RULE)
    truths = np.stack([regions.mask(0), ellipse(320, 200, 100, 100, 40, 40)])
    expected = [[(m & t).sum() / (m | t).sum() for t in truths] for m in regions]
    np.testing.assert_allclose(overlaps_with(regions, truths), expected, rtol=1e-5)


@pytest.fixture
def photo(tmp_path: Path) -> Photo:
    path = tmp_path / "one.png"
    write_image(path, np.zeros((200, 320, 3), np.uint8))
    square = np.array([[100, 60], [150, 60], [150, 110], [100, 110]], np.float32)
    return Photo("one.png", "s", "set", 320, 200, ((square,),), path, None, path.stat().st_size)


def test_both_rules_are_measured(fake: tinyseg.Segmenter, photo: Photo) -> None:
    report = measure_everything(fake, [photo], RULE)
    assert [r.rule for r in report.rows] == [OWN_RULE, FULL_GRID] and report.rows[1].regions > 1
    report = measure_everything(fake, [photo], RULE, sides=[2, 8])
    assert [r.rule for r in report.rows] == [OWN_RULE, "2 a side", "8 a side", FULL_GRID]
    assert report.rows[1].regions < report.rows[0].regions < report.rows[2].regions
    alone = measure_everything(fake, [photo], RULE, full_grid=False)
    assert len(alone.rows) == 1 and alone.kept_recall is None


def test_beside_a_rival(fake: tinyseg.Segmenter) -> None:
    frame = scale_to_bench(np.zeros((100, 100, 3), np.uint8))
    assert frame.shape == (720, 1280, 3)
    asked: list[str] = []
    rival = Rival("somebody", lambda: asked.append("encode"), lambda: asked.append("decode"))
    fake_small = tinyseg.load(engine="fake")
    fake_small.everything_rule = RULE
    speed = compare_everything(fake_small, rival, frame, 3)
    assert asked and speed.times_faster.value >= 0 and "one prompt" in speed.to_text() and speed.frame == (1280, 720)
    fake_small.everything_rule = tinyseg.EverythingRule(points_per_side=8, coarse_per_side=2, score=0.5, stability=0.3)
    less = compare_everything(fake_small, rival, frame, 3)
    assert less.two_grids.label.endswith("4 a side") and "two grids: " in less.to_text()
    assert less.two_grids.p50_ms < less.full_grid.p50_ms
    with pytest.raises(InputError, match="rounds"):
        compare_everything(fake_small, rival, frame, 2)


def test_the_command(photo: Photo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import gzip  # noqa: PLC0415

    data = tmp_path / "data"
    write_image(data / "images" / "one.png", np.asarray(cv2.imread(str(photo.path)), np.uint8))
    square = [[[[100, 60], [150, 60], [150, 110], [100, 110]]]]
    line = {"file": "one.png", "width": 320, "height": 200, "source": "s", "set": "x", "instances": square}
    (data / "annotations.jsonl.gz").write_bytes(gzip.compress(json.dumps(line).encode()))
    out = tmp_path / "out.json"
    assert main(["eval", str(data), "--everything", "--no-full-grid", "--engine", "fake", "--json", str(out)]) == 0
    assert "AR@1000" in capsys.readouterr().out
    assert json.loads(out.read_text())["rows"][0]["rule"] == OWN_RULE
    assert main(["eval", str(data), "--no-full-grid", "--engine", "fake"]) == 2
    assert main(["eval", str(data), "--points-per-side", "8", "--engine", "fake"]) == 2
    assert main(["bench", "--everything", str(photo.path), "--engine", "fake"]) == 2
