"""Where the time of a frame goes: the stages of a step, one after the other, and a timeline of them."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import numpy as np

from tinyseg.bench.measure import WARM_UP
from tinyseg.bench.rows import markdown_table
from tinyseg.bench.scenarios import boxes, scene
from tinyseg.predict.segmenter import Segmenter
from tinyseg.predict.workspace import Workspace
from tinyseg.prompts import Prompt

WIDTH = 60  # characters of the timeline


@dataclass(frozen=True)
class Profile:
    """Median milliseconds of every stage, and of a step whose stages nobody times."""

    stages_ms: dict[str, float]
    step_ms: float

    def to_text(self) -> str:
        """A table, and a bar for every stage from where it starts to where it ends."""
        total = sum(self.stages_ms.values())
        lines = [["stage", "p50 ms", "share", "from start to end of the frame"]]
        start = 0.0
        for name, ms in self.stages_ms.items():
            first, last = round(WIDTH * start / total), round(WIDTH * (start + ms) / total)
            bar = " " * first + ("#" * (last - first) or "|")
            lines.append([name, f"{ms:.3f}", f"{100 * ms / total:.1f}%", bar.ljust(WIDTH + 1)])
            start += ms
        rest = self.step_ms - total
        return "\n".join(
            [
                *markdown_table(lines),
                "",
                f"stages {total:.2f} ms, the step as a whole {self.step_ms:.2f} ms (difference: {rest:+.2f} ms)",
            ]
        )


class _TimedWorkspace(Workspace):
    """Notes when each stage of a frame was done."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[tuple[str, float]] = []

    def mark(self, stage: str) -> None:
        self.marks.append((stage, time.perf_counter()))


def profile(seg: Segmenter, rounds: int = 60) -> Profile:
    """Time every stage of a step (one box, a 1280 x 720 frame), in alternating rounds with the step that nobody times."""
    frame, prompts = scene(), (Prompt(box=boxes(1)[0]),)
    timed, plain = _TimedWorkspace(), Workspace()
    samples: list[list[float]] = []
    whole: list[float] = []
    for _ in range(rounds + WARM_UP):
        timed.marks = [("start", time.perf_counter())]
        seg.run(frame, prompts, timed)
        samples.append([1e3 * (b - a) for (_, a), (_, b) in itertools.pairwise(timed.marks)])
        start = time.perf_counter()
        seg.run(frame, prompts, plain)
        whole.append(1e3 * (time.perf_counter() - start))
    stages = [stage for stage, _ in timed.marks[1:]]
    medians = np.median(samples[WARM_UP:], 0)
    return Profile(dict(zip(stages, medians.tolist())), float(np.median(whole[WARM_UP:])))
