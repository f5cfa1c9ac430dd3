"""Cameras: addresses, a V4L2 device played by a preloaded library, picamera2 and Jetson pipelines as far as they go here."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import tinyseg
from tinyseg import diagnosis
from tinyseg.cli import main
from tinyseg.sources import open_source, v4l2
from tinyseg.sources.address import CameraAddress, parse_address
from tinyseg.sources.gstreamer import jetson_pipeline, libcamera_pipeline

HERE = Path(__file__).parent
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="V4L2 is Linux'")


def test_addresses() -> None:
    address = parse_address("v4l2:///dev/v4l/by-id/usb-x?size=1280x720&fps=30000/1001&format=mjpg&gain=4")
    assert (address.place, address.size, address.format) == ("/dev/v4l/by-id/usb-x", (1280, 720), "MJPG")
    assert address.fps == pytest.approx(29.97, abs=0.001) and address.controls == {"gain": "4"}
    assert parse_address("csi://1") == CameraAddress("csi", "1") and parse_address("picamera2:0").place == "0"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("v4l2://video0", "is a device"), ("v4l2:0", "is a device"), ("csi://x", "have numbers"), ("csi:", "have numbers"),
        ("picamera2:²", "have numbers"), ("v4l2:///dev/video0?size=9", "WIDTHxHEIGHT"), ("v4l2:///dev/video0?size", "name=value"),
        ("v4l2:///dev/video0?fps=nan", "fps must be"), ("v4l2:///dev/video0?fps=1/0", "fps must be"), ("csi://0?fps=1e9", "fps must be"),
        ("v4l2:///dev/video0?fps=5&fps=5", "given once"), ("v4l2:///dev/video0?format=" + "x" * 50, "pixel format's name"),
        ("v4l2:///dev/video0?" + "&".join(f"a{i}=1" for i in range(99)), "name=value"),
    ],
)  # fmt: skip
def test_addresses_that_are_wrong_are_told(text: str, told: str) -> None:
    with pytest.raises(tinyseg.DataError, match=told):
        open_source(text)


def test_file_addresses(root: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a b%20c.mp4"
    shutil.copy(root / "examples" / "clip.mp4", odd)
    for text in (f"file://{root}/examples/clip.mp4", f"file:{odd}", f"file://{tmp_path}/a%20b%2520c.mp4"):
        source = open_source(text)
        assert source.read() is not None
        source.close()
    with pytest.raises(tinyseg.DataError, match="is no source"):
        open_source("file:///nowhere/x.mp4")


def test_structures_are_the_kernels(tmp_path: Path) -> None:
    """Sizes and request numbers as linux/videodev2.h has them."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/usr/include/linux/videodev2.h").exists():
        pytest.skip("no C compiler, or no headers of Linux")
    names = [
        "QUERYCAP",
        "ENUM_FMT",
        "G_FMT",
        "S_FMT",
        "REQBUFS",
        "S_CTRL",
        "G_CTRL",
        "QUERYCTRL",
        "ENUM_FRAMESIZES",
        "ENUM_FRAMEINTERVALS",
    ]
    prints = "\n".join(f'printf("%lu\\n", (unsigned long)VIDIOC_{name});' for name in names)
    source = tmp_path / "numbers.c"
    source.write_text(f"#include <linux/videodev2.h>\n#include <stdio.h>\nint main(void) {{ {prints} return 0; }}\n")
    subprocess.run([compiler, "-o", tmp_path / "numbers", source], check=True)
    done = subprocess.run([tmp_path / "numbers"], capture_output=True, text=True, check=True)
    assert [int(n) for n in done.stdout.split()] == [getattr(v4l2, name) for name in names]


@pytest.fixture(scope="session")
def camera(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a program that meets a V4L2 camera at FAKE_V4L2, which is as FAKE_V4L2_STATE says."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/usr/include/linux/videodev2.h").exists():
        pytest.skip("no C compiler, or no headers of Linux")
    folder = tmp_path_factory.mktemp("v4l2")
    library = folder / "fake.so"
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, HERE / "fake_v4l2.c", "-ldl"], check=False
    )
    assert built.returncode == 0
    (folder / "video0").symlink_to("/dev/null")  # some device
    (folder / "state").write_text("ok")
    here = {"FAKE_V4L2": str(folder / "video0"), "FAKE_V4L2_STATE": str(folder / "state"), "LD_PRELOAD": str(library)}
    return {**os.environ, **here}


