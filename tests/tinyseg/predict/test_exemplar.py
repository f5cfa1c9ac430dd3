from __future__ import annotations

import io
import json
import shutil
import signal
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tests.conftest import ellipse, mask_iou
from tests.tinyseg.test_npz import array_file, flipped, packed
from tinyseg.bench.finding import is_videos, measure_photos, measure_videos
from tinyseg.cli import main
from tinyseg.dataset import Photo
from tinyseg.errors import DataError, InputError, PromptError
from tinyseg.images import write_image
from tinyseg.predict.exemplar import Reference, joined
from tinyseg.predict.exemplar.look import parts

ENGINE = ["--engine", "onnxruntime", "--precision", "fp32"]
PLACES = ((70, 60), (230, 70), (150, 180))


@pytest.fixture(scope="module")
def seg(reference: tinyseg.Segmenter) -> tinyseg.Segmenter:
    return reference


@pytest.fixture(scope="module")
def shelf() -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """A frame with three orange discs and two green boxes on grey, and the discs' masks."""
    frame = np.full((240, 320, 3), (120, 110, 105), np.uint8)
    frame[20:60, 130:180] = frame[150:200, 250:300] = (60, 150, 60)
    masks = [ellipse(320, 240, x, y, 32, 32) for x, y in PLACES]
    for mask in masks:
        frame[mask] = (30, 120, 230)
    noise = np.random.default_rng(0).integers(-6, 7, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8), masks


def test_all_of_a_kind_are_found_in_the_same_picture(
    seg: tinyseg.Segmenter, shelf: tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]
) -> None:
    frame, masks = shelf
    found = seg.find(frame, like=(frame, masks[0]))
    assert len(found) == 3
    for mask in masks:
        assert max(mask_iou(m, mask) for m in found.masks) > 0.8
    assert (np.diff(found.scores) <= 0).all() and found.scores.min() >= 0 and found.scores.max() <= 1
    assert len(seg.find(frame, like=(frame, masks[0]), most=1, threshold=np.float32(0.4))) == 1  # type: ignore[arg-type]
    assert found.plot().shape == frame.shape


def test_it_is_found_elsewhere_by_a_prompted_example_and_by_several(
    seg: tinyseg.Segmenter, shelf: tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]
) -> None:
    frame, masks = shelf
    other = np.full((200, 300, 3), (120, 110, 105), np.uint8)
    there = ellipse(300, 200, 210, 90, 40, 40)
    other[there] = (30, 120, 230)
    box = tinyseg.Prompt(box=[38, 28, 102, 92])
    reference = seg.reference((frame, box), (frame, masks[1]))
    found = seg.find(other, reference, most=1)
    assert len(found) == 1 and mask_iou(found.masks[0], there) > 0.8
    assert reference.positive.shape[1] == reference.negative.shape[1] and len(reference.positive) == 16
    assert reference.shares.sum() == pytest.approx(1, abs=1e-3)


def test_nothing_alike_is_no_error(
    seg: tinyseg.Segmenter, shelf: tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]
) -> None:
    frame, masks = shelf
    found = seg.find(np.full((200, 300, 3), 90, np.uint8), like=(frame, masks[0]), threshold=0.7)
    assert len(found) == 0 and found.masks.shape == (0, 200, 300) and found.to_coco() == []


def test_a_reference_comes_back_from_its_file(
    seg: tinyseg.Segmenter, shelf: tuple[NDArray[np.uint8], list[NDArray[np.bool_]]], tmp_path: Path
) -> None:
    frame, masks = shelf
    reference = seg.reference((frame, masks[0]))
    reference.save(tmp_path / "r.npz")
    again = Reference.load(tmp_path / "r.npz")
    np.testing.assert_array_equal(again.positive, reference.positive)
    assert (again.model, again.inside, again.size) == (reference.model, reference.inside, reference.size)
    assert (tmp_path / "r.npz").stat().st_size < 40_000
    with pytest.raises(DataError, match=r"\.npz"):
        reference.save(tmp_path / "r.bin")


def _npz(**change: object) -> bytes:
    fields: dict[str, object] = {
        "format": 1, "model": "m", "positive": np.ones((2, 3), np.float32), "negative": np.ones((2, 3), np.float32),
        "shares": np.ones(2, np.float32), "inside": 1.0, "outside": 0.0, "size": 0.5,
    }  # fmt: skip
    fields.update(change)
    buffer = io.BytesIO()
    np.savez(buffer, **{k: np.array(v, dtype=object if k == "pickled" else None) for k, v in fields.items()})  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"no zip", _npz()[:200], _npz(format=2), _npz(positive=np.ones((2, 4), np.float32)), _npz(size=7.0),
        _npz(positive=np.full((2, 3), np.nan, np.float32)), _npz(model=3), _npz(inside=np.inf),
        _npz(shares=np.ones(5, np.float32)), _npz(positive=np.ones((2, 3), "U1")), _npz(positive=np.array([{}, []], object)),
        flipped(packed(zipfile.ZIP_LZMA, format=array_file(np.arange(4000)))),
        packed(format=array_file(np.ones(3), shape=(50 * 2**40,))),
    ],
)  # fmt: skip
def test_strange_files_are_no_references(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"r\.npz"):
        Reference.load(tmp_path / "r.npz")


