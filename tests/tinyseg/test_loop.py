from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tinyseg import Loop, Prompt
from tinyseg.cli import main
from tinyseg.loop import LoopStats
from tinyseg.sinks import CallbackSink, FrameResult, JsonLinesSink, NullSink, Sink, VideoSink, open_sink
from tinyseg.sources import ArraySource, Capture, LiveSource, RawSource, Source, SyntheticSource, open_source

BOX = Prompt(box=(10, 20, 60, 70))


@pytest.fixture(scope="module", params=[1, 3])
def seg(request: pytest.FixtureRequest) -> tinyseg.Segmenter:
    return tinyseg.load(engine="fake", streams=request.param)


class Collect(Sink):
    def __init__(self) -> None:
        self.results: list[tuple[int, list[list[int]]]] = []
        self.closed = 0

    def write(self, result: FrameResult) -> None:
        self.results.append((result.frame.index, [a.boxes[0].tolist() for a in result.answers]))

    def close(self) -> None:
        self.closed += 1


def frames(count: int, size: tuple[int, int] = (100, 120)) -> Iterator[NDArray[np.uint8]]:
    return (np.full((*size, 3), i % 256, np.uint8) for i in range(count))


def test_every_frame_of_a_file_arrives_in_order(seg: tinyseg.Segmenter) -> None:
    sink = Collect()
    with Loop(seg, ArraySource(frames(200)), sink, [BOX, Prompt(box=(0, 0, 30, 30))]) as loop:
        stats = loop.run()
    assert [i for i, _ in sink.results] == list(range(200)) and sink.closed == 1
    assert all(boxes == [[10, 20, 60, 70], [0, 0, 30, 30]] for _, boxes in sink.results)
    assert (
        stats.frames == 200
        and stats.dropped == 0
        and stats.fps > 0
        and stats.latency_p99_ms >= stats.latency_p50_ms > 0
    )


def test_masks_belong_to_their_frame_although_buffers_go_round(seg: tinyseg.Segmenter) -> None:
    seen: list[bool] = []

    def check(result: FrameResult) -> None:
        left = result.frame.index % 50
        expected = np.zeros((100, 120), np.bool_)
        expected[20:70, left : left + 40] = True
        seen.append(np.array_equal(result.answers[0].masks[0], expected))
        time.sleep(0.001 * (result.frame.index % 3))

    by_frame = lambda i: [Prompt(box=(i % 50, 20, i % 50 + 40, 70))]  # noqa: E731
    with Loop(seg, ArraySource(frames(120)), CallbackSink(check), [], prompts_for=by_frame) as loop:
        loop.run()
    assert len(seen) == 120 and all(seen)


def test_the_newest_frame_wins_for_live_sources(seg: tinyseg.Segmenter) -> None:
    sink = Collect()
    slow = CallbackSink(lambda r: sink.write(r) or time.sleep(0.01))  # type: ignore[func-returns-value]
    with Loop(seg, SyntheticSource(120, 100, 300, frame_rate=1000, live=True), slow, [BOX]) as loop:
        stats = loop.run()
    numbers = [i for i, _ in sink.results]
    assert stats.dropped > 0 and stats.frames + stats.dropped == 300 and numbers == sorted(set(numbers))


def test_prompts_can_be_changed_while_it_runs(seg: tinyseg.Segmenter) -> None:
    sink, changed = Collect(), threading.Event()
    loop = Loop(seg, SyntheticSource(120, 100, 400, frame_rate=1000), sink, [BOX])

    def change() -> None:
        while len(sink.results) < 50:
            time.sleep(0.001)
        loop.set_prompts([Prompt(box=(1, 2, 33, 44))])
        changed.set()

    threading.Thread(target=change).start()
    with loop:
        loop.run()
    assert changed.is_set()
    assert sink.results[0][1] == [[10, 20, 60, 70]] and sink.results[-1][1] == [[1, 2, 33, 44]]


