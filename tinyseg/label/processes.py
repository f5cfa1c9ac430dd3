"""Several workers on one machine: a process each, on its own cores, which is given one shard after the other.

No queue is shared: a process that is killed can block nobody. One that dies is started again and its shard is done anew.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

from tinyseg.engines.cpu import available_cores
from tinyseg.errors import DataError, EngineError, TinysegError
from tinyseg.label.inputs import Shard
from tinyseg.label.shard import ShardStats
from tinyseg.label.worker import Setup, Worker

MOST_DEATHS = 10  # of processes in a row without a shard done or a picture left out
READY = "ready"


@dataclass
class _Seat:
    """A place for a process: what it runs on, and what it is at."""

    cores: tuple[int, ...]
    device: str | None
    process: BaseProcess | None = None
    pipe: Any = None
    group: deque[Shard] | None = None
    at: Shard | None = None


def core_groups(processes: int) -> list[tuple[int, ...]]:
    """This process's cores, shared out: every core to one group; with more groups than cores they take turns."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(available_cores()))
    size = max(1, len(cores) // processes)
    return [tuple(cores[(i * size + k) % len(cores)] for k in range(size)) for i in range(processes)]


def label_in_processes(
    setup: Setup, groups: Sequence[Sequence[Shard]], processes: int, devices: Sequence[str] = ()
) -> Iterator[ShardStats]:
    """Label groups of shards; gives the stats of each shard as it is done. devices: CUDA devices that processes take in turn.

    Raises DataError, or what opening the model raises in a process; all processes have ended then.
    """
    waiting = deque(deque(g) for g in groups)
    shares = core_groups(processes)
    seats = [
        _Seat(cores, devices[i % len(devices)] if devices else None) for i, cores in enumerate(shares)
    ]  # fmt: skip
    context = multiprocessing.get_context("spawn")
    deaths = 0
    try:
        for seat in seats:
            _start(seat, setup, context)
        while any(s.process is not None for s in seats):
            live = [s for s in seats if s.process is not None]
            connection.wait([w for s in live if s.process is not None for w in (s.pipe, s.process.sentinel)])
            for seat in live:
                message = _heard(seat)
                if message is None and seat.process is not None and not seat.process.is_alive():
                    message = _heard(seat)  # what it said last
                    if message is None:
                        deaths += 1
                        _bury(seat, waiting, deaths)
                        if waiting:
                            _start(seat, setup, context)
                        continue
                if message is None:
                    continue
                if isinstance(message, BaseException):
                    raise message
                if isinstance(message, ShardStats):
                    deaths = 0
                    seat.at = None
                    yield message
                _give(seat, waiting, seats)
    finally:
        for seat in seats:
            _end(seat)


def _start(seat: _Seat, setup: Setup, context: Any) -> None:
    ours, theirs = context.Pipe()
    one = replace(setup, threads=setup.threads or len(seat.cores))
    loudness = logging.getLogger("tinyseg").getEffectiveLevel()
    process = context.Process(target=_work, args=(theirs, one, seat.cores, seat.device, loudness), daemon=True)
    process.start()
    seat.process = process
    theirs.close()
    seat.pipe = ours


def _heard(seat: _Seat) -> Any:
    """The next message of a process, None where there is none."""
    try:
        return seat.pipe.recv() if seat.pipe is not None and seat.pipe.poll() else None
    except (EOFError, OSError):
        return None


def _give(seat: _Seat, waiting: deque[deque[Shard]], seats: Sequence[_Seat]) -> None:
    """The next shard of the seat's group, of another group, or of the second half of somebody else's; else the end."""
    if not seat.group and waiting:
        seat.group = waiting.popleft()
    if not seat.group:
        longest = max((s.group for s in seats if s.group), key=len, default=None)
        if longest is not None and len(longest) > 1:
            kept = len(longest) // 2
            seat.group = deque(list(longest)[kept:])
            for _ in seat.group:
                longest.pop()
    seat.at = seat.group.popleft() if seat.group else None
    with suppress(OSError):  # it has died: that is seen in the next round
        seat.pipe.send(seat.at)
    if seat.at is None:
        _end(seat)


def _bury(seat: _Seat, waiting: deque[deque[Shard]], deaths: int) -> None:
    """Put back what a dead process had. Raises EngineError where processes keep dying."""
    code = seat.process.exitcode if seat.process is not None else None
    if deaths >= MOST_DEATHS:
        told = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        raise EngineError(
            f"{deaths} processes in a row ended ({told}) without a shard done; is there enough memory for so many "
            "processes? Run again with fewer --processes to go on"
        )
    left = deque([*([seat.at] if seat.at is not None else []), *(seat.group or ())])
    if left:
        waiting.appendleft(left)
    seat.group = seat.at = None
    _end(seat)


def _end(seat: _Seat) -> None:
    process, seat.process = seat.process, None
    if process is None:
        return
    seat.pipe.close()
    process.join(2.0 if seat.at is None else 0)
    if process.is_alive():
        process.kill()
        process.join()


def _work(pipe: Any, setup: Setup, cores: tuple[int, ...], device: str | None, loudness: int) -> None:
    """A process: shards from a pipe until None comes, and their stats back. Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("tinyseg").setLevel(loudness)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, cores)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    try:
        worker = Worker(setup)
        pipe.send(READY)
        while (shard := pipe.recv()) is not None:
            stats = None
            for stats in worker.label(shard):  # noqa: B007 - the last one is of the whole shard
                pass
            pipe.send(stats)
    except TinysegError as exc:
        _tell(pipe, exc)
    except (EOFError, BrokenPipeError):
        return
    except MemoryError:
        _tell(pipe, DataError("a process has not enough memory; run again with fewer --processes to go on"))


def _tell(pipe: Any, exc: BaseException) -> None:
    with suppress(OSError):
        pipe.send(exc)


def _leave_with_parent() -> None:
    """End at once when the parent does, also by kill -9: nobody would take the work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
