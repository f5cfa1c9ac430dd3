from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")
pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[train]')")

from filelock import FileLock  # noqa: E402

import tinyseg  # noqa: E402
from tinyseg.dataset import read_photos  # noqa: E402
from tinyseg.distill import data as training_data  # noqa: E402
from tinyseg.distill import train as train_module  # noqa: E402
from tinyseg.distill.__main__ import main  # noqa: E402
from tinyseg.distill.config import TrainConfig  # noqa: E402
from tinyseg.distill.export import export  # noqa: E402
from tinyseg.distill.model import Student  # noqa: E402
from tinyseg.distill.run_folder import draw_curves  # noqa: E402
from tinyseg.distill.shape import SIZES  # noqa: E402
from tinyseg.distill.step import training_loss  # noqa: E402
from tinyseg.distill.step_inputs import open_batches  # noqa: E402
from tinyseg.distill.train import run_once, train  # noqa: E402
from tinyseg.distill.warm_start import start_from  # noqa: E402
from tinyseg.errors import DataError, InputError  # noqa: E402
from tinyseg.graphs.model import PACKAGED  # noqa: E402


def config(shapes: Path, out: Path, steps: int) -> TrainConfig:
    return TrainConfig(
        data=(str(shapes),), out=str(out), steps=steps, batch_size=2, instances=2, workers=0, validate_every=1000,
        validation_photos=2,
    )  # fmt: skip


