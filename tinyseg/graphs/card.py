"""``model.json``, read as what a stranger wrote: types, ranges, finite numbers, depth and sizes are checked at once.

What passes here can be used, printed and written again without a further look.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from tinyseg.engines import ENGINES
from tinyseg.engines.base import PRECISIONS, SymbolicShape
from tinyseg.errors import TinysegError
from tinyseg.geometry import INPUT_MULTIPLE, MEAN, STD
from tinyseg.graphs.package import CARD, is_plain_name
from tinyseg.graphs.roles import ROLES, TRACK_DECODER

FORMAT = 1
MOST_DEPTH = 32
MOST_VALUES = 200_000
LONGEST_NAME = 200
LARGEST_SIDE = 4096  # of the encoder's input, pixels: 16 million pixels are more than any model was made for
LARGEST_DIMENSION = 1 << 20
MOST_TENSORS = 64
MOST_RANK = 8
MOST_ENGINES = 10_000
SHA256 = re.compile(r"[0-9a-f]{64}")
CARRIED = tuple(p for p in PRECISIONS if p not in ("auto", "fp32"))

# What the runtime feeds and reads; an encoder's outputs are free, and the decoder's further inputs.
ENCODER_INPUTS: Mapping[str, SymbolicShape] = {"image": (1, 3, "height", "width")}
DECODER_PROMPTS: Mapping[str, SymbolicShape] = {
    "points": ("prompts", "points", 2), "labels": ("prompts", "points"), "mask": ("prompts", 1, "rows4", "columns4"),
    "has_mask": ("prompts",),
}  # fmt: skip
DECODER_OUTPUTS: Mapping[str, SymbolicShape] = {
    "logits": ("prompts", 4, "rows4", "columns4"), "iou": ("prompts", 4),
}  # fmt: skip

# How a frame becomes the encoder's image; a model that was made for another way would answer wrongly without a word.
INPUT: Mapping[str, Any] = {
    "color": "rgb", "mean": MEAN, "std": STD, "multiple": INPUT_MULTIPLE, "padding": "right, bottom"
}  # fmt: skip
TRACK_PROMPTS: Mapping[str, SymbolicShape] = {
    "points": ("prompts", "points", 2), "labels": ("prompts", "points"), "mask": ("prompts", 1, "rows4", "columns4"),
    "last": ("prompts", 1, "rows4", "columns4"), "memory": ("prompts", 4, "rows16", "columns16"),
}  # fmt: skip
TRACK_OUTPUTS: Mapping[str, SymbolicShape] = {
    "logits": ("prompts", 1, "rows4", "columns4"), "iou": ("prompts", 1),
}  # fmt: skip


class CardProblem(TinysegError):
    """What is wrong with a model.json; whoever knows the place turns it into a ModelError."""


def parse_card(data: bytes) -> dict[str, Any]:
    """The checked content of a model.json. Raises CardProblem."""
    try:
        card = json.loads(data.decode("utf-8"))
    except RecursionError as exc:
        raise CardProblem(f"{CARD} is nested deeper than {MOST_DEPTH}") from exc
    except ValueError as exc:  # also UnicodeDecodeError, and integers of thousands of digits
        raise CardProblem(f"{CARD} is not valid JSON ({exc})") from exc
    if not isinstance(card, dict) or type(card.get("format")) is not int or card["format"] != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise CardProblem(f"{CARD} has format {_shown(found)}, this version of tinyseg reads {FORMAT}")
    _check_values(card)
    text(card, "name", CARD)
    whole(card, "long_side", CARD, INPUT_MULTIPLE, LARGEST_SIDE)
    for key, value in mapping(card, "input", CARD).items() if "input" in card else ():
        if key in INPUT and value != INPUT[key]:
            raise CardProblem(
                f"input.{key} is {_shown(value)}, but this version of tinyseg feeds models with {INPUT[key]!r}"
            )
    zoom = mapping(card, "zoom", CARD)
    if whole(zoom, "side", "zoom", INPUT_MULTIPLE, LARGEST_SIDE) % INPUT_MULTIPLE:
        raise CardProblem(f"zoom.side must be a multiple of {INPUT_MULTIPLE}, but is {zoom['side']}")
    number(zoom, "factor", "zoom", 1.0, 100.0)
    number(zoom, "below", "zoom", 0.0, 1.0)
    _check_graphs(mapping(card, "graphs", CARD))
    _check_precisions(card)
    _check_measured(card)
    _check_accuracy(card)
    if card.get("compiled") is not None:
        _check_compiled(mapping(card, "compiled", CARD))
    return card


def _shown(value: object) -> str:
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:57]}..."


def _check_values(card: Any) -> None:
    """Depth, number, finiteness and printability of everything, without recursion."""
    waiting, count = [(card, 1)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > MOST_DEPTH or count > MOST_VALUES:
            raise CardProblem(f"{CARD} is nested deeper than {MOST_DEPTH}, or has more than {MOST_VALUES:,} values")
        if isinstance(value, dict):
            waiting += [(v, depth + 1) for pair in value.items() for v in pair]
        elif isinstance(value, list):
            waiting += [(v, depth + 1) for v in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise CardProblem(f"{CARD} holds {value}, which is no finite number")
        elif isinstance(value, int) and abs(value) >= 1 << 63:
            raise CardProblem(f"{CARD} holds a whole number of more than 63 bits")
        elif isinstance(value, str) and not _printable(value):
            raise CardProblem(f"{CARD} holds the text {_shown(value)}, which cannot be printed")


def _printable(value: str) -> bool:
    """No control characters, which a terminal would obey, and no halves of surrogate pairs."""
    return (value.isascii() and value.isprintable()) or all(
        c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") for c in value
    )  # fmt: skip


def _get(row: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise CardProblem(f"{where} lacks {key}")
    return row[key]


def mapping(row: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = _get(row, key, where)
    if not isinstance(value, dict):
        raise CardProblem(f"{where}.{key} must be an object, but is {_shown(value)}")
    return value


def listed(row: Mapping[str, Any], key: str, where: str, most: int) -> list[Any]:
    value = _get(row, key, where)
    if not isinstance(value, list) or len(value) > most:
        raise CardProblem(f"{where}.{key} must be a list of at most {most} values, but is {_shown(value)}")
    return value


def text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = _get(row, key, where)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME or "\n" in value:
        raise CardProblem(f"{where}.{key} must be a line of 1 to {LONGEST_NAME} characters, but is {_shown(value)}")
    return value


def whole(row: Mapping[str, Any], key: str, where: str, low: int, high: int) -> int:
    value = _get(row, key, where)
    if type(value) is not int or not low <= value <= high:
        raise CardProblem(f"{where}.{key} must be a whole number from {low} to {high}, but is {_shown(value)}")
    return value


def number(row: Mapping[str, Any], key: str, where: str, low: float, high: float) -> float:
    value = _get(row, key, where)
    if type(value) not in (int, float) or not low <= value <= high:
        raise CardProblem(f"{where}.{key} must be a number from {low:g} to {high:g}, but is {_shown(value)}")
    return float(value)


def shapes(rows: Any, where: str, dimensions: tuple[str, ...]) -> dict[str, SymbolicShape]:
    """The tensors of a graph: shapes of positive numbers and names of the role's dimensions. Raises CardProblem."""
    if not isinstance(rows, dict) or not 0 < len(rows) <= MOST_TENSORS:
        raise CardProblem(f"{where} must be an object of 1 to {MOST_TENSORS} shapes, but is {_shown(rows)}")
    found: dict[str, SymbolicShape] = {}
    for name, shape in rows.items():
        if not is_plain_name(name) or not isinstance(shape, list) or len(shape) > MOST_RANK:
            raise CardProblem(f"{where}.{_shown(name)} must be a list of at most {MOST_RANK} dimensions")
        for d in shape:
            known = isinstance(d, str) and d in dimensions
            if not (known or (type(d) is int and 0 < d <= LARGEST_DIMENSION)):
                raise CardProblem(
                    f"{where}.{name} has the dimension {_shown(d)}; known are {', '.join(dimensions)} and positive numbers"
                )
        found[name] = tuple(shape)
    return found


