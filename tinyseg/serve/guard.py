"""What stands before every request: who may ask, from where, how often and how much.

Foreign ``Host`` headers are refused (DNS rebinding: a stranger's page whose name was made to point here), and so are
requests that another site's page makes a browser send (``Origin``, ``Sec-Fetch-Site``). No CORS header is ever sent.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinyseg.serve.buckets import Buckets
from tinyseg.serve.limits import (
    BODY_BYTES,
    OPEN_BODY_BYTES,
    REQUESTS_BURST,
    REQUESTS_PER_SECOND,
    WRONG_TOKENS_BURST,
    WRONG_TOKENS_PER_SECOND,
)  # fmt: skip

COOKIE = "tinyseg-session"
# What a browser needs to ask for the token.
OPEN_PATHS = frozenset({"/login", "/api/login", "/page/login.js", "/page/style.css", "/healthz"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

HEADERS = (
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
     b"object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)  # fmt: skip


class Refusal(Exception):
    """A request that is not let in, with the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def refusal_answer(error: Refusal) -> Response:
    """The response to a request that is not let in."""
    headers = {429: {"retry-after": "5"}, 401: {"www-authenticate": "Bearer"}}.get(error.status, {})
    if error.status == 413:
        headers = {"connection": "close"}  # what is left of the body is not read
    return JSONResponse({"error": error.message}, error.status, headers)


def host_of(text: str) -> str:
    """The name or address in a Host header, without port and brackets, in lower case; "" where it makes no sense."""
    try:
        return (urlsplit(f"//{text}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class Tokens:
    """The one token, and the cookie that stands for it in a browser; both are compared in constant time."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        # A new key at every start: cookies of an earlier run are worth nothing.
        self._cookie = hmac.new(secrets.token_bytes(32), (token or "").encode(), hashlib.sha256).hexdigest()

    @property
    def needed(self) -> bool:
        return self._token is not None

    @property
    def cookie(self) -> str:
        return self._cookie

    def right(self, token: str) -> bool:
        return self._token is not None and hmac.compare_digest(token.encode("utf-8", "replace"), self._token.encode())

    def right_cookie(self, value: str) -> bool:
        return hmac.compare_digest(value.encode("utf-8", "replace"), self._cookie.encode())


class Guard:
    """The outermost ASGI application.

    names: further host names that are ours, besides loopback and, when ``wide``, every address written in numbers: DNS
    rebinding needs a name.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens, names: Iterable[str] = (), wide: bool = False) -> None:
        self._app, self._tokens, self._wide = app, tokens, wide
        self._names = LOOPBACK_NAMES | {name.lower() for name in names}
        self._requests = Buckets(REQUESTS_BURST, REQUESTS_PER_SECOND)
        self.wrong_tokens = Buckets(WRONG_TOKENS_BURST, WRONG_TOKENS_PER_SECOND)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            try:
                self._check(scope)
            except Refusal:
                await send({"type": "websocket.close", "code": 1008})  # before accept: HTTP 403
                return
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                there = {name for name, _ in message.get("headers", ())}
                own = [row for row in HEADERS if row[0] not in there]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, self._bounded(receive, _most_bytes(scope)), send_with_headers)
        except Refusal as exc:
            if started:
                raise
            if exc.status == 401 and scope["path"] == "/":
                await Response(status_code=303, headers={"location": "/login"})(scope, receive, send_with_headers)
                return
            await refusal_answer(exc)(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        """Raises Refusal."""
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            if key == "host" and key in headers:
                raise Refusal(400, "a request has one Host header")
            headers[key] = value.decode("latin-1")
        host = headers.get("host", "")
        if not self._ours(host_of(host)):
            raise Refusal(
                421, f"this server is not {host!r:.100}; open it by its address, or start it with --allow-host NAME"
            )
        self._check_origin(scope, headers, host)
        client = scope.get("client")
        address = client[0] if client else ""
        if not self._requests.take(address):
            raise Refusal(429, "too many requests; wait a few seconds")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length[:20]) > _most_bytes(scope):
            raise _too_large(_most_bytes(scope))
        if self._tokens.needed and scope["path"] not in OPEN_PATHS:
            self._check_token(headers, address)

    def _ours(self, host: str) -> bool:
        if host in self._names:
            return True
        if not self._wide:
            return False
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def _check_origin(self, scope: Scope, headers: dict[str, str], host: str) -> None:
        origin = headers.get("origin")
        # Programs that are no browser send none.
        same = origin is None or (urlsplit_or_empty(origin) == host.lower() and origin != "null")
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if changes and not same:
            raise Refusal(403, "pages of other sites may not use this server")
        site = headers.get("sec-fetch-site", "none")
        if site not in ("same-origin", "none") and (changes or headers.get("sec-fetch-mode") != "navigate"):
            raise Refusal(403, "pages of other sites may not use this server")

    def _check_token(self, headers: dict[str, str], address: str) -> None:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            if self.wrong_tokens.level(address) < 1:
                raise Refusal(429, "too many wrong tokens; wait a minute")
            if self._tokens.right(token.strip()):
                return
            self.wrong_tokens.take(address)
            raise Refusal(401, "the token is wrong")
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        if cookie is None or not self._tokens.right_cookie(cookie.value):
            raise Refusal(401, "this server wants its token: Authorization: Bearer TOKEN, or open / in a browser")

    @staticmethod
    def _bounded(receive: Receive, most: int) -> Receive:
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise _too_large(most)
            return message

        return bounded


def _most_bytes(scope: Scope) -> int:
    """How much a request may carry: little where nobody has to show a token, for it is held while the rest is waited for."""
    return OPEN_BODY_BYTES if scope["path"] in OPEN_PATHS else BODY_BYTES


def _too_large(most: int) -> Refusal:
    size = f"{most >> 20} MiB" if most >= 1 << 20 else f"{most >> 10} KiB"
    return Refusal(413, f"a request may have {size} at most")


def urlsplit_or_empty(origin: str) -> str:
    """The host and port of an Origin header, in lower case."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
