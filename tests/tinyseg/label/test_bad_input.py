"""Pictures that are none, and places that cannot be written: noted or told, never fatal in between."""

from __future__ import annotations

import errno
import gzip
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from filelock import FileLock

from tests.tinyseg.label.conftest import Job, contents, write_pictures
from tinyseg.cli import main
from tinyseg.errors import DataError, EngineError
from tinyseg.label import Everything, label, review
from tinyseg.label import shard as shard_module
from tinyseg.label import worker as worker_module


def wide_png(width: int) -> bytes:
    """A PNG whose header states a width; its pixels are not there."""
    header = struct.pack(">IIBBBBB", width, 8, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0" * 40


def test_bad_pictures_are_noted_and_odd_ones_read(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    folder = tmp_path / "in"
    names = write_pictures(folder, 2)
    good = (folder / names[0]).read_bytes()
    noise = np.random.default_rng(5).integers(0, 255, (64, 96, 3), np.uint8)
    (folder / "copy.png").write_bytes(good)
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    cut = cv2.imencode(".jpg", noise)[1].tobytes()
    (folder / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    (folder / "wide.png").write_bytes(wide_png(20_000))
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "film.mp4").write_bytes(b"no film")
    (folder / "part.tar").write_bytes(b"no tar" * 300)
    image.fromarray(noise).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    cv2.imwrite(str(folder / "deep.png"), noise.astype(np.uint16) * 257)
    frames = [image.fromarray(np.full((64, 96, 3), v, np.uint8)) for v in (40, 200)]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], duration=100, lossless=True)
    report = label([folder], tmp_path / "out", Everything(points_per_side=1), engine="fake", shard=4, images="copy")
    errors = {
        e["name"]: e["error"] for e in map(json.loads, (tmp_path / "out" / "errors.jsonl").read_text().splitlines())
    }
    told = {
        "cut.jpg": "without its end", "empty.jpg": "not an image", "text.png": "not an image", "wide.png": "20000 x 8",
        "gone.png": "cannot be read", "film.mp4": "not a video", "part.tar": "no tar",
    }  # fmt: skip
    for name, part in told.items():
        assert part in errors[name], name
    assert set(errors) - set(told) <= {"cut.png"}  # some versions of OpenCV fill the missing half
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    labelled = {i["file_name"]: i for i in content["images"]}
    assert {*names, "copy.png", "cmyk.jpg", "deep.png", "moving.webp"} <= set(labelled)
    assert report.copies == 1 and labelled["copy.png"]["duplicate_of"] == labelled[names[0]]["id"]
    assert report.failed == len(errors) and report.images == len(labelled)
    assert (tmp_path / "out" / "images" / "moving.webp").read_bytes() == (folder / "moving.webp").read_bytes()