@pytest.mark.parametrize("path", [None, 5, b"r.npz", ""])
def test_what_is_no_path_is_told(path: Any) -> None:
    nothing = np.ones((1, 3), np.float32)
    for call in (Reference.load, Reference("m", nothing, nothing, np.ones(1, np.float32), 0.9, 0.1, 0.5).save):
        with pytest.raises(DataError, match="must be a path"):
            call(path)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, positive=np.zeros(5 << 20, np.float64))
    (tmp_path / "r.npz").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="unpacks to more"):
        Reference.load(tmp_path / "r.npz")


def test_bad_examples_are_errors(
    seg: tinyseg.Segmenter, shelf: tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]
) -> None:
    frame, masks = shelf
    for mask, says in ((masks[0][:50], "frame's shape"), (masks[0] & False, "empty"), (masks[0].astype(int), "bool")):
        with pytest.raises(PromptError, match=says):
            seg.find(frame, like=(frame, mask))
    with pytest.raises(InputError, match="like must"):
        seg.find(frame, like=frame)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="must be a bool mask"):
        seg.find(frame, like=(frame, seg(frame, box=(38, 28, 102, 92))))  # type: ignore[arg-type]
    bad: tuple[tuple[Any, ...], ...] = ((frame, masks[0]), ([(frame, masks[0])],), (1,))
    for examples in bad:
        with pytest.raises(InputError, match="an example must be a tuple"):
            seg.reference(*examples)
    reference = seg.reference((frame, masks[0]))
    for change, says in (({"most": 0}, "most must"), ({"threshold": 2.0}, "threshold must")):
        with pytest.raises(InputError, match=says):
            seg.find(frame, reference, **change)  # type: ignore[arg-type]
    other = Reference("another", reference.positive, reference.negative, reference.shares, 1, 0, 0.1)
    with pytest.raises(PromptError, match="another model"):
        seg.find(frame, other)
    for several in ([], [reference, other]):
        with pytest.raises(PromptError):
            joined(several)


def test_parts_are_the_same_every_time() -> None:
    look = np.random.default_rng(0).normal(size=(12, 16, 8)).astype(np.float32)
    look /= np.linalg.norm(look, axis=2, keepdims=True)
    mask = np.zeros((12, 16), np.bool_)
    mask[3:9, 4:12] = True
    first, second = parts(look, mask), parts(look, mask)
    np.testing.assert_array_equal(first[0], second[0])
    assert first[0].shape == (8, 8) and first[1].shape == (16, 8)
    tiny, _ = parts(look, mask & (np.arange(16) == 5) & (np.arange(12) == 4)[:, None])
    assert len(tiny) == 1


def test_the_command_counts_and_keeps_references(
    shelf: tuple[NDArray[np.uint8], list[NDArray[np.bool_]]], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    frame, masks = shelf
    picture, mask = str(tmp_path / "shelf.png"), str(tmp_path / "mask.png")
    write_image(Path(picture), frame)
    write_image(Path(mask), masks[0].astype(np.uint8) * 255)
    saved, out = str(tmp_path / "r.npz"), str(tmp_path / "out")
    assert (
        main(
            ["find", picture, "--like", picture, "--like-mask", mask, "--save", saved, "--json", "--out", out, *ENGINE]
        )
        == 0
    )
    row = json.loads(capsys.readouterr().out)
    assert row["count"] == 3 and len(row["objects"]) == 3 and (tmp_path / "out" / "shelf.overlay.png").exists()
    assert main(["find", picture, "--like", saved, "--most", "1", "--format", "coco", "--out", out, *ENGINE]) == 0
    assert len(json.loads((tmp_path / "out" / "coco.json").read_text())["annotations"]) == 1
    assert (
        main(["find", "synthetic:320x240:2", "--like", saved, "--sink", f"jsonl:{tmp_path / 'o.jsonl'}", *ENGINE]) == 0
    )
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 2
    capsys.readouterr()
    for arguments, says in (
        (["find", picture], "say what to find"),
        (["find", picture, "--like", picture], "as many of"),
        (["find", "--like", saved], "name images"),
        (["find", "--like", saved, "--save", saved, "--json"], "are for what is found"),
        (["find", picture, "--like", picture, "--like-box", "1,2"], "--like-box takes"),
        (["find", picture, "--like", str(tmp_path / "no.npz")], "no.npz"),
        (["find", picture, "--like", picture, "--like-box", "900,900,950,950"], "outside the frame"),
        (["find", picture, "--like", saved, "--sink", "video:x.mp4"], "--sink is for a video"),
        (["find", picture, "--like", saved, "--format", "mask", "--out", "m.png"], "a file for each mask"),
        (["find", picture, "--like", saved, "--json", "--out", "-"], "both write to standard output"),
        (["find", "synthetic:32x32:1", "--like", saved, "--format", "coco"], "are for images"),
        (["find", picture, picture, "--like", saved, "--most", "0"], "most must be"),
        (["find", picture, picture, "--like", saved, "--threshold", "nan"], "threshold must be"),
        (["find", picture, picture, "--like", saved, "--model", "small"], "another model"),
    ):
        assert main([*arguments, *ENGINE]) == 2
        told = capsys.readouterr()
        assert says in told.err and told.err.count("tinyseg: ") == 1 and not told.out
    assert main(["find", picture, "--like", saved, "--threshold", "0", "--out", out, *ENGINE]) == 0
    output = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["find", picture, "--like", saved, "--most", "1", "--format", "polygons", "--out", "-", *ENGINE]) == 0
    assert len(json.loads(output.buffer.getvalue())) == 1  # type: ignore[attr-defined]


