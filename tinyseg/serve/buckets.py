"""Rate limits: a bucket for every client address (token bucket)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from tinyseg.serve.limits import ADDRESSES


class Buckets:
    """So many requests at once, refilled at so many a second, for every address apart; used from the event loop."""

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._rate, self._clock = burst, per_second, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Take one; False where the bucket is empty."""
        level = self.level(address)
        self._levels[address] = (max(0.0, level - 1), self._clock())
        self._levels.move_to_end(address)
        if len(self._levels) > ADDRESSES:
            self._levels.popitem(last=False)
        return level >= 1

    def level(self, address: str) -> float:
        """How many are left."""
        before, then = self._levels.get(address, (self._burst, self._clock()))
        return min(self._burst, before + (self._clock() - then) * self._rate)
