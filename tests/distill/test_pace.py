"""What trainings keep beside their model: time, rate, moving average, and being asked to stop."""

from __future__ import annotations

import os
import signal
import sys

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")

from tinyseg.distill.pace import Pace, follow, stop_on_signal  # noqa: E402


def test_the_rate_goes_up_a_line_and_down_half_a_cosine() -> None:
    pace = Pace(1000, None)
    rates = []
    for pace.step in range(1000):
        rates.append(pace.rate(50, 0.01))
    assert rates[0] == pytest.approx(1 / 50, rel=1e-3) and rates[:49] == sorted(rates[:49])
    assert rates[49:] == sorted(rates[49:], reverse=True) and rates[500] == pytest.approx(0.5) and rates[-1] == 0.01
    short = Pace(20, None)
    assert short.rate(50, 0.01) == pytest.approx(1 / 3)  # a tenth of its steps, and one


def test_whichever_of_steps_and_time_ends_first_counts() -> None:
    by_time, by_steps = Pace(1000, 1.0), Pace(2, None)
    assert not by_time.is_over and not by_steps.is_over
    by_time.spend(30)
    assert by_time.rate(1, 0.0) == pytest.approx(0.5) and not by_time.is_over
    by_time.spend(30)
    by_steps.step = 2
    assert by_time.is_over and by_steps.is_over


def test_a_pause_is_not_time_spent() -> None:
    pace = Pace(100, 10.0)
    for _ in range(10):
        pace.spend(2.0)
    pace.step = 10
    assert pace.told(10) == "2.00 s/step  3 min left"
    pace.spend(3600.0)  # the machine slept
    assert pace.spent == 30.0
    for _ in range(200):
        pace.spend(4.0)
    assert pace.told(25).startswith("4.00 s/step") and pace.spent == 830.0


def test_the_average_follows_weights_and_statistics() -> None:
    model, average = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    model.weight.data.fill_(3.0)
    model.running_mean.fill_(5.0)
    model.num_batches_tracked.fill_(7)
    follow(average, model, 0, 0.99)  # a tenth of itself, and nine of the model
    assert torch.allclose(average.weight.data, torch.full((2,), 2.8))
    assert torch.allclose(average.running_mean, torch.full((2,), 4.5)) and int(average.num_batches_tracked) == 7
    follow(average, model, 10_000, 0.75)
    assert torch.allclose(average.weight.data, torch.full((2,), 2.85))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_signal_asks_to_stop_and_ends_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), stop_on_signal() as asked:
        assert not asked.made
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.made
        raise ZeroDivisionError
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