def _check_file(row: Mapping[str, Any], where: str, suffix: str) -> str:
    file = _get(row, "file", where)
    if not is_plain_name(file) or not file.endswith(suffix):
        raise CardProblem(
            f"{where}.file must be a plain file name (letters, digits, . _ -) that ends in {suffix}, but is {_shown(file)}"
        )
    checksum = _get(row, "sha256", where)
    if not isinstance(checksum, str) or not SHA256.fullmatch(checksum):
        raise CardProblem(f"{where}.sha256 must be 64 hexadecimal digits, but is {_shown(checksum)}")
    if row.get("bytes") is not None:
        whole(row, "bytes", where, 0, 1 << 40)
    return str(file)


def _check_graphs(graphs: Mapping[str, Any]) -> None:
    unknown = set(graphs) - set(ROLES)
    if unknown:
        raise CardProblem(f"it has graphs that this version of tinyseg does not know: {', '.join(sorted(unknown))}")
    missing = [role.name for role in ROLES.values() if role.required and role.name not in graphs]
    if missing:
        raise CardProblem(f"{CARD} names no {' and no '.join(sorted(missing))}")
    tensors = {}
    for name in graphs:
        row, where = mapping(graphs, name, "graphs"), f"graphs.{name}"
        _check_file(row, where, ".onnx")
        tensors[name] = tuple(
            shapes(_get(row, side, where), f"{where}.{side}", ROLES[name].dimensions) for side in ("inputs", "outputs")
        )
    _require_distinct(row["file"] for row in graphs.values())
    (taken, features), (asked, answered) = tensors["encoder"], tensors["decoder"]
    rules = [
        (taken, ENCODER_INPUTS, "graphs.encoder.inputs"),
        (asked, {**features, **DECODER_PROMPTS}, "graphs.decoder.inputs"),
        (answered, DECODER_OUTPUTS, "graphs.decoder.outputs"),
    ]
    if TRACK_DECODER in tensors:
        told, followed = tensors[TRACK_DECODER]
        rules += [
            (told, {**features, **TRACK_PROMPTS}, f"graphs.{TRACK_DECODER}.inputs"),
            (followed, TRACK_OUTPUTS, f"graphs.{TRACK_DECODER}.outputs"),
        ]
    for found, wanted, where in rules:
        if found != wanted:
            odd = next(n for n in {**wanted, **found} if found.get(n) != wanted.get(n))
            raise CardProblem(
                f"{where}: {odd} must be {wanted.get(odd, 'left out')}, but is {found.get(odd, 'missing')}"
            )


