from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")
pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[train]')")

from tinyseg.dataset import read_photos  # noqa: E402
from tinyseg.distill.__main__ import main  # noqa: E402
from tinyseg.distill.export import example_inputs  # noqa: E402
from tinyseg.distill.model import ScoreHead, Student  # noqa: E402
from tinyseg.distill.rank import (  # noqa: E402
    ANYWHERE,
    BOX,
    CLICK,
    CLICK_AGAIN,
    CORRECTED,
    KINDS,
    Judged,
    RankConfig,
    calibrate,
    choose,
    figures,
    judge,
    learn,
    ranking_loss,
    record,
    with_head,
)
from tinyseg.distill.shape import StudentShape  # noqa: E402
from tinyseg.distill.teachers import run_on_noise  # noqa: E402
from tinyseg.distill.warm_start import folder_shape, load_folder  # noqa: E402
from tinyseg.engines import create_engine  # noqa: E402
from tinyseg.errors import DataError, InputError  # noqa: E402
from tinyseg.graphs.model import PACKAGED, open_model  # noqa: E402


def test_the_command_changes_scores_and_nothing_else(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, folder = tmp_path / "ranked.pt", tmp_path / "model"
    arguments = ["--data", str(shapes), "--photos", "2", "--held-out", "1", "--width", "8", "--epochs", "2"]
    assert main(["rank", "--start", "base", *arguments, "--out", str(checkpoint)]) == 0
    table = capsys.readouterr().out
    assert KINDS[CLICK] in table and KINDS[BOX] in table and "chosen now" in table
    assert main(["export", str(checkpoint), "--out", str(folder)]) == 0
    card = json.loads((folder / "model.json").read_text())
    assert card["architecture"]["score_width"] == 8
    assert card["training"]["rank"]["photos"] == 2 and card["training"]["data"] == [shapes.name]

    inputs = example_inputs("decoder", 8, 12, 3)
    outputs = []
    for place in (None, folder):
        graph = open_model(place).graphs["decoder"]
        compiled = create_engine("onnxruntime", "fp32", 1).engine.compile(graph, {})
        outputs.append(compiled.run({n: x.numpy() for n, x in zip(graph.inputs, inputs)}))
    before, after = outputs
    assert np.abs(before["logits"] - after["logits"]).max() <= 1e-3 * np.abs(before["logits"]).max()
    assert after["iou"].shape == (3, 4) and ((after["iou"] > 0) & (after["iou"] < 1)).all()
    assert np.abs(before["iou"] - after["iou"]).max() > 0.01

    # A folder with a head is a start like any other, and its head is read back.
    student = with_head(folder, 8)
    load_folder(student, folder, run_on_noise)
    assert folder_shape(folder).score_width == 8
    with torch.inference_mode():
        _, scores = student.eval().decoder(*inputs)
    assert np.abs(scores.numpy() - after["iou"]).max() < 0.01


def test_what_is_asked(shapes: Path) -> None:
    student = with_head(PACKAGED, 4)
    judged = record(student, read_photos(shapes)[:2], 512, open_model(None).zoom)
    counts = torch.bincount(judged.kind, minlength=len(KINDS)).tolist()
    assert counts[CLICK] == counts[ANYWHERE] == counts[BOX] == 4 and counts[CLICK_AGAIN] <= 4
    assert 0 < counts[CORRECTED] <= 4
    assert judged.described.shape == (len(judged), 4, ScoreHead.FEATURES) and judged.shown.shape == (len(judged), 3)
    for values in (judged.truth, judged.scores):
        assert ((values >= 0) & (values <= 1)).all()
    # Drawn shapes are easy: their boxes find them unless another one lies over them.
    assert judged.truth[judged.kind == BOX, 0].median() > 0.7


def test_a_description_follows_what_it_describes() -> None:
    logits = torch.full((2, 4, 32, 48), -9.0)
    logits[:, :, 8:16, 8:24] = 9.0
    logits[1, 1, 8:16, 8:24] = -9.0
    logits[1, 1, :4] = 9.0  # elsewhere, and along the border
    features = torch.zeros(2, 32, 32, 48)
    features[:, 0, 8:16, 8:24] = 5.0
    described = ScoreHead.describe(logits, features, torch.randn(2, 5, 128), torch.zeros(2, 4))
    assert described.shape == (2, 4, ScoreHead.FEATURES)
    torch.testing.assert_close(described[0, 0, 128:], described[0, 3, 128:])
    over_mask = described[:, :, 256]
    assert over_mask[0].min() > 4.9 and over_mask[1, 1] < 0.5
    overlap = described[:, :, -9:-5]
    assert overlap[0].min() > 0.95 and overlap[1, 1, 0] < 0.05
    border = described[:, :, ScoreHead.OLDER + 6]
    assert border[0, 1] < 0.1 < border[1, 1]


def test_the_loss_is_what_a_choice_loses() -> None:
    truth, shown = torch.tensor([[0.9, 0.2, 0.6, 0.4]]), torch.tensor([[0, 2, 3]])
    right = torch.tensor([[0.9, 0.95, 0.1, 0.1]])  # reading 1 is not shown
    assert float(ranking_loss(right, truth, shown, 0.05)) < 1e-3
    alike = torch.full((1, 4), 0.5, requires_grad=True)
    loss = ranking_loss(alike, truth, shown, 0.05)
    assert float(loss.detach()) == pytest.approx(0.9 - (0.9 + 0.6 + 0.4) / 3)
    loss.sum().backward()
    assert alike.grad[0, 0] < 0 < alike.grad[0, 3] and alike.grad[0, 1] == 0


@pytest.mark.parametrize("ranking", [0.0, 3.0])
def test_a_head_learns_order_and_value(ranking: float) -> None:
    torch.manual_seed(0)
    n = 600
    described = torch.randn(n, 4, ScoreHead.FEATURES) * 20 + 7  # neither centred nor of one size
    truth = (described[..., 300] / 60).sigmoid()
    shown, kind = torch.tensor([[0, 1, 3]]).expand(n, 3), torch.full((n,), CLICK)
    judged = Judged(described, truth, torch.full((n, 4), 0.5), shown, kind)
    head = ScoreHead(16)
    learn(head, judged, RankConfig(width=16, epochs=30, batch_size=100, dropout=0.0, ranking=ranking))
    with torch.inference_mode():
        row = figures(judged, head(described).sigmoid())[KINDS[CLICK]]
    assert row["answers"] == n and row["best"] - row["chosen"] < 0.25 * (row["best"] - row["mask0"])
    assert row["error"] < 0.1


def test_calibration_keeps_the_order() -> None:
    """Scores that are too sure of themselves come down to what is true, and choose as before."""
    torch.manual_seed(0)
    student = Student(StudentShape(score_width=4))
    described = torch.randn(400, 4, ScoreHead.FEATURES) * 3
    kind = torch.tensor([CLICK, BOX]).repeat(200)
    judged = Judged(described, torch.zeros(400, 4), torch.zeros(400, 4), torch.tensor([[0, 1, 2]]).expand(400, 3), kind)
    before = judge(student, judged)
    judged = replace(judged, truth=(torch.logit(before) * 0.6 - 0.4).sigmoid())
    calibrate(student, judged)
    after = judge(student, judged)
    assert torch.equal(choose(judged, before), choose(judged, after))
    assert (choose(judged, before)[1::2] == 0).all() and (choose(judged, before)[::2] > 0).any()
    torch.testing.assert_close(after, judged.truth, atol=0.04, rtol=0)
    with pytest.raises(DataError, match="calibrate"):
        calibrate(student, replace(judged, truth=(torch.logit(after) * -9.0).sigmoid()))


def test_bad_input(shapes: Path, tmp_path: Path) -> None:
    for wrong in ({"width": 0}, {"epochs": 0}, {"ranking": -1.0}):
        with pytest.raises(InputError):
            RankConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no instance"):
        record(with_head(PACKAGED, 4), [], 512, open_model(None).zoom)
    common = ["rank", "--start", "base", "--data", str(shapes), "--out", str(tmp_path / "x.pt")]
    assert main([*common, "--photos", "0"]) == 2
    assert main([*common, "--width", "0"]) == 2
    assert main(["rank", "--start", str(tmp_path), "--data", str(shapes), "--out", str(tmp_path / "x.pt")]) == 2
    assert not (tmp_path / "x.pt").exists()
