from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")

from tinyseg.distill.__main__ import main  # noqa: E402
from tinyseg.distill.parallel import Processes, join  # noqa: E402
from tinyseg.errors import InputError  # noqa: E402

# Both processes write to one pipe: a line and its end in one call, or they end up in each other's.
SAY = """
import os
def say(line):
    os.write(1, (line + "\\n").encode())
"""
# One step in two processes on a toy, then the real thing; the first process says what came out.
TOY = """
import torch
from tinyseg.distill.parallel import join
processes, device = join("cpu")
a, b = torch.full((2, 3), float(processes.rank)), torch.full((4,), 10.0 * processes.rank)
processes.average([a, b])
told = [processes.any(processes.rank == 1, device), processes.any(False, device)]
processes.wait()
say(f"rank {processes.rank} of {processes.count}: {a.unique().tolist()} {b.unique().tolist()} {told}")
processes.leave()
"""
TRAINING = """
import sys, torch
from tinyseg.distill import data, train
data.TrainingBatches.SIZES, data.TrainingBatches.NOMINAL_SIZE = ((64, 1.0, 0.5),), 64
steps, seed_shift = int(sys.argv[3]), 0
config = train.TrainConfig(data=(sys.argv[1],), out=sys.argv[2], steps=steps, batch_size=2, instances=2, workers=0,
    validation_photos=1)
class Watched(train.Training):
    def take_step(self, batch):
        super().take_step(batch)
        total = sum(float(p.detach().double().abs().sum()) for p in self.student.parameters())
        say(f"rank {self.processes.rank} step {self.pace.step} batch {batch.number} weights {total:.6f}")
train.Training = Watched
train.train(config)
"""


def run(code: str, *arguments: str, cwd: Path) -> str:
    script = cwd / "script.py"
    script.write_text(SAY + code)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(script), *arguments], capture_output=True, text=True, env=environment, timeout=240
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_one_process_exchanges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    processes, device = join("cpu")
    assert processes == Processes(0, 1) and device == torch.device("cpu") and processes.is_first
    values = torch.ones(3)
    processes.average([values])
    assert processes.any(True, device) and not processes.any(False, device) and values.tolist() == [1, 1, 1]


def test_more_processes_than_gpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="has 1 GPUs; set --nproc-per-node"):
        join("cuda")


def test_two_processes_agree(tmp_path: Path) -> None:
    lines = sorted(line[line.index("rank ") :] for line in run(TOY, cwd=tmp_path).splitlines() if "rank " in line)
    assert lines == [f"rank {r} of 2: [0.5] [5.0] [True, False]" for r in range(2)]


def test_torchrun_trains_one_student(shapes: Path, tmp_path: Path) -> None:
    """Different batches, the same weights after every step, one run folder that goes on."""
    out = tmp_path / "run"
    for steps in (2, 3):
        text = run(TRAINING, str(shapes), str(out), str(steps), cwd=tmp_path)
        rows = [line[line.index("rank ") :].split() for line in text.splitlines() if "rank " in line]
        by_step: dict[str, list[list[str]]] = {}
        for row in rows:
            by_step.setdefault(row[3], []).append(row)
        assert sorted(by_step) == ([["1", "2"], ["3"]][steps - 2])
        for step, pair in by_step.items():
            assert sorted(r[5] for r in pair) == [str(2 * int(step) - 2), str(2 * int(step) - 1)]
            assert pair[0][7] == pair[1][7]
        assert text.count(" photos to train on") == 1
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 3


def test_a_gpu_that_is_not_there_is_told_by_every_command(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    data, out = ["--data", str(shapes)], ["--out", str(tmp_path / "out")]
    for command in (
        ["train", *data, *out],
        ["answers", *data, *out, "--teacher", "tinyseg:small", "--steps", "1"],
        ["label", str(shapes / "images"), *out, "--teacher", "tinyseg:small"],
        ["validate", "tinyseg:small", *data],
    ):
        assert main([*command, "--device", "cuda"]) == 2
        err = capsys.readouterr().err
        assert "--device cuda: torch sees no GPU here" in err and err.count("\n") == 1
