"""Running it: a socket, uvicorn, and a stop that loses nothing."""

from __future__ import annotations

import ipaddress
import itertools
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from tinyseg.errors import DataError, InputError
from tinyseg.predict.segmenter import Segmenter
from tinyseg.serve.app import create_app
from tinyseg.serve.limits import MESSAGE_BYTES, SOCKET_BYTES
from tinyseg.serve.live import Live, Tracker
from tinyseg.serve.logs import log
from tinyseg.serve.metrics import Metrics
from tinyseg.sources import Source
from tinyseg.system.service import Heartbeat

SHORTEST_TOKEN = 12
STOP_SECONDS = 5
BACKLOG = 128


@dataclass(frozen=True)
class Settings:
    """Where and for whom.

    host and port: where to listen; anything but loopback needs a token. names: host names by which browsers may ask,
    besides loopback and addresses. recordings: where they are kept; None: in a temporary folder, until the end.
    playing, repeat: see :class:`Live`. certificate and key: PEM files, for HTTPS. Raises InputError.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    names: tuple[str, ...] = ()
    recordings: Path | None = None
    playing: bool = False
    repeat: bool = False
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"--port must be from 0 to 65535, but is {self.port}")
        if self.token is not None and (
            len(self.token) < SHORTEST_TOKEN or not self.token.isascii() or " " in self.token
        ):
            raise InputError(
                f"--token needs at least {SHORTEST_TOKEN} ASCII characters without spaces; make one with: "
                "python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        if self.wide and self.token is None:
            raise InputError(
                f"--host {self.host} lets the whole network in, so it needs --token TOKEN (or TINYSEG_TOKEN in the environment)"
            )
        if (self.certificate is None) != (self.key is None):
            raise InputError("--certificate and --key go together")
        for path in (self.certificate, self.key):
            if path is not None and not path.is_file():
                raise DataError(f"there is no file {path}")
        if self.certificate is not None and self.key is not None:
            _check_certificate(self.certificate, self.key)

    @property
    def wide(self) -> bool:
        """Whether others than this machine can connect."""
        if self.host.lower() == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True


class _Encrypted(Exception):
    """A key has a password."""


def _check_certificate(certificate: Path, key: Path) -> None:
    """Read both as the server will, which does so only when it has told its url. Raises DataError."""

    def asked() -> str:
        raise _Encrypted  # whoever starts the server is asked once, then

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, asked)
    except _Encrypted:
        pass
    except OSError as exc:  # also ssl.SSLError
        raise DataError(
            f"--certificate {certificate} and --key {key} cannot be used ({exc.strerror or exc}); give a PEM certificate "
            "chain, and the PEM key that belongs to it"
        ) from exc


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InputError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise InputError(f"--host {host} is no address of this machine ({exc.strerror or exc})") from exc
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it: pictures that a slow viewer has not taken yet wait here and grow old.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise InputError(
            f"port {port} of {host} cannot be had ({exc.strerror or exc}); give another one with --port, or 0 for any"
        ) from exc
    return sock


class _Server(uvicorn.Server):
    """Tells the live thread at the first signal, so that streams end by themselves instead of being cut."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_stop()
        super().handle_exit(sig, frame)


def configure(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How uvicorn runs the application: bounded messages and queues, no headers of its own, no trust in proxies."""
    return uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, lifespan="off", ws_max_size=MESSAGE_BYTES,
        ws_max_queue=8, ws_ping_interval=20, ws_ping_timeout=20, timeout_keep_alive=15, proxy_headers=False,
        timeout_graceful_shutdown=STOP_SECONDS, backlog=BACKLOG, ssl_certfile=settings.certificate,
        ssl_keyfile=str(settings.key) if settings.key is not None else None,
    )  # fmt: skip


def serve(
    opener: Callable[[], Source],
    make_tracker: Callable[[], Tracker],
    segmenter: Segmenter,
    source_name: str,
    settings: Settings,
    on_ready: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT or SIGTERM. on_ready gets the url. Raises DataError or InputError before it begins."""
    sock = listen(settings.host, settings.port)
    metrics = Metrics()
    with sock, _recording_folder(settings.recordings) as folder:
        live = Live(
            opener, make_tracker, folder, keep=settings.recordings is not None, playing=settings.playing,
            repeat=settings.repeat, observe=metrics.observe,
        )  # fmt: skip
        app = create_app(
            live, segmenter, metrics, source=source_name, is_live=live.is_live, token=settings.token, names=settings.names,
            wide=settings.wide, secure=settings.certificate is not None,
        )  # fmt: skip
        config = configure(app, settings)
        heartbeat, beats = Heartbeat(), itertools.count(1)
        if heartbeat.pause is not None:
            config.timeout_notify = max(1, int(heartbeat.pause))

        async def alive() -> None:  # called from the loop that serves: one that hangs is silent
            if live.well:
                heartbeat.progress(next(beats))

        config.callback_notify = alive
        live.start()
        scheme = "https" if settings.certificate is not None else "http"
        host, port = sock.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        log("serving", host=host, port=port, source=source_name, token=settings.token is not None)
        on_ready(f"{scheme}://{shown}:{port}/")
        try:
            # uvicorn raises the signal again when it has stopped; here that is the end, not an error.
            with suppress(KeyboardInterrupt):
                _Server(config, live.end).run(sockets=[sock])
        finally:
            live.stop()
            log("stopped", frames=live.frames)


@contextmanager
def _recording_folder(kept: Path | None) -> Iterator[Path]:
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="tinyseg-serve-") as folder:
            yield Path(folder)
        return
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=kept):
            pass
    except OSError as exc:
        raise DataError(f"{kept}: recordings cannot be written there ({exc.strerror or exc})") from exc
    yield kept
