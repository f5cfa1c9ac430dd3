"""Where ``tinyseg segment`` reads from and writes to: files, addresses, standard input and output."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import PageServer
from tinyseg.cli import main
from tinyseg.images import encode_image, read_image, write_image

FAKE = ["--engine", "fake"]
CLICK = ["--point", "80,60"]


class Stream:
    """Standard input or output as the command line sees it."""

    def __init__(self, data: bytes = b"") -> None:
        self.buffer = io.BytesIO(data)

    def write(self, text: str) -> int:
        return self.buffer.write(text.encode())

    def flush(self) -> None:
        pass


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    write_image(path, np.full((120, 160, 3), 90, np.uint8))
    return path


def test_out_may_be_a_file(photo: Path, tmp_path: Path) -> None:
    assert main(["segment", str(photo), *CLICK, "--out", str(tmp_path / "new" / "res.png"), *FAKE]) == 0
    assert read_image(tmp_path / "new" / "res.png").shape == (120, 160, 3)
    assert main(["segment", str(photo), *CLICK, "--format", "mask", "--out", str(tmp_path / "m.jpg"), *FAKE]) == 0
    assert (tmp_path / "m.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert main(["segment", str(photo), *CLICK, "--format", "coco", "--out", str(tmp_path / "m.json"), *FAKE]) == 0
    assert len(json.loads((tmp_path / "m.json").read_text())["annotations"]) == 1


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--out", "r.json"], "name a .png file"),
        (["--format", "polygons", "--out", "r.png"], "name a .json file"),
        (["--format", "cutout", "--out", "r.JPG"], "name a .png or .webp"),
        (["--format", "mask", "--all-readings", "--out", "r.png"], "a file for each mask"),
        (["--json", "--out", "-"], "both write to standard output"),
    ],
)
def test_a_file_that_does_not_fit_is_told(
    photo: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["segment", str(photo), *CLICK, *arguments, *FAKE]) == 2
    assert says in capsys.readouterr().err


def test_one_file_for_two_images_is_told(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "other.png", np.zeros((120, 160, 3), np.uint8))
    assert main(["segment", str(tmp_path), *CLICK, "--out", str(tmp_path / "r.png"), *FAKE]) == 2
    assert "there are 2" in capsys.readouterr().err


def test_all_readings_stand_side_by_side(photo: Path, tmp_path: Path) -> None:
    assert main(["segment", str(photo), *CLICK, "--all-readings", "--out", str(tmp_path / "r.png"), *FAKE]) == 0
    assert read_image(tmp_path / "r.png").shape == (120, 3 * 160, 3)


def test_standard_input_and_output(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Stream()
    monkeypatch.setattr(sys, "stdin", Stream(photo.read_bytes()))
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["segment", "-", *CLICK, "--out", "-", *FAKE]) == 0
    picture = cv2.imdecode(np.frombuffer(out.buffer.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (120, 160, 3)


@pytest.mark.filterwarnings("default")  # as users run it; here our warnings are errors
def test_a_relative_box_is_warned_of(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", str(photo), "--box", "0.1,0.1,0.9,0.9", "--out", str(tmp_path / "r.png"), *FAKE]) == 0
    told = capsys.readouterr().err
    assert "warning" in told and "multiply relative ones" in told and ".py" not in told


def test_an_address_is_read(page_server: PageServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page_server.pages["/cup.png"] = (200, encode_image(Path("x.png"), np.full((60, 80, 3), 90, np.uint8)), {})
    assert main(["segment", f"{page_server.url}/cup.png?size=1", "--point", "9,9", "--out", str(tmp_path), *FAKE]) == 0
    assert read_image(tmp_path / "cup.overlay.png").shape == (60, 80, 3)
    assert main(["segment", f"{page_server.url}/gone.png", "--point", "9,9", "--out", str(tmp_path), *FAKE]) == 1
    assert "404" in capsys.readouterr().err
