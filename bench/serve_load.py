"""``python -m tinyseg.bench.serve_load``: viewers on ``tinyseg serve``, for as long as you like, and what it costs.

Starts the command as a user does, opens viewers (a picture stream and a websocket each) and one that never reads, puts
objects on the picture, and prints a row for each number of viewers: frame rate, time of a frame, what a viewer gets, and how the
process's memory changed. With several numbers the first is the baseline: the server's frame rate must not follow them.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinyseg.bench.rows import markdown_table

SAMPLE_SECONDS = 1.0
WARM_SECONDS = 10.0  # until figures are of this load alone
TIMEOUT_SECONDS = 60.0


@dataclass
class Seen:
    """What one viewer got."""

    pictures: int = 0
    states: int = 0
    bytes: int = 0
    errors: list[str] = field(default_factory=list)


@dataclass
class Load:
    """Viewers on a server at ``port``, each in two threads, until :meth:`stop`."""

    port: int
    viewers: int
    seen: list[Seen] = field(default_factory=list)
    stopping: bool = False
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for _ in range(self.viewers):
            one = Seen()
            self.seen.append(one)
            for work in (self._pictures, self._states):
                thread = threading.Thread(target=work, args=(one,), daemon=True)
                thread.start()
                self.threads.append(thread)

    def stop(self) -> None:
        self.stopping = True
        for thread in self.threads:
            thread.join(timeout=TIMEOUT_SECONDS)

    def _pictures(self, seen: Seen) -> None:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/api/stream.mjpg", timeout=TIMEOUT_SECONDS
            ) as stream:
                while not self.stopping:
                    chunk = stream.read1(1 << 16)
                    if not chunk:
                        raise OSError("the stream ended")
                    seen.bytes += len(chunk)
                    seen.pictures += chunk.count(b"X-Frame: ")
        except OSError as exc:
            if not self.stopping:
                seen.errors.append(str(exc))

    def _states(self, seen: Seen) -> None:
        from websockets.exceptions import WebSocketException  # noqa: PLC0415 - an extra
        from websockets.sync.client import connect  # noqa: PLC0415

        try:
            with connect(f"ws://127.0.0.1:{self.port}/api/channel", close_timeout=1) as channel:
                while not self.stopping:
                    seen.bytes += len(channel.recv(timeout=TIMEOUT_SECONDS))
                    seen.states += 1
        except (OSError, TimeoutError, WebSocketException) as exc:
            if not self.stopping:
                seen.errors.append(str(exc))


def resident_mib(pid: int) -> float:
    """Resident memory of a process (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def call(port: int, method: str, path: str, body: Any = None) -> Any:
    """A request to the server's API."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        content = answer.read()
    return json.loads(content) if content else None


def measure(port: int, pid: int, viewers: int, seconds: float) -> list[str]:
    """One row: so many viewers for so many seconds."""
    load = Load(port, viewers)
    load.start()
    with socket.create_connection(("127.0.0.1", port)) as idle:  # one that never reads
        idle.sendall(b"GET /api/masked.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        time.sleep(WARM_SECONDS)
        before = [(one.pictures, one.states, one.bytes) for one in load.seen]
        start, cpu, first = time.monotonic(), cpu_seconds(pid), resident_mib(pid)
        frame = call(port, "GET", "/api/state")["frame"]
        rates, track, peak = [], [], first
        while time.monotonic() - start < seconds:
            time.sleep(SAMPLE_SECONDS)
            state = call(port, "GET", "/api/state")
            if state["status"] != "playing":
                raise SystemExit(f"the server stopped playing: {state['status']}, {state['message']}")
            rates.append(state["figures"]["fps"])
            track.append(state["figures"]["stages"].get("track", 0.0))
            peak = max(peak, resident_mib(pid))
        spent = time.monotonic() - start
        frames = call(port, "GET", "/api/state")["frame"] - frame
        used, last = (cpu_seconds(pid) - cpu) / spent, resident_mib(pid)
    got = [(one.pictures - p, one.states - s, one.bytes - b) for one, (p, s, b) in zip(load.seen, before)]
    load.stop()
    errors = sum(len(one.errors) for one in load.seen)
    least = min((row[0] for row in got), default=0) / spent
    masks = min((row[1] for row in got), default=0) / spent
    rate = sum(row[2] for row in got) / spent / 1e6
    low, high = np.percentile(rates, (5, 95))
    return [
        f"{viewers} + 1 that never reads", f"{spent:.0f} s", f"{frames / spent:.1f}", f"{low:.1f} to {high:.1f}",
        f"{np.median(track):.1f} ms", f"{least:.1f}", f"{masks:.1f}", f"{rate:.1f} MB/s", f"{used:.2f}",
        f"{first:.0f} -> {last:.0f} (peak {peak:.0f}) MiB", str(errors),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tinyseg.bench.serve_load", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("source", nargs="?", default="examples/clip.mp4", help="(default: examples/clip.mp4)")
    parser.add_argument(
        "--viewers", type=int, nargs="+", default=[1, 8], metavar="N", help="one row each (default: 1 8)"
    )
    parser.add_argument("--minutes", type=float, default=1.0, metavar="M", help="for each row (default: 1)")
    parser.add_argument(
        "--box", action="append", metavar="X0,Y0,X1,Y1", help="an object each (default: one in the middle)"
    )
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args(arguments)
    command = [
        sys.executable, "-m", "tinyseg", "serve", args.source, "--port", "0", "--repeat", "--log-level", "warning",
        "--engine", args.engine, "--precision", args.precision,
    ]  # fmt: skip
    headings = [
        "viewers", "for", "frames/s", "5th to 95th", "a frame's tracking", "pictures/s, slowest viewer", "masks/s, slowest viewer",
        "sent", "cores used", "memory", "errors",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ready = server.stdout.readline()
            if not ready:
                raise SystemExit("the server did not start; see above")
            port = int(ready.split()[1].rstrip("/").rpartition(":")[2])
            while True:
                try:
                    state = call(port, "GET", "/api/state")
                    if not state["message"]:  # else the engine is being prepared
                        break
                except urllib.error.HTTPError:  # no frame yet
                    pass
                time.sleep(0.2)
            width, height = state["width"], state["height"]
            middle = f"{width // 4},{height // 4},{3 * width // 4},{3 * height // 4}"
            for text in args.box or [middle]:
                call(port, "POST", "/api/objects", {"box": [float(v) for v in text.split(",")]})
            call(port, "POST", "/api/control", {"do": "play"})
            rows = [measure(port, server.pid, viewers, 60 * args.minutes) for viewers in args.viewers]
        finally:
            server.terminate()
    print(f"{args.source}, {width}x{height}, {len(args.box or [middle])} objects, {os.cpu_count()} cores")
    print("\n".join(markdown_table([headings, *rows])))


if __name__ == "__main__":
    main()
