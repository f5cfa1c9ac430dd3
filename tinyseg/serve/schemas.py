"""JSON schemas of what viewers send and get: the description is made of them, and every request is checked by them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jsonschema

from tinyseg.errors import InputError
from tinyseg.serve.limits import COORDINATE, NAME_LETTERS, OBJECTS, POINTS, UPLOAD_PROMPTS

Schema = dict[str, Any]

NUMBER: Schema = {"type": "number", "minimum": -COORDINATE, "maximum": COORDINATE}
IDENTITY: Schema = {"type": "integer", "minimum": 1, "maximum": 2**53 - 1}
FRAME: Schema = {**IDENTITY, "description": "the picture that was pointed at; by default the newest"}
POINT_LIST: Schema = {
    "type": "array", "minItems": 1, "maxItems": POINTS, "description": "x, y in pixels; (0, 0) is the first pixel's centre",
    "items": {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2},
}  # fmt: skip
LABELS: Schema = {
    "type": "array", "minItems": 1, "maxItems": POINTS, "items": {"type": "integer", "enum": [0, 1]},
    "description": "for every point: 1 on the object, 0 off it",
}  # fmt: skip
BOX: Schema = {
    "type": "array", "items": NUMBER, "minItems": 4, "maxItems": 4, "description": "x0, y0, x1, y1 in pixels, ends exclusive",
}  # fmt: skip
NAME: Schema = {"type": "string", "minLength": 1, "maxLength": NAME_LETTERS}
COLOR: Schema = {"type": "string", "pattern": "^#[0-9a-f]{6}$", "minLength": 7, "maxLength": 7}
PROMPT: dict[str, Schema] = {"points": POINT_LIST, "labels": LABELS, "box": BOX}


def record(
    properties: Mapping[str, Schema], required: tuple[str, ...] = (), more: Mapping[str, Any] | None = None
) -> Schema:
    """An object of these properties and no others; more: further keywords of its schema."""
    return {
        "type": "object", "properties": dict(properties), "required": list(required), "additionalProperties": False, **(more or {})
    }  # fmt: skip


# Points go with labels, and something must be there.
PROMPTED: dict[str, Any] = {
    "dependentRequired": {"points": ["labels"], "labels": ["points"]},
    "anyOf": [{"required": ["points"]}, {"required": ["box"]}],
}

ADD = record({**PROMPT, "frame": FRAME, "name": NAME, "color": COLOR}, more=PROMPTED)
CORRECT = record({**PROMPT, "frame": FRAME}, more=PROMPTED)
EDIT = record({"name": NAME, "color": COLOR}, more={"minProperties": 1})
CONTROL = record({"do": {"type": "string", "enum": ["play", "pause", "step"]}}, ("do",))
LOGIN = record({"token": {"type": "string", "maxLength": 1000}}, ("token",))
SEGMENT = record(
    {
        "image": {
            "type": "string",
            "contentEncoding": "base64",
            "minLength": 1,
            "description": "a JPEG or PNG file, base64",
        },
        "prompts": {"type": "array", "minItems": 1, "maxItems": UPLOAD_PROMPTS, "items": record(PROMPT, more=PROMPTED)},
    },
    ("image", "prompts"),
)

OBJECT = record(
    {
        "id": IDENTITY, "name": NAME, "color": COLOR, "visible": {"type": "boolean"},
        "score": {"type": "number"}, "box": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
        "area": {"type": "integer"},
        "counts": {"type": "string", "description": "COCO's compressed RLE of the mask; its size is the frame's"},
    },
    ("id", "name", "color", "visible", "score", "box", "area", "counts"),
)  # fmt: skip
RECORDING = record(
    {
        "number": IDENTITY, "frames": {"type": "integer"}, "lost": {"type": "integer"}, "running": {"type": "boolean"},
        "message": {"type": "string"},
    },
    ("number", "frames", "lost", "running", "message"),
)  # fmt: skip
STATUS: Schema = {"type": "string", "enum": ["waiting", "playing", "paused", "ended", "failed"]}
STATE = record(
    {
        "type": {"type": "string", "enum": ["state"]}, "number": {"type": "integer"}, "frame": {"type": "integer"},
        "width": {"type": "integer"}, "height": {"type": "integer"}, "source": {"type": "string"}, "live": {"type": "boolean"},
        "status": STATUS, "message": {"type": "string"},
        "objects": {"type": "array", "items": {"$ref": "#/components/schemas/Object"}, "maxItems": OBJECTS},
        "recording": {"anyOf": [{"$ref": "#/components/schemas/Recording"}, {"type": "null"}]},
        "figures": record(
            {
                "fps": {"type": "number"}, "latency_ms": {"type": "number"},
                "stages": {"type": "object", "additionalProperties": {"type": "number"}}, "dropped": {"type": "integer"},
                "viewers": {"type": "integer"},
            }
        ),
    },
    ("type", "number", "frame", "width", "height", "status", "objects", "figures"),
)  # fmt: skip
ERROR = record({"error": {"type": "string", "description": "what was wrong and what to do"}}, ("error",))

# A websocket message: an action by its name, with the fields of the same request over HTTP.
MESSAGES: dict[str, Schema] = {
    "add": ADD,
    "correct": record({**PROMPT, "frame": FRAME, "object": IDENTITY}, ("object",), more=PROMPTED),
    "edit": record({"object": IDENTITY, "name": NAME, "color": COLOR}, ("object",)),
    "remove": record({"object": IDENTITY}, ("object",)),
    "clear": record({}),
    "play": record({}),
    "pause": record({}),
    "step": record({}),
    "record": record({}),
    "stop_recording": record({}),
}

_VALIDATORS: dict[int, jsonschema.Draft202012Validator] = {}


def read_json(data: bytes | str) -> Any:
    """JSON without NaN and infinities. Raises InputError."""
    try:
        return json.loads(data, parse_constant=_refused)
    except (ValueError, RecursionError) as exc:
        raise InputError(f"the request is not JSON: {type(exc).__name__}: {exc!s:.200}") from exc


def _refused(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def check(value: Any, schema: Schema) -> None:
    """Raises InputError, naming the first thing that does not fit."""
    validator = _VALIDATORS.get(id(schema))
    if validator is None:
        validator = _VALIDATORS[id(schema)] = jsonschema.Draft202012Validator(schema)
    error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    if error is not None and "anyOf" in schema and isinstance(value, dict) and not {"points", "box"} & set(value):
        raise InputError("nothing was pointed at: points with labels, a box, or both are required")
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the request"
        raise InputError(f"{place}: {error.message:.300}")
