"""The page that shows frames: loopback only, nothing drawn for nobody, streams that end."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.parse
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

import tinyseg
from tinyseg.sinks import FrameResult, HttpSink, open_sink
from tinyseg.sinks import http as http_sink
from tinyseg.sources import Frame


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    made = HttpSink(0)
    yield made
    made.close()
    made.close()  # twice does no harm


def result(index: int = 0) -> FrameResult:
    masks = np.zeros((1, 24, 32), np.bool_)
    masks[0, 4:12, 4:12] = True
    one = np.ones(1, np.float32)
    answer = tinyseg.Masks(
        masks, one, np.zeros((1, 6, 8), np.float32), np.zeros((1, 4), np.int32), np.ones(1, np.int64), one
    )
    return FrameResult(Frame(np.full((24, 32, 3), 90, np.uint8), index, 0.0), (), [answer], 1.0)


def ask(sink: HttpSink, path: str, host: str | None = None) -> http.client.HTTPResponse:
    place = urllib.parse.urlsplit(sink.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    return connection.getresponse()


def feed(sink: HttpSink, stop: threading.Event) -> threading.Thread:
    def work() -> None:
        index = 0
        while not stop.wait(0.01):
            sink.write(result(index))
            index += 1

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_browser_gets_page_picture_and_stream(sink: HttpSink) -> None:
    assert sink.url.startswith("http://127.0.0.1:")
    assert b"/stream.mjpg" in ask(sink, "/").read()
    assert ask(sink, "/other").status == 404
    stop = threading.Event()
    thread = feed(sink, stop)
    try:
        picture = cv2.imdecode(np.frombuffer(ask(sink, "/frame.jpg").read(), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (24, 32, 3) and abs(int(picture[20, 28, 0]) - 90) < 12
        stream = ask(sink, "/stream.mjpg")
        assert "multipart/x-mixed-replace" in (stream.getheader("Content-Type") or "")
        assert stream.read(4000).count(b"Content-Type: image/jpeg") >= 2
    finally:
        stop.set()
        thread.join(10)


def test_other_hosts_names_are_refused(sink: HttpSink) -> None:
    assert ask(sink, "/", "evil.example:8080").status == 403
    assert ask(sink, "/", "localhost:1").status == 200


def test_nothing_is_drawn_for_nobody(sink: HttpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrameResult, "picture", lambda self: pytest.fail("drawn"))
    sink.write(result())


def test_viewers_are_few_and_see_the_end(sink: HttpSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_sink, "MAX_VIEWERS", 1)
    stream = ask(sink, "/stream.mjpg")
    assert ask(sink, "/stream.mjpg").status == 503
    sink.close()
    assert stream.read() == b""
    deadline = time.monotonic() + 5
    while sink._viewers and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sink._viewers == 0


def test_the_command_line_names_it() -> None:
    made = open_sink("http:0")
    try:
        assert isinstance(made, HttpSink)
        port = urllib.parse.urlsplit(made.url).port
        with pytest.raises(tinyseg.DataError, match="--sink http:8081"):
            open_sink(f"http:{port}")
    finally:
        made.close()
    with pytest.raises(tinyseg.InputError, match="port"):
        open_sink("http:x")


def test_a_window_that_cannot_be_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "General\n  GUI:                           NONE\n")
    with pytest.raises(tinyseg.DataError, match="--sink http"):
        open_sink("window")
