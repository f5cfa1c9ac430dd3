"""Models of strangers: whatever a folder or zip holds, opening it gives a model or a ModelError."""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tinyseg
from tests.attack.conftest import Attack
from tests.attack.mutation import dumped, seeds, spoiled_bytes, spoiled_json
from tinyseg.graphs.compiled import open_compiled
from tinyseg.graphs.model import PACKAGED, open_model

GRAPH = b"not a graph, which opening does not mind"


def small_card() -> dict[str, Any]:
    """The packaged card with small graphs, a compiled part, and little of what is only shown."""
    card = json.loads((PACKAGED / "model.json").read_text())
    for key in ("training", "training_before", "sources"):
        card.pop(key, None)
    card["measured"].pop("rows", None)
    card["accuracy"] = {"by_set": card["accuracy"]["by_set"][:1]}
    checksum = hashlib.sha256(GRAPH).hexdigest()
    for rows in (card["graphs"], card["precisions"]["int8"]["graphs"]):
        for row in rows.values():
            row.update(sha256=checksum, bytes=len(GRAPH))
    engine = {
        "graph": "encoder",
        "dimensions": {"height": 64, "width": 64},
        "file": "encoder-0.engine",
        "sha256": checksum,
    }
    card["compiled"] = {
        "engine": "fake", "precision": "fp32", "identity": {"engine": "fake", "version": "1", "precision": "fp32"},
        "engines": [engine],
    }  # fmt: skip
    return card


def files_of(card: Mapping[str, Any]) -> dict[str, bytes]:
    rows = [*card["graphs"].values(), *card["precisions"]["int8"]["graphs"].values()]
    return {"model.json": dumped(card), **{row["file"]: GRAPH for row in rows}, "encoder-0.engine": GRAPH}


CARD = small_card()
FILES = files_of(CARD)


def zipped(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def use(place: Path) -> None:
    """Everything that is read of a model without compiling it."""
    try:
        model = open_model(place)
        for precision in model.precisions:
            model.variant(precision)
        assert model.precision_facts is not None
        open_compiled(model)
        json.dumps(model.card)  # as compile and quantize write it
        f"{model.name} {model.card.get('licence', '')}".encode()
    except tinyseg.TinysegError as exc:
        str(exc).encode()  # and the message can be printed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    place.mkdir()
    for name, data in FILES.items():
        (place / name).write_bytes(data)
    return place


def test_the_model_to_be_spoiled_is_whole(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(zipped(FILES))
    for place in (folder, tmp_path / "model.zip"):
        model = open_model(place)
        assert model.variant("int8")["encoder"].data == GRAPH and open_compiled(model) is not None


def test_model_json(folder: Path, attack: Attack) -> None:
    text = json.dumps(CARD)

    def check(draw: random.Random) -> None:
        (folder / "model.json").write_bytes(dumped(spoiled_json(draw, text)))
        use(folder)

    attack("model.json, spoiled values", seeds, check, 300, each=10)


def test_model_json_as_bytes(folder: Path, attack: Attack) -> None:
    deep = (b"[" * 100_000, b'{"a":' * 100_000, b'{"format": 1, "a": ' + b"9" * 5000 + b"}", b"\xff\xfe{\0")

    def check(draw: random.Random) -> None:
        data = draw.choice(deep) if draw.randrange(20) == 0 else spoiled_bytes(draw, FILES["model.json"])
        (folder / "model.json").write_bytes(data)
        use(folder)

    attack("model.json, spoiled bytes", seeds, check, 200, each=10)


def test_zips(tmp_path: Path, attack: Attack) -> None:
    place, whole = tmp_path / "model.zip", zipped(FILES)

    def check(draw: random.Random) -> None:
        place.write_bytes(spoiled_bytes(draw, whole))
        use(place)

    attack("model zip, spoiled bytes", seeds, check, 300, each=10)


def odd_zip(draw: random.Random) -> bytes:
    """A whole zip of odd members: other names, methods, flags, sizes and kinds."""
    packed, zeros = io.BytesIO(), 0
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in FILES.items():
            info = zipfile.ZipInfo(draw.choice((name,) * 8 + ("../" + name, "/" + name, name.upper())))
            info.external_attr = draw.choice((0,) * 6 + (0o120777 << 16, 0o010644 << 16))
            kind = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
            if draw.randrange(40) == 0:
                zeros, kind = 3_000_000, zipfile.ZIP_DEFLATED
            archive.writestr(info, data + b"\0" * zeros, kind)
            zeros = 0
        for info in archive.infolist():
            info.flag_bits |= draw.choice((0,) * 12 + (1, 0x20, 0x40, 0x800))
            info.file_size += draw.choice((0,) * 12 + (1, 2**31))
            info.compress_type = draw.choice((info.compress_type,) * 12 + (9, 99))
    return packed.getvalue()


def test_odd_zips(tmp_path: Path, attack: Attack) -> None:
    place = tmp_path / "model.zip"

    def check(draw: random.Random) -> None:
        place.write_bytes(odd_zip(draw))
        use(place)

    attack("model zip, odd members", seeds, check, 100, each=10)
