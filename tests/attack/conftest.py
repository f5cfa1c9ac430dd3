"""Attacks: seeded fuzzing of everything that takes something from a stranger; short in CI, as long as wanted by scripts/fuzz.

A test calls ``attack(name, strategy, check, cases)``: ``check`` gets values that the hypothesis strategy draws and raises
only where a tinyseg exception is not enough of an answer; with ``each`` it is called so many times with every value (a
random.Random of mutation.seeds, say, which goes on: drawing costs more than most checks).

Without TINYSEG_FUZZ_MINUTES about ``cases`` values are tried, always the same ones; with it every attack goes on, seed by
seed, until its share of the minutes is over. What was tried is printed as a table at the end.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pytest

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed (pip install hypothesis)")

T = TypeVar("T")
MINUTES = float(os.environ.get("TINYSEG_FUZZ_MINUTES", "0"))
FIRST_SEED = int(os.environ.get("TINYSEG_FUZZ_SEED", "0"))


@dataclass
class Tried:
    """One row of the table."""

    name: str
    cases: int
    seconds: float
    outcome: str


TABLE = pytest.StashKey[list[Tried]]()


class Attack(Protocol):
    def __call__(self, name: str, strategy: Any, check: Callable[[Any], object], cases: int, each: int = 1) -> None: ...


@pytest.fixture
def attack(request: pytest.FixtureRequest) -> Attack:
    """Try ``check`` on values of ``strategy``; see the module's text."""
    rows = request.config.stash.setdefault(TABLE, [])
    attacks = sum("attack" in getattr(item, "fixturenames", ()) for item in request.session.items)
    share = MINUTES * 60 / max(attacks, 1)

    def run(name: str, strategy: Any, check: Callable[[Any], object], cases: int, each: int = 1) -> None:
        start, tried = time.monotonic(), 0
        row = Tried(name, 0, 0.0, "held")
        rows.append(row)

        def examined(value: Any) -> None:
            nonlocal tried
            for _ in range(each):
                tried += 1
                check(value)

        settings = hypothesis.settings(
            max_examples=max(1, cases // each), database=None, deadline=None, print_blob=False,
            suppress_health_check=list(hypothesis.HealthCheck), phases=_phases(),
        )  # fmt: skip
        try:
            for seed in itertools.count(FIRST_SEED):
                hypothesis.seed(seed)(settings(hypothesis.given(strategy)(examined)))()
                if time.monotonic() - start >= share:
                    break
        except BaseException as exc:
            row.outcome = f"{type(exc).__name__} (seed {seed})"
            raise
        finally:
            row.cases, row.seconds = tried, time.monotonic() - start

    return run


def _phases() -> list[Any]:
    """A found case is made small only where somebody has the time to look at it."""
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    return [*phases, hypothesis.Phase.shrink] if MINUTES else phases


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash.get(TABLE, [])
    if not rows:
        return
    terminalreporter.section("what was tried")
    terminalreporter.write_line("| attack | cases | seconds | outcome |")
    terminalreporter.write_line("|---|---|---|---|")
    for row in rows:
        terminalreporter.write_line(f"| {row.name} | {row.cases:,} | {row.seconds:.1f} | {row.outcome} |")
    terminalreporter.write_line(f"{sum(r.cases for r in rows):,} cases in all")
