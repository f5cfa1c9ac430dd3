"""Sinks meet folders, links, devices, pipes and each other: nothing of somebody else's is replaced, nothing is half."""

from __future__ import annotations

import io
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tinyseg
from tinyseg import Loop, Prompt
from tinyseg.cli import main
from tinyseg.sinks import CallbackSink, FrameResult, JsonLinesSink, NullSink, PngSink, RawSink, VideoSink, open_sink
from tinyseg.sources import Frame, SyntheticSource

BOX = Prompt(box=(2, 2, 20, 20))
RUN = ["run", "synthetic:64x48:4", "--box", "2,2,20,20", "--engine", "fake"]


def rows(text: str) -> list[int]:
    return [json.loads(line)["frame"] for line in text.splitlines()]


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="this system has no /dev/null")
def test_devices_are_written_to_not_replaced(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.open("wb").close()
    except OSError:
        pytest.skip("no device node can be made and opened here")
    assert main([*RUN, "--sink", f"jsonl:{device}"]) == 0
    assert stat.S_ISCHR(device.stat().st_mode) and [p.name for p in tmp_path.iterdir()] == ["null"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipes_are_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert main([*RUN, "--sink", f"jsonl:{pipe}"]) == 0
    reader.join(10)
    assert rows(read[0]) == [0, 1, 2, 3] and stat.S_ISFIFO(pipe.stat().st_mode)
    film = tmp_path / "film.avi"
    os.mkfifo(film)
    assert main([*RUN, "--sink", f"video:{film}"]) == 2 and "pipe" in capsys.readouterr().err
    assert stat.S_ISFIFO(film.stat().st_mode)


@pytest.mark.parametrize("kind, name", [("jsonl", "m.jsonl"), ("video", "m.avi")])
def test_a_link_stays_a_link(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / "data").mkdir()
    link = tmp_path / name
    link.symlink_to(tmp_path / "data" / name)
    for _ in range(2):  # to nothing, then to a file
        assert main([*RUN, "--sink", f"{kind}:{link}"]) == 0
        assert link.is_symlink() and (tmp_path / "data" / name).stat().st_size > 100
    assert [p.name for p in (tmp_path / "data").iterdir()] == [name]


def test_pictures_do_not_replace_strangers_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "000002.png").write_bytes(b"a holiday")
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main([*RUN, "--sink", f"png:{tmp_path}"]) == 2
    assert "000002.png" in capsys.readouterr().err
    assert (tmp_path / "000002.png").read_bytes() == b"a holiday" and (tmp_path / "thesis.txt").exists()
    out = tmp_path / "out"
    for _ in range(2):  # its own may be replaced
        assert main([*RUN, "--sink", f"png:{out}"]) == 0
    assert len(list(out.glob("*.png"))) == 4


def test_masks_do_not_replace_the_photos_that_they_come_from(tmp_path: Path) -> None:
    picture = np.full((48, 64, 3), 90, np.uint8)
    for name in ("a.png", "a.overlay.png"):
        cv2.imwrite(str(tmp_path / name), picture)
    before = (tmp_path / "a.overlay.png").read_bytes()
    arguments = ["segment", str(tmp_path), "--box", "2,2,20,20", "--out", str(tmp_path), "--engine", "fake"]
    assert main(arguments) == 1  # a.png's overlay has the other photo's name
    assert (tmp_path / "a.overlay.png").read_bytes() == before and (tmp_path / "a.overlay.overlay.png").exists()


@pytest.mark.parametrize(
    "names", [["a-2.jpg", "a.jpg", "a.png"], ["a.jpg", "a.png", "a-2.jpg"], ["A.jpg", "a.png"], ["a.jpg", "sub/a.jpg", "a-2.png"]]
)  # fmt: skip
def test_every_photo_has_results_of_its_own(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "sub").mkdir()
    for name in names:
        cv2.imwrite(str(tmp_path / name), np.full((48, 64, 3), 90, np.uint8))
    out = tmp_path / "out"
    paths = [str(tmp_path / name) for name in names]
    assert main(["segment", *paths, "--box", "2,2,20,20", "--out", str(out), "--engine", "fake"]) == 0
    written = [p.name for p in out.glob("*.png")]
    assert len({w.casefold() for w in written}) == len(names), written


def test_two_runs_on_one_file_are_both_whole(fake: tinyseg.Segmenter, tmp_path: Path) -> None:
    for name in ("m.jsonl", "m.avi"):
        sinks = [open_sink(f"{'jsonl' if name == 'm.jsonl' else 'video'}:{tmp_path / name}") for _ in range(2)]
        loops = [Loop(fake, SyntheticSource(64, 48, n), sink, [BOX]) for n, sink in zip((5, 9), sinks)]
        for loop in loops:
            loop.run()
        for loop in loops:
            loop.close()
    assert rows((tmp_path / "m.jsonl").read_text()) == list(range(9))  # who ends last is kept
    assert int(cv2.VideoCapture(str(tmp_path / "m.avi")).get(cv2.CAP_PROP_FRAME_COUNT)) == 9
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.avi", "m.jsonl"]


@pytest.mark.parametrize("kind, suffix", [("jsonl", ".jsonl"), ("video", ".mp4"), ("png", "")])
def test_places_that_cannot_be_written_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, suffix: str
) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    places = [
        f"{tmp_path}/file/x{suffix}",
        f"{tmp_path}/{'n' * 300}{suffix}",
        f"{tmp_path}/{'d/' * 3000}x{suffix}",
        f"a\0b{suffix}",
    ]
    if kind != "png":
        places.append(str(folder))
    for place in places:
        assert main([*RUN, "--sink", f"{kind}:{place}"]) == 2, place
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and len(told) < 600, told
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["file", folder.name]) and not list(folder.iterdir())