def test_the_sink_or_another_thread_can_stop_it(seg: tinyseg.Segmenter) -> None:
    seen: list[int] = []
    stopper = CallbackSink(lambda r: seen.append(r.frame.index) or r.frame.index < 5)  # type: ignore[func-returns-value]
    with Loop(seg, SyntheticSource(64, 64), stopper, [BOX]) as loop:
        assert loop.run().frames == 6
    assert seen == list(range(6))
    with Loop(seg, SyntheticSource(64, 64), NullSink(), [BOX]) as loop:
        threading.Timer(0.2, loop.stop).start()
        assert loop.run().frames > 0


def test_nothing_reaches_the_sink_after_a_stop() -> None:
    ahead, seen = threading.Event(), list[int]()

    def many() -> Iterator[NDArray[np.uint8]]:
        yield from frames(9)
        ahead.set()  # four workers have six frames by now, and wait for the sink to give a workspace back
        yield from frames(90)

    def stops(result: FrameResult) -> None:
        seen.append(result.frame.index)
        assert ahead.wait(10)
        loop.stop()

    several = tinyseg.load(engine="fake", streams=3)
    with Loop(several, ArraySource(many()), CallbackSink(stops), [BOX]) as loop:
        assert loop.run().frames == 1
    assert seen == [0]


class Moment(float):
    """A time that does something when it is looked at."""

    look: Callable[[], None] = staticmethod(lambda: None)

    def __gt__(self, other: float) -> bool:
        Moment.look()
        return super().__gt__(other)


class Stamped(SyntheticSource):
    @property
    def captured(self) -> float:
        return Moment(time.perf_counter())


