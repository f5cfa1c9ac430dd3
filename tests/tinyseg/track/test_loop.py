from __future__ import annotations

import numpy as np
import pytest

import tinyseg
from tests.tinyseg.track.conftest import Moving
from tinyseg import Loop, Prompt
from tinyseg.sinks import CallbackSink, FrameResult
from tinyseg.sources import ArraySource


def test_a_loop_gives_what_steps_give(seg: tinyseg.Segmenter, moving: Moving) -> None:
    frames = [moving(n)[0] for n in range(5)]
    found: list[FrameResult] = []

    def keep(result: FrameResult) -> None:
        found.append(result)

    with Loop(seg.tracker(), ArraySource(frames), CallbackSink(keep), [Prompt(mask=moving(0)[1])]) as loop:
        loop.add("late", Prompt(box=(250, 10, 310, 60)), frame=2)
        loop.remove("late", frame=4)
        assert loop.run().frames == 5
    assert [[t.id for t in r.tracks] for r in found] == [[1], [1], [1, "late"], [1, "late"], [1]]
    tracker = seg.tracker()
    tracker.add(1, mask=moving(0)[1], frame=frames[0])
    for frame, result in zip(frames[1:], found[1:]):
        expected = tracker.step(frame)[1]
        assert np.array_equal(result.tracks[0].mask, expected.mask)
        assert np.array_equal(result.answers[0].masks[0], expected.mask)
    assert found[2].picture().shape == (240, 320, 3)


def test_a_loop_without_objects_waits_for_them(seg: tinyseg.Segmenter, moving: Moving) -> None:
    found: list[int] = []
    frames = [moving(n)[0] for n in range(3)]
    with Loop(
        seg.tracker(), ArraySource(frames), CallbackSink(lambda r: found.append(len(r.tracks)) or None), []
    ) as loop:
        loop.add(1, Prompt(mask=moving(1)[1]), frame=1)
        loop.run()
    assert found == [0, 1, 1]


def test_what_a_loop_cannot_do(seg: tinyseg.Segmenter, fake: tinyseg.Segmenter, moving: Moving) -> None:
    sink = CallbackSink(lambda _: None)
    source = ArraySource([moving(0)[0]])
    with pytest.raises(tinyseg.InputError, match="zoom"):
        Loop(seg.tracker(), source, sink, [], zoom="auto")
    loop = Loop(seg.tracker(), source, sink, [Prompt(box=(1, 1, 9, 9))])
    with pytest.raises(tinyseg.InputError, match="add and remove"):
        loop.set_prompts([Prompt(box=(1, 1, 9, 9))])
    with pytest.raises(tinyseg.InputError, match="tracker"):
        Loop(fake, source, sink, [Prompt(box=(1, 1, 9, 9))]).add(1, Prompt(box=(1, 1, 9, 9)))
