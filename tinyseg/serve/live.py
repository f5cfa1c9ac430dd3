"""The live thread: one inference a frame, whatever the number of viewers.

It takes a frame, does what viewers asked for, steps the tracker and publishes a :class:`Snapshot`. Viewers' requests come
from other threads as functions that run between two frames, so nothing here needs a lock but the queue itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import FrameError, InputError, PromptError, TinysegError
from tinyseg.prompts import Prompt
from tinyseg.serve.capture import Capture
from tinyseg.serve.limits import ACTIONS_WAITING, FRAMES_KEPT, NAME_LETTERS, OBJECTS, RECORDINGS
from tinyseg.serve.objects import Followed, ObjectState, TrackedMask, palette, state_of
from tinyseg.serve.picture import Drawn, Picture, to_bgr
from tinyseg.serve.recording import Recording, RecordingState
from tinyseg.sources import Source

Status = Literal["waiting", "playing", "paused", "ended", "failed"]
T = TypeVar("T")

FIGURES_SECONDS = 2.0  # frame rate and stage times are of so many seconds
WAIT_SECONDS = 0.1  # for a frame, before requests are looked after again
DEFAULT_VIDEO_RATE = 25.0
PREPARING = "preparing the engine for this picture size; the first time this takes a while"


class Tracker(Protocol):
    """``tinyseg.Tracker``, as far as it is needed here."""

    def add(
        self,
        id: int,
        points: Any = None,
        labels: Any = None,
        box: Any = None,
        mask: Any = None,
        *,
        frame: NDArray[np.uint8],
        color: str = "bgr",
    ) -> TrackedMask: ...

    def step(self, frame: NDArray[np.uint8], color: str = "bgr") -> Mapping[Any, TrackedMask]: ...

    def remove(self, id: int) -> None: ...


class Unavailable(TinysegError):
    """The live thread has ended or has too much to do; nothing was changed."""


class NotThere(InputError):
    """An object, recording or frame that does not exist (any more)."""


@dataclass(frozen=True)
class Figures:
    """What was measured in the last two seconds. stages: median milliseconds by name; latency: capture to published."""

    fps: float
    latency_ms: float
    stages: Mapping[str, float]
    dropped: int  # frames of a live source that nobody could take in time, since the start


@dataclass(frozen=True)
class Snapshot:
    """What viewers see at one moment. number rises with every snapshot, frame with every picture."""

    number: int
    frame: int
    picture: Picture
    objects: tuple[ObjectState, ...]
    status: Status
    message: str
    figures: Figures
    recording: RecordingState | None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.picture.pixels.shape[0], self.picture.pixels.shape[1]


class Live:
    """A source, a tracker over it, and what viewers want of both.

    opener: opens the source; called again when it is played from its start. make_tracker: an empty tracker. recordings:
    the folder for recordings. keep: files of recordings stay there; without, only the newest few do. playing: whether to
    start at once; a camera always does. repeat: begin a file again at its end. observe: called with a stage's name and
    seconds, for metrics.
    """

    def __init__(
        self,
        opener: Callable[[], Source],
        make_tracker: Callable[[], Tracker],
        recordings: Path,
        *,
        keep: bool = False,
        playing: bool = False,
        repeat: bool = False,
        observe: Callable[[str, float], None] | None = None,
    ) -> None:
        self._capture = Capture(opener)
        self._make_tracker = make_tracker
        self._tracker = make_tracker()
        self._folder, self._keep = recordings, keep
        self._repeat = repeat
        self._observe = observe
        self._playing = playing or self._capture.live
        self._steps = 1  # the first frame is shown even where nothing plays
        self._ended = False
        self._message = ""
        self._failed = False
        self._prepared = False
        self._objects: dict[int, Followed] = {}
        self._next_id = 1
        self._frames: deque[tuple[int, NDArray[np.uint8]]] = deque(maxlen=FRAMES_KEPT)
        self._count = 0  # frames so far
        self._count_at_start = 0  # when a repeated source began again
        self._number = 0  # snapshots so far
        self._latest: Snapshot | None = None
        self._recordings: list[Recording] = []
        self._recorded = 0
        self._times: deque[tuple[float, float, dict[str, float]]] = deque(maxlen=512)
        self._wakes: set[Callable[[], None]] = set()
        self._asked: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="tinyseg-serve-live", daemon=True)

    # What viewers see.

    @property
    def latest(self) -> Snapshot | None:
        """The newest snapshot; None before the first frame."""
        return self._latest

    @property
    def running(self) -> bool:
        """Whether the live thread works; a source that failed does not end it."""
        return self._thread.is_alive() and not self._stopping

    @property
    def well(self) -> bool:
        """Whether frames can be had: the live thread works, and its source has not failed."""
        return self.running and (self._latest is None or self._latest.status != "failed")

    @property
    def is_live(self) -> bool:
        """Whether the source is a camera or network stream."""
        return self._capture.live

    @property
    def frames(self) -> int:
        """Frames taken so far."""
        return self._count

    @property
    def message(self) -> str:
        """What went wrong last with the source or the tracker, or ""."""
        return self._message

    @property
    def frame_rate(self) -> float:
        """The source's own, 0 where it does not tell."""
        return self._capture.frame_rate

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have ``wake`` called, from the live thread, at every snapshot and at the end; returns what ends that."""
        self._wakes.add(wake)
        return lambda: self._wakes.discard(wake)

    # What viewers ask for; each returns a future and is done between two frames.

    def add(
        self, prompt: Prompt, frame: int | None = None, name: str | None = None, color: str | None = None
    ) -> Future[ObjectState]:
        """Follow a new object from now on. frame: the picture that was pointed at, by default the newest."""
        return self._ask(lambda: self._add(prompt, frame, name, color))

    def correct(self, id: int, prompt: Prompt, frame: int | None = None) -> Future[ObjectState]:
        """Correct an object's mask with further clicks or a box."""
        return self._ask(lambda: self._correct(id, prompt, frame))

    def edit(self, id: int, name: str | None = None, color: str | None = None) -> Future[ObjectState]:
        """Give an object another name or colour."""
        return self._ask(lambda: self._edit(id, name, color))

    def remove(self, id: int) -> Future[None]:
        """Follow an object no longer."""
        return self._ask(lambda: self._remove(id))

    def clear(self) -> Future[None]:
        """Follow nothing any longer."""
        return self._ask(self._clear)

    def play(self) -> Future[Status]:
        """Go on; from the start where the source had ended or failed."""
        return self._ask(self._play)

    def pause(self) -> Future[Status]:
        """Keep this picture. A camera goes on unseen, and is at its newest when playing again."""
        return self._ask(self._pause)

    def step(self) -> Future[Status]:
        """Pause, and take one frame more."""
        return self._ask(self._step)

    def record(self) -> Future[RecordingState]:
        """Start a recording."""
        return self._ask(self._record)

    def stop_recording(self) -> Future[RecordingState]:
        """End the recording; its files are whole a moment later."""
        return self._ask(self._stop_recording)

    def recordings(self) -> list[Recording]:
        """The recordings that can be had."""
        return list(self._recordings)

    def recording(self, number: int) -> Recording:
        """Raises NotThere."""
        for one in list(self._recordings):
            if one.number == number:
                return one
        raise NotThere(f"there is no recording {number}; there are {[r.number for r in self._recordings]}")

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Ask the thread to end, and viewers to leave; does not wait. Safe in a signal handler."""
        self._stopping = True

    def stop(self) -> None:
        """End the thread, make recordings whole and close the source. Waits for that."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout=10.0)
        for recording in self._recordings:
            recording.finish()
        for recording in self._recordings:
            recording.join()
        self._capture.close()

    # The thread.

    def _ask(self, action: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._changed:
            if self._stopping:
                raise Unavailable("the server is stopping; nothing was changed")
            if len(self._asked) >= ACTIONS_WAITING:
                raise Unavailable("too many requests wait already; nothing was changed, ask again in a moment")
            self._asked.append((action, future))
            self._changed.notify_all()
        return future

    def _run(self) -> None:
        try:
            while not self._stopping:
                changed = self._obey()
                if self._playing or self._steps:
                    changed = self._advance() or changed
                else:
                    with self._changed:
                        if not self._asked and not self._stopping and not changed:
                            self._changed.wait(timeout=1.0)
                if changed:
                    self._publish()
                if self._count and not self._prepared:
                    self._prepare()
        finally:
            self._stopping = True
            with self._changed:
                waiting, self._asked = list(self._asked), deque()
            for _, future in waiting:
                if future.set_running_or_notify_cancel():
                    future.set_exception(Unavailable("the server is stopping; nothing was changed"))
            self._wake()

    def _obey(self) -> bool:
        """Do what was asked for; whether there was anything."""
        done = False
        while True:
            with self._changed:
                if not self._asked:
                    return done
                action, future = self._asked.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            done = True
            try:
                future.set_result(action())
            except BaseException as exc:
                future.set_exception(exc)

    def _prepare(self) -> None:
        """Have the engine compile what a first click needs, so that it is answered like any other."""
        self._prepared = True
        pixels = self._frames[-1][1]
        height, width = pixels.shape[:2]
        self._message = PREPARING
        self._publish()
        try:
            trial = self._make_tracker()
            trial.add(1, box=[width / 4, height / 4, 3 * width / 4, 3 * height / 4], frame=pixels)
            trial.step(pixels)
        except PromptError:
            pass  # nothing was found in the middle; everything is compiled
        except Exception as exc:
            self._fail(exc)
        if self._message == PREPARING:
            self._message = ""
        self._publish()

    def _advance(self) -> bool:
        """Take the next frame, if it is there, and follow the objects into it; whether viewers have something new."""
        start = time.perf_counter()
        try:
            frame = self._capture.next(WAIT_SECONDS)
            if frame is None:
                return False
            read = time.perf_counter()
            pixels = to_bgr(frame)
            self._steps = max(0, self._steps - 1)
            self._count += 1
            self._frames.append((self._count, pixels))
            self._follow(pixels)
        except EOFError:
            return self._source_ended()
        except Exception as exc:
            self._fail(exc)
            return True
        self._ended = False
        now = time.perf_counter()
        # Waiting for a camera or for a file's pace is nobody's work.
        stages = {"track": now - read}
        self._times.append((now, max(0.0, now - max(frame.captured, start)), stages))
        if self._observe is not None:
            self._observe("track", now - read)
        return True

    def _follow(self, pixels: NDArray[np.uint8]) -> None:
        if not self._objects:
            return
        try:
            results = self._tracker.step(pixels, color="bgr")
        except FrameError as exc:
            # A folder's next picture, or a camera that changed its mode: nothing can be followed into it.
            self._clear()
            self._message = f"objects were let go: {exc}"
            return
        for id, one in self._objects.items():
            one.result = results.get(id)

    def _source_ended(self) -> bool:
        self._steps = 0
        if self._repeat and self._playing and self._count > self._count_at_start:
            self._count_at_start = self._count  # a source that gives nothing is not opened again and again
            try:
                self._capture.restart()
            except TinysegError as exc:
                self._fail(exc)
            return False
        self._playing, self._ended = False, True
        return True

    def _fail(self, error: Exception) -> None:
        self._playing, self._steps, self._failed = False, 0, True
        self._message = str(error) if isinstance(error, TinysegError) else f"{type(error).__name__}: {error}"

    def _status(self) -> Status:
        if self._failed:
            return "failed"
        if self._ended:
            return "ended"
        if not self._count:
            return "waiting"
        return "playing" if self._playing else "paused"

    def _publish(self) -> None:
        start = time.perf_counter()
        if not self._frames:
            # Something to show where the source failed before its first frame.
            pixels: NDArray[np.uint8] = np.full((360, 640, 3), 40, np.uint8)
        else:
            pixels = self._frames[-1][1]
        shape = (pixels.shape[0], pixels.shape[1])
        objects = tuple(state_of(one, shape) for one in self._objects.values())
        before = self._latest
        if before is not None and before.frame == self._count and before.picture.pixels is pixels:
            picture = Picture(pixels, self._drawn(shape), before.picture)
        else:
            picture = Picture(pixels, self._drawn(shape))
            running = self._running_recording()
            if running is not None and self._frames:
                running.add(picture, objects)
        spent = time.perf_counter() - start
        if self._times:
            self._times[-1][2].setdefault("masks", spent)
        if self._observe is not None:
            self._observe("masks", spent)
        self._number += 1
        recording = self._recordings[-1].state if self._recordings else None
        self._latest = Snapshot(
            self._number, self._count, picture, objects, self._status(), self._message, self._figures(), recording
        )
        self._wake()

    def _wake(self) -> None:
        for wake in list(self._wakes):
            wake()

    def _drawn(self, shape: tuple[int, int]) -> list[Drawn]:
        results = [(one, one.result) for one in self._objects.values()]
        return [
            Drawn(r.mask, one.name, one.color)
            for one, r in results
            if r is not None and r.visible and r.mask.shape == shape
        ]

    def _figures(self) -> Figures:
        now = time.perf_counter()
        recent = [row for row in self._times if now - row[0] <= FIGURES_SECONDS]
        if not recent:
            return Figures(0.0, 0.0, {}, self._capture.dropped)
        spent = recent[-1][0] - recent[0][0]
        fps = (len(recent) - 1) / spent if spent > 0 else 0.0
        names = {name for row in recent for name in row[2]}
        stages = {
            name: round(1e3 * float(np.median([r[2][name] for r in recent if name in r[2]])), 2)
            for name in sorted(names)
        }
        latency = 1e3 * float(np.median([row[1] for row in recent]))
        return Figures(round(fps, 2), round(latency, 2), stages, self._capture.dropped)

    # Actions; they run in the live thread.

    def _frame_of(self, frame: int | None) -> tuple[int, NDArray[np.uint8]]:
        if not self._frames:
            raise InputError("there is no picture yet; wait for the first frame")
        if frame is None:
            return self._frames[-1]
        for number, pixels in self._frames:
            if number == frame:
                return number, pixels
        raise NotThere(
            f"frame {frame} is not kept any more; frames {self._frames[0][0]} to {self._frames[-1][0]} are, point at the newest"
        )

    def _object(self, id: int) -> Followed:
        if id not in self._objects:
            raise NotThere(f"there is no object {id}; there are {sorted(self._objects)}")
        return self._objects[id]

    def _add(self, prompt: Prompt, frame: int | None, name: str | None, color: str | None) -> ObjectState:
        if len(self._objects) >= OBJECTS:
            raise InputError(f"{OBJECTS} objects are followed already; remove one first")
        id = self._next_id
        one = Followed(id, checked_name(name) or f"object {id}", color or palette(id - 1))
        return self._prompted(one, prompt, frame)

    def _correct(self, id: int, prompt: Prompt, frame: int | None) -> ObjectState:
        return self._prompted(self._object(id), prompt, frame)

    def _prompted(self, one: Followed, prompt: Prompt, frame: int | None) -> ObjectState:
        """Hand an object's prompt to the tracker; everything is as before where it refuses it."""
        number, pixels = self._frame_of(frame)
        one.result = self._tracker.add(
            one.id, points=prompt.points, labels=prompt.labels, box=prompt.box, frame=pixels, color="bgr"
        )
        self._next_id = max(self._next_id, one.id + 1)
        self._objects[one.id] = one
        newest, pixels = self._frames[-1]
        if number != newest and not self._playing:
            self._follow(pixels)  # no further frame comes that would carry it over
        return state_of(one, (pixels.shape[0], pixels.shape[1]))

    def _edit(self, id: int, name: str | None, color: str | None) -> ObjectState:
        one = self._object(id)
        self._objects[id] = replace(one, name=checked_name(name) or one.name, color=color or one.color)
        snapshot = self._latest
        return state_of(self._objects[id], snapshot.size if snapshot is not None else (1, 1))

    def _remove(self, id: int) -> None:
        self._object(id)
        if len(self._objects) == 1:
            self._clear()  # the next object may come with frames of another size
            return
        self._tracker.remove(id)
        del self._objects[id]

    def _clear(self) -> None:
        self._objects = {}
        self._tracker = self._make_tracker()

    def _play(self) -> Status:
        if self._ended or self._failed:
            self._capture.restart()
            self._ended = self._failed = False
            self._message = ""
        self._playing = True
        return self._status()

    def _pause(self) -> Status:
        self._playing = False
        self._capture.rest()
        return self._status()

    def _step(self) -> Status:
        if self._ended or self._failed:
            raise InputError("there is no further frame; play starts again from the first one")
        self._pause()
        self._steps += 1
        return self._status()

    def _running_recording(self) -> Recording | None:
        running = self._recordings[-1] if self._recordings else None
        return running if running is not None and running.accepting else None

    def _record(self) -> RecordingState:
        if self._running_recording() is not None:
            raise InputError("a recording is running already; stop it first")
        while len(self._recordings) >= RECORDINGS:
            oldest = self._recordings.pop(0)
            oldest.join()  # it ended long ago; else nobody would wait for its files at a stop
            if not self._keep:  # in a folder that the user named they are the user's
                oldest.delete()
        self._recorded += 1
        stem = time.strftime(f"tinyseg-%Y%m%d-%H%M%S-{self._recorded}")
        rate = self._capture.frame_rate or DEFAULT_VIDEO_RATE
        if self._capture.live and (measured := self._figures().fps) > 1:
            rate = measured
        self._recordings.append(Recording(self._folder, self._recorded, stem, rate, wait=not self._capture.live))
        return self._recordings[-1].state

    def _stop_recording(self) -> RecordingState:
        running = self._running_recording()
        if running is None:
            raise InputError("no recording is running; start one first")
        running.finish()
        return running.state


def checked_name(name: str | None) -> str | None:
    """A name without spaces around it. Raises InputError."""
    if name is None:
        return None
    clean = name.strip()
    if not clean or len(clean) > NAME_LETTERS or not clean.isprintable():
        raise InputError(f"a name has 1 to {NAME_LETTERS} printable characters, but {name!r:.120} has not")
    return clean
