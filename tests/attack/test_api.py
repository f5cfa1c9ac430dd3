"""The public calls, handed anything: an answer or a tinyseg exception, and nothing else."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyseg
from tests.attack.conftest import Attack
from tests.attack.hostile import WORDS, frame_of, odd_values, values
from tinyseg import Loop, Prompt, SAM2ImagePredictor, SamPredictor
from tinyseg.sinks import CallbackSink, JsonLinesSink, NullSink, PngSink, RawSink, VideoSink, open_sink
from tinyseg.sources import ArraySource, ImageSource, RawSource, SyntheticSource, VideoFileSource, open_source

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed (pip install hypothesis)")
from hypothesis import strategies as st  # noqa: E402 - after the skip

# What opens a camera or the network is slow, and nothing of ours.
OUTSIDE = ("/dev/video", "gst:", "rtsp", "http", "udp", "tcp")


class Caller:
    """Calls of the public API with arguments from a pool, most of the time a proper one among them."""

    def __init__(self, seg: tinyseg.Segmenter, folder: Path, pool: Sequence[Any], choice: random.Random) -> None:
        self.seg, self.folder, self.pool, self.choice = seg, folder, pool, choice
        self.frame = frame_of(choice)
        self.embedding = seg.embed(self.frame)
        self.masks: tinyseg.Masks | None = None
        self.height, self.width = self.frame.shape[:2]

    def any(self) -> Any:
        return self.choice.choice(self.pool)

    def or_any(self, *proper: Any) -> Any:
        return self.choice.choice(proper) if self.choice.random() < 0.6 else self.any()

    def prompt_parts(self) -> tuple[Any, Any, Any, Any]:
        w, h = self.width, self.height
        mask = np.ones((h, w), bool)
        logits = np.full(self.embedding.geometry.grid, 3.0, np.float32)
        return (
            self.or_any(None, [[0, 0]], [[w, h]], [[w / 2, h / 2], [0, 0]]), self.or_any(None, [1], [0, 1], [1, 1]),
            self.or_any(None, [0, 0, w, h], [-9, -9, w / 2, h], (0, 0, 1e9, 1e9), [0, 0, 1e-3, 1e-3]),
            self.or_any(None, mask, logits, logits[None]),
        )  # fmt: skip

    def prompt(self) -> None:
        Prompt(*self.prompt_parts())

    def predict(self) -> None:
        self.embedding.predict(*self.prompt_parts(), self.or_any(True, False), self.or_any("auto", "off"))

    def predict_batch(self) -> None:
        prompts = [Prompt([[0, 0]], [1]), Prompt(box=(0, 0, self.width, self.height))]
        self.embedding.predict_batch(
            self.or_any(prompts, [], prompts[:1], [self.any()]), self.any(), self.or_any("off")
        )

    def embed(self) -> None:
        self.seg.embed(
            self.or_any(self.frame), self.or_any("bgr", "rgb"), self.or_any(None, (0, 0, self.width, self.height)),
            self.or_any(None, 64),
        )  # fmt: skip

    def cutout(self) -> None:
        if self.masks is None:
            self.masks = self.embedding.predict(box=[0, 0, self.width, self.height])
        self.masks.cutout(self.or_any(self.frame), self.or_any("bgr"), self.or_any(None, 0, -1))

    def sam(self) -> None:
        predictor = SamPredictor(self.or_any(self.seg), self.or_any("auto", "off"))
        predictor.set_image(self.or_any(self.frame), self.or_any("RGB", "BGR"))
        predictor.predict(*self.prompt_parts(), self.or_any(True, False), self.or_any(True, False))

    def sam2(self) -> None:
        predictor = SAM2ImagePredictor(self.or_any(self.seg))
        predictor.set_image(self.or_any(self.frame))
        predictor.predict(*self.prompt_parts(), self.or_any(True, False), self.or_any(True, False))

    def source(self) -> None:
        text = self.any()
        if isinstance(text, str) and (text.startswith(OUTSIDE) or text.strip().isdecimal()):
            return
        if isinstance(text, (int, np.integer)) and not isinstance(text, bool) and 0 <= text < 10_000:
            return
        stream = self.or_any(io.BytesIO(bytes(100)), None)
        open_source(text, stream, self.or_any((3, 3)), self.or_any("bgr")).close()

    def sources(self) -> None:
        make: Callable[[], Any] = self.choice.choice([
            lambda: ArraySource(self.any(), self.any()),
            lambda: ImageSource(self.or_any([self.any()], ["*"])),
            lambda: RawSource(self.or_any(io.BytesIO(bytes(50))), self.or_any(3), self.or_any(3), self.or_any("bgr")),

            lambda: SyntheticSource(self.or_any(9), self.or_any(9), self.any(), distinct=self.or_any(1), frame_rate=self.or_any(0.0)),
            lambda: VideoFileSource(self.any()),
        ])  # fmt: skip
        made = make()
        if isinstance(made, (RawSource, ImageSource)):
            made.next_frame()

    def sink(self) -> None:
        open_sink(self.any(), self.or_any(25.0), self.or_any(io.BytesIO(), None)).close()

    def sinks(self) -> None:
        kind: Any = self.choice.choice([JsonLinesSink, PngSink, VideoSink, RawSink, CallbackSink])
        kind(self.any()).close()

    def prompts_for(self) -> Any:
        """No function, or one whose answer may be anything: what it raises itself is its owner's, and goes through."""
        odd = self.any()
        return self.choice.choice([None, lambda index: odd, odd if not callable(odd) else None])

    def loop(self) -> None:
        frames = [self.or_any(self.frame) for _ in range(3)]
        source = self.or_any(ArraySource(frames), SyntheticSource(9, 9, 2, distinct=1))
        prompts = self.or_any([Prompt(box=(0, 0, 1, 1))], [self.any()])
        with Loop(
            self.or_any(self.seg), source, self.or_any(NullSink()), prompts, drop=self.or_any("auto", "none"),
            zoom=self.or_any("off", "auto"), tick_seconds=self.or_any(0.5), prompts_for=self.prompts_for(),
        ) as loop:  # fmt: skip
            if self.choice.random() < 0.3:
                loop.set_prompts(self.any())
            loop.run()

    def load(self) -> None:
        model = (
            self.or_any(None)
            if self.choice.random() < 0.1
            else self.choice.choice([5, b"base", [], "\0", "a" * 300, "nowhere", {}])
        )
        tinyseg.load(
            model, self.or_any("fake"), self.or_any("auto"), threads=self.or_any(None, 1), streams=self.or_any(1)
        )


