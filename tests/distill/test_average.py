from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")
pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[train]')")

from tinyseg.dataset import read_photos  # noqa: E402
from tinyseg.distill.__main__ import main  # noqa: E402
from tinyseg.distill.average import measure_norms  # noqa: E402
from tinyseg.distill.checkpoint import KEYS, save_checkpoint  # noqa: E402
from tinyseg.distill.config import TrainConfig  # noqa: E402
from tinyseg.distill.data import TrainingBatches  # noqa: E402
from tinyseg.distill.model import Student  # noqa: E402
from tinyseg.distill.train import train  # noqa: E402
from tinyseg.errors import DataError  # noqa: E402
from tinyseg.graphs.model import PACKAGED  # noqa: E402

pytestmark = pytest.mark.usefixtures("small_samples")


def test_norms_meet_what_their_convolutions_compute(shapes: Path) -> None:
    torch.manual_seed(0)
    student = Student()
    for p in student.parameters():
        p.data *= 1.3  # statistics of before are wrong now
    config = TrainConfig(data=(), out="x", batch_size=2, instances=2)
    measure_norms(student, TrainingBatches(read_photos(shapes), 2, 2, 0, {}), config, 3)
    assert not student.training
    norm = student.encoder.stem[1]
    assert norm.momentum == pytest.approx(0.1) and int(norm.num_batches_tracked) == 3
    assert norm.running_var.mean() != pytest.approx(1.0, abs=1e-3)


def test_the_command(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = TrainConfig(
        data=(str(shapes),), out=str(tmp_path / "a"), steps=1, batch_size=2, instances=2, workers=0,
        validation_photos=1, start=str(PACKAGED),
    )  # fmt: skip
    a, b = train(settings), train(replace(settings, out=str(tmp_path / "b"), seed=1, steps=2))
    out = tmp_path / "mean.pt"
    common = ["--data", str(shapes), "--batches", "2"]
    assert main(["average", str(a), str(b), *common, "--out", str(out)]) == 0
    states = [torch.load(p, weights_only=True)["average"] for p in (a, b, out)]
    name = "decoder.layers.1.mlp.0.weight"
    torch.testing.assert_close(states[2][name], (states[0][name] + states[1][name]) / 2)
    assert main(["export", str(out), "--out", str(tmp_path / "model")]) == 0
    card = json.loads((tmp_path / "model" / "model.json").read_text())["training"]
    assert [c["steps"] for c in card["averaged"]] == [1, 2] and card["averaged"][0]["data"] == [shapes.name]
    assert card["step"] == 3 and card["norms_measured_on"] == 2

    first = tmp_path / "first.pt"
    assert main(["average", str(out), *common, "--rounds", "1", "--out", str(first)]) == 0
    there = torch.load(first, weights_only=True)["average"]
    for name, same in (("decoder.layers.1.mlp.0.weight", True), ("encoder.block16.expand.1.running_var", True),
                       ("decoder.block4.expand.1.running_var", False)):  # fmt: skip
        assert torch.allclose(there[name], torch.load(out, weights_only=True)["average"][name], rtol=1e-3) == same, name

    capsys.readouterr()
    assert main(["validate", str(out), "flip:tinyseg:base", "--data", str(shapes), "--photos", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    kinds = ("held out, 1 photos", "trained on, 2 photos")
    starts = [f"{name}, {kind}: box_frame 0." for kind in kinds for name in (out, "flip:tinyseg:base")]
    assert [line[: len(s)] for line, s in zip(lines, starts)] == starts and len(set(lines)) == 4

    small = train(replace(settings, out=str(tmp_path / "small"), size="small"))
    capsys.readouterr()
    assert main(["average", str(a), str(small), *common, "--out", str(out)]) == 2
    assert "different sizes" in capsys.readouterr().err
    assert main(["average", str(a), "--data", str(shapes), "--batches", "0", "--out", str(out)]) == 2


def test_places_that_no_checkpoint_can_take_are_told_before_the_work(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tmp_path / "deep.pt", {**{key: {} for key in KEYS}, "kind": "track"})
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mean.tmp").write_text("mine")
    common = ["--data", str(shapes), "--out"]
    average = ["average", str(tmp_path / "deep.pt"), *common]
    rank = ["rank", "--start", "base", *common]
    for arguments, says in (
        ([*average, str(tmp_path / "file" / "x.pt")], "cannot be written"),
        ([*average, str(tmp_path)], "is a folder"),
        ([*average, str(tmp_path / "new" / "mean.pt")], "holds no student but a part of one"),
        ([*rank, str(tmp_path / "file" / "x.pt")], "cannot be written"),
        ([*rank, str(tmp_path)], "is a folder"),
    ):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1
    save_checkpoint(tmp_path / "mean.pt", {"a": 1})
    with pytest.raises(DataError, match="cannot be written"):
        save_checkpoint(tmp_path / "nowhere" / "mean.pt", {"a": 1})
    assert (tmp_path / "mean.tmp").read_text() == "mine"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
