"""The API's description (OpenAPI 3.1), served at ``/openapi.json``."""

from __future__ import annotations

from functools import cache
from typing import Any

from tinyseg.serve import schemas
from tinyseg.serve.schemas import Schema, record
from tinyseg.version import __version__

REFERENCES = {"Object": schemas.OBJECT, "Recording": schemas.RECORDING, "State": schemas.STATE, "Error": schemas.ERROR}
WEBSOCKET = """States arrive as JSON text whenever something changed: `{"type": "state", ...}` as from GET /api/state. Ask for
something with `{"action": NAME, "id": ANYTHING, ...}`; names are add, correct, edit, remove, clear, play, pause, step, record,
stop_recording, and their fields are those of the requests here, with `object` for an object's id. The answer is
`{"type": "done", "id", "result"}` or `{"type": "error", "id", "error"}`."""


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Schema, text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _binary(kind: str, text: str) -> dict[str, Any]:
    return {"description": text, "content": {kind: {"schema": {"type": "string", "format": "binary"}}}}


def _operation(name: str, text: str, good: dict[str, Any], bad: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    texts = {
        400: "not JSON, or not as described", 401: "the token is missing or wrong", 403: "another site's page asked",
        404: "no such object, recording or frame", 409: "not possible now", 413: "too large", 415: "not JSON",
        421: "a foreign Host header", 422: "well-formed, but it cannot be done", 429: "too many requests",
        503: "ask again in a moment",
    }  # fmt: skip
    everywhere = (401, 403, 421, 429)
    errors = {str(code): _json(_ref("Error"), texts[code]) for code in sorted({*bad, *everywhere})}
    return {"operationId": name, "summary": text, "responses": {**good, **errors}, **more}


def _body(schema: Schema) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


@cache
def description() -> dict[str, Any]:
    """The whole document."""
    number = {"name": "object", "in": "path", "required": True, "schema": schemas.IDENTITY}
    recording = {"name": "number", "in": "path", "required": True, "schema": schemas.IDENTITY}
    writes = (400, 413, 415, 422, 503)
    one = {"200": _json(_ref("Object"), "the object as it is now")}
    status = record({"status": schemas.STATUS}, ("status",))
    nothing = {"204": {"description": "done"}}
    mask = record(
        {
            "score": {"type": "number"}, "box": {"type": "array", "items": {"type": "integer"}}, "area": {"type": "integer"},
            "segmentation": record({"size": {"type": "array", "items": {"type": "integer"}}, "counts": {"type": "string"}}),
        }
    )  # fmt: skip
    answer = record(
        {"width": {"type": "integer"}, "height": {"type": "integer"}, "masks": {"type": "array", "items": mask}}
    )
    paths: dict[str, Any] = {
        "/api/state": {"get": _operation("state", "Everything at one moment", {"200": _json(_ref("State"), "the state")}, (503,))},
        "/api/objects": {
            "post": _operation(
                "add", "Follow a new object", {"201": _json(_ref("Object"), "the object")}, (*writes, 404),
                requestBody=_body(schemas.ADD),
            ),
            "delete": _operation("clear", "Follow nothing any longer", nothing, (503,)),
        },
        "/api/objects/{object}": {
            "patch": _operation(
                "edit", "Another name or colour", one, (*writes, 404), requestBody=_body(schemas.EDIT), parameters=[number]
            ),
            "delete": _operation("remove", "Follow it no longer", nothing, (404, 503), parameters=[number]),
        },
        "/api/objects/{object}/prompts": {
            "post": _operation(
                "correct", "Correct its mask", one, (*writes, 404), requestBody=_body(schemas.CORRECT), parameters=[number]
            )
        },
        "/api/control": {
            "post": _operation(
                "control", "Play, pause or step", {"200": _json(status, "the status now")}, writes,
                requestBody=_body(schemas.CONTROL),
            )
        },
        "/api/recordings": {
            "get": _operation(
                "recordings", "What was recorded",
                {"200": _json({"type": "array", "items": _ref("Recording")}, "oldest first")},
            ),
            "post": _operation("record", "Start a recording", {"201": _json(_ref("Recording"), "it runs")}, (422, 503)),
        },
        "/api/recordings/stop": {
            "post": _operation("stop_recording", "End it", {"200": _json(_ref("Recording"), "it ends")}, (422, 503))
        },
        "/api/recordings/{number}/video.mp4": {
            "get": _operation(
                "recorded_video", "The masked video", {"200": _binary("video/mp4", "MP4")}, (404, 503), parameters=[recording]
            )
        },
        "/api/recordings/{number}/coco.json": {
            "get": _operation(
                "recorded_masks", "Every frame's masks as COCO", {"200": _json({"type": "object"}, "COCO")}, (404, 503),
                parameters=[recording],
            )
        },
        "/api/frame.jpg": {"get": _operation("frame", "The newest picture", {"200": _binary("image/jpeg", "JPEG")}, (503,))},
        "/api/picture.png": {
            "get": _operation("picture", "The newest picture with its masks", {"200": _binary("image/png", "PNG")}, (503,))
        },
        "/api/masks.json": {
            "get": _operation("masks", "The newest masks as COCO", {"200": _json({"type": "object"}, "COCO")}, (503,))
        },
        "/api/segment": {
            "post": _operation(
                "segment", "Segment a picture of your own", {"200": _json(answer, "a mask for each prompt")}, writes,
                requestBody=_body(schemas.SEGMENT),
            )
        },
        "/healthz": {
            "get": _operation(
                "health", "Whether frames can be had", {"200": _json({"type": "object"}, "well"), "503": _json({"type": "object"}, "not")}
            )
        },
    }  # fmt: skip
    streams = {
        "/api/stream.mjpg": "Pictures for as long as you listen; a part's X-Frame header is the frame's number",
        "/api/masked.mjpg": "The same with masks drawn in, for players",
    }
    kind = "multipart/x-mixed-replace"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tinyseg serve", "version": __version__,
            "description": "A page over a stream. Streams that do not end: "
            + "; ".join(f"`GET {path}` ({kind}): {text}" for path, text in streams.items())
            + f". Websocket `/api/channel`: {WEBSOCKET}",
        },
        "paths": paths,
        "components": {
            "schemas": REFERENCES,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "where --token was given"}},
        },
        "security": [{}, {"token": []}],
    }  # fmt: skip
