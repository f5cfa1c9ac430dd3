"""Timing that can be trusted on a noisy machine: alternating rounds, medians, ratios with intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tinyseg.progress import progress

WARM_UP = 3  # untimed calls of everything before the first round
BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True)
class Timing:
    """Wall-clock times of one thing, in milliseconds, in the order measured."""

    label: str
    samples_ms: tuple[float, ...]

    @property
    def p50_ms(self) -> float:
        return float(np.percentile(self.samples_ms, 50))

    @property
    def p90_ms(self) -> float:
        return float(np.percentile(self.samples_ms, 90))


@dataclass(frozen=True)
class Ratio:
    """How many times longer one thing takes than another: median over rounds, with a 95% interval."""

    value: float
    low: float
    high: float


def alternate(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Time every call once a round, in turn, so that a change of the machine's speed meets all of them alike."""
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    samples: dict[str, list[float]] = {label: [] for label in calls}
    for _ in progress(range(rounds), "rounds"):
        for label, call in calls.items():
            call()  # the caches and clocks that the call before left behind are not this one's business
            start = time.perf_counter()
            call()
            samples[label].append(1e3 * (time.perf_counter() - start))
    return {label: Timing(label, tuple(values)) for label, values in samples.items()}


def ratio(slow: Timing, fast: Timing) -> Ratio:
    """Median of the rounds' quotients slow / fast, with a bootstrap interval (seeded)."""
    quotients = np.array(slow.samples_ms) / np.array(fast.samples_ms)
    draws = np.random.default_rng(0).choice(quotients, (BOOTSTRAP_DRAWS, len(quotients)))
    low, high = np.percentile(np.median(draws, 1), (2.5, 97.5))
    return Ratio(float(np.median(quotients)), float(low), float(high))