@pytest.mark.parametrize("how", ["stop", "close"])
def test_a_signal_handler_may_stop_it_at_any_moment(
    seg: tinyseg.Segmenter, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    sink = Collect()
    loop = Loop(seg, Stamped(64, 64), sink, [BOX], tick_seconds=1000.0)
    # Where a handler may run, too: the loop compares times in the delivering thread while it holds its lock.
    monkeypatch.setattr(Moment, "look", getattr(loop, how))
    running = threading.Thread(target=loop.run, daemon=True)
    running.start()
    running.join(10)
    assert not running.is_alive() and len(sink.results) == 1
    assert sink.closed == (how == "close")
    loop.close()
    assert sink.closed == 1


def test_the_sink_may_close_the_loop_and_files_are_whole(seg: tinyseg.Segmenter, tmp_path: Path) -> None:
    class Closes(JsonLinesSink):
        def write(self, result: FrameResult) -> None:
            super().write(result)
            if result.frame.index == 4:
                loop.close()

    loop = Loop(seg, SyntheticSource(64, 64), Closes(tmp_path / "rows.jsonl"), [BOX])
    assert loop.run().frames == 5
    assert [json.loads(line)["frame"] for line in (tmp_path / "rows.jsonl").open()] == list(range(5))


def test_another_thread_may_close_it_while_the_sink_writes(seg: tinyseg.Segmenter) -> None:
    writing, go_on = threading.Event(), threading.Event()

    class Slow(Collect):
        def write(self, result: FrameResult) -> None:
            writing.set()
            assert go_on.wait(10) and not self.closed
            super().write(result)

    sink = Slow()
    loop = Loop(seg, SyntheticSource(64, 64), sink, [BOX])
    running = threading.Thread(target=loop.run, daemon=True)
    closing = threading.Thread(target=loop.close, daemon=True)
    running.start()
    assert writing.wait(10)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive() and not sink.closed
    go_on.set()
    closing.join(10)
    assert not closing.is_alive() and sink.closed == 1 and len(sink.results) == 1


class Broken(Source):
    def read(self) -> NDArray[np.uint8] | None:
        if self._count == 3:
            raise tinyseg.DataError("the cable is out")
        return np.zeros((64, 64, 3), np.uint8)


def test_errors_come_out_and_the_sink_is_closed(seg: tinyseg.Segmenter, tmp_path: Path) -> None:
    sink = Collect()
    with (
        pytest.raises(tinyseg.DataError, match="cable"),
        Loop(seg, Broken(), sink, [Prompt(box=(1, 1, 20, 20))]) as loop,
    ):
        loop.run()
    assert sink.closed == 1
    with (
        pytest.raises(tinyseg.PromptError, match="outside the frame of 32 x 32"),
        Loop(seg, ArraySource(frames(9, (32, 32))), Collect(), [Prompt([[99, 9]], [1])]) as loop,
    ):
        loop.run()
    with pytest.raises(tinyseg.PromptError, match="at least one prompt"):
        Loop(seg, Broken(), sink, [])
    with pytest.raises(tinyseg.InputError, match="drop"):
        Loop(seg, Broken(), sink, [BOX], drop="some")  # type: ignore[arg-type]


def test_frames_may_change_size(seg: tinyseg.Segmenter) -> None:
    sizes = [(100, 120), (64, 200), (100, 120), (32, 32)] * 5
    found: list[tuple[int, ...]] = []
    source = ArraySource(np.zeros((*s, 3), np.uint8) for s in sizes)
    sink = CallbackSink(lambda r: found.append(r.answers[0].masks.shape[1:]))
    with Loop(seg, source, sink, [Prompt(box=(2, 2, 20, 20))]) as loop:
        loop.run()
    assert found == sizes


def test_the_tick_tells_how_it_goes(seg: tinyseg.Segmenter) -> None:
    ticks: list[LoopStats] = []
    source = SyntheticSource(64, 64, 100, frame_rate=200)
    with Loop(seg, source, NullSink(), [BOX], on_tick=ticks.append, tick_seconds=0.05) as loop:
        loop.run()
    assert len(ticks) >= 3 and ticks[-1].frames > ticks[0].frames


class Fails(Capture):
    """Gives so many frames, then fails: with an error, or without a word."""

    frame_rate = 25.0

    def __init__(self, count: int, error: str = "") -> None:
        self.left, self.error = count, error

    def read(self) -> tuple[Any, float] | None:
        self.left -= 1
        if self.left >= 0:
            return np.zeros((8, 8, 3), np.uint8), 10.0 + self.left
        if self.error:
            raise tinyseg.DataError(self.error)
        return None

    def close(self) -> None:
        self.left = 0


def opener(*captures: Capture | None) -> Callable[[], Capture]:
    """Opens one after the other; None does not open."""
    left = iter(captures)

    def opened() -> Capture:
        capture = next(left)
        if capture is None:
            raise tinyseg.DataError("it does not open")
        return capture

    return opened


def test_live_sources_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.sources.camera.FIRST_BACK_OFF", 0.001)
    source = LiveSource("camera", opener(Fails(2), None, Fails(0, "no signal"), Fails(3)))
    assert source.live and source.frame_rate == 25.0
    got = [source.next_frame() for _ in range(5)]
    assert [f.index for f in got if f] == [0, 1, 2, 3, 4] and source.reconnections == 1
    assert [f.captured for f in got if f] == [11, 10, 12, 11, 10]  # as the capture says


def test_live_sources_give_up_after_their_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.sources.camera.FIRST_BACK_OFF", 0.001)
    source = LiveSource("camera", lambda: Fails(0, "the cable is out"), patience=0.05)
    with pytest.raises(tinyseg.DataError, match=r"no frame for 0 s: the cable is out"):
        source.read()
    with pytest.raises(tinyseg.DataError, match="does not open"):
        LiveSource("camera", opener(None))


def test_a_live_source_that_is_closed_is_not_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.sources.camera.FIRST_BACK_OFF", 0.001)
    late = Fails(5)

    def closes() -> Capture:
        source.close()
        return late

    makers = iter([lambda: Fails(0), closes])
    source = LiveSource("camera", lambda: next(makers)())
    assert source.read() is None and late.left == 0


def test_raw_frames_are_read_whole() -> None:
    data = np.arange(2 * 4 * 5 * 3, dtype=np.uint8)
    source = RawSource(io.BytesIO(data.tobytes()), 5, 4)
    first, second = source.read(), source.read()
    assert first is not None and second is not None and source.read() is None
    np.testing.assert_array_equal(np.concatenate([first.ravel(), second.ravel()]), data)
    with pytest.raises(tinyseg.DataError, match="inside a frame"):
        RawSource(io.BytesIO(b"123"), 5, 4).read()
    with pytest.raises(tinyseg.DataError, match="--raw-size"):
        open_source("-", io.BytesIO())


@pytest.mark.parametrize("text", ["nothing.mp4", "synthetic:0x9", "what?*", "99", "-"])
def test_what_is_no_source_is_told(text: str) -> None:
    with pytest.raises(tinyseg.DataError):
        open_source(text)


@pytest.mark.parametrize("text", ["", "nul", "null:x", "video", "video:x.txt", "png", "raw"])
def test_what_is_no_sink_is_told(text: str) -> None:
    with pytest.raises(tinyseg.InputError):
        open_sink(text)


def test_a_video_goes_in_and_comes_out(seg: tinyseg.Segmenter, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (120, 100))
    if not writer.isOpened():
        pytest.skip("this build of OpenCV writes no video")
    for picture in frames(12):
        writer.write(picture)
    writer.release()
    source = open_source(str(tmp_path / "in.avi"))
    assert not source.live and source.frame_rate == pytest.approx(20.0)
    with Loop(seg, source, VideoSink(tmp_path / "out.avi", source.frame_rate), [BOX]) as loop:
        assert loop.run().frames == 12
    again = cv2.VideoCapture(str(tmp_path / "out.avi"))
    assert int(again.get(cv2.CAP_PROP_FRAME_COUNT)) == 12
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.avi", "out.avi"]


def test_json_lines_hold_every_frame(seg: tinyseg.Segmenter, tmp_path: Path) -> None:
    with Loop(seg, ArraySource(frames(5)), JsonLinesSink(tmp_path / "m.jsonl"), [BOX]) as loop:
        loop.run()
    rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [r["frame"] for r in rows] == list(range(5)) and rows[0]["objects"][0]["bbox"] == [10, 20, 50, 50]


def test_the_command_runs_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "prompts.jsonl"
    table.write_text('{"frame": 2, "prompts": [{"box": [5, 5, 50, 50]}]}\n')
    arguments = [
        "run",
        "synthetic:160x120:6",
        "--box",
        "10,20,60,70",
        "--every-frame-prompts",
        str(table),
        "--engine",
        "fake",
    ]
    assert main([*arguments, "--sink", f"jsonl:{tmp_path / 'm.jsonl'}", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["frames"] == 6 and facts["dropped"] == 0 and facts["mode"] == "throughput"
    boxes = [json.loads(x)["objects"][0]["bbox"] for x in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert boxes[2] == [5, 5, 45, 45] and boxes[1] == boxes[3] == [10, 20, 50, 50]
    table.write_text('{"frame": 6, "prompts": []}\n{"frame": 5, "prompts": []}\n')
    assert main(arguments) == 1
    assert "prompts for 1 frames that never came or were dropped, the first of them frame 6" in capsys.readouterr().err
    assert (
        main(["run", "synthetic:160x120:6", "--point", "80,60", "--engine", "fake", "--sink", f"png:{tmp_path / 'p'}"])
        == 0
    )
    assert len(list((tmp_path / "p").glob("*.png"))) == 6


@pytest.mark.parametrize("line", ["{", '{"frame": 1}', '{"frame": 0, "prompts": [{}]}', "[1]"])
def test_wrong_prompt_files_are_told_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    (tmp_path / "p.jsonl").write_text(line)
    arguments = ["run", "synthetic:64x64:1", "--every-frame-prompts", str(tmp_path / "p.jsonl"), "--engine", "fake"]
    assert main(arguments) == 2
    assert "line 1" in capsys.readouterr().err


def test_raw_frames_go_through_a_pipe() -> None:
    command = [
        sys.executable,
        "-m",
        "tinyseg",
        "run",
        "-",
        "--raw-size",
        "64x48",
        "--box",
        "8,8,40,40",
        "--sink",
        "raw",
    ]
    done = subprocess.run([*command, "--engine", "fake"], input=bytes(64 * 48 * 3 * 4), capture_output=True, check=True)
    masks = np.frombuffer(done.stdout, np.uint8).reshape(4, 48, 64)
    expected = np.zeros((48, 64), np.uint8)
    expected[8:40, 8:40] = 255
    assert (masks == expected).all() and b"4 frames" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_from_outside_leaves_whole_files(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "m.jsonl"
    command = [
        sys.executable,
        "-m",
        "tinyseg",
        "run",
        "synthetic:64x48",
        "--box",
        "8,8,40,40",
        "--sink",
        f"jsonl:{out}",
    ]
    # A shell's background jobs ignore SIGINT, and so would the child: what is tested is a terminal's Ctrl-C.
    heard = None if sys.platform == "win32" else partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen([*command, "--engine", "fake"], stdout=subprocess.PIPE, text=True, preexec_fn=heard)
    for _ in range(200):
        if any(part.stat().st_size > 1000 for part in tmp_path.glob(".m.jsonl.*.tmp")):
            break
        time.sleep(0.05)
    os.kill(process.pid, number)
    printed, _ = process.communicate(timeout=20)
    assert process.returncode == 130 and "frames" in printed and [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["frame"] for r in rows] == list(range(len(rows))) and rows


def test_memory_stays_flat(fake: tinyseg.Segmenter) -> None:
    from tinyseg.system.device import resident_megabytes  # noqa: PLC0415

    if resident_megabytes() is None:
        pytest.skip("this system does not tell its memory use")
    marks: list[float] = []
    sink = CallbackSink(lambda r: marks.append(resident_megabytes() or 0.0) if r.frame.index % 500 == 0 else None)
    with Loop(fake, SyntheticSource(320, 240, 3000), sink, [BOX]) as loop:
        loop.run()
    assert max(marks[2:]) - marks[1] < 8.0


def test_the_packaged_model_runs_in_several_streams() -> None:
    seg = tinyseg.load(engine="onnxruntime", streams=2)
    assert seg.info.streams == 2
    sink = Collect()
    with Loop(seg, SyntheticSource(320, 240, 16), sink, [Prompt(box=(160, 60, 280, 180))]) as loop:
        loop.run()
    assert [i for i, _ in sink.results] == list(range(16))
    assert sink.results[0] == (0, sink.results[8][1])  # the same picture, the same answer


def test_a_full_disk_leaves_whole_lines(seg: tinyseg.Segmenter, tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "m.jsonl")
    real = sink._file

    class Full:
        """Takes so many bytes, then writes half a line, as a full disk does."""

        left = 700

        def write(self, data: bytes) -> int:
            taken = data[: self.left] if len(data) > self.left else data
            self.left -= len(taken)
            return real.write(taken) or 0

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    sink._file = Full()  # type: ignore[assignment]
    with (
        pytest.raises(tinyseg.DataError, match=r"No space left.*lines before are whole"),
        Loop(seg, ArraySource(frames(50)), sink, [BOX]) as loop,
    ):
        loop.run()
    rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert rows and [r["frame"] for r in rows] == list(range(len(rows)))


def test_a_video_stops_before_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: tinyseg.Segmenter
) -> None:
    monkeypatch.setattr("tinyseg.sinks.video.DISK_RESERVE_BYTES", 1 << 62)
    with (
        pytest.raises(tinyseg.DataError, match="disk is full"),
        Loop(fake, ArraySource(frames(5)), VideoSink(tmp_path / "o.avi"), [BOX]) as loop,
    ):
        loop.run()


def test_a_source_without_frames_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--box", "8,8,40,40", "--engine", "fake"]
    assert main(["run", "synthetic:64x48:0", *arguments]) == 2
    assert "gave no frame" in capsys.readouterr().err
    (tmp_path / "x.mp4").write_bytes(b"not a video")
    assert main(["run", str(tmp_path / "x.mp4"), *arguments]) == 2
    assert "not a video" in capsys.readouterr().err
