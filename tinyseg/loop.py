"""The loop: source -> pixels -> encoder -> decoder -> pixels -> sink, at the speed of the engine itself.

One thread captures. Workers, one more than the segmenter has streams, take a frame each and carry it through; the C++ core
and the engines release the interpreter lock, so one worker's pixels run beside another's network. The caller's thread
puts results in order and hands them to the sink. Buffers are made once for each frame size and go round.

Two modes, which are the segmenter's: ``load(streams=1)`` keeps one frame in flight on all threads, for the lowest
latency; ``load(streams=cores)`` keeps several in flight on one thread each, for the highest throughput.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Literal

import numpy as np

from tinyseg.arguments import check_choice, shown
from tinyseg.errors import InputError, NotReadyError, PromptError
from tinyseg.predict.second_look import ZOOM_CHOICES
from tinyseg.predict.segmenter import Segmenter
from tinyseg.predict.workspace import Workspace
from tinyseg.prompts import Prompt
from tinyseg.sinks import FrameResult, Sink
from tinyseg.sources import Frame, Source
from tinyseg.track import ObjectId, Tracker

MOST_TICK_SECONDS = 1e6
DropPolicy = Literal["auto", "latest", "none"]
LONGEST_WAIT = 0.5  # seconds before the delivering thread looks again whether a signal handler has stopped the loop
KEPT_LATENCIES = 4096  # the newest ones, for percentiles: memory stays flat however long the loop runs


@dataclass(frozen=True)
class LoopStats:
    """What the loop did so far."""

    frames: int  # results that reached the sink
    dropped: int  # frames that a live source gave and nobody could take in time
    seconds: float  # since the first frame was asked for
    fps: float  # results a second, between one result and the next
    latency_p50_ms: float  # from the frame being there to its masks being there, newest 4096 frames
    latency_p99_ms: float
    damaged: int = 0  # frames that the source could not read and passed over
    warm_up_frames: int = 0  # results that waited for a shape to be compiled; left out of fps and latencies
    warm_up_seconds: float = 0.0  # how long such waits lasted, the longest of those at the same time


class Loop:
    """Segment every frame of a source, or follow a tracker's objects through it, and hand the answers to a sink.

        with tinyseg.Loop(seg, source, sink, [Prompt(box=...)]) as loop:
            stats = loop.run()

    prompts: for every frame, unless prompts_for (frame index -> prompts, None: the usual ones) says otherwise;
    :meth:`set_prompts` changes them from any thread while the loop runs. segmenter: or a tracker, whose objects then are
    followed from frame to frame by one worker; prompts are the objects of the first frame, with ids 1, 2, ... as far as the
    tracker has no such objects yet, and :meth:`add` and :meth:`remove` change them while the loop runs. drop: "latest" lets
    the newest frame win when frames come faster than they go, "none" waits, "auto" is "latest" for live sources. zoom as in
    ``predict``. What ``prompts_for`` or a sink's function raises ends the loop and comes out of :meth:`run` as it is.
    """

    def __init__(
        self,
        segmenter: Segmenter | Tracker,
        source: Source,
        sink: Sink,
        prompts: Sequence[Prompt],
        *,
        prompts_for: Callable[[int], Sequence[Prompt] | None] | None = None,
        drop: DropPolicy = "auto",
        zoom: str = "off",
        on_tick: Callable[[LoopStats], None] | None = None,
        tick_seconds: float = 0.5,
    ) -> None:
        check_choice("drop", drop, ("auto", "latest", "none"))
        check_choice("zoom", zoom, ZOOM_CHOICES)
        self._tracker = segmenter if isinstance(segmenter, Tracker) else None
        self._seg = segmenter.segmenter if isinstance(segmenter, Tracker) else segmenter
        _check_parts(self._seg, source, sink)
        for name, function in (("prompts_for", prompts_for), ("on_tick", on_tick)):
            if function is not None and not callable(function):
                raise InputError(f"{name} must be a function or None, but is {shown(function)}")
        if not isinstance(tick_seconds, (int, float)) or not 0 < tick_seconds < MOST_TICK_SECONDS:
            raise InputError(f"tick_seconds must be a positive number of seconds, but is {shown(tick_seconds)}")
        self._source, self._sink = source, sink
        self._latest_wins = drop == "latest" or (drop == "auto" and source.live)
        self._zoom = zoom
        self._prompts_for = prompts_for
        self._on_tick, self._tick_seconds = on_tick, tick_seconds
        if self._tracker is not None and (prompts_for is not None or zoom != "off"):
            raise InputError("a tracker takes neither prompts_for nor zoom; use Loop.add for objects of later frames")
        streams = self._seg.info.streams if self._tracker is None else 1  # a tracker needs frames in order
        # For throughput one more worker than streams: its pixels are made while the others' networks run, so no stream
        # waits for Python (on two cores 5% more frames with OpenVINO). For latency one frame at a time.
        self._workers = streams + 1 if streams > 1 else 1
        # Reentrant: a signal handler that stops the loop runs in whatever the delivering thread is doing.
        self._lock = threading.RLock()
        # Who waits for what; a thread that is woken for nothing takes the interpreter from one that works.
        self._room = threading.Condition(self._lock)  # the capture thread, for a waiting frame to be taken
        self._work_there = threading.Condition(self._lock)  # workers, for a frame and a workspace
        self._result_there = threading.Condition(self._lock)  # who delivers
        self._waiting: deque[Frame] = deque()
        self._done: dict[int, tuple[FrameResult, Workspace]] = {}
        self._free: deque[Workspace] = deque(Workspace() for _ in range(self._workers + 2))
        self._error: BaseException | None = None
        self._broken: int | None = None  # number of the frame whose segmenting failed; those before it are delivered
        self._running = False  # at some time: it runs once
        self._ended = False  # no further frame will come
        self._stopping = False
        self._taken = 0  # frames handed to workers, numbered without gaps
        self._frames = self._dropped = 0
        self._latencies: deque[float] = deque(maxlen=KEPT_LATENCIES)
        self._started = self._last_result = 0.0
        self._warm_up_frames, self._warm_up_seconds = 0, 0.0
        self._warm_until = 0.0  # frames that were there before this had to wait for a compiler, or for such a frame
        self._paced, self._paced_seconds = 0, 0.0  # results without such a wait, and the time between them
        self._closed = False
        self._at_work: list[threading.Thread] = []  # while it runs: the caller's thread and ours
        self._run_over = threading.Event()
        self._prompts: tuple[Prompt, ...] = ()
        self._changes: list[tuple[ObjectId, Prompt | None, int]] = []  # of a tracker's objects
        if self._tracker is None:
            self.set_prompts(prompts)
        else:
            known = frozenset(self._tracker.ids)
            free = (number for number in count(1) if number not in known)
            for id, prompt in zip(free, _checked_prompts(prompts)):
                self.add(id, prompt)

    def __enter__(self) -> Loop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, id: ObjectId, prompt: Prompt, frame: int = 0) -> None:
        """With a tracker: add an object, or correct it, in the next frame that the worker takes; from any thread.

        frame: the index of the first frame that may be meant. What :meth:`tinyseg.Tracker.add` then raises ends the loop.
        """
        self._change(id, _checked_prompts([prompt])[0], frame)

    def remove(self, id: ObjectId, frame: int = 0) -> None:
        """With a tracker: follow an object no longer, from the next frame on; from any thread. frame: as in :meth:`add`."""
        self._change(id, None, frame)

    def _change(self, id: ObjectId, prompt: Prompt | None, frame: int) -> None:
        if self._tracker is None:
            raise InputError("this loop follows no objects; make it with segmenter.tracker(), or use set_prompts")
        with self._lock:
            self._changes.append((id, prompt, frame))

    def set_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Change the prompts, from the next frame that a worker takes; from any thread. Not with a tracker."""
        if self._tracker is not None:
            raise InputError("this loop follows a tracker's objects; use add and remove")
        checked = _checked_prompts(prompts)
        if not checked and self._prompts_for is None:
            raise PromptError("the loop needs at least one prompt")
        with self._lock:
            self._prompts = checked

    @property
    def not_reached(self) -> tuple[tuple[ObjectId, int], ...]:
        """(id, frame) of what :meth:`add` and :meth:`remove` said about frames that did not come so far; from any thread."""
        with self._lock:
            return tuple((id, frame) for id, _, frame in self._changes)

    def stop(self) -> None:
        """Ask the loop to end; from any thread, the sink's function and a signal handler included.

        Frames in flight do not reach the sink any more.
        """
        with self._lock:
            self._stopping = True
            self._wake_all()

    @property
    def stats(self) -> LoopStats:
        """What was done so far; from any thread."""
        with self._lock:
            latencies = np.array(self._latencies) if self._latencies else np.zeros(1)
            frames, dropped = self._frames, self._dropped
            paced, spent = self._paced, self._paced_seconds
            warm = self._warm_up_frames, self._warm_up_seconds
            seconds = max(self._last_result - self._started, 0.0)
        p50, p99 = np.percentile(latencies, (50, 99))
        fps = paced / spent if spent > 0 else 0.0
        return LoopStats(frames, dropped, seconds, fps, float(p50), float(p99), self._source.damaged, *warm)

    def run(self) -> LoopStats:
        """Run until the source ends, the sink asks to stop, or :meth:`stop`; once.

        Raises what went wrong on the way, after the results before it reached the sink; NotReadyError for a loop that has
        run, was stopped or is closed.
        """
        with self._lock:
            if self._running or self._stopping:
                told = "is closed" if self._closed else "has run, or was stopped"
                raise NotReadyError(f"this loop {told}; make a new Loop, with a source and a sink of its own")
            self._running = True
            self._at_work = [threading.current_thread()]
        try:
            self._run()
        finally:
            with self._lock:
                self._at_work = []
                closed = self._closed
            try:
                if closed:
                    self._close_ends()
            finally:
                self._run_over.set()
        if self._error is not None:
            raise self._error
        return self.stats

    def _run(self) -> None:
        self._started = time.perf_counter()
        threads = [threading.Thread(target=self._guard(self._capture), name="tinyseg-capture", daemon=True)]
        threads += [
            threading.Thread(target=self._guard(self._work), name=f"tinyseg-worker-{i}", daemon=True)
            for i in range(self._workers)
        ]
        with self._lock:
            self._at_work += threads
        for thread in threads:
            thread.start()
        try:
            self._deliver()
        finally:
            self.stop()
            # A capture thread may hang in a driver; it is a daemon and is not waited for beyond a moment.
            for thread in threads:
                thread.join(timeout=5.0 if thread is not threads[0] else 1.0)

    def close(self) -> None:
        """Stop, and close source and sink; files become whole. From any thread; done by the context manager.

        While :meth:`run` is at work it closes them itself, when the sink has taken what it is taking: this is waited for, but
        for calls from within (the sink's function, ``prompts_for``, ``on_tick``, a signal handler).
        """
        with self._lock:
            first, self._closed = not self._closed, True
            self.stop()
            at_work = self._at_work
        if at_work:
            if threading.current_thread() not in at_work:
                self._run_over.wait()
        elif first:
            self._close_ends()

    def _close_ends(self) -> None:
        try:
            self._source.close()
        finally:
            self._sink.close()

    @property
    def _over(self) -> bool:
        """Whether no further frame is wanted; call it with the lock held."""
        return self._stopping or self._broken is not None

    def _guard(self, work: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            try:
                work()
            except BaseException as exc:
                with self._lock:
                    self._error = self._error or exc
                    self._ended = True
                    self._wake_all()

        return guarded

    def _wake_all(self) -> None:
        """Something ends. Called with the lock held."""
        for condition in (self._room, self._work_there, self._result_there):
            condition.notify_all()

    def _capture(self) -> None:
        while True:
            with self._room:
                # As many frames wait as there are workers: none of them idles, and no frame grows old.
                while not self._latest_wins and len(self._waiting) >= self._workers and not self._over:
                    self._room.wait()
                if self._over:
                    return
            frame = self._source.next_frame()
            with self._lock:
                if frame is None:
                    self._ended = True
                    self._wake_all()
                    return
                if self._ended:  # a worker failed
                    return
                if self._latest_wins and self._waiting:
                    self._waiting.clear()
                    self._dropped += 1
                self._waiting.append(frame)
                self._work_there.notify()

    def _work(self) -> None:
        while True:
            with self._work_there:
                while not (self._waiting and self._free) and not self._over:
                    if self._ended and not self._waiting:
                        return
                    self._work_there.wait()
                if self._over:
                    return
                frame = self._waiting.popleft()
                workspace = self._free.popleft()
                number = self._taken
                self._taken += 1
                usual = self._prompts
                self._room.notify()
            try:
                given = self._prompts_for(frame.index) if self._prompts_for is not None else None
                prompts = usual if given is None else _checked_prompts(given)
                before, start = self._seg.network.waited_seconds, time.perf_counter()
                result = self._segment(frame, prompts, workspace)
                waited = self._seg.network.waited_seconds - before
            except BaseException:
                with self._lock:
                    self._broken = number if self._broken is None else min(self._broken, number)
                raise
            with self._lock:
                if waited > 0:
                    now = time.perf_counter()
                    self._warm_up_frames += 1
                    self._warm_up_seconds += max(0.0, now - max(start, self._warm_until))
                    self._warm_until = now
                self._done[number] = (result, workspace)
                self._result_there.notify()

    def _segment(self, frame: Frame, prompts: tuple[Prompt, ...], workspace: Workspace) -> FrameResult:
        if self._tracker is not None:
            return self._track(self._tracker, frame)
        # The frame is not copied: nobody writes to it while its result is on the way.
        answers = self._seg.run(frame.pixels, prompts, workspace, frame.color, self._zoom)
        return FrameResult(frame, prompts, answers, 1e3 * (time.perf_counter() - frame.captured))

    def _track(self, tracker: Tracker, frame: Frame) -> FrameResult:
        results = tracker.step(frame.pixels, frame.color) if len(tracker) else {}
        with self._lock:
            due = [c for c in self._changes if c[2] <= frame.index]
            self._changes = [c for c in self._changes if c[2] > frame.index]
        for id, prompt, _ in due:
            if prompt is None:
                tracker.remove(id)
                results.pop(id, None)
            else:
                parts = prompt.points, prompt.labels, prompt.box, prompt.mask
                result = tracker.add(id, *parts, frame=frame.pixels, color=frame.color)
                results[result.id] = result
        answers = [r.to_masks() for r in results.values()]
        latency = 1e3 * (time.perf_counter() - frame.captured)
        return FrameResult(frame, (), answers, latency, tuple(results.values()))

    def _deliver(self) -> None:
        number, ticked = 0, time.perf_counter()
        while True:
            with self._result_there:
                while number not in self._done and not self._stopping:
                    if number == self._broken or (self._ended and not self._waiting and number >= self._taken):
                        return
                    self._result_there.wait(min(self._tick_seconds, LONGEST_WAIT))
                    if self._on_tick is not None and time.perf_counter() - ticked > self._tick_seconds:
                        break
                if self._stopping:
                    return
                ready = self._done.pop(number, None)
            if ready is not None:
                result, workspace = ready
                number += 1
                wanted = self._sink.write(result)
                now = time.perf_counter()
                with self._lock:
                    self._free.append(workspace)
                    self._work_there.notify()
                    self._frames += 1
                    if result.frame.captured > self._warm_until:
                        self._latencies.append(result.latency_ms)
                        if self._last_result > self._warm_until:
                            self._paced += 1
                            self._paced_seconds += now - self._last_result
                    self._last_result = now
                if wanted is False:
                    return
            if self._on_tick is not None and time.perf_counter() - ticked > self._tick_seconds:
                ticked = time.perf_counter()
                self._on_tick(self.stats)


def _checked_prompts(prompts: Any) -> tuple[Prompt, ...]:
    """A list of prompts as a tuple. Raises InputError for a bare Prompt, None, and lists of other things."""
    if isinstance(prompts, Prompt):
        raise InputError("prompts must be a list of tinyseg.Prompt, but is a single one; give [prompt]")
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, Sequence):
        raise InputError(f"prompts must be a list of tinyseg.Prompt, but is {shown(prompts)}")
    for prompt in prompts:
        if not isinstance(prompt, Prompt):
            raise InputError(f"prompts must be tinyseg.Prompt, but one is a {type(prompt).__name__}")
    return tuple(prompts)


def _check_parts(segmenter: Any, source: Any, sink: Any) -> None:
    if not isinstance(segmenter, Segmenter):
        raise InputError(f"segmenter must come from tinyseg.load(), but is {shown(segmenter)}")
    if not isinstance(source, Source):
        raise InputError(f"source must be a tinyseg.sources.Source (open_source makes one), but is {shown(source)}")
    if not isinstance(sink, Sink):
        raise InputError(f"sink must be a tinyseg.sinks.Sink (open_sink makes one), but is {shown(sink)}")