SCRIPT = """
import json, os, pathlib, sys, threading, time
from tinyseg import DataError, sources
from tinyseg.sources import camera
camera.FIRST_BACK_OFF = camera.LAST_BACK_OFF = 0.05
device, state = os.environ["FAKE_V4L2"], pathlib.Path(os.environ["FAKE_V4L2_STATE"])
told = {}
def attempt(name, query="", sets="ok"):
    state.write_text(sets)
    try:
        source = sources.open_source(f"v4l2://{device}{query}")
    except DataError as exc:
        told[name] = str(exc)
        return
    frame = source.next_frame()
    row = frame.pixels[10, :: frame.pixels.shape[1] // 4, 0]
    told[name] = [frame.pixels.shape, source.frame_rate, 1e3 * (time.perf_counter() - frame.captured), row.tolist()]
    source.close()
attempt("plain")
attempt("large", "?size=1280x720&format=yuyv&fps=10&brightness=200")
attempt("exposure", "?auto_exposure=1&exposure_time_absolute=77")
attempt("automatic", "?auto_exposure=3&exposure_time_absolute=77")
attempt("size", "?size=1920x1080&fps=60")
attempt("unreadable", "?format=H264")
attempt("control", "?zoom=3")
attempt("value", "?brightness=300")
for name in ("busy", "denied", "unplugged", "full"):
    attempt(name, sets=name)
state.write_text("ok")
source = sources.open_source(f"v4l2://{device}")
attempt("taken")
source.next_frame()
state.write_text("unplugged")
threading.Timer(0.4, state.write_text, ["ok"]).start()
told["came back"] = [source.next_frame() is not None, source.reconnections]
source.close()
json.dump(told, sys.stdout)
"""


@LINUX
def test_a_v4l2_camera_films_as_asked_and_says_why_not(camera: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=camera, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    shape, rate, age, row = told["plain"]
    assert shape == [480, 640, 3] and rate == 30 and 7 <= age < 300 and row == sorted(row) and row[3] - row[0] > 100
    assert told["large"][:2] == [[720, 1280, 3], 10] and told["exposure"][0] == [480, 640, 3]
    expected = {
        "automatic": "another control, such as an automatic one, holds it", "size": "does not offer 1920x1080 at 60/s; it offers: MJPG",
        "unreadable": "does not offer H264", "control": "it has: brightness, auto_exposure", "value": "from 0 to 255",
        "busy": "another program uses it", "denied": "usermod -aG video", "unplugged": "is it plugged in", "full": "no room left",
        "taken": "another program uses it",
    }  # fmt: skip
    assert {name: part for name, part in expected.items() if part not in told[name]} == {}, told
    assert told["came back"] == [True, 1]


@LINUX
def test_the_command_lists_a_camera_and_tries_it(camera: dict[str, str]) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "tinyseg", "cameras", *words]
        return subprocess.run(command, env=camera, capture_output=True, text=True, check=True).stdout

    Path(camera["FAKE_V4L2_STATE"]).write_text("ok")
    listed = run(camera["FAKE_V4L2"])
    assert "Fake camera" in listed and "mode     YUYV 1280x720 up to 10/s" in listed and "brightness=" in listed
    tried = json.loads(run("--try", f"v4l2://{camera['FAKE_V4L2']}", "--seconds", "0.4", "--json"))
    assert (tried["width"], tried["height"], tried["stated_fps"]) == (640, 480, 30) and 7 <= tried["age_p50_ms"] < 300


