"""HTTP handlers. Every one checks its input by the description's schemas and answers errors as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tinyseg.errors import InputError
from tinyseg.predict.segmenter import Segmenter
from tinyseg.serve.actions import do, prompt_of
from tinyseg.serve.coco import picture_document
from tinyseg.serve.guard import COOKIE, Guard, Refusal, Tokens
from tinyseg.serve.limits import UPLOADS_WAITING
from tinyseg.serve.live import Live, NotThere, Snapshot, Unavailable
from tinyseg.serve.openapi import description
from tinyseg.serve.picture import encode
from tinyseg.serve.schemas import ADD, CONTROL, CORRECT, EDIT, LOGIN, SEGMENT, Schema, check, read_json
from tinyseg.serve.uploads import read_picture

CHUNK_BYTES = 1 << 16
LARGEST_NUMBER = 2**53 - 1


async def body(request: Request, schema: Schema) -> dict[str, Any]:
    """The request's JSON, checked. Raises Refusal or InputError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, f"send JSON, with Content-Type: application/json; this is {kind!r:.80}")
    value = read_json(await request.body())
    check(value, schema)
    fields: dict[str, Any] = value
    return fields


def number_in(request: Request, name: str) -> int:
    """A number in the path. Raises NotThere."""
    text = request.path_params[name]
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 17 else 0
    if not 0 < number <= LARGEST_NUMBER:
        raise NotThere(f"{text!r:.40} is no number of an object or recording")
    return number


class Api:
    """The handlers of one live thread."""

    def __init__(
        self,
        live: Live,
        segmenter: Segmenter,
        state_of: Callable[[Snapshot], dict[str, Any]],
        tokens: Tokens,
        secure: bool,
    ) -> None:
        self._live, self._segmenter, self._state_of, self._tokens = live, segmenter, state_of, tokens
        self._secure = secure
        self._engine = asyncio.Semaphore(1)
        self._uploads = 0
        self.guard: Guard | None = None

    def _snapshot(self) -> Snapshot:
        snapshot = self._live.latest
        if snapshot is None:
            raise Unavailable("there is no picture yet; ask again in a moment")
        return snapshot

    async def state(self, request: Request) -> Response:
        return JSONResponse(self._state_of(self._snapshot()))

    async def add(self, request: Request) -> Response:
        return JSONResponse(await do(self._live, "add", await body(request, ADD)), 201)

    async def clear(self, request: Request) -> Response:
        await do(self._live, "clear", {})
        return Response(status_code=204)

    async def correct(self, request: Request) -> Response:
        fields = {**await body(request, CORRECT), "object": number_in(request, "object")}
        return JSONResponse(await do(self._live, "correct", fields))

    async def edit(self, request: Request) -> Response:
        fields = {**await body(request, EDIT), "object": number_in(request, "object")}
        return JSONResponse(await do(self._live, "edit", fields))

    async def remove(self, request: Request) -> Response:
        await do(self._live, "remove", {"object": number_in(request, "object")})
        return Response(status_code=204)

    async def control(self, request: Request) -> Response:
        fields = await body(request, CONTROL)
        return JSONResponse({"status": await do(self._live, fields["do"], {})})

    async def recordings(self, request: Request) -> Response:
        return JSONResponse([asdict(one.state) for one in self._live.recordings()])

    async def record(self, request: Request) -> Response:
        return JSONResponse(await do(self._live, "record", {}), 201)

    async def stop_recording(self, request: Request) -> Response:
        return JSONResponse(await do(self._live, "stop_recording", {}))

    async def recorded_video(self, request: Request) -> Response:
        recording = self._finished(request)
        return await _file(recording.video, "video/mp4")

    async def recorded_masks(self, request: Request) -> Response:
        recording = self._finished(request)
        return await _file(recording.masks, "application/json")

    def _finished(self, request: Request) -> Any:
        recording = self._live.recording(number_in(request, "number"))
        if recording.state.running:
            raise Unavailable("the recording is still running; stop it, then ask again in a moment")
        return recording

    async def frame(self, request: Request) -> Response:
        return Response(await run_in_threadpool(self._snapshot().picture.jpeg), media_type="image/jpeg")

    async def picture(self, request: Request) -> Response:
        snapshot = self._snapshot()
        data = await run_in_threadpool(lambda: encode(snapshot.picture.masked(), ".png"))
        return Response(data, media_type="image/png", headers=_named(f"tinyseg-{snapshot.frame:06d}.png"))

    async def masks(self, request: Request) -> Response:
        snapshot = self._snapshot()
        document = picture_document(snapshot.objects, snapshot.frame, snapshot.size)
        return JSONResponse(document, headers=_named(f"tinyseg-{snapshot.frame:06d}.coco.json"))

    async def segment(self, request: Request) -> Response:
        """A picture of the caller's own, segmented beside the stream; one at a time."""
        fields = await body(request, SEGMENT)
        prompts = [prompt_of(one) for one in fields["prompts"]]
        if self._uploads >= UPLOADS_WAITING:
            raise Unavailable(f"{UPLOADS_WAITING} pictures wait already; ask again in a moment")
        self._uploads += 1
        try:
            async with self._engine:
                return JSONResponse(await run_in_threadpool(self._segment, fields["image"], prompts))
        finally:
            self._uploads -= 1

    def _segment(self, image: str, prompts: Sequence[Any]) -> dict[str, Any]:
        pixels = read_picture(image)
        answers = self._segmenter.embed(pixels).predict_batch(list(prompts), zoom="auto")
        masks = [
            {
                "score": float(one.scores[0]), "box": one.boxes[0].tolist(), "area": int(one.areas[0]),
                "segmentation": one.to_coco()[0],
            }
            for one in answers
        ]  # fmt: skip
        return {"width": pixels.shape[1], "height": pixels.shape[0], "masks": masks}

    async def login(self, request: Request) -> Response:
        fields = await body(request, LOGIN)
        address = request.client.host if request.client is not None else ""
        assert self.guard is not None
        if not self._tokens.needed:
            raise InputError("this server needs no token")
        if self.guard.wrong_tokens.level(address) < 1:
            raise Refusal(429, "too many wrong tokens; wait a minute")
        if not self._tokens.right(fields["token"]):
            self.guard.wrong_tokens.take(address)
            raise Refusal(401, "the token is wrong")
        response = Response(status_code=204)
        response.set_cookie(
            COOKIE, self._tokens.cookie, httponly=True, samesite="strict", secure=self._secure, path="/"
        )
        return response

    async def health(self, request: Request) -> Response:
        snapshot = self._live.latest
        status = snapshot.status if snapshot is not None else "waiting"
        return JSONResponse({"status": status if self._live.running else "stopped"}, 200 if self._live.well else 503)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(description())


def _named(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}


async def _file(path: Path, media_type: str) -> Response:
    """A recording's file. Its path is the server's own; nothing of it comes from the request."""
    try:
        file = await anyio.open_file(path, "rb")
    except OSError as exc:
        raise NotThere("this recording has no file: it had no frame, or could not be written") from exc

    async def chunks() -> AsyncIterator[bytes]:
        async with file:
            while chunk := await file.read(CHUNK_BYTES):
                yield chunk

    headers = {**_named(path.name), "content-length": str(path.stat().st_size)}
    return StreamingResponse(chunks(), media_type=media_type, headers=headers)
