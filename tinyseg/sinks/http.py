"""Results in a browser: MJPEG over HTTP on this machine's own address."""

from __future__ import annotations

import http.server
import threading
import urllib.parse
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.sinks.base import FrameResult, Sink

DEFAULT_PORT = 8080
LOOPBACK = "127.0.0.1"
MAX_VIEWERS = 8
JPEG_QUALITY = 80
SEND_SECONDS = 10.0  # after which a viewer that takes nothing is let go
KEEP_ALIVE_SECONDS = 5.0
BOUNDARY = "tinyseg-frame"
PAGE = b"""<!doctype html><meta charset="utf-8"><title>tinyseg</title>
<style>html,body{margin:0;height:100%;background:#111}img{width:100%;height:100%;object-fit:contain}</style>
<img src="/stream.mjpg" alt="the newest frame with its masks">
"""


class HttpSink(Sink):
    """A page at http://127.0.0.1:PORT/ that shows the newest frame with its masks; for machines without a screen.

    It listens on loopback only (from another machine: ``ssh -L 8080:127.0.0.1:8080 HOST``), and answers only requests that
    name loopback as their host. /stream.mjpg is the stream alone, /frame.jpg one picture. Nothing is drawn or compressed
    while nobody watches; slow viewers miss frames. port: 0 takes a free one; :attr:`url` says which. Raises DataError.
    """

    def __init__(self, port: int = DEFAULT_PORT) -> None:
        self._changed = threading.Condition()
        self._jpeg, self._number, self._viewers, self._closed = b"", 0, 0, False
        try:
            self._server = _Server((LOOPBACK, port), _handler(self))
        except (OSError, OverflowError) as exc:
            raise DataError(
                f"port {port} of {LOOPBACK} cannot be listened on: {getattr(exc, 'strerror', None) or exc}; name another one: "
                "--sink http:8081, or http:0 for a free one"
            ) from exc
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="tinyseg-http", daemon=True
        )
        self._thread.start()

    def write(self, result: FrameResult) -> None:
        with self._changed:
            if not self._viewers:
                return
        jpeg = _compress(result.picture())
        with self._changed:
            self._jpeg, self._number = jpeg, self._number + 1
            self._changed.notify_all()

    def close(self) -> None:
        """Stop listening; viewers see the stream end."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)

    def enter(self) -> bool:
        """A viewer comes; False if there are as many as may be."""
        with self._changed:
            if self._viewers >= MAX_VIEWERS:
                return False
            self._viewers += 1
            return True

    def leave(self) -> None:
        """A viewer has gone."""
        with self._changed:
            self._viewers -= 1

    @property
    def newest(self) -> int:
        """The number of the newest picture."""
        with self._changed:
            return self._number

    def picture_after(self, number: int) -> tuple[int, bytes] | None:
        """The first picture newer than a number, b"" if none came in a while; None when the sink is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number > number, KEEP_ALIVE_SECONDS)
            if self._closed:
                return None
            return (self._number, self._jpeg) if self._number > number else (number, b"")


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer that goes away is nobody's error."""


def _handler(sink: HttpSink) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = SEND_SECONDS
        server_version, sys_version = "tinyseg", ""

        def do_GET(self) -> None:
            # A web page elsewhere may make its own name lead here; a browser then still sends that name.
            host = urllib.parse.urlsplit(f"//{self.headers.get('Host', '')}").hostname
            if host not in (LOOPBACK, "localhost"):
                self.send_error(403, "this page is for this machine alone")
            elif self.path == "/":
                self._send("text/html; charset=utf-8", PAGE)
            elif self.path not in ("/stream.mjpg", "/frame.jpg"):
                self.send_error(404)
            elif not sink.enter():
                self.send_error(503, f"{MAX_VIEWERS} viewers watch already")
            else:
                try:
                    self._stream() if self.path == "/stream.mjpg" else self._picture()
                finally:
                    sink.leave()

        def _picture(self) -> None:
            found = sink.picture_after(sink.newest)
            if found is None or not found[1]:
                self.send_error(503, "no frame yet")
            else:
                self._send("image/jpeg", found[1])

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            number = sink.newest
            while (found := sink.picture_after(number)) is not None:
                number, jpeg = found
                if jpeg:
                    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")

        def _send(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Requests are not logged."""

    return Handler


def _compress(picture: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    if not done:
        raise DataError("this build of OpenCV writes no JPEG")
    return data.tobytes()
