"""The ASGI application: routes, errors, logs and the guard before them."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from tinyseg.errors import InputError, TinysegError
from tinyseg.predict.segmenter import Segmenter
from tinyseg.serve.api import Api
from tinyseg.serve.buckets import Buckets
from tinyseg.serve.channel import TRY_LATER, Channel
from tinyseg.serve.guard import Guard, Refusal, Tokens, refusal_answer
from tinyseg.serve.limits import MESSAGES_BURST, MESSAGES_PER_SECOND
from tinyseg.serve.live import Live, NotThere, Snapshot, Unavailable
from tinyseg.serve.logs import log
from tinyseg.serve.metrics import CONTENT_TYPE, Metrics
from tinyseg.serve.picture import Picture
from tinyseg.serve.state import StateText, state
from tinyseg.serve.streams import MjpegStream
from tinyseg.serve.viewers import Viewers

PAGE = Path(__file__).parent / "page"
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

Handler = Callable[[Request], Awaitable[Response]]


def create_app(
    live: Live,
    segmenter: Segmenter,
    metrics: Metrics,
    *,
    source: str,
    is_live: bool,
    token: str | None = None,
    names: Iterable[str] = (),
    wide: bool = False,
    secure: bool = False,
) -> ASGIApp:
    """Everything that the server answers.

    source: what viewers are told of where frames come from. token, names and wide: see :class:`Guard`. secure: whether
    cookies go over HTTPS only. The live thread is started and stopped by the caller.
    """
    viewers = Viewers(live)
    metrics.watch(live, viewers)
    tokens = Tokens(token)
    text = StateText(source, is_live)
    messages = Buckets(MESSAGES_BURST, MESSAGES_PER_SECOND)

    def state_of(snapshot: Snapshot) -> dict[str, Any]:
        return state(snapshot, source, is_live, viewers.channels)

    async def channel(socket: WebSocket) -> None:
        try:
            with viewers.channel() as viewer:
                log("viewer joined", viewers=viewers.channels)
                await Channel(socket, live, viewer, lambda s: text(s, viewers.channels), messages).run()
        except Unavailable:
            await socket.close(TRY_LATER)
        log("viewer left", viewers=viewers.channels)

    async def metrics_text(request: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    api = Api(live, segmenter, state_of, tokens, secure)
    routes: list[BaseRoute] = [
        Route("/api/state", api.state, methods=["GET"]),
        Route("/api/objects", _by_method({"POST": api.add, "DELETE": api.clear}), methods=["POST", "DELETE"]),
        Route(
            "/api/objects/{object}", _by_method({"PATCH": api.edit, "DELETE": api.remove}), methods=["PATCH", "DELETE"]
        ),
        Route("/api/objects/{object}/prompts", api.correct, methods=["POST"]),
        Route("/api/control", api.control, methods=["POST"]),
        Route("/api/recordings", _by_method({"GET": api.recordings, "POST": api.record}), methods=["GET", "POST"]),
        Route("/api/recordings/stop", api.stop_recording, methods=["POST"]),
        Route("/api/recordings/{number}/video.mp4", api.recorded_video, methods=["GET"]),
        Route("/api/recordings/{number}/coco.json", api.recorded_masks, methods=["GET"]),
        Route("/api/frame.jpg", api.frame, methods=["GET"]),
        Route("/api/picture.png", api.picture, methods=["GET"]),
        Route("/api/masks.json", api.masks, methods=["GET"]),
        Route("/api/segment", api.segment, methods=["POST"]),
        Route("/api/login", api.login, methods=["POST"]),
        Route("/api/stream.mjpg", MjpegStream(live, viewers, Picture.jpeg, every_change=False), methods=["GET"]),
        Route("/api/masked.mjpg", MjpegStream(live, viewers, Picture.masked_jpeg, every_change=True), methods=["GET"]),
        Route("/healthz", api.health, methods=["GET"]),
        Route("/metrics", metrics_text, methods=["GET"]),
        Route("/openapi.json", api.openapi, methods=["GET"]),
        WebSocketRoute("/api/channel", channel),
        *page_routes(),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={TinysegError: _tinyseg_error, Refusal: _refused, HTTPException: _http_error},
    )
    guard = Guard(Logged(app, metrics, routes), tokens, names, wide)
    api.guard = guard
    return guard


def page_routes() -> list[BaseRoute]:
    """The page's files, read once: a request chooses among them by its whole path, never by a file name."""
    routes: list[BaseRoute] = []
    places = {"index.html": "/", "login.html": "/login"}
    for path in sorted(PAGE.iterdir()):
        kind = MEDIA_TYPES.get(path.suffix)
        if kind is not None:
            routes.append(
                Route(places.get(path.name, f"/page/{path.name}"), _constant(path.read_bytes(), kind), methods=["GET"])
            )
    return routes


def _constant(content: bytes, media_type: str) -> Handler:
    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


def _by_method(handlers: dict[str, Handler]) -> Handler:
    async def answer(request: Request) -> Response:
        # A HEAD request is a GET whose body is not sent.
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return answer


def status_of(error: TinysegError) -> int:
    """Unavailable 503, NotThere 404, other bad input 422, what is not the caller's fault 500."""
    if isinstance(error, Unavailable):
        return 503
    if isinstance(error, NotThere):
        return 404
    return 422 if isinstance(error, InputError) else 500


async def _tinyseg_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TinysegError)
    headers = {"retry-after": "1"} if isinstance(error, Unavailable) else {}
    return JSONResponse({"error": str(error)}, status_of(error), headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refusal_answer(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


class Logged:
    """One log line and one count for each request; what fails unforeseen is a 500 without its traceback."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Iterable[BaseRoute]) -> None:
        self._app, self._metrics = app, metrics
        self._patterns: dict[object, str] = {r.endpoint: r.path for r in routes if isinstance(r, Route)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_see)
        except TinysegError as exc:
            status = status or status_of(exc)
            with suppress(RuntimeError):
                await JSONResponse({"error": str(exc)}, status)(scope, receive, send)
        except Exception:
            logging.getLogger("tinyseg.serve").exception(
                "request failed", extra={"fields": {"path": scope["path"][:200]}}
            )
            if not status:
                status = 500
                await JSONResponse({"error": "something went wrong here; the log tells what"}, 500)(
                    scope, receive, send
                )
        finally:
            pattern = self._patterns.get(scope["endpoint"], "other") if "endpoint" in scope else "other"
            self._metrics.request(scope["method"] if pattern != "other" else "other", pattern, status)
            spent = 1e3 * (time.perf_counter() - start)
            level = (
                logging.DEBUG if pattern.startswith("/page/") or pattern in ("/healthz", "/metrics") else logging.INFO
            )
            log("request", level, method=scope["method"], path=scope["path"][:200], status=status, ms=round(spent, 1))
