"""Real sockets and a real process: slow readers, garbage, and a stop that loses nothing."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyseg
from tests.tinyseg.serve.conftest import Served, app_of, until
from tinyseg.cli import main
from tinyseg.commands.serve import shown_name
from tinyseg.serve.live import Live
from tinyseg.serve.logs import start_logging
from tinyseg.sources import ArraySource

websockets = pytest.importorskip(
    "websockets.sync.client", reason="websockets is not installed (pip install 'tinyseg[serve]')"
)


def ask(server: Served, path: str) -> socket.socket:
    """A request whose answer is read by hand."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return sock


def read_parts(sock: socket.socket, count: int) -> list[int]:
    """Frame numbers of the next parts of an MJPEG stream."""
    data, found = b"", 0
    numbers: list[int] = []
    while len(numbers) < count:
        data += sock.recv(1 << 16)
        while (at := data.find(b"X-Frame: ", found)) >= 0 and b"\r\n" in data[at:]:
            numbers.append(int(data[at + 9 : data.index(b"\r\n", at)]))
            found = at + 9
    return numbers


def test_a_stream_is_jpeg_parts_in_order(served: Served) -> None:
    with ask(served, "/api/stream.mjpg") as one, ask(served, "/api/masked.mjpg") as two:
        numbers = read_parts(one, 5)
        assert numbers == sorted(set(numbers)) and read_parts(two, 3)


def test_a_stream_has_a_head_and_takes_nothing(served: Served) -> None:
    for method, status in (("HEAD", b" 200 "), ("POST", b" 405 ")):
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
            sock.sendall(f"{method} /api/stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while chunk := sock.recv(4096):  # ends
                answer += chunk
            assert status in answer and b"X-Frame" not in answer


def noise_source() -> ArraySource:
    """Pictures that JPEG cannot make small."""
    noise = np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)

    def pictures() -> Any:
        while True:
            time.sleep(0.01)
            yield noise

    return ArraySource(pictures(), live=True)


