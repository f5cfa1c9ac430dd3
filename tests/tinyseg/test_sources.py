"""Sources meet damaged files, cut streams and nonsense: nothing is lost in silence, and one exception says what is wrong."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tinyseg import Loop, Prompt
from tinyseg.cli import main
from tinyseg.sinks import CallbackSink
from tinyseg.sources import (
    ArraySource,
    ImageSource,
    LiveSource,
    RawSource,
    Source,
    SyntheticSource,
    VideoFileSource,
    open_source,
)
from tinyseg.sources.camera import OpenCVCapture

ROOT = Path(__file__).parent.parent.parent
BOX = Prompt(box=(2, 2, 20, 20))
FAKE = ["--engine", "fake"]


def video(path: Path, count: int = 60) -> bytes:
    """A Motion JPEG of noise, so that every frame fills its bytes."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (64, 48))
    if not writer.isOpened():
        pytest.skip("this build of OpenCV writes no video")
    random = np.random.default_rng(0)
    for _ in range(count):
        writer.write(random.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    return path.read_bytes()


def read_all(source: Source) -> list[NDArray[np.uint8]]:
    pictures = []
    while (pixels := source.read()) is not None:
        pictures.append(pixels)
    return pictures


def test_a_video_goes_on_after_damaged_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "film.avi"
    data = bytearray(video(path))
    whole = read_all(VideoFileSource(path))
    starts = [i for i in range(len(data)) if data.startswith(b"00dc", i)][:60]  # the chunks; the index comes after
    for number in (2, 3, 30):
        begin, end = starts[number] + 8, starts[number + 1]
        data[begin:end] = bytes(end - begin)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING, logger="tinyseg.sources"):
        source = VideoFileSource(path)
        left = read_all(source)
    assert len(left) == 57 and source.damaged == 3 and "2 frames near frame" in caplog.text
    np.testing.assert_array_equal(left[2], whole[4])
    np.testing.assert_array_equal(left[-1], whole[-1])
    assert main(["run", str(path), "--box", "2,2,20,20", *FAKE]) == 1


