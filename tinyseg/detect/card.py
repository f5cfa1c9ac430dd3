"""``detector.json``: what a detector's graph takes and gives, checked when it is opened.

An exported Grounding DINO brings its own. For any other ONNX detector write one beside the graph (docs/words.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tinyseg.arguments import check_path, clipped, path_kind
from tinyseg.detect.boxes import require_known
from tinyseg.errors import DataError, ModelError, PromptError
from tinyseg.files import read_regular

FORMAT = 1
CARD = "detector.json"
KINDS = ("grounding-dino", "boxes", "yolo")
MOST_CARD_BYTES, MOST_GRAPH_BYTES, MOST_TOKENIZER_BYTES = 4 << 20, 2 << 30, 64 << 20
MOST_SIDE = 4096
MOST_LABELS = 100_000


@dataclass(frozen=True)
class Card:
    """A detector's description. See docs/words.md for the fields."""

    folder: Path
    kind: str
    graph: bytes
    sha256: str
    input: str
    width: int
    height: int
    fit: str  # "stretch" or "letterbox"
    color: str  # "rgb" or "bgr"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad: float  # of the letterbox, in the picture's 0 to 255
    outputs: tuple[str, ...]
    boxes: str
    scores: str
    classes: str | None
    box_format: str  # "xyxy" or "cxcywh"
    unit: str  # "pixels" of the input, or "share" of it
    score_kind: str  # "probabilities" or "logits"
    labels: tuple[str, ...]
    threshold: float
    nms: float | None  # IoU from which two boxes of a label are one
    text: Mapping[str, Any] | None


