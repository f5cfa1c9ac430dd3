"""A model on disk: a folder or zip file with graphs and ``model.json``, checked when it is opened."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyseg.engines.base import GraphSource
from tinyseg.engines.precision import PrecisionFacts
from tinyseg.errors import ModelError, PrecisionUnavailable
from tinyseg.graphs.card import CardProblem, parse_card, shapes
from tinyseg.graphs.package import CARD, MOST_CARD_BYTES, read_member
from tinyseg.graphs.roles import ROLES

MODELS = Path(__file__).parent.parent / "models"
DEFAULT_MODEL = "base"
DEFAULT_ALIAS = (
    "packaged"  # the default model by another name, which reports say and every place that takes a name knows
)
PACKAGED = MODELS / DEFAULT_MODEL
# The key by which an ONNX tensor names a file for its values (TensorProto.external_data). OpenVINO reads any that lies
# under the working directory. Protobuf stores the key as it is, so a graph without these bytes names no file.
EXTERNAL = b"location"


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
    graphs: Mapping[str, GraphSource]  # in fp32: what every other precision is compared with
    card: Mapping[str, Any]  # the whole model.json: provenance, licence, accuracy

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions that the model carries graphs of its own for; engines can lower fp32 to bf16 and fp16 themselves."""
        return ("fp32", *self.card.get("precisions", {}))

    @property
    def precision_facts(self) -> PrecisionFacts:
        """What was measured of the precisions, for the choice of "auto"."""
        measured = self.card.get("measured", {})
        lost = {p: float(v) for p, v in measured.get("lost_points", {}).items()}
        speed = {e: {p: float(v) for p, v in row.items()} for e, row in measured.get("speed", {}).items()}
        lost_on: dict[str, dict[str, float]] = {}
        for row in measured.get("rows", []):
            if row.get("lost_points") is not None:
                lost_on.setdefault(row["engine"], {})[row["precision"]] = float(row["lost_points"])
        return PrecisionFacts(self.precisions, lost, speed, lost_on)

    def variant(self, precision: str) -> Mapping[str, GraphSource]:
        """The graphs of a precision that the model carries, checked. Raises PrecisionUnavailable or ModelError."""
        if precision == "fp32":
            return self.graphs
        if precision not in self.precisions:
            raise PrecisionUnavailable(
                f"model {self.name} carries no {precision} graphs (only {', '.join(self.precisions)}); make them with: "
                f"python -m tinyseg.distill quantize {self.path} --data PHOTOS --out DIR"
            )
        rows = self.card["precisions"][precision]["graphs"]
        return {n: _graph(self.path, n, {**self.card["graphs"][n], **row}, precision) for n, row in rows.items()}


def packaged_models() -> dict[str, Path]:
    """The models that ship with tinyseg: name -> folder, the default one first."""
    names = sorted((p.parent.name for p in MODELS.glob("*/model.json")), key=lambda n: (n != DEFAULT_MODEL, n))
    return {n: MODELS / n for n in names}


def model_place(path: str | Path | None) -> Path:
    """Where a model lies: a packaged one by its name ("base"; None or "packaged" for the default), any other by its path.

    A name means the packaged model even where a folder of that name lies in the working directory; "./base" means that.
    """
    if path is None or path == DEFAULT_ALIAS:
        return PACKAGED
    if isinstance(path, str):
        return packaged_models().get(path, Path(path))
    return Path(path)


def shown_place(path: Path) -> str:
    """A model's place for reports, which are shared: where a package lies on somebody's disk is nobody's business."""
    name = {place: name for name, place in packaged_models().items()}.get(path)
    if name is None:
        return str(path)
    return DEFAULT_ALIAS if name == DEFAULT_MODEL else f"{DEFAULT_ALIAS}: {name}"


def digest(graphs: Mapping[str, GraphSource]) -> str:
    """sha256 of the graphs' own sha256 sums, in order of name: tells what runs apart."""
    return hashlib.sha256("".join(graphs[name].sha256 for name in sorted(graphs)).encode()).hexdigest()


def open_model(path: str | Path | None) -> Model:
    """Read a packaged model by its name (None: the default), or a folder or zip; every graph's sha256 is checked.

    The place is taken for a stranger's, wherever it comes from: see :mod:`tinyseg.graphs.package` and
    :mod:`tinyseg.graphs.card`. Raises ModelError.
    """
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise ModelError(f"a model is a name, a folder or a zip file, but {type(path).__name__} was given")
    place = model_place(path)
    try:
        exists = place.exists()
    except OSError as exc:  # a name that is too long, a folder that may not be searched
        raise ModelError(f"{place} cannot be looked at ({exc.strerror or exc})") from exc
    if not exists:
        if path is None:
            raise ModelError(
                f"the packaged model is missing ({place}); install tinyseg again: pip install --force-reinstall tinyseg"
            )
        raise ModelError(
            f"there is no model at {place}; give a folder or zip with model.json, or a packaged one: "
            f"{', '.join(packaged_models())}"
        )
    try:
        card = parse_card(read_member(place, CARD, MOST_CARD_BYTES))
    except CardProblem as exc:
        raise ModelError(f"{place}: {exc}; get the model again") from exc
    graphs = {name: _graph(place, name, row, "fp32") for name, row in card["graphs"].items()}
    zoom = ZoomRule(card["zoom"]["side"], float(card["zoom"]["factor"]), float(card["zoom"]["below"]))
    return Model(place, card["name"], card["long_side"], zoom, graphs, card)


def _graph(place: Path, name: str, row: Mapping[str, Any], precision: str) -> GraphSource:
    """A graph of a checked card."""
    data = read_member(place, row["file"])
    found = hashlib.sha256(data).hexdigest()
    if found != row["sha256"]:
        raise ModelError(
            f"{place}: {row['file']} is damaged (sha256 {found[:12]}..., model.json says {row['sha256'][:12]}...); get the model again"
        )
    if EXTERNAL in data:
        raise ModelError(
            f"{place}: {row['file']} seems to keep weights in files beside it (ONNX external data), which engines would read "
            "wherever they lie; save the graph with its weights inside"
        )
    role = ROLES[name]
    inputs, outputs = (shapes(row[side], f"graphs.{name}.{side}", role.dimensions) for side in ("inputs", "outputs"))
    return GraphSource(name, data, inputs, outputs, precision, found, role.feeds_others)
