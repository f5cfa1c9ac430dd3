"""Pipelines and RTSP streams: GStreamer's test sources, and its server, killed and stalled while frames come."""

from __future__ import annotations

import re
import sys
import threading
import time
from pathlib import Path

import pytest

import tinyseg
from tinyseg import Loop, Prompt
from tinyseg.sinks import CallbackSink
from tinyseg.sources import LiveSource, Source, gstreamer, open_source
from tinyseg.sources.camera import open_stream, shown_url

from .conftest import RtspServer

LIVE = "gst:videotestsrc is-live=true ! video/x-raw,width=322,height=240,framerate=20/1"


def age_ms(source: Source) -> float:
    frame = source.next_frame()
    assert frame is not None
    return 1e3 * (time.perf_counter() - frame.captured)


def test_a_live_pipeline_gives_the_newest_frame_and_when_it_was_taken(bindings_path: Path) -> None:
    source = open_source(LIVE)
    try:
        assert source.live and source.frame_rate == 20 and isinstance(source, LiveSource)
        frame = source.next_frame()
        assert frame is not None and frame.pixels.shape == (240, 322, 3) and frame.pixels.flags.writeable
        assert (
            tuple(frame.pixels[60, 2]) == (191, 191, 191) or frame.pixels[60, 2].min() > 150
        )  # the first bar is bright
        assert 0 <= age_ms(source) < 300
        time.sleep(0.7)  # fourteen frames, of which thirteen are gone
        ages = [age_ms(source) for _ in range(3)]
        assert max(ages) < 300, ages
    finally:
        source.close()


def test_a_pipeline_that_waits_loses_no_frame_and_ends(bindings_path: Path) -> None:
    source = open_source(
        "gst:videotestsrc num-buffers=9 pattern=black ! video/x-raw,width=64,height=48 ! videoconvert ! appsink"
    )
    time.sleep(0.2)
    frames = [source.read() for _ in range(10)]
    assert not source.live and [f is None for f in frames] == [False] * 9 + [True]
    source.close()


def test_masks_are_as_late_as_the_camera_took_the_frame(bindings_path: Path, fake: tinyseg.Segmenter) -> None:
    """A queue of 200 ms before the sink counts, which a time of arrival would not show."""
    slow = LIVE + " ! queue min-threshold-time=200000000 max-size-time=0 max-size-buffers=0"
    latencies: list[float] = []
    sink = CallbackSink(lambda r: latencies.append(r.latency_ms) or len(latencies) < 5)  # type: ignore[func-returns-value]
    with Loop(fake, open_source(slow), sink, [Prompt(box=(2, 2, 20, 20))]) as loop:
        loop.run()
    assert min(latencies) > 100


@pytest.mark.parametrize(
    ("pipeline", "told"),
    [
        ("nosuch", 'no element "nosuch"; gst-inspect-1.0'), ("videotestsrc ! ! fakesink", "syntax error"), ("", "needs a pipeline"),
        ("filesrc location=/nowhere ! decodebin", "Resource not found; is it there"),
        ("videotestsrc ! appsink videotestsrc ! appsink", "has 2"), ("videotestsrc ! fakesink", "could not link"),
        ("videotestsrc num-buffers=0", "gave no frame"), ("v4l2src device=/dev/video77", "is it there"),
        ("fakesrc sizetype=fixed sizemax=9 ! videoconvert", "does not offer that format"),
    ],
)  # fmt: skip
def test_pipelines_that_cannot_be_used_are_told(pipeline: str, told: str, bindings_path: Path) -> None:
    with pytest.raises(tinyseg.DataError, match=re.escape(told)):
        open_source(f"gst:{pipeline}")


def test_missing_bindings_are_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gstreamer, "bindings", gstreamer.bindings.__wrapped__)
    monkeypatch.setitem(sys.modules, "gi", None)
    assert gstreamer.version() is None
    for source in ("gst:videotestsrc", "csi://0"):
        with pytest.raises(tinyseg.NotInstalled, match="apt-get install python3-gi"):
            open_source(source)


@pytest.mark.parametrize("through", ["ffmpeg", "gstreamer"])
def test_a_stream_is_killed_and_stalled_and_comes_back(
    through: str, rtsp_server: RtspServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = rtsp_server.url
    if through == "gstreamer":
        url = f"gst:rtspsrc location={url} latency=50 protocols=tcp ! decodebin"
    source = open_source(url)
    try:
        assert isinstance(source, LiveSource)
        for _ in range(5):
            frame = source.next_frame()
            assert frame is not None and frame.pixels.shape == (240, 320, 3)
        # From here on attempts may fail and are repeated.
        monkeypatch.setattr("tinyseg.sources.camera.NETWORK_TIMEOUT_MS", 2500)
        monkeypatch.setattr("tinyseg.sources.camera.FIRST_BACK_OFF", 0.05)
        monkeypatch.setattr("tinyseg.sources.camera.LAST_BACK_OFF", 0.2)
        monkeypatch.setattr("tinyseg.sources.gstreamer.SILENT_SECONDS", 1.5)
        monkeypatch.setattr("tinyseg.sources.gstreamer.OPEN_SECONDS", 4.0)
        rtsp_server.kill()
        threading.Timer(0.5, rtsp_server.start).start()
        for _ in range(40):
            frame = source.next_frame()
            assert frame is not None
        before = source.reconnections
        assert before >= 1  # more, where the machine is so busy that an attempt gave a frame and no second one
        rtsp_server.stall(True)
        threading.Timer(4.0, rtsp_server.stall, [False]).start()
        start = time.monotonic()
        while time.monotonic() - start < 60 and source.reconnections == before:
            assert source.next_frame() is not None
        assert source.reconnections > before and caplog.text.count("is back after") == source.reconnections
    finally:
        source.close()


def test_a_stream_that_stays_away_is_an_error_in_the_end(rtsp_server: RtspServer) -> None:
    source = open_stream(rtsp_server.url, patience=0.5)
    assert source.read() is not None
    rtsp_server.kill()
    with pytest.raises(tinyseg.DataError, match=r"sent no frame for 0 s: .* does not open within"):
        for _ in range(200):
            source.read()
    with pytest.raises(tinyseg.DataError, match="is the server up"):
        open_stream(rtsp_server.url)


def test_messages_hold_no_password() -> None:
    assert shown_url("rtsp://user:pa%40ss@cam:554/live?token=1") == "rtsp://cam:554/live"
    assert shown_url("rtsp://user:pass@cam:99999999/live") == "rtsp://cam:99999999/live"
    with pytest.raises(tinyseg.DataError) as caught:
        open_source("rtsp://user:secret@127.0.0.1:1/x?key=hidden")
    assert "secret" not in str(caught.value) and "hidden" not in str(caught.value)
