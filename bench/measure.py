"""Timing that can be trusted on a noisy machine: alternating rounds, medians with intervals, signs of disturbance."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyseg.system.progress import progress

WARM_UP = 5  # untimed calls of everything first
BOOTSTRAP_DRAWS = 1000
STABLE_WITHIN = 0.02  # of the median, half the width of its 95% interval
MIN_SAMPLES = 30
CHECK_EVERY = 15  # samples between two looks at the interval
BUSY = 0.15  # of all cores' time, while we do nothing
DRIFT = 0.10  # the last third slower than the first by this much: throttling, or somebody else's work


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


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """95% interval of the median, by a seeded bootstrap."""
    array = np.asarray(samples, np.float64)
    draws = np.random.default_rng(0).choice(array, (BOOTSTRAP_DRAWS, len(array)))
    low, high = np.percentile(np.median(draws, 1), (2.5, 97.5))
    return float(low), float(high)


def is_stable(samples: Sequence[float]) -> bool:
    """Whether the median is known within 2%."""
    if len(samples) < MIN_SAMPLES:
        return False
    low, high = median_interval(samples)
    return (high - low) / 2 <= STABLE_WITHIN * float(np.median(samples))


def until_stable(call: Callable[[], object], label: str, seconds: float) -> Timing:
    """Time a call until its median is stable, at most for so many seconds (and at least MIN_SAMPLES times)."""
    for _ in range(WARM_UP):
        call()
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        samples.append(1e3 * (now - start))
        enough = len(samples) >= MIN_SAMPLES
        if enough and (now > end or (len(samples) % CHECK_EVERY == 0 and is_stable(samples))):
            return Timing(label, tuple(samples))


def disturbances(samples: Sequence[float], busy_before: float | None) -> str:
    """What a reader should know: a busy machine, clocks that fell, two speeds."""
    found = []
    if busy_before is not None and busy_before > BUSY:
        found.append(f"the machine was busy before the start ({100 * busy_before:.0f}% of its cores' time)")
    array: NDArray[np.float64] = np.asarray(samples, np.float64)
    third = len(array) // 3
    if third >= 5:
        first, last = np.median(array[:third]), np.median(array[-third:])
        if last > (1 + DRIFT) * first:
            found.append(
                f"the last third was {100 * (last / first - 1):.0f}% slower than the first: throttling or other work"
            )
    low, high = np.percentile(array, (10, 90))
    if high > 1.4 * low:
        found.append(f"times spread widely (p10 {low:.2f} ms, p90 {high:.2f} ms)")
    return "; ".join(found)


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
    """Median of the rounds' quotients slow / fast, with its interval."""
    quotients = np.array(slow.samples_ms) / np.array(fast.samples_ms)
    return Ratio(float(np.median(quotients)), *median_interval(quotients.tolist()))