def test_a_folder_that_takes_the_name_meanwhile_is_told(fake: tinyseg.Segmenter, tmp_path: Path) -> None:
    for name in ("m.jsonl", "m.avi"):
        sink = open_sink(f"{'jsonl' if name == 'm.jsonl' else 'video'}:{tmp_path / name}")
        loop = Loop(fake, SyntheticSource(64, 48, 2), sink, [BOX])
        loop.run()
        (tmp_path / name).mkdir()
        with pytest.raises(tinyseg.DataError, match="what was made is"):
            loop.close()
        assert (tmp_path / name).is_dir()


@pytest.mark.parametrize("thing", [None, 5, ["null"], np.zeros(2), b"null", Path("x.jsonl"), "jsonl:-"])
def test_sinks_of_a_wrong_type_are_told(thing: Any) -> None:
    with pytest.raises(tinyseg.InputError):
        open_sink(thing)


@pytest.mark.parametrize("make", [JsonLinesSink, VideoSink, PngSink, RawSink, CallbackSink])
@pytest.mark.parametrize("thing", [None, 5, [1], b"x", ""])
def test_sinks_check_what_they_are_made_of(make: Any, thing: Any) -> None:
    with pytest.raises(tinyseg.InputError):
        make(thing)
    if make is VideoSink:
        with pytest.raises(tinyseg.DataError, match="frame_rate"):
            VideoSink(Path("x.mp4"), "fast")  # type: ignore[arg-type]


def test_a_closed_stream_is_told(fake: tinyseg.Segmenter) -> None:
    stream = io.BytesIO()
    stream.close()
    with (
        pytest.raises(tinyseg.DataError, match="raw masks cannot be written"),
        Loop(fake, SyntheticSource(64, 48, 2), RawSink(stream), [BOX]) as loop,
    ):
        loop.run()


def test_a_loop_runs_once(fake: tinyseg.Segmenter) -> None:
    with Loop(fake, SyntheticSource(64, 48, 3), NullSink(), [BOX]) as loop:
        assert loop.run().frames == 3
        with pytest.raises(tinyseg.NotReadyError, match="make a new Loop"):
            loop.run()
    for how in (Loop.close, Loop.stop):
        other = Loop(fake, SyntheticSource(64, 48, 3), NullSink(), [BOX])
        how(other)
        with pytest.raises(tinyseg.NotReadyError, match="make a new Loop"):
            other.run()


@pytest.mark.parametrize("prompts", [BOX, None, "box", 5, [None], {"box": 1}, np.zeros((1, 4))])
def test_what_is_no_list_of_prompts_is_told(fake: tinyseg.Segmenter, prompts: Any) -> None:
    with pytest.raises(tinyseg.InputError, match="prompts must be"):
        Loop(fake, SyntheticSource(64, 48, 3), NullSink(), prompts)
    with pytest.raises(tinyseg.InputError, match="prompt"):
        fake.embed(np.zeros((48, 64, 3), np.uint8)).predict_batch(prompts)
    if prompts is not None:
        source = SyntheticSource(64, 48, 3)
        with (
            pytest.raises(tinyseg.InputError, match="prompts must be"),
            Loop(fake, source, NullSink(), [], prompts_for=lambda i: prompts) as loop,
        ):
            loop.run()


@pytest.mark.parametrize(
    "wrong",
    [{"segmenter": None}, {"source": "0"}, {"sink": "null"}, {"drop": ["none"]}, {"zoom": np.zeros(3)}, {"prompts_for": 5},
     {"on_tick": "x"}, {"tick_seconds": "x"}, {"tick_seconds": float("nan")}],
)  # fmt: skip
def test_a_loop_checks_its_parts(fake: tinyseg.Segmenter, wrong: dict[str, Any]) -> None:
    parts: dict[str, Any] = {
        "segmenter": fake, "source": SyntheticSource(64, 48, 3), "sink": NullSink(), "prompts": [BOX], **wrong
    }  # fmt: skip
    with pytest.raises(tinyseg.InputError, match=next(iter(wrong))):
        Loop(**parts)


@pytest.mark.parametrize("color, channels", [("bgr", (0, 1, 2)), ("rgb", (2, 1, 0))])
def test_pictures_of_results_are_bgr(color: str, channels: tuple[int, int, int]) -> None:
    frame = np.full((24, 32, 3), (10, 120, 230), np.uint8)
    picture = FrameResult(Frame(frame, 0, 0.0, color), (), [], 1.0).picture()
    np.testing.assert_array_equal(picture, frame[..., channels])