def _require_distinct(files: Iterator[str]) -> None:
    seen: set[str] = set()
    for file in files:
        if file.lower() in seen:  # file systems of Windows and macOS do not tell case apart
            raise CardProblem(f"{CARD} names the file {file} twice")
        seen.add(file.lower())


def _check_precisions(card: Mapping[str, Any]) -> None:
    if "precisions" not in card:
        return
    precisions = mapping(card, "precisions", CARD)
    for precision in precisions:
        if precision not in CARRIED:
            raise CardProblem(f"precisions.{_shown(precision)} is unknown; a model may carry {', '.join(CARRIED)}")
        part = mapping(precisions, precision, "precisions")
        graphs = mapping(part, "graphs", f"precisions.{precision}")
        if set(graphs) != set(card["graphs"]):
            raise CardProblem(f"precisions.{precision} must have the graphs {', '.join(card['graphs'])}")
        for name in graphs:
            row = mapping(graphs, name, f"precisions.{precision}")
            _check_file(row, f"precisions.{precision}.{name}", ".onnx")
            for side in ("inputs", "outputs"):
                if row.get(side, card["graphs"][name][side]) != card["graphs"][name][side]:
                    raise CardProblem(f"precisions.{precision}.{name}.{side} must be those of the fp32 graph")
    _require_distinct(
        r["file"] for rows in (card["graphs"], *(p["graphs"] for p in precisions.values())) for r in rows.values()
    )


def _check_measured(card: Mapping[str, Any]) -> None:
    if "measured" not in card:
        return
    measured = mapping(card, "measured", CARD)
    if "lost_points" in measured:
        lost = mapping(measured, "lost_points", "measured")
        for precision in lost:
            number(lost, precision, "measured.lost_points", -100.0, 100.0)
    if "speed" in measured:
        speed = mapping(measured, "speed", "measured")
        for engine in speed:
            row = mapping(speed, engine, "measured.speed")
            for precision in row:
                number(row, precision, f"measured.speed.{engine}", 0.0, 1e6)
    for i, row in enumerate(listed(measured, "rows", "measured", 1000) if "rows" in measured else ()):
        where = f"measured.rows[{i}]"
        if not isinstance(row, dict):
            raise CardProblem(f"{where} must be an object, but is {_shown(row)}")
        text(row, "engine", where)
        text(row, "precision", where)
        if row.get("lost_points") is not None:
            number(row, "lost_points", where, -100.0, 100.0)


def _check_accuracy(card: Mapping[str, Any]) -> None:
    if "licence" in card and not isinstance(card["licence"], str):
        raise CardProblem(f"licence must be a text, but is {_shown(card['licence'])}")
    if "accuracy" not in card:
        return
    accuracy = mapping(card, "accuracy", CARD)
    for i, row in enumerate(listed(accuracy, "by_set", "accuracy", 1000) if "by_set" in accuracy else ()):
        where = f"accuracy.by_set[{i}]"
        if not isinstance(row, dict):
            raise CardProblem(f"{where} must be an object, but is {_shown(row)}")
        text(row, "set", where)
        whole(row, "instances", where, 0, 1 << 40)
        for name in ("fill", "box", "click1", "click3"):
            number(row, name, where, 0.0, 1.0)


def _check_compiled(part: Mapping[str, Any]) -> None:
    where = "compiled"
    if text(part, "engine", where) not in ENGINES:
        raise CardProblem(f"compiled.engine must be one of {', '.join(ENGINES)}, but is {_shown(part['engine'])}")
    if text(part, "precision", where) not in PRECISIONS[1:]:
        raise CardProblem(f"compiled.precision must be one of {', '.join(PRECISIONS[1:])}")
    identity = mapping(part, "identity", where)
    for key in identity:
        if not isinstance(identity[key], str):
            raise CardProblem(f"compiled.identity.{key} must be a text, but is {_shown(identity[key])}")
    for i, row in enumerate(listed(part, "engines", where, MOST_ENGINES)):
        place = f"compiled.engines[{i}]"
        if not isinstance(row, dict):
            raise CardProblem(f"{place} must be an object, but is {_shown(row)}")
        _check_file(row, place, ".engine")
        if text(row, "graph", place) not in ROLES:
            raise CardProblem(f"{place}.graph must be one of {', '.join(ROLES)}, but is {_shown(row['graph'])}")
        dimensions = mapping(row, "dimensions", place)
        for name in dimensions:
            if name not in ROLES[row["graph"]].dimensions:
                raise CardProblem(f"{place}.dimensions has the unknown name {_shown(name)}")
            whole(dimensions, name, f"{place}.dimensions", 1, LARGEST_DIMENSION)