def test_a_stopped_stream_keeps_what_was_found(
    shelf: tuple[NDArray[np.uint8], list[NDArray[np.bool_]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_image(tmp_path / "shelf.png", shelf[0])
    find, asked = tinyseg.Segmenter.find, []

    def stopped(self: tinyseg.Segmenter, *arguments: Any) -> tinyseg.Masks:
        asked.append(1)
        if len(asked) == 3:
            signal.raise_signal(signal.SIGTERM)
        return find(self, *arguments)

    monkeypatch.setattr(tinyseg.Segmenter, "find", stopped)
    like = ["--like", str(tmp_path / "shelf.png"), "--like-box", "20,20,90,90"]
    assert main(["find", "synthetic:320x240:9", *like, "--sink", f"jsonl:{tmp_path / 'o.jsonl'}", *ENGINE]) == 130
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 2
    assert "of 2 frames" in capsys.readouterr().out and len(list(tmp_path.iterdir())) == 2


def test_measurements(
    seg: tinyseg.Segmenter, shelf: tuple[NDArray[np.uint8], list[NDArray[np.bool_]]], tmp_path: Path
) -> None:
    frame, masks = shelf
    write_image(tmp_path / "p.png", frame)
    polygons = tuple(
        (np.array([(x + 32 * np.cos(a), y + 32 * np.sin(a)) for a in np.linspace(0, 6.28, 40)], np.float32),)
        for x, y in PLACES
    )
    size = (tmp_path / "p.png").stat().st_size
    photo = Photo("p", "tomsains/SegMush", "", 320, 240, polygons, tmp_path / "p.png", None, size)
    report = measure_photos(seg, [photo])
    assert (report.recall, report.precision, report.count_error) == (1, 1, 0)
    assert "recall" in report.to_markdown() and report.to_json()["photos"]
    with pytest.raises(DataError, match="one kind"):
        measure_photos(seg, [])
    for i in range(11):
        write_image(tmp_path / "v" / "a" / "frames" / f"{i:05d}.png", frame)
        write_image(tmp_path / "v" / "a" / "masks" / f"{i:05d}.png", masks[0].astype(np.uint8) * 255)
    assert is_videos(tmp_path / "v") and not is_videos(tmp_path / "p.png")
    assert measure_videos(seg, tmp_path / "v").j > 0.8
    for kind in ("frames", "masks"):
        shutil.copytree(tmp_path / "v" / "a" / kind, tmp_path / "v" / "b" / kind)
    for chosen in (measure_videos(seg, tmp_path / "v", ["b"]), measure_videos(seg, tmp_path / "v", limit=1)):
        assert len(chosen.videos) == 1
    with pytest.raises(DataError, match="no video c; it has a, b"):
        measure_videos(seg, tmp_path / "v", ["c"])
    (tmp_path / "v" / "a" / "frames" / "00010.png").write_bytes(b"")
    with pytest.raises(DataError, match="are not a frame and its mask"):
        measure_videos(seg, tmp_path / "v", ["a"])


def test_measurements_of_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(tmp_path / "whole.tar", "w") as tar:
        tar.add(__file__, "a/frames/0.png")
        tar.add(__file__, "a/frames/1.png")
    cut = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(cut[: len(cut) // 4])
    for place, says in ((tmp_path / "none", "no data set at"), (tmp_path / "cut.tar", "cut.tar")):
        assert main(["eval", str(place), "--find", "--engine", "fake"]) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1
