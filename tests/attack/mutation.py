"""What attacks are made of: values that break careless readers, and ways to spoil JSON and bytes."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from hypothesis import strategies as st

# Values that have broken readers before: wrong types, borders of integers and floats, paths, names, deep nesting.
NASTY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, -5, 2**31, 2**63, 10**20, 10**400, 0.5, -0.0, 1e308, float("inf"), float("-inf"),
    float("nan"), "", "0", "²", "\ud800", "\x1b[2J", "a\0b", "x" * 5000, "../../evil", "/etc/passwd", "C:\\evil", "..",
    ".", "model.json", ".tinyseg", "con", "a/b", "encoder.onnx", "decoder.onnx", "height", "fp32", "int8", "auto", [], [[]],
    {}, {"": {}}, [None], [0], ["rows4"], [1, 2, 3], [2**40], {"file": "x"}, {"graphs": {}},
)  # fmt: skip


# A value to spoil something by: hypothesis draws a seed, and plain code does the rest, a hundred times as fast as drawing
# every step.
seeds = st.integers(0, 2**64 - 1).map(random.Random)


def nested(depth: int) -> Any:
    value: Any = 0
    for i in range(depth):
        value = [value] if i % 2 else {"a": value}
    return value


def nasty(draw: random.Random) -> Any:
    """Any JSON value, likely one that breaks something."""
    kind = draw.randrange(10)
    if kind == 0:
        return nested(draw.choice((5, 30, 40, 200)))
    if kind == 1:
        return draw.randint(-(2**70), 2**70)
    if kind == 2:
        return draw.uniform(-1e6, 1e6)
    if kind == 3:
        return "".join(chr(draw.randrange(0x3000)) for _ in range(draw.randrange(12)))
    return copy.deepcopy(draw.choice(NASTY))


def spots(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside a JSON value."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        found += [(holder, key) for key in keys]
        waiting += [holder[key] for key in keys]
    return found


def spoiled_json(draw: random.Random, original: str) -> Any:
    """A JSON text's value with one to three parts replaced, removed, renamed, wrapped or taken from elsewhere in it."""
    value = json.loads(original)
    if draw.randrange(50) == 0:
        return nasty(draw)
    for _ in range(draw.randint(1, 3)):
        places = spots(value)
        if not places:
            break
        holder, key = draw.choice(places)
        how = draw.choice(("replace", "replace", "remove", "rename", "wrap", "other"))
        if how == "remove":
            del holder[key]
        elif how == "rename" and isinstance(holder, dict):
            holder[draw.choice(("", "evil", "../x", "\ud800", "encoder", "int8", "x" * 300))] = holder.pop(key)
        elif how == "wrap":
            holder[key] = [holder[key]]
        elif how == "other":
            other, there = draw.choice(places)
            holder[key] = copy.deepcopy(other[there])
        else:
            holder[key] = nasty(draw)
    return value


def spoiled_bytes(draw: random.Random, original: bytes) -> bytes:
    """The bytes with some flipped, cut out, doubled or inserted, or cut short."""
    data = bytearray(original)
    for _ in range(draw.randint(1, 4)):
        at = draw.randint(0, len(data))
        if draw.randrange(3) == 0:  # a zip's directory is at its end
            at = max(0, len(data) - draw.randrange(1200))
        how = draw.choice(("flip", "flip", "word", "cut", "insert", "double", "end"))
        if how == "flip" and at < len(data):
            data[at] ^= draw.randint(1, 255)
        elif how == "word":
            data[at : at + 4] = draw.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\1\0\0\0"))
        elif how == "cut":
            del data[at : at + draw.randint(1, 64)]
        elif how == "insert":
            data[at:at] = draw.randbytes(draw.randrange(64))
        elif how == "double":
            data[at:at] = data[at : at + draw.randint(1, 64)]
        elif how == "end":
            del data[at:]
    return bytes(data)


def dumped(value: Any) -> bytes:
    """JSON as other programs would write it, with NaN and Infinity and halves of surrogate pairs."""
    return json.dumps(value).encode("utf-8", "surrogatepass")
