"""What is compiled when: known shapes do not wait for new ones, and waiting is told and left out of figures."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import tinyseg
from tinyseg.engines import GraphSource
from tinyseg.geometry import letterbox
from tinyseg.graphs.roles import ROLES
from tinyseg.graphs.shapes import CACHED_BYTES, CACHED_SHAPES, ShapeCache, held_bytes, prompt_dimensions
from tinyseg.predict.segmenter import Segmenter
from tinyseg.sinks import CallbackSink
from tinyseg.sources import ArraySource
from tinyseg.system import progress


def test_known_shapes_are_given_out_while_another_is_compiled() -> None:
    may_finish, started = threading.Event(), threading.Event()
    built: list[int] = []

    def build(dimensions: Mapping[str, int]) -> Any:
        built.append(dimensions["width"])
        if dimensions["width"] == 64:
            started.set()
            assert may_finish.wait(20)
        return object()

    cache = ShapeCache(build)
    known = cache.get({"width": 32})
    threads = [threading.Thread(target=cache.get, args=({"width": 64},)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert started.wait(20)
    assert cache.get({"width": 32}) is known
    may_finish.set()
    for thread in threads:
        thread.join(20)
    assert built == [32, 64]


def test_a_shape_can_be_compiled_ahead() -> None:
    started, may_finish, built = threading.Event(), threading.Event(), []

    def build(dimensions: Mapping[str, int]) -> Any:
        built.append((dimensions["width"], threading.current_thread() is threading.main_thread()))
        started.set()
        assert may_finish.wait(20)
        if len(built) == 1:
            raise tinyseg.EngineError("the first one fails")
        return object()

    cache = ShapeCache(build)
    assert cache.some() is None
    cache.get_ahead({"width": 32})
    assert started.wait(20)
    may_finish.set()
    known = cache.get({"width": 32})  # what went wrong ahead is tried again by whoever asks
    assert built == [(32, False), (32, True)] and cache.some() is known
    started.clear()
    cache.get_ahead({"width": 32})
    cache.get_ahead({"width": 64})
    assert started.wait(20)
    assert cache.get({"width": 64}) is not known and built[2:] == [(64, False)]


@pytest.mark.parametrize("together", [True, False])
def test_the_first_embedding_opens_its_decoder_beside_its_encoder(together: bool) -> None:
    """Where both wait for the other to have begun, only two threads get on."""
    begun = {"encoder": threading.Event(), "decoder": threading.Event()}
    seg = tinyseg.load(engine="fake")
    compile_graph = seg.network._compiled["encoder"]._build.func  # type: ignore[attr-defined]
    compiled: list[str] = []

    def build(graph: GraphSource, dimensions: Mapping[str, int]) -> Any:
        compiled.append(graph.name)
        begun[graph.name].set()
        if together:
            assert all(event.wait(20) for event in begun.values())
        return compile_graph(graph, dimensions)

    seg = Segmenter(seg.model, build, "a test", together=together)
    emb = seg.embed(np.zeros((48, 64, 3), np.uint8))
    assert together or compiled == ["encoder"]
    emb.predict(box=(8, 8, 40, 40), zoom="off")
    assert sorted(compiled) == ["decoder", "encoder"]
    assert seg.info.engine == "fake" and len(compiled) == 2  # it tells of what is there
    seg.embed(np.zeros((64, 48, 3), np.uint8))  # of later shapes nobody knows how they are asked
    assert sorted(compiled) == ["decoder", "encoder", "encoder"]


def test_a_long_wait_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SLOW_SECONDS", 0.02)

    def build(_dimensions: Mapping[str, int]) -> Any:
        deadline = time.monotonic() + 20
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
        return object()

    cache = ShapeCache(build)
    with caplog.at_level(logging.INFO, "tinyseg"):
        cache.get({"width": 512, "height": 384})
        assert cache.waited_seconds >= 0.02
        cache.get({"width": 512, "height": 384})
    started, ready = (record.getMessage() for record in caplog.records)
    assert "getting the encoder of 512x384 inputs ready" in started and "ready after" in ready


def test_of_several_threads_that_wait_for_one_graph_one_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SLOW_SECONDS", 0.02)
    waiting = threading.Event()

    def build(_dimensions: Mapping[str, int]) -> Any:
        waiting.wait(20)
        time.sleep(0.1)  # in which the other two would tell it, too
        return object()

    cache = ShapeCache(build)
    threads = [threading.Thread(target=cache.get, args=({"width": 512, "height": 384},)) for _ in range(3)]
    with caplog.at_level(logging.WARNING, "tinyseg"):
        for thread in threads:
            thread.start()
        waiting.set()
        for thread in threads:
            thread.join()
    assert ["getting the encoder" in record.getMessage() for record in caplog.records] == [True]


def shapes(role: str, prompts: int, long_side: int = 512) -> list[dict[str, int]]:
    """Dimensions for frames of forty aspects, tall to wide."""
    found = []
    for side in range(24, 64):
        dimensions = prompt_dimensions(letterbox(side * 16, 1024, long_side), prompts)
        found.append({name: dimensions[name] for name in ROLES[role].dimensions})
    return [dict(pairs) for pairs in dict.fromkeys(tuple(d.items()) for d in found)]


def kept_after(asked: list[dict[str, int]]) -> list[dict[str, int]]:
    """What a cache that was asked for these still has."""
    built: list[dict[str, int]] = []

    def build(dimensions: Mapping[str, int]) -> Any:
        built.append(dict(dimensions))
        return object()

    cache = ShapeCache(build)
    for one in asked:
        cache.get(one)
    return [one for one in asked if tuple(one.values()) in cache._graphs]


@pytest.mark.parametrize(("prompts", "long_side"), [(8, 1024), (64, 512)])
def test_large_forms_are_few(prompts: int, long_side: int) -> None:
    asked = shapes("decoder", prompts, long_side)
    kept = kept_after(asked)
    assert kept == asked[-len(kept) :]  # the last ones
    total = sum(map(held_bytes, kept))
    assert total <= CACHED_BYTES < total + held_bytes(asked[-len(kept) - 1])  # and no fewer than fit
    assert len(kept) < CACHED_SHAPES


def test_frames_of_many_aspects_stay_compiled() -> None:
    """Eight photos of usual aspects, standing and lying, at the packaged models' size: everything that they need stays."""
    views = [letterbox(w, h, 512) for w, h in ((4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16), (1, 1), (5, 4))]
    for role, prompts in (("encoder", 1), ("decoder", 1), ("decoder", 8)):
        every = [prompt_dimensions(v, prompts) for v in views]
        asked = [{name: d[name] for name in ROLES[role].dimensions} for d in every]
        assert len(kept_after(asked)) == len(asked)


