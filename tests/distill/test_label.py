from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")
pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[train]')")

from tinyseg.dataset import read_photos  # noqa: E402
from tinyseg.distill import label as labelling  # noqa: E402
from tinyseg.distill.__main__ import main  # noqa: E402
from tinyseg.distill.label import LabelRule, label, label_photo  # noqa: E402
from tinyseg.distill.prompts import PromptBatch  # noqa: E402
from tinyseg.distill.teachers import Answer  # noqa: E402
from tinyseg.errors import DataError  # noqa: E402


class Squares:
    """Finds the 160-pixel square of the sample that a click lies in; sure of it left of the middle only."""

    name, channels, embedding = "squares", 1, torch.zeros(1, 1, 1, 1)

    def encode(self, image: torch.Tensor) -> Squares:
        return self

    def answer(self, prompts: PromptBatch) -> Answer:
        cells = prompts.mask.shape[-1]
        at = (torch.arange(cells) + 0.5) * 4
        x, y = ((prompts.points[:, 0, i] / 160).floor() * 160 for i in (0, 1))
        inside_x = ((at - x[:, None]) > 0) & ((at - x[:, None]) < 160)
        inside_y = ((at - y[:, None]) > 0) & ((at - y[:, None]) < 160)
        mask = (inside_y[:, :, None] & inside_x[:, None, :]).float() * 12 - 6
        score = torch.where(prompts.points[:, 0, 0] < 256, 0.9, 0.2)
        return Answer(mask[:, None].repeat(1, 4, 1, 1), score[:, None].repeat(1, 4), torch.zeros(len(score), 5, 1))


def test_keeps_what_the_teacher_is_sure_of_once() -> None:
    photo = np.zeros((192, 256, 3), np.uint8)  # twice as large in the sample
    found = label_photo(Squares(), photo, LabelRule(grid=8))
    masks = []
    for instance in found:
        mask = np.zeros((192, 256), np.uint8)
        cv2.fillPoly(mask, [np.array(p) for p in instance], 1)
        masks.append(mask)
    areas = sorted(int(m.sum()) for m in masks)
    assert len(found) == 6  # two columns of squares left of the middle, three rows of them, the last one cut off
    assert areas[-1] == pytest.approx(80 * 80, rel=0.06) and areas[0] == pytest.approx(80 * 32, rel=0.1)
    assert np.sum(masks, 0).max() <= 2


def photos(folder: Path, count: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 255, (96, 128, 3), np.uint8))
    return sorted(folder.iterdir())


def test_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(labelling, "SHARD", 2)
    images = photos(tmp_path / "in", 5)
    real, seen = labelling.label_photo, []

    def dies(teacher: Squares, photo: np.ndarray, rule: LabelRule) -> object:
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(teacher, photo, rule)

    monkeypatch.setattr(labelling, "label_photo", dies)
    with pytest.raises(KeyboardInterrupt):
        label(Squares(), images, tmp_path / "out", LabelRule(grid=4))
    label(Squares(), images, tmp_path / "out", LabelRule(grid=4))
    assert len(seen) == 4 + 3  # the first shard was kept
    assert "3 photos labelled" in capsys.readouterr().out
    found = read_photos(tmp_path / "out")
    assert [p.name for p in found] == [p.name for p in images] and all(p.instances for p in found)
    assert found[0].source == "squares" and found[0].read().shape == (96, 128, 3)
    with pytest.raises(DataError, match="another teacher, rule"):
        label(Squares(), images, tmp_path / "out", LabelRule(grid=5))


def test_a_photo_that_cannot_be_read_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = photos(tmp_path / "in", 3)
    images[1].write_bytes(b"no picture")
    label(Squares(), images, tmp_path / "out", LabelRule(grid=4))
    out, err = capsys.readouterr()
    assert "1 could not be read" in out and images[1].name in err and "Traceback" not in err
    assert [p.name for p in read_photos(tmp_path / "out")] == [images[0].name, images[2].name]


def test_damage_and_data_sets_of_others_are_told(tmp_path: Path) -> None:
    images, rule, out = photos(tmp_path / "in", 2), LabelRule(grid=4), tmp_path / "out"
    label(Squares(), images, out, rule)
    whole = (out / "annotations.jsonl.gz").read_bytes()
    (out / "parts" / "00000.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"00000\.jsonl\.gz cannot be read .*delete it and run the command again"):
        label(Squares(), images, out, rule)
    assert (out / "annotations.jsonl.gz").read_bytes() == whole
    (out / "parts" / "00000.jsonl.gz").unlink()
    label(Squares(), images, out, rule)
    (out / "labels.json").write_text("{")
    with pytest.raises(DataError, match=r"labels\.json is damaged"):
        label(Squares(), images, out, rule)
    (out / "labels.json").unlink()  # a data set as any other now, perhaps labelled by people
    with pytest.raises(DataError, match="a data set that this command did not write"):
        label(Squares(), images, out, rule)
    assert len(read_photos(out)) == 2


def test_equal_names_from_two_folders_stay_apart(tmp_path: Path) -> None:
    first, second = photos(tmp_path / "a", 1), photos(tmp_path / "b", 1)
    other = np.full((96, 128, 3), 7, np.uint8)
    cv2.imwrite(str(second[0]), other)
    label(Squares(), [*first, *second], tmp_path / "out", LabelRule(grid=8))
    read = read_photos(tmp_path / "out")
    assert len({p.name for p in read}) == 2
    assert sorted(int(p.read().mean()) == 7 for p in read) == [False, True]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(tmp_path / "in", 2)
    out = tmp_path / "out"
    command = ["label", str(tmp_path / "in"), "--teacher", "tinyseg:packaged", "--out", str(out), "--grid", "3"]
    assert main([*command, "--least-iou", "0.1"]) == 0
    assert "2 photos labelled" in capsys.readouterr().out and (out / "annotations.jsonl.gz").exists()
    assert json.loads((out / "labels.json").read_text())["teacher"] == "tinyseg:base"
    assert main([*command, "--least-iou", "7"]) == 2
    assert "--least-iou" in capsys.readouterr().err
