"""The websocket: states with masks go out, actions come in."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect

from tinyseg.errors import InputError, TinysegError
from tinyseg.serve.actions import do
from tinyseg.serve.buckets import Buckets
from tinyseg.serve.limits import MESSAGE_BYTES, SEND_SECONDS
from tinyseg.serve.live import Live, Snapshot, Unavailable
from tinyseg.serve.schemas import MESSAGES, read_json
from tinyseg.serve.viewers import Viewer

GOING_AWAY, POLICY, TOO_BIG, TRY_LATER = 1001, 1008, 1009, 1013


class Channel:
    """One websocket.

    Out: ``{"type": "state", ...}`` whenever something changed; a slow reader gets fewer, each complete. In:
    ``{"action": NAME, "id": ANYTHING, ...fields}``; the answer is ``{"type": "done", "id", "result"}`` or
    ``{"type": "error", "id", "error"}``. Garbage is answered with an error, and the channel goes on.
    """

    def __init__(
        self, socket: WebSocket, live: Live, viewer: Viewer, state_text: Callable[[Snapshot], str], messages: Buckets
    ) -> None:
        self._socket, self._live, self._viewer = socket, live, viewer
        self._state_text = state_text
        self._messages = messages
        self._sending = anyio.Lock()

    async def run(self) -> None:
        """Until either side ends it."""
        await self._socket.accept()
        codes: list[int | None] = []
        async with anyio.create_task_group() as group:

            async def until_it_ends(work: Callable[[], Awaitable[int | None]]) -> None:
                codes.append(await work())
                group.cancel_scope.cancel()

            group.start_soon(until_it_ends, self._send_states)
            group.start_soon(until_it_ends, self._take_messages)
        if codes and codes[0] is not None:
            with anyio.move_on_after(SEND_SECONDS), suppress(RuntimeError, WebSocketDisconnect, OSError):
                await self._socket.close(codes[0])

    async def _send_states(self) -> int | None:
        """Returns the code to close with, None where nobody is there to tell."""
        while self._live.running:
            snapshot = await self._viewer.next(60.0)
            if snapshot is not None and not await self._send(self._state_text(snapshot)):
                return None
        return GOING_AWAY

    async def _take_messages(self) -> int | None:
        address = self._socket.client.host if self._socket.client is not None else ""
        while True:
            try:
                message = await self._socket.receive()
            except (WebSocketDisconnect, RuntimeError):
                return None
            if message["type"] != "websocket.receive":
                return None
            text = message.get("text") or message.get("bytes") or b""
            if len(text) > MESSAGE_BYTES:
                return TOO_BIG
            if not self._messages.take(address):
                return TRY_LATER
            if not await self._send_json(await self._answer(text)):
                return None

    async def _answer(self, text: str | bytes) -> dict[str, Any]:
        identity: Any = None
        try:
            value = read_json(text)
            if not isinstance(value, dict):
                raise InputError(f'a message is {{"action": NAME, ...}}, but this is a {type(value).__name__}')
            identity = value.pop("id", None)
            if not isinstance(identity, (str, int, float, type(None))):
                identity = None
                raise InputError("id must be a text or a number; it comes back with the answer")
            name = value.pop("action", None)
            if not isinstance(name, str) or name not in MESSAGES:
                raise InputError(f"action must be one of {', '.join(MESSAGES)}, but is {name!r:.80}")
            return {"type": "done", "id": identity, "result": await do(self._live, name, value)}
        except Unavailable as exc:
            return {"type": "error", "id": identity, "error": str(exc), "again": True}
        except TinysegError as exc:
            return {"type": "error", "id": identity, "error": str(exc)}

    async def _send_json(self, value: dict[str, Any]) -> bool:
        return await self._send(json.dumps(value))

    async def _send(self, text: str) -> bool:
        """Whether the viewer took it in time."""
        try:
            with anyio.fail_after(SEND_SECONDS):
                async with self._sending:
                    await self._socket.send_text(text)
        except (TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
            return False
        return True
