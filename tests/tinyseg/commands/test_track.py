from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tinyseg.cli import main

REAL = ["--engine", "onnxruntime", "--precision", "fp32"]
CUP, HEAD = "28,132,117,212", "96,3,207,133"


@pytest.fixture(scope="module")
def frames(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first frames of the example clip, as a folder of images."""
    folder = tmp_path_factory.mktemp("frames")
    capture = cv2.VideoCapture(str(root / "examples" / "clip.mp4"))
    for number in range(6):
        cv2.imwrite(str(folder / f"{number:03d}.png"), capture.read()[1])
    return folder


def read_rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_objects_keep_their_ids(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = tmp_path / "later.jsonl"
    later.write_text(
        '{"frame": 2, "id": "badge", "box": [120, 180, 170, 230]}\n\n{"frame": 4, "id": 2, "remove": true}\n'
        '{"frame": 3, "id": 1, "points": [[70, 160]], "labels": [1]}\n'
    )
    out = tmp_path / "tracks.jsonl"
    arguments = ["track", str(frames), "--box", CUP, "--box", HEAD, "--prompts", str(later), "--sink", f"jsonl:{out}"]
    assert main([*arguments, "--json", *REAL]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["frames"] == 6 and facts["objects"] == [1, "badge"] and 0 < facts["memory_bytes"] < 6e6
    rows = read_rows(out)
    ids = [[o["id"] for o in row["objects"]] for row in rows]  # type: ignore[attr-defined]
    assert ids == [[1, 2], [1, 2], [1, 2, "badge"], [1, 2, "badge"], [1, "badge"], [1, "badge"]]
    assert all(o["visible"] and o["area"] > 500 for row in rows for o in row["objects"] if o["id"] == 1)  # type: ignore[attr-defined]


def test_a_mask_and_a_picture(frames: Path, tmp_path: Path) -> None:
    mask = np.zeros((240, 320), np.uint8)
    mask[135:210, 32:115] = 255
    cv2.imwrite(str(tmp_path / "cup.png"), mask)
    out = tmp_path / "out"
    assert main(["track", str(frames), "--mask", str(tmp_path / "cup.png"), "--sink", f"png:{out}", *REAL]) == 0
    first, drawn = cv2.imread(str(frames / "000.png")), cv2.imread(str(out / "000000.png"))
    assert (first[170, 70] != drawn[170, 70]).any() and (first[20, 300] == drawn[20, 300]).all()


def test_a_saved_state_goes_on(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, out = str(tmp_path / "state.npz"), tmp_path / "out.jsonl"
    assert main(["track", str(frames), "--point", "70,160", "--point", "70,190,1", "--save", state, *REAL]) == 0
    assert main(["track", str(frames / "005.png"), "--restore", state, "--sink", f"jsonl:{out}", *REAL]) == 0
    (row,) = read_rows(out)
    assert [o["id"] for o in row["objects"]] == [1]  # type: ignore[attr-defined]
    capsys.readouterr()


def test_restored_objects_keep_their_ids_beside_new_ones(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, out = str(tmp_path / "state.npz"), tmp_path / "out.jsonl"
    assert main(["track", str(frames), "--box", CUP, "--save", state, *REAL]) == 0
    last = str(frames / "005.png")
    assert main(["track", last, "--restore", state, "--box", HEAD, "--sink", f"jsonl:{out}", *REAL]) == 0
    (row,) = read_rows(out)
    first, second = row["objects"]  # type: ignore[misc]
    assert (first["id"], second["id"]) == (1, 2) and first["visible"] and second["visible"]
    assert first["bbox"][0] + first["bbox"][2] / 2 < 110 < second["bbox"][0] + second["bbox"][2] / 2
    assert "2 object(s)" in capsys.readouterr().out


def test_prompts_for_frames_that_never_come_are_told(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = tmp_path / "later.jsonl"
    later.write_text(f'{{"frame": 50, "id": "a", "box": [{CUP}]}}\n{{"frame": 60, "id": "a", "remove": true}}\n')
    assert main(["track", str(frames), "--prompts", str(later), *REAL]) == 1
    assert "2 of the prompts" in (told := capsys.readouterr().err) and "'a' in frame 50" in told


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--box", CUP, "--save", "."], "is a folder"),
        ([], "--box"),
        (["--box", "1,2,3"], "X0,Y0,X1,Y1"),
        (["--box", "900,900,950,950"], "outside"),
        (["--mask", "missing.png"], "missing.png"),
        (["--prompts", "missing.jsonl"], "missing.jsonl"),
        (["--restore", "missing.npz"], "missing.npz"),
        (["--box", CUP, "--sink", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_told(frames: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", str(frames), *arguments, *REAL]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"frame": -1, "id": 1, "box": [1, 1, 9, 9]}', '{"frame": 0, "id": 1}', '{"frame": 0, "id": [], "box": [1]}']
)  # fmt: skip
def test_a_wrong_line_of_prompts_is_named(
    frames: Path, tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "later.jsonl"
    path.write_text(f"\n{line}\n")
    assert main(["track", str(frames), "--prompts", str(path), *REAL]) == 2
    assert "line 2" in capsys.readouterr().err
