"""Pictures as MJPEG: ``multipart/x-mixed-replace``, which an ``<img>``, OpenCV, FFmpeg and go2rtc read."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from tinyseg.serve.limits import KEEP_ALIVE_SECONDS, SEND_SECONDS
from tinyseg.serve.live import Live, Snapshot
from tinyseg.serve.logs import log
from tinyseg.serve.picture import Picture
from tinyseg.serve.viewers import Viewer, Viewers

BOUNDARY = "tinyseg-frame"


class MjpegStream:
    """A response that lasts as long as its viewer.

    A part's ``X-Frame`` header is the frame's number, by which the page finds the masks that belong to it. A viewer that
    is slow gets fewer pictures, never older ones; one that takes nothing for ten seconds is let go.
    """

    def __init__(self, live: Live, viewers: Viewers, jpeg_of: Callable[[Picture], bytes], every_change: bool) -> None:
        """jpeg_of: which encoding of a picture. every_change: also when only masks changed."""
        self._live, self._viewers = live, viewers
        self._jpeg_of, self._every_change = jpeg_of, every_change

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._viewers.stream() as viewer:
            headers = [(b"content-type", f"multipart/x-mixed-replace; boundary={BOUNDARY}".encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            async with anyio.create_task_group() as group:

                async def until_gone() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    group.cancel_scope.cancel()

                group.start_soon(until_gone)
                # ASGI has no way to hang up but to return before the response is complete, which the server then does.
                try:
                    await self._send_pictures(viewer, send)
                except TimeoutError:
                    log("viewer let go", path=scope["path"], reason=f"took nothing for {SEND_SECONDS:g} s")
                except OSError:
                    pass  # gone
                group.cancel_scope.cancel()

    async def _send_pictures(self, viewer: Viewer, send: Send) -> None:
        """Until the live thread ends. Raises TimeoutError where the viewer takes nothing."""
        shown: Snapshot | None = None
        last = -1
        while self._live.running:
            newest = await viewer.next(KEEP_ALIVE_SECONDS)
            if newest is not None:
                shown = newest
                if newest.frame == last and not self._every_change:
                    continue
            if shown is None or not self._live.running:
                continue
            last = shown.frame
            body = await run_in_threadpool(self._jpeg_of, shown.picture)
            with anyio.fail_after(SEND_SECONDS):
                await send(self._part(shown, body))
        with anyio.fail_after(SEND_SECONDS):
            await send({"type": "http.response.body", "body": b""})

    @staticmethod
    def _part(snapshot: Snapshot, body: bytes) -> dict[str, object]:
        head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\nX-Frame: {snapshot.frame}\r\n\r\n"
        return {"type": "http.response.body", "body": head.encode() + body + b"\r\n", "more_body": True}
