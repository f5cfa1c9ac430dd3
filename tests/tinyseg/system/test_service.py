"""What systemd hears, through a socket as its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinyseg.system import service
from tinyseg.system.service import Heartbeat, notify, watchdog_seconds

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="sd_notify's sockets are Unix'")


class Manager:
    """The end at which systemd listens."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(20)
        self.path = path

    def hear(self) -> list[str]:
        return self.socket.recv(4096).decode().splitlines()

    def heard(self, seconds: float) -> list[list[str]]:
        """Everything within some seconds."""
        words, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                words.append(self.hear())
            except TimeoutError:
                break
        self.socket.settimeout(20)
        return words


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(tmp_path / "notify")
    yield listening
    listening.socket.close()


def test_steps_are_told_and_a_standstill_is_not(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    now = [100.0]
    monkeypatch.setattr(service.time, "monotonic", lambda: now[0])
    heart = Heartbeat()
    assert heart.pause == 1.0
    heart.progress(0, "opening")  # nothing has been done yet
    heart.progress(1, "1 frame\nof many")
    assert manager.hear() == ["READY=1", "STATUS=1 frame of many", "WATCHDOG=1"]
    heart.progress(2)  # too soon to be worth telling
    now[0] += 1.1
    heart.progress(2)  # no step
    heart.progress(3)
    assert manager.hear() == ["WATCHDOG=1"]
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.hear()


def test_nobody_to_tell(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert notify("READY=1") is False and not caplog.text
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    assert notify("READY=1") is False and "No such file" in caplog.text
    for microseconds, process in (("", ""), ("x", ""), ("0", ""), ("1000000", "1")):
        monkeypatch.setenv("WATCHDOG_USEC", microseconds)
        monkeypatch.setenv("WATCHDOG_PID", process)
        assert watchdog_seconds() is None
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_seconds() == 1.0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract sockets are Linux'")
def test_abstract_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0tinyseg-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@tinyseg-test-{os.getpid()}")
        assert notify("READY=1") and listening.recv(64) == b"READY=1"


def test_run_and_serve_tell_and_a_hanging_camera_goes_silent(manager: Manager) -> None:
    """The camera gives five frames and then hangs in its driver: what the watchdog is for."""
    script = """
import sys, time
import numpy as np
from tinyseg import cli
from tinyseg.commands import stream
from tinyseg.sources import Source
class Hangs(Source):
    live = True
    def read(self):
        time.sleep(0.3 if self._count < 5 else 60)
        return np.zeros((48, 64, 3), np.uint8)
stream.open_source = lambda *_: Hangs()
cli.main(["run", "0", "--box", "1,1,9,9", "--engine", "fake"])
"""
    here = {**os.environ, "NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "1000000"}
    process = subprocess.Popen([sys.executable, "-c", script], env=here, stderr=subprocess.PIPE)
    try:
        assert manager.hear()[0] == "READY=1" and "WATCHDOG=1" in manager.hear()
        manager.heard(2.0)
        assert manager.heard(1.0) == []
    finally:
        process.kill()
        process.communicate()
    command = [sys.executable, "-m", "tinyseg", "serve", "synthetic:64x48", "--engine", "fake", "--port", "0", "--play"]
    process = subprocess.Popen(
        command, env={**here, "WATCHDOG_USEC": "3000000"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert manager.hear()[0] == "READY=1" and manager.hear() == ["WATCHDOG=1"]
    finally:
        process.terminate()
        process.communicate(timeout=20)