def test_the_command_ends_with_1_and_says_where_to_look(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (job.inputs / "bad.png").write_bytes(b"")
    arguments = [
        "label",
        str(job.inputs),
        "--out",
        str(tmp_path / "out"),
        "--boxes",
        str(job.boxes),
        "--engine",
        "fake",
    ]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert "10 images, 10 masks" in said.out and "1 failed, see" in said.out and not said.err


def test_a_failing_engine_is_no_matter_of_the_picture(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks:
        def find(self, frame: Any, name: str) -> Any:
            if name != "004.png":
                raise EngineError("out of memory on the device")
            raise ValueError("of this picture alone")

    monkeypatch.setattr(worker_module.Worker, "_finder", Breaks(), raising=False)
    monkeypatch.setattr(worker_module.Worker, "__init__", lambda self, setup, seg: setattr(self, "setup", setup))
    with pytest.raises(EngineError, match="no picture of shard 0 could be labelled: out of memory"):
        job.label(tmp_path / "out")


@pytest.mark.parametrize("shard", [1, 64])
def test_a_name_that_cannot_be_a_file_fails_alone(shard: int, job: Job, tmp_path: Path) -> None:
    names = ["a.jpg", "a.jpg/b.jpg", "a.jpg/c/d.jpg", "q/e.jpg/f.jpg", "q/e.jpg", "x" * 300 + ".jpg", "z.jpg"]
    packed = tmp_path / "p.tar"
    with tarfile.open(packed, "w") as tar:
        for name, source in zip(names, job.names):
            tar.add(job.inputs / source, name)
    wanted, out = Everything(points_per_side=1), tmp_path / "out"
    report = label([packed], out, wanted, engine="fake", shard=shard)
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert [e["name"] for e in errors] == [f"p.tar/{names[i]}" for i in (1, 2, 4, 5)]
    assert "name of a folder" in errors[2]["error"] and "File name too long" in errors[3]["error"]
    assert report.images == 3 and (out / "images" / "p.tar" / "z.jpg").exists()
    assert label([packed], out, wanted, engine="fake", shard=shard).shards_before == report.shards
    # Without copies nothing is in each other's way.
    assert label([packed], tmp_path / "none", wanted, engine="fake", images="none").images == 7


def test_a_folder_in_the_place_of_a_picture_fails_alone(job: Job, tmp_path: Path) -> None:
    (tmp_path / "out" / "images" / "004.png").mkdir(parents=True)
    with pytest.raises(DataError, match="not written by tinyseg"):
        job.label(tmp_path / "out", images="copy")
    job.label(tmp_path / "two", images="copy")
    (tmp_path / "two" / "images" / "004.png").unlink()
    (tmp_path / "two" / "images" / "004.png").mkdir()
    (tmp_path / "two" / "shards" / "00001_stats.json").unlink()
    report = job.label(tmp_path / "two", images="copy")
    assert (report.images, report.failed) == (9, 1)


def test_a_full_disk_keeps_what_is_whole(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(shard_module.os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left.*run again to go on"):
        job.label(tmp_path / "out")
    assert not [p for p in (tmp_path / "out").rglob("*.tmp")]
    report = job.label(tmp_path / "out")
    assert report.shards_before == 2 and report.images == 10
    job.label(tmp_path / "other")
    assert contents(tmp_path / "out") == contents(tmp_path / "other")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_limit_of_the_system_is_one_line(job: Job, tmp_path: Path) -> None:
    """The kernel refuses, not a stand-in: files may have so many bytes."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1200, 1200))

    arguments = [
        sys.executable,
        "-m",
        "tinyseg",
        "label",
        str(job.inputs),
        "--out",
        str(tmp_path / "out"),
        "--engine",
        "fake",
    ]
    arguments += ["--boxes", str(job.boxes), "--shard", "3", "--images", "copy"]
    done = subprocess.run(arguments, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "File too large" in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert not [p for p in (tmp_path / "out").rglob("*.tmp")]


def test_a_place_that_cannot_be_written(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        job.label(job.inputs / "000.png" / "out")
    with monkeypatch.context() as patch:  # root may write into every folder, so the refusal is made
        patch.setattr(
            Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EROFS, os.strerror(errno.EROFS)))
        )
        with pytest.raises(DataError, match="Read-only file system"):
            job.label(tmp_path / "out")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "annotations.json").write_text("mine")
    with pytest.raises(DataError, match="not written by tinyseg"):  # before any work
        job.label(tmp_path / "own")
    assert (tmp_path / "own" / "annotations.json").read_text() == "mine"
    assert not (tmp_path / "own" / "shards").exists()


def test_two_jobs_on_one_folder(job: Job, tmp_path: Path) -> None:
    job.label(tmp_path / "out")
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(DataError, match="another job is writing"):
        job.label(tmp_path / "out")
    assert job.label(tmp_path / "out").shards_before == 4


def test_a_file_system_without_locks_is_told(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_lock(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no flock here")

    monkeypatch.setattr(FileLock, "acquire", no_lock)
    with pytest.raises(DataError, match="cannot be locked: no flock here"):
        job.label(tmp_path / "out")


def test_another_job_is_told_by_what_differs(job: Job, tmp_path: Path) -> None:
    job.label(tmp_path / "out")
    with pytest.raises(DataError, match="--shard or --every is another"):
        job.label(tmp_path / "out", shard=4)
    (job.inputs / "000.png").rename(tmp_path / "000.png")
    with pytest.raises(DataError, match="pictures among the inputs came, went or have other names"):
        job.label(tmp_path / "out")
    (tmp_path / "000.png").rename(job.inputs / "000.png")
    with pytest.raises(DataError, match=r"wanted is .*boxes.* there and .*everything"):
        label([job.inputs], tmp_path / "out", engine="fake", shard=3)
    with pytest.raises(DataError, match=r'output is "coco" there and "webdataset"'):
        job.label(tmp_path / "out", format="webdataset")


def test_a_job_that_ended_before_its_first_shard_claims_no_folder(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def breaks(self: Any, setup: Any, segmenter: Any = None) -> None:
            raise EngineError("the engine cannot be built")

        patch.setattr(worker_module.Worker, "__init__", breaks)
        with pytest.raises(EngineError):
            job.label(tmp_path / "out")
    assert (tmp_path / "out" / "label.json").exists()
    assert label([job.inputs], tmp_path / "out", Everything(points_per_side=1), engine="fake").images == 10


def test_changed_annotations_are_not_lost(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job.label(out)
    path = out / "annotations.json"
    path.write_text(path.read_text().replace("cup", "mug"))
    with pytest.raises(DataError, match="was changed since tinyseg wrote it"):
        job.label(out)
    assert "mug" in path.read_text()
    path.unlink()
    assert job.label(out).images == 10 and "cup" in path.read_text()


def test_damaged_shards_say_what_to_do(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job.label(out)
    wanted = contents(out)
    (out / "shards" / "00001.jsonl.gz").write_bytes(b"\x1f\x8bno")
    with pytest.raises(DataError, match=r"00001\.jsonl\.gz is damaged .*delete it and run"):
        job.label(out)
    (out / "shards" / "00001.jsonl.gz").unlink()
    assert job.label(out).shards_before == 3 and contents(out) == wanted
    for text in ("{}", "[" * 100_000, '{"shard": 1e999}'):
        (out / "shards" / "00002_stats.json").write_text(text)
        with pytest.raises(DataError, match=r"00002_stats\.json cannot be read .*delete it and run"):
            job.label(out)


@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_rows_of_another_shape_are_damage(format: str, job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job.label(out, format=format)
    path = out / "shards" / "00000.jsonl.gz"
    row = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])
    (one,) = row["annotations"]
    wrongs: list[Any] = [7, [], {**row, "annotations": [7]}, {**row, "image": []}]
    wrongs += [{**row, "image": {**row["image"], **w}} for w in ({"sha256": "zz"}, {"sha256": 7}, {"width": "96"})]
    wrongs += [{**row, "image": {**row["image"], "file_name": 7}}, {**row, "image": {}}]
    wrongs += [{**row, "annotations": [{k: v for k, v in one.items() if k != n}]} for n in ("category", "bbox")]
    changes: list[dict[str, Any]] = [{"segmentation": 7}, {"bbox": [1]}, {"bbox": [1, 2, 3, float("nan")]}]
    for wrong in (*changes, {"score": 10**400}, {"score": "high"}, {"category": 7}):
        wrongs.append({**row, "annotations": [{**one, **wrong}]})
    for wrong in wrongs:
        path.write_bytes(gzip.compress(json.dumps(wrong).encode()))
        for act in (lambda: job.label(out, format=format), lambda: review(out)):
            with pytest.raises(DataError, match=r"00000\.jsonl\.gz is damaged .*delete it and run"):
                act()