def test_a_video_that_was_cut_off_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "film.avi"
    data = video(path)
    whole = VideoFileSource(path)
    assert len(read_all(whole)) == 60 and whole.damaged == 0 and whole.read() is None and whole.damaged == 0
    path.write_bytes(data[: len(data) // 2])
    source = VideoFileSource(path)
    assert 20 < len(read_all(source)) == 60 - source.damaged < 40 and "of the 60 frames that it states" in caplog.text


def test_whole_frames_before_a_partial_one_are_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    frame = 64 * 48 * 3
    source = RawSource(io.BytesIO(bytes(5 * frame + 100)), 64, 48)
    assert len(read_all(source)) == 5 and source.damaged == 1 and f"100 of {frame} bytes" in caplog.text
    command = [
        sys.executable,
        "-m",
        "tinyseg",
        "run",
        "-",
        "--raw-size",
        "64x48",
        "--box",
        "8,8,40,40",
        "--sink",
        "raw",
    ]
    done = subprocess.run([*command, *FAKE], input=bytes(5 * frame + 100), capture_output=True, check=False)
    assert done.returncode == 1 and len(done.stdout) == 5 * 64 * 48 and b"inside a frame" in done.stderr
    done = subprocess.run([*command, *FAKE], input=bytes(100), capture_output=True, check=False)
    assert done.returncode == 2 and b"check the size" in done.stderr and b"Traceback" not in done.stderr


def test_a_source_that_fails_has_given_the_frames_before(fake: tinyseg.Segmenter) -> None:
    class Fails(Source):
        def read(self) -> NDArray[np.uint8]:
            if self._count == 40:
                raise tinyseg.DataError("the cable is out")
            return np.zeros((48, 64, 3), np.uint8)

    seen: list[int] = []
    sink = CallbackSink(lambda r: seen.append(r.frame.index))
    for seg in (fake, tinyseg.load(engine="fake", streams=3)):
        with pytest.raises(tinyseg.DataError, match="cable"), Loop(seg, Fails(), sink, [BOX]) as loop:
            loop.run()
    assert seen == list(range(40)) * 2


def test_a_bad_frame_comes_after_the_results_before_it(fake: tinyseg.Segmenter) -> None:
    seen: list[int] = []
    frames = [np.zeros((48, 64, 3), np.uint8)] * 30 + [np.zeros((8, 8, 3), np.uint8)]
    with (
        pytest.raises(tinyseg.PromptError, match="outside"),
        Loop(
            fake, ArraySource(frames), CallbackSink(lambda r: seen.append(r.frame.index)), [Prompt([[20, 9]], [1])]
        ) as loop,
    ):
        loop.run()
    assert seen == list(range(30))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    _, data = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))
    raw = bytearray(data.tobytes())
    raw[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return bytes(raw)


def bad_images(folder: Path) -> None:
    """A good image first and last; between them every kind of bad one."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    jpeg = cv2.imencode(".jpg", noise)[1].tobytes()
    (folder / "a.jpg").write_bytes(jpeg)
    (folder / "b-wide.png").write_bytes(cv2.imencode(".png", np.zeros((10, 20000, 3), np.uint8))[1].tobytes())
    (folder / "c-claims.png").write_bytes(png_header(40000, 40000))
    (folder / "d-cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "e-empty.png").write_bytes(b"")
    (folder / "f-folder.png").mkdir()
    (folder / "g-link.png").symlink_to(folder / "nowhere")
    (folder / "z.jpg").write_bytes(jpeg)


def test_bad_images_are_reported_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    bad_images(photos)
    out = tmp_path / "out"
    assert main(["segment", str(photos), "--box", "2,2,20,20", "--json", "--out", str(out), *FAKE]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [("error" in r) for r in rows] == [False, *[True] * 6, False]
    assert sorted(p.name for p in out.iterdir() if p.name[0] != ".") == ["a.overlay.png", "z.overlay.png"]
    source = ImageSource([str(photos)])
    names = []
    while (frame := source.next_frame()) is not None:
        names.append(Path(frame.name).name)
    assert names == ["a.jpg", "z.jpg"] and source.damaged == 6 and "b-wide.png" in caplog.text
    assert main(["run", str(photos), "--box", "2,2,20,20", *FAKE]) == 1
    assert "6 damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    ["²", "1²", "9" * 20, "9" * 5000, "synthetic:999999x999999", "synthetic:16384x16384", "synthetic:²x²", "x" * 300 + ".mp4",
     "a/" * 2000, "x\0y", "", "rtsp\0://"],
)  # fmt: skip
def test_absurd_sources_are_told(text: str) -> None:
    with pytest.raises(tinyseg.DataError):
        open_source(text)


@pytest.mark.parametrize("thing", [None, 1.5, ["0"], b"0", np.zeros(3), -1, 10**20, True, object()])
def test_sources_of_a_wrong_type_are_told(thing: Any) -> None:
    with pytest.raises(tinyseg.DataError):
        open_source(thing)


@pytest.mark.parametrize("size", [(999999, 999999), (-1, 5), (0, 5), (2.5, 3), ("9", "9"), (1,), 7, None])
def test_absurd_raw_sizes_are_told(size: Any) -> None:
    with pytest.raises(tinyseg.DataError):
        open_source("-", io.BytesIO(b"123"), size)


def test_raw_streams_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(tinyseg.DataError, match="binary stream"):
        RawSource("text", 4, 4)  # type: ignore[arg-type]
    with pytest.raises(tinyseg.DataError, match="bgr"):
        RawSource(io.BytesIO(), 4, 4, ["bgr"])  # type: ignore[arg-type]
    stream = io.BytesIO(bytes(48))
    stream.close()
    with pytest.raises(tinyseg.DataError, match="cannot be read"):
        RawSource(stream, 4, 4).read()


@pytest.mark.parametrize(
    "make",
    [
        lambda: SyntheticSource(10**6, 10**6), lambda: SyntheticSource(0, 5), lambda: SyntheticSource(9, 9, -1),
        lambda: SyntheticSource(9, 9, distinct=0), lambda: SyntheticSource(9, 9, frame_rate=float("nan")),
        lambda: SyntheticSource("9", 9), lambda: ArraySource(5), lambda: ArraySource([], color=["bgr"]),
        lambda: VideoFileSource(Path("/nowhere/x.mp4")), lambda: VideoFileSource(5), lambda: ImageSource([5]),
        lambda: ImageSource(["x" * 300 + ".png"]),
    ],
)  # fmt: skip
def test_sources_check_what_they_are_made_of(make: Any) -> None:
    with pytest.raises(tinyseg.InputError):
        make()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become a user without rights")
def test_permission_denied_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name in ("film.avi", "photo.png", "prompts.jsonl", "shut"):
        place = tmp_path / name
        place.mkdir() if name == "shut" else place.write_bytes(b"x")
        place.chmod(0)
    script = f"""
import os, sys
sys.path[:0] = {sys.path!r}
import tinyseg, tinyseg.cli
seg = tinyseg.load(engine="fake")  # while modules can still be imported, those of all commands too
tinyseg.cli.build_parser()
os.environ["TINYSEG_CACHE"] = "/nowhere"
os.chdir("/"); os.setgid(65534); os.setuid(65534)
box, fake = ["--box", "1,1,9,9"], ["--engine", "fake"]
codes = []
for source in ("film.avi", "photo.png", "shut", "shut/x.avi"):
    codes.append(tinyseg.cli.main(["run", f"{tmp_path}/{{source}}", *box, *fake]))
codes.append(tinyseg.cli.main(["segment", "{tmp_path}/shut", *box, *fake]))
codes.append(tinyseg.cli.main(["segment", "{tmp_path}/photo.png", "--mask", "{tmp_path}/photo.png", *fake]))
codes.append(tinyseg.cli.main(["run", "synthetic:64x64:2", "--every-frame-prompts", "{tmp_path}/prompts.jsonl", *fake]))
for kind, name in (("jsonl", "m.jsonl"), ("jsonl", "shut/m.jsonl"), ("video", "m.avi"), ("png", "p"), ("png", "shut")):
    codes.append(tinyseg.cli.main(["run", "synthetic:64x64:2", "--sink", f"{{kind}}:{tmp_path}/{{name}}", *box, *fake]))
codes.append(tinyseg.cli.main(["segment", "{ROOT}/examples/coffee.jpg", "--out", "{tmp_path}/o", *box, *fake]))
codes.append(tinyseg.cli.main(["eval", "{tmp_path}/shut/x", *fake]))
codes.append(tinyseg.cli.main(["eval", "{tmp_path}/shut", *fake]))
print(codes, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    codes = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else done.stderr
    assert isinstance(codes, list) and all(c in (1, 2) for c in codes), (codes, done.stderr)
    assert "Traceback" not in done.stderr and done.stderr.count("ermission denied") >= len(codes) - 2, done.stderr


class Hangs:
    """A cv2.VideoCapture whose read waits until it is told to go on, and which counts releases and notes those during a read."""

    def __init__(self) -> None:
        self.reading, self.go_on = threading.Event(), threading.Event()
        self.released = 0
        self.disturbed = False

    def isOpened(self) -> bool:
        return True

    def get(self, which: int) -> float:
        return 0.0 if which == cv2.CAP_PROP_POS_MSEC else 100.0

    def read(self) -> tuple[bool, NDArray[np.uint8]]:
        before = self.released
        self.reading.set()
        self.go_on.wait(10)
        self.disturbed = self.released > before
        return True, np.zeros((4, 4, 3), np.uint8)

    def release(self) -> None:
        self.released += 1


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_what_hangs_in_a_read_is_let_go_when_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    capture: Any = Hangs()  # OpenCV frees what a read is using, and the process crashes
    if kind == "file":
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
        (tmp_path / "film.mp4").touch()
        source: Source = VideoFileSource(tmp_path / "film.mp4")
    else:
        source = LiveSource("stream", lambda: OpenCVCapture("stream", capture))
    got: list[Any] = []
    reader = threading.Thread(target=lambda: got.append(source.next_frame()), daemon=True)
    reader.start()
    assert capture.reading.wait(10)
    source.close()
    source.close()
    assert capture.released == 0
    capture.go_on.set()
    reader.join(10)
    assert got == [None] and capture.released >= 1 and not capture.disturbed
    assert source.damaged == 0 and not caplog.records
    assert source.next_frame() is None
