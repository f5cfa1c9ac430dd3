"""A live thread over drawn frames, with a tracker that stands still: everything but the network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tinyseg.errors import FrameError, InputError
from tinyseg.sources import SyntheticSource

pytest.importorskip("starlette", reason="starlette is not installed (pip install 'tinyseg[serve]')")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (pip install 'tinyseg[serve]')")
pytest.importorskip("jsonschema", reason="jsonschema is not installed (pip install 'tinyseg[serve]')")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed (pip install 'tinyseg[serve]')")

import uvicorn

from tinyseg.serve.app import create_app
from tinyseg.serve.live import Live
from tinyseg.serve.metrics import Metrics
from tinyseg.serve.server import Settings, configure, listen

SIZE = 320, 240  # width, height


@dataclass(frozen=True)
class Still:
    mask: NDArray[np.bool_]
    score: float = 0.9
    visible: bool = True


class StillTracker:
    """Draws what was prompted and keeps it there; refuses what the real one refuses."""

    def __init__(self, segmenter: tinyseg.Segmenter) -> None:
        self._segmenter = segmenter
        self._found: dict[int, Still] = {}
        self._size: tuple[int, ...] | None = None
        self.steps = 0

    def add(
        self, id: int, points: Any = None, labels: Any = None, box: Any = None, mask: Any = None, *,
        frame: NDArray[np.uint8], color: str = "bgr",
    ) -> Still:  # fmt: skip
        out = self._segmenter.embed(frame, color).predict(points, labels, box, multimask=False, zoom="off")
        self._size = frame.shape[:2]
        before = self._found.get(id)
        drawn = out.masks[0]
        if before is not None and box is None:
            drawn = before.mask | drawn if 1 in np.asarray(labels) else before.mask & ~disk(points, frame.shape)
        self._found[id] = Still(drawn)
        return self._found[id]

    def step(self, frame: NDArray[np.uint8], color: str = "bgr") -> dict[int, Still]:
        if frame.shape[:2] != self._size:
            raise FrameError(f"the frame has {frame.shape[:2]}, but the tracker's have {self._size}")
        self.steps += 1
        return dict(self._found)

    def remove(self, id: int) -> None:
        if id not in self._found:
            raise InputError(f"no object {id}")
        del self._found[id]


def disk(points: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.asarray(np.hypot(x - points[0][0], y - points[0][1]) < 15)


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What the condition gives, once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s")


def drawn_source(frames: int | None = None) -> SyntheticSource:
    return SyntheticSource(*SIZE, frames, frame_rate=60.0)


@pytest.fixture
def make_live(fake: tinyseg.Segmenter, tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """Live threads that end with the test."""
    made: list[Live] = []

    def make(opener: Callable[[], Any] = drawn_source, **options: Any) -> Live:
        live = Live(opener, lambda: StillTracker(fake), tmp_path, **options)
        made.append(live)
        live.start()
        return live

    yield make
    for live in made:
        live.stop()


@pytest.fixture
def live(make_live: Callable[..., Live]) -> Live:
    live = make_live()
    until(lambda: live.latest)
    return live


def app_of(live: Live, segmenter: tinyseg.Segmenter, **options: Any) -> Any:
    return create_app(live, segmenter, Metrics(), source="drawn", is_live=live.is_live, **options)


class Served:
    """An application on a real server in a thread; can be stopped and started again on its port."""

    def __init__(self, make_app: Callable[[], tuple[Live, Any]]) -> None:
        self._make_app = make_app
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.live, app = self._make_app()
        settings = Settings(port=self.port)
        self._socket = listen(settings.host, self.port)
        self.port = self._socket.getsockname()[1]
        self._server = uvicorn.Server(configure(app, settings))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        until(lambda: self._server.started)

    def stop(self) -> None:
        self.live.end()
        self._server.should_exit = True
        self._thread.join(timeout=20.0)
        self._socket.close()
        self.live.stop()
        assert not self._thread.is_alive()


@pytest.fixture
def served(make_live: Callable[..., Live], fake: tinyseg.Segmenter) -> Iterator[Served]:
    def make() -> tuple[Live, Any]:
        live = make_live(playing=True)
        return live, app_of(live, fake)

    server = Served(make)
    yield server
    server.stop()
