"""Cameras that are not there: GStreamer's bindings, a V4L2 device in a preloaded library, a real RTSP server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DEBIAN = Path("/usr/lib/python3/dist-packages/gi")
NO_BINDINGS = (
    "GStreamer's bindings are not there (Debian: python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good)"
)


@pytest.fixture(scope="session")
def bindings_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """GStreamer can be imported; a virtual environment sees Debian's gi alone, if it is of the same Python."""
    place = tmp_path_factory.mktemp("gi")
    try:
        import gi  # noqa: PLC0415 - not everywhere

        place = Path(gi.__file__).parent.parent
    except ImportError:
        if not list(DEBIAN.glob(f"_gi.cpython-{sys.version_info[0]}{sys.version_info[1]}-*.so")):
            pytest.skip(NO_BINDINGS)
        (place / "gi").symlink_to(DEBIAN)
    sys.path.append(str(place))
    script = "import gi; [gi.require_version(n, '1.0') for n in ('GstApp', 'GstRtspServer')]"
    done = subprocess.run([sys.executable, "-c", script], env=_with(place), capture_output=True, check=False)
    if done.returncode:
        pytest.skip(NO_BINDINGS)
    yield place
    sys.path.remove(str(place))


def _with(place: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(place)])}


@dataclass
class RtspServer:
    """A server in a process of its own, which can be killed, stopped for a while and started again on its port."""

    environment: dict[str, str]
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/test"

    def start(self) -> None:
        command = [sys.executable, str(HERE / "rtsp_server.py"), str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment)
        assert self.process.stdout is not None
        told = self.process.stdout.readline()
        assert told, "the RTSP server does not start"
        self.port = int(told)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.communicate()
            self.process = None

    def stall(self, stalled: bool) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP if stalled else signal.SIGCONT)


@pytest.fixture
def rtsp_server(bindings_path: Path) -> Iterator[RtspServer]:
    server = RtspServer(_with(bindings_path))
    server.start()
    yield server
    server.kill()
