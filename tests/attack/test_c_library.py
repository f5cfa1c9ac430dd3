"""Models of strangers handed to the C library: a model or a status with a message, whatever a folder holds."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.attack.conftest import Attack
from tests.attack.mutation import dumped, seeds, spoiled_bytes, spoiled_json
from tests.attack.test_models import CARD, FILES
from tests.native.test_c_library import engine_place, installed, library
from tinyseg.bench.c_api import CLibrary, CLibraryError
from tinyseg.errors import ModelError
from tinyseg.graphs.model import open_model

__all__ = ["installed", "library"]  # fixtures
STATUSES = ("TINYSEG_MODEL_ERROR", "TINYSEG_PRECISION_UNAVAILABLE", "TINYSEG_WRONG_DEVICE")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def opens(library: CLibrary, folder: Path, precision: str = "fp32") -> bool:
    """Whether a folder opens; every refusal has to have a fitting status and a message that a terminal can show."""
    try:
        model = library.open(folder, "onnxruntime", precision, 1, engine_place("onnxruntime"))
    except CLibraryError as exc:
        told = str(exc)
        assert exc.status in STATUSES and 10 < len(told) < 2000 and told.isprintable(), (exc.status, told)
        return False
    library.calls.tinyseg_close(model)
    return True


def test_cards_in_c(attack: Attack, library: CLibrary, folder: Path) -> None:
    # What Python refuses for a reason that C has no use for (accuracy, say) may open in C; never the other way round.
    card = {k: v for k, v in CARD.items() if k != "compiled"}
    text = dumped(card).decode()
    (folder / "model.json").write_text(text)
    assert opens(library, folder) and opens(library, folder, "int8")

    def check(draw: random.Random) -> None:
        spoiled: Any = spoiled_json(draw, text)
        data = dumped(spoiled) if draw.random() < 0.7 else spoiled_bytes(draw, text.encode())
        (folder / "model.json").write_bytes(data)
        opened = opens(library, folder, draw.choice(("fp32", "int8")))
        try:
            open_model(folder)
        except ModelError:
            return
        assert opened or "compiled" in data.decode(errors="replace"), data[:2000]

    attack("model.json handed to the C library", seeds, check, 60, each=5)


def test_files_in_c(library: CLibrary, folder: Path) -> None:
    for name in ("model.json", "encoder.onnx"):
        kept = (folder / name).read_bytes()

        def again(name: str = name, kept: bytes = kept) -> None:
            place = folder / name
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
            place.write_bytes(kept)

        (folder / name).unlink()
        os.mkfifo(folder / name)  # opening one waits for ever
        assert not opens(library, folder)
        again()
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")
        assert not opens(library, folder)
        again()
        (folder / name).unlink()
        (folder / name).mkdir()
        assert not opens(library, folder)
        again()
        with (folder / name).open("r+b") as file:
            file.truncate((1 << 30) + 1)  # sparse
        assert not opens(library, folder)
        again()