def test_the_command_without_cameras(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.commands.cameras.find_cameras", list)
    assert main(["cameras"]) == 0 and "no V4L2 camera found" in capsys.readouterr().out
    assert main(["cameras", "--try", "synthetic:64x48:5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 5
    monkeypatch.setattr("tinyseg.commands.cameras.find_cameras", lambda: ["/dev/null"])
    assert main(["cameras"]) == 1 and "is no camera" in capsys.readouterr().out
    for wrong in (
        ["/dev/null"],
        ["/nowhere"],
        ["x", "--try", "y"],
        ["--try", "synthetic:9x9:0"],
        ["--try", "0", "--seconds", "-1"],
    ):
        assert main(["cameras", *wrong]) == 2


def test_doctor_tells_of_a_camera_that_may_not_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v4l2, "find_cameras", lambda: ["/dev/video7"])
    monkeypatch.setattr(diagnosis.os, "access", lambda path, mode: False)
    assert [
        t.remedy for t in diagnosis.find_traps([], None, []) if "/dev/video7" in t.problem and "usermod" in t.remedy
    ]


def test_cameras_that_make_any_size_are_asked_for_it() -> None:
    def ask(number: int, layout: Any, fields: tuple[Any, ...]) -> bytes:
        if fields[0] != (v4l2.CAPTURE if number == v4l2.G_FMT else 0):
            raise OSError(22, "no more")
        yuyv = int.from_bytes(b"YUYV", "little")
        answers = {
            v4l2.ENUM_FMT: (0, 1, 0, b"", yuyv, 0, 0, 0, 0), v4l2.ENUM_FRAMESIZES: (0, yuyv, 3, 32, 1920, 2, 32, 1080, 2, 0, 0),
            v4l2.ENUM_FRAMEINTERVALS: (0, yuyv, 0, 0, 3, 1, 60, 1, 1, 1, 1, 0, 0),
        }  # fmt: skip
        return bytes(layout.pack(*answers[number]))

    sizes = [(m.width, m.height, m.fps) for m in v4l2._modes(ask, (800, 600))]  # type: ignore[arg-type]
    assert sizes == [(800, 600, 60.0), (32, 32, 60.0), (1920, 1080, 60.0)]
    assert (801, 600, 60.0) not in [(m.width, m.height, m.fps) for m in v4l2._modes(ask, (801, 600))]  # type: ignore[arg-type]


def test_csi_pipelines() -> None:
    address = parse_address("csi://1?size=1920x1080&fps=30&wbmode=1&exposuretimerange=34000 358733000")
    assert jetson_pipeline(address) == (
        'nvarguscamerasrc sensor-id=1 wbmode="1" exposuretimerange="34000 358733000" ! '
        "video/x-raw(memory:NVMM),width=1920,height=1080,format=NV12,framerate=30/1 ! nvvidconv ! video/x-raw,format=BGRx"
    )
    assert libcamera_pipeline(parse_address("csi://0")) == "libcamerasrc ! video/x-raw,width=1280,height=720"
    with pytest.raises(tinyseg.DataError, match="csi://0 alone"):
        libcamera_pipeline(parse_address("csi://1"))


class FakePicamera:
    """The part of picamera2's interface that is used, as its manual describes it."""

    camera_controls: ClassVar[dict[str, tuple[Any, Any, Any]]] = {
        "ExposureTime": (14, 11767556, 20000), "AeEnable": (False, True, True), "AnalogueGain": (1.0, 10.66, 1.0),
        "FrameRate": (1, 120, 30),
    }  # fmt: skip
    made: ClassVar[list[FakePicamera]] = []

    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        return [{"Model": "imx708", "Num": 0}]

    def __init__(self, number: int) -> None:
        self.number, self.closed, self.left = number, False, 3
        self.made.append(self)

    def create_video_configuration(self, **settings: Any) -> dict[str, Any]:
        return settings

    def configure(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def start(self) -> None:
        pass

    def capture_request(self, wait: float) -> FakePicamera:
        self.left -= 1
        if self.left < 0:
            raise concurrent.futures.TimeoutError
        return self

    def make_array(self, name: str) -> Any:
        width, height = self.settings[name]["size"]
        return np.full((height, width, 3), (10, 20, 30), np.uint8)

    def get_metadata(self) -> dict[str, Any]:
        return {"SensorTimestamp": int((time.clock_gettime(time.CLOCK_BOOTTIME) - 0.02) * 1e9)}

    def release(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_picamera2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.sources.camera.FIRST_BACK_OFF", 0.001)
    with pytest.raises(tinyseg.NotInstalled, match="apt-get install python3-picamera2"):
        monkeypatch.setitem(sys.modules, "picamera2", None)
        open_source("picamera2:0")
    module = types.ModuleType("picamera2")
    module.Picamera2 = FakePicamera  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    source = open_source("picamera2:0?size=64x48&fps=60&ExposureTime=5000&AeEnable=0&AnalogueGain=2.5")
    frame = source.next_frame()
    assert (
        frame is not None
        and frame.pixels.shape == (48, 64, 3)
        and 15 < 1e3 * (time.perf_counter() - frame.captured) < 200
    )
    controls = FakePicamera.made[-1].settings["controls"]
    assert controls == {"ExposureTime": 5000, "AeEnable": False, "AnalogueGain": 2.5, "FrameRate": 60.0}
    for _ in itertools.repeat(None, 4):  # it falls silent after three, and is opened again
        assert source.next_frame() is not None
    assert FakePicamera.made[0].closed and len(FakePicamera.made) == 2
    source.close()
    for wrong, told in (
        ("1", "knows 1"),
        ("0?ExposureTime=1", "from 14"),
        ("0?Zoom=1", "it has: AeEnable"),
        ("0?format=NV12", "RGB888"),
    ):
        with pytest.raises(tinyseg.DataError, match=told):
            open_source(f"picamera2:{wrong}")
