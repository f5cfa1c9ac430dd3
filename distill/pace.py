"""What every training keeps beside its model: how far it is, how fast it learns, its moving average, and when it stops."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tinyseg.errors import InputError, TinysegError

KEPT_DURATIONS = 100  # of the last steps
PAUSE = 5  # a step that takes so many times the usual one was interrupted
EMA_WARM_UP = 10  # steps, about: early the average follows faster, for it began as weights of no meaning


class Pace:
    """Steps done and seconds spent of a training that ends with its steps or its time, whichever is first."""

    def __init__(self, steps: int, minutes: float | None) -> None:
        self.steps = steps
        self.budget = math.inf if minutes is None else minutes * 60  # seconds
        self.step, self.spent = 0, 0.0
        self._durations: list[float] = []

    @property
    def is_over(self) -> bool:
        """Whether the steps or the time are used up."""
        return self.step >= self.steps or self.spent >= self.budget

    def ended(self, checkpoint: Path) -> str:
        """What to say of a training that has nothing left to do."""
        if self.step >= self.steps:
            return f"all of its {self.steps} steps are done: {checkpoint}"
        return f"its {self.budget / 60:g} minutes are spent, give more --minutes to go on: {checkpoint}"

    def rate(self, warm_up: int, least: float) -> float:
        """The next step's learning rate as a share of the peak's: a line up, half a cosine down.

        warm_up: steps of the line, a tenth of them all in short trainings. least: where the cosine ends.
        """
        done = min(max(self.step / self.steps, self.spent / self.budget), 1.0)
        rising = min(1.0, (self.step + 1) / min(warm_up, 1 + self.steps // 10))
        return max(rising * (0.5 + 0.5 * math.cos(math.pi * done)), least)

    def spend(self, seconds: float) -> None:
        """Count the time of a step; a pause of the process is not time spent on training."""
        self._durations = [*self._durations[1 - KEPT_DURATIONS :], seconds]
        self.spent += min(seconds, PAUSE * float(np.median(self._durations)))

    def told(self, recent: int) -> str:
        """Seconds a step, the mean of the ``recent`` last ones, and the minutes that are left at that speed."""
        seconds = float(np.mean(self._durations[-recent:]))
        left = min((self.steps - self.step) * seconds, self.budget - self.spent)
        return f"{seconds:.2f} s/step  {left / 60:.0f} min left"


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move the moving average of a model's weights and statistics by one step, counted from 0; counters are copied."""
    decay = min(decay, (step + 1) / (step + EMA_WARM_UP))
    for a, b in zip(average.state_dict().values(), model.state_dict().values()):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - decay)
        else:
            a.copy_(b)


def is_finite(model: nn.Module) -> bool:
    """Whether all weights and statistics are finite numbers."""
    return all(bool(v.isfinite().all()) for v in model.state_dict().values() if v.dtype.is_floating_point)


def not_finite(what: str, step: int, rate: float, checkpoint: Path) -> TinysegError:
    """The error that ends a training whose loss or weights are no numbers any more."""
    left = f"{checkpoint} is as it was before" if checkpoint.exists() else "no checkpoint was written yet"
    return TinysegError(
        f"step {step}: {what} is not finite any more, so the training ends; {left}. Most often --learning-rate {rate:g} is too "
        "high: give a lower one"
    )


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take a checkpoint's moments; peak rates stay as configured now, so that a training that ran away can go on slower.

    Raises InputError where they are of other weights than are trained now.
    """
    peaks = [group["peak"] for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
    except (ValueError, KeyError) as exc:
        raise InputError(
            "the checkpoint in --out is of a training with other options (--freeze, --distil-embedding, --distil-tokens), or of none; "
            "give these as they were, or go on from it with --start in another --out"
        ) from exc
    for group, peak in zip(optimizer.param_groups, peaks):
        group["peak"] = peak


class StopRequest:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.made = False

    def __call__(self, _number: int, _frame: object) -> None:
        self.made = True


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Within the block Ctrl-C and SIGTERM ask to stop after the present step, and end nothing."""
    request = StopRequest()
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
