from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tinyseg
from tinyseg.dataset import Photo
from tinyseg.distill.everything_searches import alternatives, compare_searches, name_of
from tinyseg.distill.everything_thresholds import SCORES, calibrate, outcome, pick_held_out, record, write_rule
from tinyseg.errors import DataError
from tinyseg.graphs.everything_rule import EverythingRule
from tinyseg.images import write_image

RULE = EverythingRule(points_per_side=8, coarse_per_side=4)


def photo(folder: Path, name: str, width: int, height: int) -> Photo:
    """A photo whose instance is the disk that the fake engine draws for a click in the middle of the fine grid."""
    path = folder / f"{name}.png"
    write_image(path, np.zeros((height, width, 3), np.uint8))
    angles = np.linspace(0, 2 * np.pi, 60)
    centre, radius = np.array([width * 9 / 16, height * 9 / 16]), 24 * max(width, height) / 512
    disk = (centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.float32)
    return Photo(path.name, "s", "", width, height, ((disk,),), path, None, path.stat().st_size)


def test_a_rule_is_chosen_and_told(fake: tinyseg.Segmenter, tmp_path: Path) -> None:
    photos = [photo(tmp_path, "a", 512, 512), photo(tmp_path, "b", 640, 400)]
    found = calibrate(fake, photos, RULE)
    # The fake engine scores masks 0.9 to 0.6 whatever they are: a threshold up to the best one keeps all recall.
    assert found.photos == 2 and found.rule.score == max(s for s in SCORES if s < 0.9)
    assert found.rule.points_per_side == 8 and found.thresholds and found.sure[-1][1].recall == 1.0
    text = found.to_markdown()
    assert "recall 0.5" in text and json.dumps(found.rule.to_card()) in text
    recorded = [r for p in photos if (r := record(fake, p, found.rule)) is not None]
    full, coarse = (outcome(recorded, found.rule, h) for h in (False, True))
    assert full.clicks == 64 and 16 < coarse.clicks <= 16 + 64 and coarse.regions > 0
    assert [len(level.clicks) for level in recorded[0].levels] == [16, 64]
    sure = outcome(recorded, replace(found.rule, confident=-100.0), True)
    assert sure.clicks == 16  # a mask that is sure of all cells, so nothing more is asked


def test_close_views_are_replayed_as_they_are_asked(fake: tinyseg.Segmenter, tmp_path: Path) -> None:
    photos = [photo(tmp_path, "a", 512, 512), photo(tmp_path, "b", 640, 400)]
    rule = replace(RULE, points_per_side=16, close_views=2, score=0.5, stability=0.3, confident=100.0)
    recorded, apart = (
        [r for p in photos if (r := record(fake, p, one)) is not None] for one in (rule, replace(rule, close_views=0))
    )
    assert [len(level.clicks) for level in recorded[0].levels] == [16, 64]
    assert [len(level.clicks) for level in apart[0].levels] == [16, 64, 256] and not apart[0].close
    assert [len(part) for part in recorded[0].close] == [1] * 4
    assert sum(len(part[0].clicks) for part in recorded[0].close) == len(recorded[0].full.clicks) == 256
    near, whole = outcome(recorded, rule, True), outcome(apart, rule, True)
    assert outcome(recorded, rule, False) == outcome(apart, rule, False)  # the full grid is that of the frame
    cells = np.mean([np.prod(r.close[0][0].view.grid) / np.prod(r.full.view.grid) for r in recorded])
    assert whole.clicks == 16 + 64 + 256 and near.clicks == pytest.approx(16 + 64 + 256 * cells)
    assert near.recall == whole.recall == 1.0
    sure = outcome(recorded, replace(rule, confident=-100.0), True)
    assert sure.clicks == 16
    # As the search itself finds, but that it takes specks out.
    found = [len(fake.everything(p.read(), rule=rule)) for p in photos]
    assert near.regions == pytest.approx(np.mean(found), rel=0.05)


def test_a_smaller_whole_view_is_replayed_and_counted_by_its_cells(fake: tinyseg.Segmenter, tmp_path: Path) -> None:
    photos = [photo(tmp_path, "a", 512, 512)]
    rule = replace(RULE, whole_side=256, score=0.5, stability=0.3, confident=100.0)
    (recorded,) = [r for p in photos if (r := record(fake, p, rule)) is not None]
    assert [max(level.view.input) for level in (recorded.full, *recorded.levels)] == [512, 256, 256]
    small = outcome([recorded], rule, True)
    assert small.clicks == (16 + 64) / 4 and outcome([recorded], rule, False).clicks == 64
    assert small.regions == pytest.approx(len(fake.everything(photos[0].read(), rule=rule)), abs=1)


def test_searches_are_compared_with_the_full_grid(fake: tinyseg.Segmenter, tmp_path: Path) -> None:
    seg = tinyseg.load(engine="fake")
    seg.everything_rule = replace(RULE, points_per_side=32, score=0.5, stability=0.3)
    photos = [photo(tmp_path, "a", 512, 512), photo(tmp_path, "b", 640, 400)]
    never = replace(seg.everything_rule, coarse_per_side=0)
    coarse = replace(seg.everything_rule, points_per_side=4, coarse_per_side=0)
    close = replace(seg.everything_rule, close_views=2, confident=100.0)
    table = compare_searches(seg, photos, {"all": never, "few": coarse, "close": close})
    assert table.photos == table.instances == 2 and [r.name for r in table.rows] == ["all", "few", "close"]
    whole, few, looked = table.rows
    assert whole.recall == whole.average_recall == 1 and whole.clicks == pytest.approx(1, abs=0.2)
    assert few.clicks < 0.2 and few.regions < whole.regions and looked.clicks > few.clicks
    assert "2 photos, 2 objects" in table.to_markdown()
    rules = alternatives(seg.everything_rule)
    assert list(rules)[-1] == name_of(seg.everything_rule) and len(set(rules.values())) == len(rules) > 5
    blank = photo(tmp_path, "c", 64, 48)
    with pytest.raises(DataError, match="large enough"):
        compare_searches(seg, [replace(blank, instances=((np.zeros((3, 2), np.float32),),))], {})


def test_photos_are_picked_by_name_alone(tmp_path: Path) -> None:
    photos = [photo(tmp_path, f"p{i}", 64, 48) for i in range(6)]
    assert pick_held_out(photos, 3) == pick_held_out(photos[::-1], 3) and len(pick_held_out(photos, 99)) == 6
    with pytest.raises(DataError, match="held-out"):
        pick_held_out([], 3)
    with pytest.raises(DataError, match="held-out"):
        pick_held_out(photos, 3, objects=2)


def test_nothing_but_the_rule_is_written(tmp_path: Path) -> None:
    card = {"format": 1, "name": "x", "measured": {"a": 0.1}}
    (tmp_path / "model.json").write_text(json.dumps(card, indent=1) + "\n")
    write_rule(tmp_path, RULE)
    written = json.loads((tmp_path / "model.json").read_text())
    assert written.pop("everything") == RULE.to_card() and written == card
    with pytest.raises(DataError, match="model folder"):
        write_rule(tmp_path / "none", RULE)


def test_the_command_tells_what_it_cannot_write_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")
    from tinyseg.distill.__main__ import main  # noqa: PLC0415 - its parser needs torch

    (tmp_path / "model.zip").write_bytes(b"")
    common = ["calibrate-everything", str(tmp_path / "model.zip"), "--data", "nowhere.tar"]
    for given, says in (
        (["--write"], "--write changes the model.json of a model folder"),
        (["--objects", "0"], "--objects must"),
    ):
        assert main([*common, *given]) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1