@pytest.mark.usefixtures("small_samples")
def test_stopping_and_going_on_is_the_same_as_not_stopping(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config(shapes, tmp_path / "whole", 4))
    # The same run, killed after two steps.
    real, calls = training_data.TrainingBatches.__getitem__, []

    def dies(self: training_data.TrainingBatches, step: int) -> training_data.Batch:
        calls.append(step)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, step)

    monkeypatch.setattr(training_data.TrainingBatches, "__getitem__", dies)
    stopped = train(config(shapes, tmp_path / "parts", 4))
    monkeypatch.setattr(training_data.TrainingBatches, "__getitem__", real)
    assert 0 < torch.load(stopped, weights_only=True)["step"] < 4
    resumed = train(config(shapes, tmp_path / "parts", 4))
    a, b = (torch.load(p, weights_only=True) for p in (whole, resumed))
    assert a["step"] == b["step"] == 4
    for name, value in a["student"].items():
        assert torch.equal(value, b["student"][name]), name
    with (tmp_path / "parts" / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["step"] == "4" and all(0 <= float(rows[-1][f]) <= 1 for f in ("box_frame", "click3_frame"))
    assert (tmp_path / "parts" / "config.json").exists()


@pytest.mark.usefixtures("small_samples")
def test_frozen_blocks_stay_as_they_are(shapes: Path, tmp_path: Path) -> None:
    settings = replace(config(shapes, tmp_path / "run", 2), start=str(PACKAGED), freeze=3)
    before = Student()
    start_from(before, PACKAGED, lambda s: run_once(s, open_batches(settings)[0]))
    after = torch.load(train(settings), weights_only=True)["student"]
    for name, value in before.state_dict().items():
        if re.match(r"encoder\.(stem|blocks\.[012])\.", name):
            assert torch.equal(after[name], value), name
    assert not torch.equal(
        after["encoder.blocks.3.layers.0.0.weight"], before.state_dict()["encoder.blocks.3.layers.0.0.weight"]
    )


@pytest.mark.usefixtures("small_samples")
def test_frozen_norms_train_with_the_statistics_that_are_exported(shapes: Path, tmp_path: Path) -> None:
    begin = train(replace(config(shapes, tmp_path / "begin", 2), start=str(PACKAGED)))
    before = torch.load(begin, weights_only=True)["average"]
    settings = replace(config(shapes, tmp_path / "run", 3), start=str(begin), freeze_norms=True)
    student = Student()
    student.load_state_dict(before)
    student.freeze_norms()
    batch = open_batches(settings)[0][0]
    losses = [
        float(training_loss(model, batch, settings, torch.device("cpu"))[0].detach())
        for model in (student.train(), student.eval())
    ]
    assert losses[0] == losses[1]  # training sees what an exported model would compute
    after = torch.load(train(settings), weights_only=True)["student"]
    norm = "decoder.layers.0.block.expand.1."
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(after[norm + name], before[norm + name]), name
    assert not torch.equal(after[norm + "weight"], before[norm + "weight"])


@pytest.mark.usefixtures("small_samples")
def test_a_small_student_starts_from_a_large_one(shapes: Path, tmp_path: Path) -> None:
    """Trained, exported and run by the runtime; a checkpoint of another size is refused."""
    large = train(replace(config(shapes, tmp_path / "large", 1), start=str(PACKAGED)))
    settings = replace(config(shapes, tmp_path / "small", 1), size="small", start=str(large))
    checkpoint = train(settings)
    seg = tinyseg.load(export(checkpoint, tmp_path / "model", long_side=128), engine="onnxruntime")
    assert seg.embed(np.zeros((64, 128, 3), np.uint8)).predict(box=(5, 5, 60, 60)).masks.shape == (3, 64, 128)
    assert seg.model.card["architecture"]["decoder_layers"] == 1
    with pytest.raises(InputError, match="another size"):
        train(replace(settings, size="base", start=None))
    with pytest.raises(InputError, match="cannot start from"):
        train(replace(config(shapes, tmp_path / "back", 1), start=str(checkpoint)))


@pytest.mark.usefixtures("small_samples")
def test_a_time_budget_stops_cleanly(shapes: Path, tmp_path: Path) -> None:
    path = train(replace(config(shapes, tmp_path / "run", 100000), minutes=0.02))
    saved = torch.load(path, weights_only=True)
    assert 0 < saved["step"] < 100 and saved["spent"] >= 1.2


def test_the_loss_falls(shapes: Path) -> None:
    """A few dozen steps on one batch of drawn shapes must help; a wrong sign or a cut gradient would not."""
    torch.manual_seed(0)
    settings = TrainConfig(data=(str(shapes),), out="unused", batch_size=2, instances=2)
    rng = np.random.default_rng(0)
    samples = []
    for photo in read_photos(shapes)[:2]:
        crop = training_data.random_crop(photo, 64, True, rng)
        sample = training_data.cut_sample(photo, photo.read(), crop, 2, rng)
        assert sample is not None
        samples.append(sample)
    batch = training_data.Batch(
        0, *(np.stack([getattr(s, n) for s in samples]) for n in ("image", "coverage", "boxes"))
    )
    student = Student(SIZES["small"]).train()
    optimizer = torch.optim.AdamW(student.parameters(), 2e-3)
    losses = []
    for step in range(25):
        optimizer.zero_grad()
        loss, _ = training_loss(student, replace(batch, number=step), settings, torch.device("cpu"))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@pytest.mark.usefixtures("small_samples")
def test_an_exported_checkpoint_runs_on_the_runtime(shapes: Path, tmp_path: Path) -> None:
    checkpoint = train(config(shapes, tmp_path / "run", 2))
    out = export(checkpoint, tmp_path / "model", name="toy", long_side=256, card={"licence": "none"})
    seg = tinyseg.load(out, engine="onnxruntime")
    assert seg.model.name == "toy" and seg.model.card["licence"] == "none"
    assert seg.model.card["training"]["data"] == [shapes.name]
    emb = seg.embed(np.zeros((100, 200, 3), np.uint8))
    assert emb.geometry.input == (256, 128)
    assert emb.predict(box=(9, 9, 80, 80)).masks.shape == (3, 100, 200)
    assert main(["export", str(checkpoint), "--out", str(out), "--zoom-below", "0.1"]) == 0  # replaces the folder
    assert tinyseg.load(out, engine="fake").model.zoom.below == 0.1
    assert {p.name for p in tmp_path.iterdir()} == {"run", "model"}  # nothing under a temporary name


def test_wrong_arguments_are_told(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert main(["train", "--data", "nowhere.tar", "--out", out]) == 2
    assert main(["train", "--data", str(shapes), "--out", out, "--steps", "0"]) == 2
    assert main(["train", "--data", str(shapes), "--out", out, "--oversample", "s1"]) == 2
    assert main(["export", "nothing.pt", "--out", out]) == 2
    (tmp_path / "x.pt").write_bytes(b"\x80\x02cos\nsystem\n.")
    assert main(["export", str(tmp_path / "x.pt"), "--out", out]) == 2
    assert main(["train", "--data", str(shapes), "--out", out, "--mosaic", "0.7", "--copy-paste", "0.7"]) == 2
    assert main(["train", "--data", str(shapes), "--out", out, "--mosaic", "0.7", "--data-on-device"]) == 2
    assert main(["train", "--data", str(shapes), "--out", out, "--rounds", "4"]) == 2
    assert main(["train", "--data", str(shapes), "--out", out, "--freeze", "99"]) == 2
    assert main(["train", "--data", str(shapes), "--out", out, "--freeze-norms"]) == 2
    assert main(["train", "--data", str(shapes), "--out", out, "--distil-tokens", "1"]) == 2
    assert main(["train", "--data", str(shapes), "--out", out, "--distil-masks", "0.9"]) == 2
    assert main(["train", "--data", str(shapes), "--out", out, "--oversample", "s2=3"]) == 2
    alone = ["train", "--data", str(shapes), "--out", out, "--ground-truth", "0"]
    assert main(alone) == 2
    assert main([*alone, "--teacher", "tinyseg:packaged", "--distil-masks", "0"]) == 2
    assert main([*alone[:-1], "-1"]) == 2
    err = capsys.readouterr().err
    assert err.count("tinyseg.distill: ") == err.count("\n") == 16 and "weights_only" not in err
    assert "--oversample s2: no photo is of that source; the data's are s0, s1" in err
    assert "give them with --start" in err and "add --teacher" in err
    assert "leaves the teacher alone" in err and "leaves nothing to learn" in err and "at least 0, got -1" in err


@pytest.mark.parametrize(
    "given, says",
    [
        ("--learning-rate nan", "--learning-rate must be a number of at least 1e-09, got nan"),
        ("--learning-rate inf", "got inf"),
        ("--minutes nan", "--minutes"),
        ("--minutes -1", "--minutes"),
        ("--minutes 0", "--minutes"),
        ("--validation-photos -1", "--validation-photos"),
        ("--validate-every 0", "--validate-every"),
        ("--distil-masks nan", "--distil-masks"),
        ("--ground-truth nan", "--ground-truth"),
        ("--mosaic nan", "--mosaic"),
        ("--instances 100000", "--instances must be a number of at least 1 and at most 64, got 100000"),
        ("--batch-size 100000", "--batch-size"),
        (f"--steps 1{'0' * 400}", "--steps"),
        ("--workers -1", "--workers"),
        ("--seed -1", "--seed must be a number of at least 0 and at most 2147483647, got -1"),
        ("--seed 2147483648", "--seed"),
    ],
)
def test_numbers_that_no_training_can_use_are_told(
    given: str, says: str, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(shapes), "--out", str(tmp_path / "run"), *given.split()]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.usefixtures("small_samples")
def test_a_model_that_nothing_could_open_is_not_exported(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = train(replace(config(shapes, tmp_path / "run", 1), validation_photos=0))
    saved = torch.load(checkpoint, weights_only=True)
    saved["average"]["decoder.output_tokens"].fill_(float("nan"))
    torch.save(saved, tmp_path / "nan.pt")
    for name, text in (("junk", "{"), ("list", "[]"), ("odd", '{"licence": 5}')):
        (tmp_path / f"{name}.json").write_text(text)
    for source, given, says in (
        (checkpoint, "--long-side 7", "--long-side must be a whole number from 32 to 4096, but is 7"),
        (checkpoint, "--zoom-factor nan", "--zoom-factor must be a number from 1 to 100, but is nan"),
        (checkpoint, "--zoom-below 2", "--zoom-below"),
        (checkpoint, f"--name {'x' * 300}", "model.json.name must be"),
        (checkpoint, f"--card {tmp_path}/nothing.json", "cannot be read as JSON"),
        (checkpoint, f"--card {tmp_path}/junk.json", "cannot be read as JSON"),
        (checkpoint, f"--card {tmp_path}/list.json", "must hold a JSON object"),
        (checkpoint, f"--card {tmp_path}/odd.json", "licence must be a text, but is 5"),
        (tmp_path / "nan.pt", "", "holds weights that are no finite numbers"),
    ):
        assert main(["export", str(source), "--out", str(tmp_path / "model"), *given.split()]) == 2
        out, err = capsys.readouterr()
        assert says in err and err.count("\n") == 1 and "wrote" not in out and not (tmp_path / "model").exists()


@pytest.mark.usefixtures("small_samples")
def test_what_lies_in_the_way_is_told_in_a_line(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where a run folder should be, and backbones that are none."""
    file, junk, other = (tmp_path / name for name in ("c.jpg", "junk.pt", "other.npz"))
    file.write_bytes(b"picture")
    junk.write_bytes(b"junk")
    np.savez(other, **{f"conv{i:02d}.{part}": np.zeros((3, 2)) for i in range(52) for part in ("weight", "bias")})
    few = ["--data", str(shapes), "--steps", "1", "--workers", "0"]
    for arguments, says in (
        (["train", *few, "--out", str(file)], f"--out {file} is a file"),
        (["train", *few, "--out", str(file / "run")], "cannot be made a folder"),
        (["train", *few, "--out", str(tmp_path / "a"), "--backbone", str(junk)], "give an npz"),
        (["train", *few, "--out", str(tmp_path / "a"), "--backbone", str(tmp_path)], "cannot be read"),
        (["train", *few, "--out", str(tmp_path / "a"), "--backbone", str(other)], "conv00.weight"),
        (["track", "--data", str(shapes), "--out", str(file)], f"--out {file} is a file"),
    ):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1 and "pickle" not in err
    assert file.read_bytes() == b"picture"


TRAIN_WITH_WORKERS = """
import sys
import zlib
from tinyseg.distill import data, train
data.TrainingBatches.SIZES, data.TrainingBatches.NOMINAL_SIZE = ((64, 1.0, 0.5),), 64
train.LOG_EVERY = 1
train.train(train.TrainConfig(data=(sys.argv[1],), out=sys.argv[2], steps=100000, batch_size=2, instances=2, workers=2))
"""


FAILING_WORKERS = """
import os, signal, sys
from tinyseg.distill import __main__, data, train
data.TrainingBatches.SIZES, data.TrainingBatches.NOMINAL_SIZE = ((64, 1.0, 0.5),), 64
real = data.TrainingBatches.__getitem__
def fails(self, number):
    if number == 3:
        {failure}
    return real(self, number)
data.TrainingBatches.__getitem__ = fails
{step}
few = "--steps 100 --batch-size 2 --instances 2 --workers 2 --validation-photos 0".split()
sys.exit(__main__.main(["train", "--data", sys.argv[1], "--out", sys.argv[2], *few]))
"""
A_DEFECT = "def defect(*_): raise KeyError('a defect')\ntrain.Training.take_step = defect"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("failure", "step", "says"),
    [
        ("raise ValueError('one\\ntwo')", "", "batch 3 cannot be made: ValueError: one"),
        ("raise data.DataError('a.jpg is gone')", "", "tinyseg.distill: a.jpg is gone"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "", "fewer --workers"),
        ("pass", A_DEFECT, "KeyError: 'a defect'"),  # its traceback is wanted, and an end
    ],
)
def test_what_fails_ends_the_run_and_its_workers(
    failure: str, step: str, says: str, shapes: Path, tmp_path: Path
) -> None:
    code = FAILING_WORKERS.format(failure=failure, step=step)
    command = [sys.executable, "-c", code, str(shapes), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert says in done.stderr.splitlines()[-1] and done.returncode == (1 if step else 2), done.stderr
    assert step or "Traceback" not in done.stderr


@pytest.mark.usefixtures("small_samples")
@pytest.mark.parametrize("rate", [1e30, 3e38])
def test_a_training_that_runs_away_ends_and_leaves_its_checkpoint(
    rate: float, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["train", "--data", str(shapes), "--out", str(tmp_path / "run"), "--workers", "0", "--instances", "2"]
    few += ["--batch-size", "2", "--validation-photos", "0"]
    assert main([*few, "--steps", "1"]) == 0
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    capsys.readouterr()
    assert main([*few, "--steps", "40", "--learning-rate", str(rate)]) == 2
    err = capsys.readouterr().err
    assert f"--learning-rate {rate:g} is too high" in err and "as it was before" in err and err.count("\n") == 1
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
    assert main([*few, "--steps", "2"]) == 0  # goes on with the rate that is given now


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_signal_to_the_whole_job_saves_and_stops(shapes: Path, tmp_path: Path) -> None:
    """Job schedulers end a job by a signal to all its processes, workers too."""
    command = [sys.executable, "-c", TRAIN_WITH_WORKERS, str(shapes), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as job:
        assert job.stdout is not None
        for line in job.stdout:
            if line.startswith("step 3/"):
                os.killpg(job.pid, signal.SIGTERM)
                break
        rest = job.stdout.read()
    assert job.returncode == 0 and "stopped at step" in rest
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] >= 3


def test_training_needs_no_compiled_core(root: Path) -> None:
    code = "import sys; sys.modules['tinyseg._native'] = None; import tinyseg.distill.train, tinyseg.distill.data; print('ok')"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=root).strip() == "ok"


@pytest.mark.usefixtures("small_samples")
def test_the_run_folder_shows_what_happened(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.distill.train.draw_curves", draw_curves)
    checkpoint = train(replace(config(shapes, tmp_path / "run", 4), validate_every=2))
    out = checkpoint.parent
    names = {p.name for p in out.iterdir()}
    wanted = {"config.json", "validation.csv", "checkpoint.pt", "best.pt", "samples-2.jpg", "samples-4.jpg"}
    assert wanted <= names and not any("part" in n or "tmp" in n for n in names)
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'tinyseg[report]')")
    assert cv2.imread(str(out / "curves.png")).shape[1] > 1000
    assert cv2.imread(str(out / "samples-4.jpg")).shape[0] == 640
    best, last = (torch.load(out / n, weights_only=True) for n in ("best.pt", "checkpoint.pt"))
    assert best["best"] == last["best"] and best["step"] in (2, 4)


@pytest.mark.usefixtures("small_samples")
def test_what_a_run_cannot_go_on_with_is_told_and_changes_nothing(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    few = ["train", "--data", str(shapes), "--workers", "0", "--instances", "2", "--batch-size", "2", "--size", "small"]
    few += ["--validation-photos", "0", "--steps"]
    assert main([*few, "1", "--out", str(out)]) == 0
    before = (out / "config.json").read_bytes()
    capsys.readouterr()
    teacher = ["--teacher", "tinyseg:small"]
    for given, says in (
        (["--freeze", "2"], "with other options (--freeze"),
        ([*teacher, "--distil-embedding", "1"], "with other options (--freeze"),
        (["--size", "base"], "another size"),
    ):
        assert main([*few, "2", "--out", str(out), *given]) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1 and (out / "config.json").read_bytes() == before
    taught = tmp_path / "taught"
    assert main([*few, "1", "--out", str(taught), *teacher, "--distil-embedding", "1"]) == 0
    saved = torch.load(taught / "checkpoint.pt", weights_only=True)
    for change, says in (
        ({"adapter": {k: v[:1] for k, v in saved["adapter"].items()}}, "a teacher with other features"),
        ({"kind": "track"}, "is of a tracking decoder"),
    ):
        torch.save({**saved, **change}, taught / "checkpoint.pt")
        capsys.readouterr()
        assert main([*few, "2", "--out", str(taught), *teacher, "--distil-embedding", "1"]) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text('{"of": "somebody"}')
    assert main([*few, "1", "--out", str(mine)]) == 2
    assert "config.json was not written by a training" in capsys.readouterr().err
    assert [p.read_text() for p in mine.glob("*.json")] == ['{"of": "somebody"}']


@pytest.mark.usefixtures("small_samples")
def test_two_trainings_in_one_folder(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.distill.run_folder.LOCK_SECONDS", 0)
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(DataError, match="another training is writing"):
        train(config(shapes, tmp_path / "run", 1))
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.usefixtures("small_samples")
def test_a_killed_run_says_nothing_twice(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps after the last checkpoint are made again, and so are their rows."""
    monkeypatch.setattr(train_module, "LOG_EVERY", 1)
    settings = replace(config(shapes, tmp_path / "run", 2), validation_photos=1)
    for steps in (1, 2):
        train(replace(settings, steps=steps))
        # Killed at step 4, without a checkpoint since.
        with (tmp_path / "run" / "steps.csv").open("a") as file:
            file.write("3,0,0,0,0,0\n4,0,")
    with (tmp_path / "run" / "steps.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    train(replace(settings, steps=3))
    (tmp_path / "run" / "checkpoint.pt").unlink()  # none was written yet
    train(settings)
    for name in ("steps.csv", "validation.csv"):
        with (tmp_path / "run" / name).open() as file:
            assert [row["step"] for row in csv.DictReader(file)] == ["1", "2"][-1 if name == "validation.csv" else 0 :]


@pytest.mark.usefixtures("small_samples")
def test_a_spent_time_budget_is_told(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = replace(config(shapes, tmp_path / "run", 9), minutes=0.001, validation_photos=0)
    step = torch.load(train(settings), weights_only=True)["step"]
    capsys.readouterr()
    assert torch.load(train(settings), weights_only=True)["step"] == step < 9
    assert "its 0.001 minutes are spent, give more --minutes to go on" in capsys.readouterr().out