CALLS = [
    *[Caller.prompt] * 8,
    Caller.predict, Caller.predict, Caller.predict, Caller.predict_batch, Caller.embed, Caller.cutout, Caller.sam,
    Caller.sam2, Caller.source,
    Caller.sources, Caller.sink, Caller.sinks,
]  # fmt: skip
RARE_CALLS = [Caller.loop, Caller.load]  # threads to start, a model to read


@dataclass
class Case:
    """What a run of calls draws from; the caller is made at the first one."""

    drawn: list[Any]
    seed: int
    caller: Caller | None = None


def test_public_calls(
    attack: Attack,
    fake: tinyseg.Segmenter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = odd_values()

    def check(case: Case) -> None:
        if case.caller is None:
            capfd.readouterr()  # what OpenCV printed
            case.caller = Caller(fake, tmp_path, [*odd, *WORDS, *case.drawn * 3], random.Random(case.seed))
        choice = case.caller.choice
        call = choice.choice(RARE_CALLS if choice.random() < 0.02 else CALLS)
        try:
            call(case.caller)
        except tinyseg.TinysegError as exc:
            assert 0 < len(str(exc)) < 3000, str(exc)

    cases = st.builds(Case, st.lists(values(), max_size=12), st.integers(0, 2**32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        attack("public calls", cases, check, 5_000, each=100)