def test_a_used_form_outlives_an_unused_one(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = shapes("decoder", 8)[:3]
    monkeypatch.setattr("tinyseg.graphs.shapes.CACHED_BYTES", held_bytes(second) + held_bytes(third))
    assert kept_after([first, second, first, third]) == [first, first, third]
    monkeypatch.setattr("tinyseg.graphs.shapes.CACHED_BYTES", 1)
    assert kept_after([first, second]) == [second]  # what is needed now is kept, whatever it takes


def test_warm_up_compiles_what_a_size_needs() -> None:
    seg = tinyseg.load(engine="fake")
    assert seg.warm_up(640, 480, prompts=3) > 0
    assert seg.warm_up(640, 480, prompts=4) == 0
    waited = seg.network.waited_seconds
    emb = seg.embed(np.zeros((480, 640, 3), np.uint8))
    emb.predict_batch([tinyseg.Prompt(box=(10, 10, 300, 300))] * 4)
    emb.predict(box=(10, 10, 30, 30))  # small: a second look
    assert seg.network.waited_seconds == waited


def test_a_loop_leaves_warm_up_out_of_its_figures() -> None:
    seg = tinyseg.load(engine="fake")
    build = seg.network._compiled["encoder"]._build

    def slow(dimensions: Mapping[str, int]) -> Any:
        threading.Event().wait(0.4)
        return build(dimensions)

    seg.network._compiled["encoder"]._build = slow
    frames = [np.zeros((60, 80, 3), np.uint8)] * 6 + [np.zeros((80, 60, 3), np.uint8)] * 6
    with tinyseg.Loop(
        seg, ArraySource(frames), CallbackSink(lambda _: None), [tinyseg.Prompt(box=(5, 5, 40, 40))]
    ) as loop:
        stats = loop.run()
    assert stats.frames == 12 and stats.warm_up_frames == 2 and 0.8 <= stats.warm_up_seconds < 3
    assert stats.latency_p99_ms < 300 and stats.fps > 25  # 12 frames in 0.8 s and more would be 15


def test_the_shape_that_was_used_longest_ago_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.graphs.shapes.CACHED_SHAPES", 2)
    built: list[int] = []

    def build(dimensions: Mapping[str, int]) -> Any:
        built.append(dimensions["width"])
        return object()

    cache = ShapeCache(build)
    for width in (32, 64, 32, 96, 32, 64):  # 96 takes the place of 64, and 64 then that of 96
        cache.get({"width": width})
    assert built == [32, 64, 96, 64]
