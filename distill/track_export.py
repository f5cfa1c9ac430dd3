"""A tracking decoder into a model folder: a further graph, and its int8 form where the model carries int8 graphs."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tinyseg.dataset import Photo
from tinyseg.distill.calibration import pick_photos, record_feeds
from tinyseg.distill.checkpoint import load_checkpoint
from tinyseg.distill.export import fold_batch_norm, write_graph
from tinyseg.distill.quantize import quantize_model, to_text
from tinyseg.distill.shape import StudentShape
from tinyseg.distill.track import TRACK
from tinyseg.distill.track_model import new_track_decoder
from tinyseg.distill.warm_start import folder_shape, load_whole
from tinyseg.errors import InputError
from tinyseg.graphs.model import Model, open_model
from tinyseg.graphs.package import CARD, read_member
from tinyseg.graphs.roles import TRACK_DECODER
from tinyseg.system.folders import new_folder


def export_track(checkpoint: Path, place: Path, photos: Sequence[Photo], out: Path) -> Path:
    """Write a copy of the model folder ``place`` with the moving average of a checkpoint as its tracking decoder.

    Every other graph keeps its bytes. photos: to calibrate int8 on; only read where the model carries int8 graphs.
    Raises InputError, ModelError, DataError; replaces ``out`` only when all is well.
    """
    saved = load_checkpoint(checkpoint, torch.device("cpu"))
    if saved.get("kind") != TRACK:
        raise InputError(f"{checkpoint} is no checkpoint of a tracking decoder; the track command writes them")
    model = open_model(place)
    _require_takes_one(model)
    shape = StudentShape.of(saved["shape"])
    if asdict(shape) != {**asdict(folder_shape(place)), "score_width": shape.score_width}:
        raise InputError(f"{checkpoint} was trained for a model of another architecture than {place}")
    decoder = new_track_decoder(shape)
    load_whole(decoder, saved["average"], checkpoint)
    fold_batch_norm(decoder)
    facts = {
        **{k: v for k, v in saved["config"].items() if k != "out"},
        "data": [Path(p).name for p in saved["config"]["data"]],
        "video": [Path(p).name for p in saved["config"]["video"]],
        "start": Path(saved["config"]["start"]).name,
        "decoder": Path(saved["config"]["decoder"]).name if saved["config"].get("decoder") else None,
        "step": saved["step"],
        "minutes": round(saved["spent"] / 60, 1),
    }
    with tempfile.TemporaryDirectory() as scratch:
        float_folder = Path(scratch) / "float"
        # Calibration runs the model with its new graph, so that comes first, without other precisions.
        with new_folder(float_folder) as folder:
            row = write_graph(decoder, TRACK_DECODER, folder)
            graphs = {**model.card["graphs"], TRACK_DECODER: row}
            _copy(model, [r["file"] for r in model.card["graphs"].values() if r["file"] != row["file"]], folder)
            _write_card({**_without_precisions(model.card), "graphs": graphs, "tracking": facts}, folder)
        made = open_model(float_folder)
        precisions = dict(model.card.get("precisions", {}))
        int8: bytes | None = None
        if "int8" in precisions:
            feeds = record_feeds(made, pick_photos(photos, len(photos)))
            quantized, reports = quantize_model(made, {TRACK_DECODER: feeds[TRACK_DECODER]})
            int8 = quantized[TRACK_DECODER]
            print(to_text(reports), flush=True)
        with new_folder(out) as folder:
            _copy(made, [r["file"] for r in made.card["graphs"].values()], folder)
            if int8 is not None:
                rows = {n: r for n, r in precisions["int8"]["graphs"].items() if n != TRACK_DECODER}
                _copy(model, [r["file"] for r in rows.values()], folder)
                file = f"{TRACK_DECODER}.int8.onnx"
                (folder / file).write_bytes(int8)
                rows[TRACK_DECODER] = {"file": file, "sha256": hashlib.sha256(int8).hexdigest(), "bytes": len(int8)}
                precisions["int8"] = {**precisions["int8"], "graphs": rows}
            _write_card({**model.card, **made.card, **({"precisions": precisions} if precisions else {})}, folder)
    return out


def _require_takes_one(model: Model) -> None:
    if "compiled" in model.card:
        raise InputError(f"{model.path} is compiled; take the model that it was made from")
    others = set(model.card.get("precisions", {})) - {"int8"}
    if others:
        raise InputError(
            f"{model.path} carries {', '.join(sorted(others))} graphs, which a tracking decoder is not made in"
        )


def _without_precisions(card: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in card.items() if k not in ("precisions", "measured")}


def _copy(model: Model, files: Sequence[str], folder: Path) -> None:
    for file in files:
        (folder / file).write_bytes(read_member(model.path, file))


def _write_card(card: Mapping[str, Any], folder: Path) -> None:
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n")