def open_card(place: str | Path) -> Card:
    """Read a detector.json, or that of a folder, and its graph. Raises DataError or ModelError."""
    path = check_path("a detector", place)
    kind = path_kind(path)
    if kind is None:
        raise DataError(f"there is no detector at {clipped(path)}; give a folder with {CARD}, or the file itself")
    if kind == "folder":
        path = path / CARD
    try:
        read = json.loads(read_regular(path, MOST_CARD_BYTES))
    except OSError as exc:
        raise DataError(f"{clipped(path)} cannot be read: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"{clipped(path)} is not JSON ({exc!s:.100})") from exc
    try:
        return _card(path, read)
    except DataError:
        raise  # of a file that the card names; it is a ValueError too
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        what = f"lacks {exc}" if isinstance(exc, KeyError) else f"misstates a field ({exc!s:.200})"
        raise ModelError(f"{clipped(path)} {what}; docs/words.md lists the fields") from exc


def _card(path: Path, read: Any) -> Card:
    if not isinstance(read, dict) or read.get("format") != FORMAT:
        raise ValueError(f"format must be {FORMAT}")
    kind = _one_of(read, "kind", KINDS)
    graph = member(path.parent, read["file"], MOST_GRAPH_BYTES)
    digest = hashlib.sha256(graph).hexdigest()
    if read.get("sha256", digest) != digest:
        raise ModelError(f"{clipped(path)}: {read['file']} is damaged (its sha256 is not the stated one); get it again")
    image = read["input"]
    yolo = kind == "yolo"
    outputs = tuple(_name(n) for n in _list("outputs", read["outputs"]))
    if not outputs:
        raise ValueError("outputs must list the names of the graph's outputs")
    boxes = _name(read.get("boxes", outputs[0]))
    scores = boxes if yolo else _name(read["scores"])
    classes = None if read.get("classes") is None else _name(read["classes"])
    for name in {boxes, scores, classes} - {None}:
        if name not in outputs:
            raise ValueError(f"{name!r} is not among outputs")
    labels = tuple(str(label) for label in _list("labels", read.get("labels", [])))
    if len(labels) > MOST_LABELS or (kind != "grounding-dino" and not labels):
        raise ValueError("labels must list the names of the classes")
    text = read.get("text")
    if (kind == "grounding-dino") != isinstance(text, dict):
        raise ValueError("text belongs to kind grounding-dino")
    nms = read.get("nms", 0.7 if yolo else None)
    return Card(
        path.parent, kind, graph, digest, _name(image["name"]), _side(image["width"]), _side(image["height"]),
        _one_of(image, "fit", ("stretch", "letterbox"), "letterbox" if yolo else "stretch"),
        _one_of(image, "color", ("rgb", "bgr"), "rgb"), _triple(image.get("mean", [0, 0, 0])),
        _triple(image.get("std", [255, 255, 255]), positive=True), float(image.get("pad", 114)), outputs, boxes, scores,
        classes, _one_of(read, "box_format", ("xyxy", "cxcywh"), "cxcywh" if yolo else None),
        _one_of(read, "unit", ("pixels", "share"), "pixels" if yolo else None),
        _one_of(read, "score_kind", ("probabilities", "logits"), "probabilities"), labels,
        _share(read.get("threshold", 0.25)), None if nms is None else _share(nms), text,
    )  # fmt: skip


def require_words(card: Card, words: Sequence[str]) -> None:
    """Raises PromptError for words that a detector cannot look for, and where it cannot do without."""
    if card.kind != "grounding-dino":
        require_known(words, card.labels)
    elif not words:
        raise PromptError('Grounding DINO looks for words; give some, as in --text "dog. red cup"')


def fingerprint(card: Card) -> str:
    """sha256 of all that decides a detector's answers: its graph, its description, its tokenizer. Raises what reading does."""
    stated = {f.name: getattr(card, f.name) for f in fields(card) if f.name not in ("folder", "graph")}
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    if card.text is not None:
        digest.update(read_tokenizer(card))
    return digest.hexdigest()


def read_tokenizer(card: Card) -> bytes:
    """The tokenizer.json of a detector that takes any words. Raises DataError or ModelError."""
    try:
        return member(card.folder, (card.text or {})["tokenizer"], MOST_TOKENIZER_BYTES)
    except DataError:
        raise  # says which file is missing; it is a ValueError too
    except (KeyError, ValueError) as exc:
        raise misstated_text(card, exc) from exc


def misstated_text(card: Card, exc: Exception) -> ModelError:
    """The error of a text part that is not as export-detector writes it."""
    return ModelError(f"{clipped(card.folder)}: {CARD} misstates its text part ({exc!s:.200}); export it again")


def member(folder: Path, name: Any, most_bytes: int) -> bytes:
    """A file of a detector's folder, by its plain name. Raises ValueError or DataError."""
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ValueError(f"{name!r:.60} must be the plain name of a file in the same folder")
    try:
        return read_regular(folder / name, most_bytes)
    except OSError as exc:
        raise DataError(
            f"{clipped(folder / name)}, which {CARD} names, cannot be read: {exc.strerror or exc}; put the file itself there, or "
            f"mend the name in {CARD}"
        ) from exc


def _list(field: str, value: Any) -> list[Any]:
    """What is a list in JSON: a text would be taken for its letters, an object for its keys."""
    if not isinstance(value, list):
        raise ValueError(f"{field} must be a list of names, but is {value!r:.60}")
    return value


def _one_of(row: Mapping[str, Any], field: str, choices: tuple[str, ...], default: str | None = None) -> str:
    value = row.get(field, default)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{field} must be one of {', '.join(choices)}, but is {value!r:.60}")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r:.60} is no name of an input or output")
    return value


def _side(value: Any) -> int:
    if type(value) is not int or not 32 <= value <= MOST_SIDE:
        raise ValueError(f"width and height must be whole numbers from 32 to {MOST_SIDE}, but one is {value!r:.60}")
    return value


def _triple(values: Any, positive: bool = False) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    if not all(abs(v) < 1e4 for v in (a, b, c)) or (positive and min(a, b, c) <= 0):
        raise ValueError(f"mean and std must be three numbers (std positive), but are {values!r:.60}")
    return a, b, c


def _share(value: Any) -> float:
    if isinstance(value, bool) or not 0 <= float(value) <= 1:
        raise ValueError(f"threshold and nms must lie in [0, 1], but one is {value!r:.60}")
    return float(value)