def test_who_reads_slowly_gets_new_pictures_and_holds_nobody_up(
    make_live: Callable[..., Live], fake: tinyseg.Segmenter
) -> None:
    def make() -> tuple[Live, Any]:
        live = make_live(noise_source, playing=True)
        return live, app_of(live, fake)

    server = Served(make)
    try:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
            slow.settimeout(20)
            slow.connect(("127.0.0.1", server.port))
            slow.sendall(b"GET /api/stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            (first,) = read_parts(slow, 1)
            with ask(server, "/api/stream.mjpg") as quick:
                assert len(read_parts(quick, 12)) == 12
            until(lambda: server.live.frames > first + 40)
            now = server.live.frames
            numbers = read_parts(slow, 8)
        # What waited in the network is old, but little; then it is at the present, without what came in between.
        assert numbers[-1] >= now and len(numbers) < numbers[-1] - first
    finally:
        server.stop()


def test_who_takes_nothing_is_let_go_and_the_log_says_so_once(
    make_live: Callable[..., Live],
    fake: tinyseg.Segmenter,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tinyseg.serve.streams.SEND_SECONDS", 0.3)
    for name in ("tinyseg.serve", "uvicorn"):  # as they were, afterwards
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)
    start_logging("text")

    def make() -> tuple[Live, Any]:
        live = make_live(noise_source, playing=True)
        return live, app_of(live, fake)

    server = Served(make)
    try:
        with ask(server, "/api/stream.mjpg"):

            def viewers() -> float:
                text = urllib.request.urlopen(f"{server.url}/metrics", timeout=20).read().decode()
                return float(text.split("\ntinyseg_stream_viewers ")[1].split("\n")[0])

            until(lambda: viewers() == 1)
            until(lambda: viewers() == 0)  # the socket is still open on our side
    finally:
        server.stop()
    lines = [line for line in capsys.readouterr().err.splitlines() if " request " not in line]
    assert [line[9:] for line in lines] == [
        "info viewer let go path='/api/stream.mjpg' reason='took nothing for 0.3 s'"
    ]


def test_garbage_ends_only_its_own_connection(served: Served) -> None:
    for garbage in (
        b"\x16\x03\x01\x00\xa5garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"A" * 200_000,
        b"POST /api/objects HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
            try:
                sock.sendall(garbage)
                sock.settimeout(2.0)
                assert b" 200 " not in sock.recv(4096)
            except (ConnectionError, TimeoutError):
                pass
    with websockets.connect(f"ws://127.0.0.1:{served.port}/api/channel") as channel:
        channel.send("x" * (1 << 20))
        with pytest.raises(Exception, match=r"1009|big"):
            while True:
                channel.recv(timeout=20)
    with websockets.connect(f"ws://127.0.0.1:{served.port}/api/channel") as channel:
        assert json.loads(channel.recv(timeout=20))["type"] == "state"
    assert served.live.running


def test_a_channel_that_is_not_read_holds_nobody_up(served: Served) -> None:
    # By hand: the client of websockets 14.0 does not close what it has not read.
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as idle:
        idle.sendall(
            b"GET /api/channel HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert idle.recv(12) == b"HTTP/1.1 101"
        before = served.live.frames
        with websockets.connect(f"ws://127.0.0.1:{served.port}/api/channel") as busy:
            until(lambda: json.loads(busy.recv(timeout=20))["frame"] > before + 20)


def test_a_stop_loses_nothing(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "tinyseg", "serve", "synthetic:160x120", "--engine", "fake", "--port", "0", "--play",
        "--recordings", str(tmp_path), "--log-format", "json",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        url = process.stdout.readline().split()[1]
        request = urllib.request.Request(f"{url}api/recordings", method="POST")
        assert urllib.request.urlopen(request, timeout=20).status == 201
        with urllib.request.urlopen(f"{url}api/stream.mjpg", timeout=20) as stream:
            assert stream.read(2000)
            until(lambda: json.load(urllib.request.urlopen(f"{url}api/recordings", timeout=20))[0]["frames"] > 3)
            process.send_signal(signal.SIGTERM)
            while stream.read(1 << 16):
                pass  # the stream ends as it should
        logged = process.stderr.read()
        assert process.wait(timeout=30) == 0, logged
    rows = [json.loads(line) for line in logged.splitlines()]
    assert rows[0]["event"] == "model" and rows[0]["engine"] == "fake"
    assert rows[1]["event"] == "serving" and rows[-1]["event"] == "stopped" and "Traceback" not in logged
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".mp4"]
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["images"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--host", "0.0.0.0"], "needs --token"),
        (["--host", "0.0.0.0", "--token", "short"], "at least 12"),
        (["--host", "no such host", "--token", "correct-horse-battery"], "no address of this machine"),
        (["--port", "70000"], "from 0 to 65535"),
        (["--certificate", "x.pem"], "go together"),
        (["--recordings", "/proc/nothing"], "cannot be written there"),
    ],
)
def test_bad_settings_exit_with_2(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "synthetic:32x32", "--engine", "fake", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_certificate_that_cannot_be_used_is_told_before_anything_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    pair = ["--certificate", str(junk), "--key", str(junk)]
    assert main(["serve", "synthetic:32x32", "--engine", "fake", "--port", "0", *pair]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and err.count(str(junk)) == 2 and "PEM key" in err


def test_a_taken_port_says_so(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "synthetic:32x32", "--engine", "fake", "--port", str(served.port)]) == 2
    assert "--port" in capsys.readouterr().err
    assert main(["serve", "no-such-file.mp4", "--engine", "fake", "--port", "0"]) == 2
    assert "is no source" in capsys.readouterr().err
    assert main(["serve", "-", "--engine", "fake"]) == 2


def test_without_the_extra_the_message_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [n for n in sys.modules if n.startswith("tinyseg.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    assert main(["serve", "synthetic:32x32", "--engine", "fake"]) == 3
    assert "pip install 'tinyseg[serve]'" in capsys.readouterr().err


def test_viewers_are_told_no_folder_and_no_password() -> None:
    assert shown_name("/home/me/secret/film.mp4") == "film.mp4"
    assert shown_name("rtsp://user:pass@cam:554/stream?key=1") == "rtsp://cam:554/stream"
    assert shown_name("gst:rtspsrc location=rtsp://u:p@cam ! decodebin") == "gst"
    assert shown_name("file:///home/me/film.mp4") == "film.mp4"
    assert shown_name("0") == "0" and shown_name("synthetic:9x9") == "synthetic:9x9"
    assert os.sep not in shown_name("a/b/")
