"""A model on disk: a folder or zip file with graphs and ``model.json``, checked when it is opened."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyseg.engines.base import GraphSource, SymbolicShape
from tinyseg.errors import ModelError

FORMAT = 1
PACKAGED = Path(__file__).parent / "models" / "base"


@dataclass(frozen=True)
class ZoomRule:
    """When a prompt gets a second look, at a crop around its object (chosen by measurement for each model)."""

    side: int  # of the crop's encoder input, pixels
    factor: float  # crop side over the object's longer side
    below: float  # objects whose longer side is less than this share of the frame's longer side get it


@dataclass(frozen=True)
class Model:
    """A model's graphs and what its model.json says of them."""

    path: Path
    name: str
    long_side: int  # of the encoder's input for a whole frame, pixels
    zoom: ZoomRule
    graphs: Mapping[str, GraphSource]
    sha256: str  # of the graphs' own sha256 sums, in order of name: tells models apart
    card: Mapping[str, Any]  # the whole model.json: provenance, licence, accuracy


def open_model(path: str | Path | None) -> Model:
    """Read a model folder or zip, the packaged model for None; every graph's sha256 is checked. Raises ModelError."""
    place = PACKAGED if path is None else Path(path)
    if not place.exists():
        if path is None:
            raise ModelError(
                f"the packaged model is missing ({place}); install tinyseg again: pip install --force-reinstall tinyseg"
            )
        raise ModelError(
            f"there is no model at {place}; give a folder or zip with model.json, or None for the packaged model"
        )
    try:
        card = json.loads(_read(place, "model.json"))
    except (ValueError, UnicodeDecodeError) as exc:
        raise ModelError(f"{place}: model.json is not valid JSON ({exc}); get the model again") from exc
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise ModelError(f"{place}: model.json has format {found!r}, this version of tinyseg reads {FORMAT}")
    try:
        graphs = {name: _graph(place, name, row) for name, row in card["graphs"].items()}
        missing = {"encoder", "decoder"} - set(graphs)
        if missing:
            raise ModelError(f"{place}: model.json names no {' and no '.join(sorted(missing))}")
        zoom = ZoomRule(int(card["zoom"]["side"]), float(card["zoom"]["factor"]), float(card["zoom"]["below"]))
        sums = "".join(card["graphs"][name]["sha256"] for name in sorted(graphs))
        digest = hashlib.sha256(sums.encode()).hexdigest()
        return Model(place, str(card["name"]), int(card["long_side"]), zoom, graphs, digest, card)
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise ModelError(f"{place}: model.json lacks or misstates {exc}; get the model again") from exc


def _graph(place: Path, name: str, row: Mapping[str, Any]) -> GraphSource:
    data = _read(place, row["file"])
    digest = hashlib.sha256(data).hexdigest()
    if digest != row["sha256"]:
        raise ModelError(
            f"{place}: {row['file']} is damaged (sha256 {digest[:12]}..., model.json says {row['sha256'][:12]}...); get the model again"
        )
    return GraphSource(name, data, _shapes(row["inputs"]), _shapes(row["outputs"]))


def _shapes(rows: Mapping[str, list[Any]]) -> dict[str, SymbolicShape]:
    return {name: tuple(d if isinstance(d, str) else int(d) for d in shape) for name, shape in rows.items()}


def _read(place: Path, name: str) -> bytes:
    try:
        if place.is_dir():
            return (place / name).read_bytes()
        with zipfile.ZipFile(place) as archive:
            return archive.read(name)
    except zipfile.BadZipFile as exc:
        raise ModelError(f"{place} is neither a model folder nor a zip file") from exc
    except (KeyError, FileNotFoundError) as exc:
        raise ModelError(f"{place} holds no {name}; a model is a folder or zip with model.json and its graphs") from exc
    except OSError as exc:
        raise ModelError(f"{place}: {name} cannot be read ({exc})") from exc
