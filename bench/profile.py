"""Where the time of a frame goes: the stages of ``predict``, one after the other, and a timeline of them."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import numpy as np

from tinyseg import pixels
from tinyseg.bench.measure import WARM_UP
from tinyseg.bench.rows import markdown_table
from tinyseg.bench.scenarios import FRAME_HEIGHT, FRAME_WIDTH, boxes, scene
from tinyseg.geometry import letterbox
from tinyseg.predict.segmenter import Segmenter
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import decoder_inputs, place_prompt

STAGES = ("check frame", "resize", "encoder", "copy frame", "lay out prompt", "decoder", "mask")
WIDTH = 60  # characters of the timeline


@dataclass(frozen=True)
class Profile:
    """Median milliseconds of every stage, and of the call that runs them all."""

    stages_ms: dict[str, float]
    predict_ms: float

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
        rest = self.predict_ms - total
        return "\n".join(
            [
                *markdown_table(lines),
                "",
                f"stages {total:.2f} ms, the call as a whole {self.predict_ms:.2f} ms (Python between: {rest:+.2f} ms)",
            ]
        )


def profile(seg: Segmenter, rounds: int = 60) -> Profile:
    """Time every stage of embed + one box + mask on a 1280 x 720 frame, in alternating rounds with the whole call."""
    frame, box = scene(), boxes(1)[0]
    encoder, decoder = seg.compiled(letterbox(FRAME_WIDTH, FRAME_HEIGHT, seg.model.long_side))
    samples: list[list[float]] = []
    whole: list[float] = []
    for _ in range(rounds + WARM_UP):
        marks = [time.perf_counter()]

        def mark(marks: list[float] = marks) -> None:
            marks.append(time.perf_counter())

        layout = pixels.check_frame(frame, "bgr")
        view = letterbox(FRAME_WIDTH, FRAME_HEIGHT, seg.model.long_side)
        mark()
        image = pixels.prepare(layout, view)
        mark()
        features = encoder.run({"image": image})
        mark()
        layout.pixels.copy()
        mark()
        given = decoder_inputs([place_prompt(Prompt(box=box), view)], view, view, 1, 4)
        feeds = {
            **features,
            "points": given.points,
            "labels": given.labels,
            "mask": given.mask,
            "has_mask": given.has_mask,
        }
        mark()
        logits = decoder.run(feeds)["logits"]
        mark()
        pixels.threshold(logits[0, 0], view, np.empty((FRAME_HEIGHT, FRAME_WIDTH), np.bool_))
        mark()
        samples.append([1e3 * (b - a) for a, b in itertools.pairwise(marks)])
        start = time.perf_counter()
        seg.embed(frame).predict(box=box, multimask=False, zoom="off")
        whole.append(1e3 * (time.perf_counter() - start))
    medians = np.median(samples[WARM_UP:], 0)
    return Profile(dict(zip(STAGES, medians.tolist())), float(np.median(whole[WARM_UP:])))
