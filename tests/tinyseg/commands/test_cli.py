from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import tinyseg
from tinyseg.cli import COMMANDS, main
from tinyseg.commands.inputs import is_stream
from tinyseg.commands.results import unique_names
from tinyseg.images import find_images, read_image, write_image

FAKE = ["--engine", "fake"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    frame = np.full((120, 160, 3), 90, np.uint8)
    path = tmp_path / "photo.png"
    write_image(path, frame)
    return path


def test_a_click_gives_an_overlay(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", str(photo), "--point", "80,60", "--out", str(tmp_path / "out"), *FAKE]) == 0
    picture = read_image(tmp_path / "out" / "photo.overlay.png")
    assert picture.shape == (120, 160, 3) and (picture[56, 76] != 90).any() and (picture[5, 5] == 90).all()
    printed = capsys.readouterr().out
    assert "1 mask(s)" in printed and "embedding" in printed and "ms" in printed


def test_json_lines_describe_every_object(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["segment", str(photo), "--box", "10,20,60,70", "--box", "80,20,150,110", "--zoom", "off", "--json"]
    assert main([*arguments, "--out", str(tmp_path), *FAKE]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["width"] == 160 and [o["box"] for o in row["objects"]] == [[10, 20, 60, 70], [80, 20, 150, 110]]
    assert row["engine"] == "fake" and row["embed_ms"] >= 0


@pytest.mark.parametrize("kind", ["mask", "cutout", "polygons", "coco"])
def test_formats(photo: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    arguments = [
        "segment",
        str(photo),
        "--box",
        "10,20,60,70",
        "--zoom",
        "off",
        "--format",
        kind,
        "--out",
        str(out),
        *FAKE,
    ]
    assert main(arguments) == 0
    expected = np.zeros((120, 160), np.bool_)
    expected[20:70, 10:60] = True
    if kind == "mask":
        found = read_image(out / "photo.mask0.png")[..., 0] > 0
    elif kind == "cutout":
        found = cv2.imread(str(out / "photo.cutout0.png"), cv2.IMREAD_UNCHANGED)[..., 3] > 0
    elif kind == "polygons":
        row = json.loads((out / "photo.polygons.json").read_text())[0]
        filled = np.zeros((120, 160), np.uint8)
        cv2.fillPoly(filled, [np.array(p, np.int32) for p in row["polygons"]], 1)
        found = filled > 0
    else:
        coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
        content = json.loads((out / "coco.json").read_text())
        assert content["images"][0]["width"] == 160 and content["annotations"][0]["bbox"] == [10, 20, 50, 50]
        found = coco.decode(content["annotations"][0]["segmentation"]) > 0
    np.testing.assert_array_equal(found, expected)


def test_points_box_and_mask_mean_one_object(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.zeros((120, 160, 3), np.uint8)
    mask[40:80, 40:100] = 255
    write_image(tmp_path / "m.png", mask)
    arguments = ["segment", str(photo), "--point", "70,60", "--point", "10,10,0", "--box", "30,30,110,90"]
    assert main([*arguments, "--mask", str(tmp_path / "m.png"), "--json", "--out", str(tmp_path), *FAKE]) == 0
    assert len(json.loads(capsys.readouterr().out)["objects"]) == 1


def test_all_readings_can_be_kept(photo: Path, tmp_path: Path) -> None:
    arguments = [
        "segment",
        str(photo),
        "--point",
        "80,60",
        "--all-masks",
        "--format",
        "mask",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main([*arguments, *FAKE]) == 0
    assert sorted(p.name for p in (tmp_path / "o").glob("*.png")) == [f"photo.mask{i}.png" for i in range(3)]


def test_a_bad_file_among_good_ones_fails_alone(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not an image")
    out = tmp_path / "out"
    assert main(["segment", str(photo), str(bad), "--point", "9,9", "--json", "--out", str(out), *FAKE]) == 1
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert "error" in rows[1] and "bad.jpg" in captured.err
    assert [p.name for p in out.glob("*.png")] == ["photo.overlay.png"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "say what to segment"),
        (["--point", "1"], "--point takes"),
        (["--point", "1,2,3"], "labels must be"),
        (["--box", "1,2,3"], "--box takes"),
        (["--box", "9,9,1,1"], "x0 < x1"),
        (["--box", "1,2,30,40", "--box", "1,2,30,40", "--point", "1,1"], "one --box only"),
        (["--point", "1,1", "--mask", "nothing.png"], "cannot be read"),
    ],
)
def test_bad_prompts_exit_with_2(
    photo: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["segment", str(photo), *arguments, *FAKE]) == 2
    assert says in capsys.readouterr().err


def test_numbers_may_begin_with_a_minus(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--out", str(tmp_path), "--engine", "fake"]
    assert main(["segment", str(photo), "--box", "-5,-.5,60,50", *options]) == 0
    assert main(["segment", str(photo), "--point", "-5,10", *options]) == 1
    assert "point [-5.0, 10.0] lies outside" in capsys.readouterr().err


def test_points_outside_one_image_fail_for_it(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", str(photo), "--point", "999,9", "--out", str(tmp_path), *FAKE]) == 1
    assert "outside the frame of 160 x 120" in capsys.readouterr().err


def test_missing_models_and_engines_exit_with_3(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", str(photo), "--point", "9,9", "--model", "nowhere"]) == 3
    assert main(["segment", str(photo), "--point", "9,9", "--engine", "abacus"]) == 3
    assert main(["info", "--precision", "int8", "--engine", "fake"]) == 3
    assert capsys.readouterr().err.count("tinyseg: ") == 3


def test_folders_and_globs(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    for name in ("b.jpg", "a.PNG", "c.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(photo.read_bytes())
    assert [p.name for p in find_images([str(folder)])] == ["a.PNG", "b.jpg"]
    assert [p.name for p in find_images([str(folder / "*.jpg"), str(folder)])] == ["b.jpg", "a.PNG"]
    with pytest.raises(tinyseg.DataError, match="matches no file"):
        find_images([str(folder / "*.gif")])
    with pytest.raises(tinyseg.DataError, match="holds no image"):
        (tmp_path / "empty").mkdir()
        find_images([str(tmp_path / "empty")])


def test_results_of_files_with_one_name_are_kept_apart(photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "photo.png"
    other.parent.mkdir()
    other.write_bytes(photo.read_bytes())
    out = tmp_path / "out"
    assert main(["segment", str(photo), str(other), "--point", "9,9", "--out", str(out), *FAKE]) == 0
    names = [p.name for p in out.glob("*.png")]
    assert len(names) == 2 and all(re.fullmatch(r"photo\.png-[0-9a-f]{8}\.overlay\.png", name) for name in names)


def test_names_of_results_do_not_depend_on_the_order_or_on_who_comes_later() -> None:
    assert unique_names(["x/a.png", "x/b.png", "-"]) == {"x/a.png": "a", "x/b.png": "b", "-": "stdin"}
    together = unique_names(["x/a.png", "x/A.bmp", "x/b.png"])
    assert together == {"x/a.png": "a.png", "x/A.bmp": "A.bmp", "x/b.png": "b"}
    assert unique_names(["x/A.bmp", "x/b.png", "x/a.png"]) == together
    same = unique_names(["x/a.png", "y/a.png", "y/a.png.jpg"])
    assert len(set(same.values())) == 3 and same == unique_names(["y/a.png.jpg", "y/a.png", "x/a.png"])
    assert unique_names(["http://h/a.png?size=1", "http://h/"]) == {"http://h/a.png?size=1": "a", "http://h/": "h"}


def test_results_in_the_folder_of_the_images_are_no_images(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "a.png").write_bytes(photo.read_bytes())
    for command in (["segment", "--point", "9,9"], ["everything"], ["cutout", "--box", "5,5,30,30"]):
        for _ in range(2):
            assert main([command[0], str(folder), *command[1:], "--out", str(folder), *FAKE]) == 0
    pictures = {p.name for p in folder.glob("*.png")}
    assert pictures == {"a.png", "a.overlay.png", "a.everything.png", "a.cutout.png"}
    (folder / "a.png").unlink()
    assert main(["segment", str(folder), "--point", "9,9", "--out", str(folder), *FAKE]) == 2
    # Named by themselves they are images like others.
    assert main(["segment", str(folder / "a.overlay.png"), "--point", "9,9", "--out", str(folder), *FAKE]) == 0
    assert (folder / "a.overlay.overlay.png").exists()


def test_pictures_of_any_name_are_pictures_and_missing_folders_none(photo: Path, tmp_path: Path) -> None:
    jfif, film = tmp_path / "a.jfif", tmp_path / "a.mjpeg"
    for path in (jfif, film):
        cv2.imwrite(str(tmp_path / "a.jpg"), cv2.imread(str(photo)))
        path.write_bytes((tmp_path / "a.jpg").read_bytes())
    assert [is_stream(s) for s in (str(jfif), f"{tmp_path}/none/", "a*", str(tmp_path))] == [False] * 4
    os.mkfifo(tmp_path / "pipe")  # looking into it would wait for ever
    assert is_stream(str(tmp_path / "pipe")) and is_stream("x" * 5000)
    assert all(is_stream(s) for s in (str(film), "0", "rtsp://h/s", "synthetic:32x32:1", str(tmp_path / "no.mp4")))


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    frame = np.zeros((40, 80, 3), np.uint8)
    frame[:, :40] = 255  # left half white
    _, data = cv2.imencode(".jpg", frame)
    # An APP1 segment with one EXIF tag: orientation 6, "turn 90 degrees clockwise to show".
    tiff = b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
    body = b"Exif\x00\x00" + tiff
    segment = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    path = tmp_path / "turned.jpg"
    path.write_bytes(data.tobytes()[:2] + segment + data.tobytes()[2:])
    image = read_image(path)
    assert image.shape == (80, 40, 3) and image[:35].min() > 200 and image[45:].max() < 50


def test_info_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--engine", "onnxruntime", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["tinyseg"] == tinyseg.__version__ and facts["chosen"]["engine"] == "onnxruntime"
    assert main(["info", "--engine", "onnxruntime"]) == 0
    assert "box mIoU" in capsys.readouterr().out
    printed = subprocess.check_output([sys.executable, "-m", "tinyseg", "--version"], text=True)
    assert printed.strip() == f"tinyseg {tinyseg.__version__}"


def test_a_command_is_the_only_one_that_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from tinyseg.cli import main; main(['-q', 'models']); print([m for m in sys.modules if 'commands.' in m])"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.splitlines()[-1] == "['tinyseg.commands.models']"
    # All of them where a line names none: the help, and what there is instead of a wrong name.
    for line, stream in ((["--help"], "out"), (["-v"], "err"), (["segmnt", "photo.jpg"], "err")):
        with pytest.raises(SystemExit):
            main(line)
        told = getattr(capsys.readouterr(), stream)
        assert "COMMAND" in told and all(name in told for name in COMMANDS if stream == "out" or "segmnt" in line)
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: tinyseg {name} ")


def test_a_file_where_the_folder_should_be(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", str(photo), "--point", "9,9", "--out", str(photo), *FAKE]) == 2
    assert "give a folder" in capsys.readouterr().err


def test_frames_and_keys_of_prompt_files_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "prompts.jsonl"
    line = '{"frame": 1, "prompts": [{"box": [1, 1, 20, 20]}]}\n'
    run = ["run", "synthetic:32x32:2", "--every-frame-prompts", str(path), *FAKE]
    for content, says in ((line * 2, "several lines for frame 1"), (line.replace("box", "mask"), "'mask' is nothing")):
        path.write_text(content)
        assert main([*run, "--box", "1,1,20,20"]) == 2
        assert says in capsys.readouterr().err
    assert main(["run", "synthetic:32x32:2", "--raw-size", "8x8", "--box", "1,1,20,20", *FAKE]) == 2
    assert "--raw-size is for raw frames" in capsys.readouterr().err
    photos = ["segment", "--point", "9,9", "--format", "coco", "--out", "-", *FAKE]
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, np.full((40, 40, 3), 90, np.uint8))
    assert main([*photos, str(tmp_path / "a.png"), str(tmp_path / "b.png")]) == 0
    told = capsys.readouterr()
    assert len(json.loads(told.out)["images"]) == 2 and "2 of 2 images" in told.err
