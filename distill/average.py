"""One student from several trainings: the mean of their weights, with norms measured again.

Trainings that start from the same weights stay close enough for their mean to be better than each of them (model soups, arXiv
2203.05482). Batch norms of a mean of weights, and of a moving average, have never met what their convolutions now compute, so
they are measured on training samples afterwards (as in stochastic weight averaging, arXiv 1803.05407, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyseg.distill.checkpoint import load_checkpoint, require_place, save_checkpoint
from tinyseg.distill.config import TrainConfig
from tinyseg.distill.data import TrainingBatches
from tinyseg.distill.model import Student
from tinyseg.distill.shape import StudentShape
from tinyseg.distill.step import training_loss
from tinyseg.distill.warm_start import load_whole
from tinyseg.errors import InputError
from tinyseg.system.progress import progress

SEED = 77  # of the samples that norms are measured on


def mean_state(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every floating-point tensor; counters are the first one's."""
    return {
        name: torch.stack([s[name] for s in states]).mean(0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }


@torch.no_grad()
def measure_norms(student: Student, batches: TrainingBatches, config: TrainConfig, count: int) -> None:
    """Give every batch norm the mean statistics of a training's steps on ``count`` batches."""
    norms = [m for m in student.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [m.momentum for m in norms]
    device = next(student.parameters()).device
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to ask for a plain mean
    student.train()
    # Steps of as many rounds as the configuration says. Norms that have met first prompts alone do better on these and much
    # worse on the third click, until a training with frozen norms has learned to live with them.
    for number in progress(range(count), "batches for the norms"):
        training_loss(student, batches[number], config, device)
    for norm, momentum in zip(norms, before):
        norm.momentum = momentum
    student.eval()


def average_checkpoints(
    checkpoints: Sequence[Path], batches: TrainingBatches, count: int, out: Path, rounds: int = 3
) -> Path:
    """Write a checkpoint of the mean of several (or of one with its norms measured again). Raises InputError.

    rounds: the most that the norms meet. First prompts alone (1) suit a start for `train --freeze-norms`, not a model.
    """
    if count < 1:
        raise InputError("--batches must be at least 1: norms have to be measured")
    require_place(out)
    saved: list[dict[str, Any]] = [load_checkpoint(p, torch.device("cpu")) for p in checkpoints]
    parts = [p for p, s in zip(checkpoints, saved) if "kind" in s]
    if parts:
        raise InputError(f"{parts[0]} holds no student but a part of one, and has no mean with others")
    shapes = [StudentShape.of(s["shape"]) for s in saved]
    if any(shape != shapes[0] for shape in shapes):
        raise InputError("students of different sizes have no mean; give checkpoints of one size")
    student = Student(shapes[0])
    for path, one in zip(checkpoints, saved):
        load_whole(student, one["average"], path)
    student.load_state_dict(mean_state([s["average"] for s in saved]))
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    config = TrainConfig(
        data=(), out=str(out.parent), batch_size=batches.batch_size, instances=batches.instances, seed=batches.seed,
        rounds=rounds,
    )  # fmt: skip
    measure_norms(student, batches, config, count)
    state = student.state_dict()
    facts = {
        "student": state, "average": state, "shape": saved[0]["shape"], "optimizer": {},
        "step": sum(int(s["step"]) for s in saved), "spent": sum(float(s["spent"]) for s in saved),
        "config": {
            **saved[0]["config"],
            "averaged": [{**s["config"], "step": s["step"], "minutes": round(s["spent"] / 60, 1)} for s in saved],
            "norms_measured_on": count, "norms_rounds": rounds,
        },
    }  # fmt: skip
    save_checkpoint(out, facts)
    return out
