"""Frames from a GStreamer pipeline through its own bindings (PyGObject): the OpenCV of PyPI is built without GStreamer.

Only the newest frame of a live pipeline is held: its sink drops older ones, so nothing grows and nothing ages.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import clipped
from tinyseg.errors import DataError, NotInstalled
from tinyseg.sources.address import CameraAddress
from tinyseg.sources.base import Source
from tinyseg.sources.camera import Capture, LiveSource, believed

OPEN_SECONDS, SILENT_SECONDS = 10.0, 5.0  # a pipeline that takes longer has failed
POLL_NANOSECONDS = 50_000_000
FILE_BUFFERS = 2  # frames decoded ahead of a pipeline that waits
SINK = re.compile(r"(?<![\w-])appsink(?![\w-])")
INSTALL = (
    "sudo apt-get install python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good; a virtual "
    "environment sees python3-gi if it is made with: python3 -m venv --system-site-packages (or pip install PyGObject into it)"
)


@lru_cache(maxsize=1)
def bindings() -> tuple[Any, Any]:
    """(Gst, GLib), started. Raises NotInstalled."""
    try:
        import gi  # noqa: PLC0415 - of the system, for who uses pipelines

        gi.require_version("Gst", "1.0")
        gi.require_version("GstApp", "1.0")
        from gi.repository import GLib, Gst, GstApp  # noqa: F401, PLC0415 - GstApp gives appsink its methods
    except (ImportError, ValueError) as exc:
        raise NotInstalled(f"GStreamer's Python bindings are not installed ({exc}): {INSTALL}") from exc
    Gst.init(None)
    return Gst, GLib


def version() -> str | None:
    """The release of GStreamer whose bindings are there, None for none."""
    try:
        gst, _ = bindings()
    except NotInstalled:
        return None
    return ".".join(map(str, gst.version()[:3]))


class PipelineCapture(Capture):
    """A running pipeline.

    live: its frames come by themselves and are stamped when they are taken; else it waits for whoever reads, as a file does.
    """

    def __init__(self, text: str) -> None:
        """Raises DataError for a pipeline that GStreamer does not understand or that does not start, NotInstalled."""
        self._gst, glib = gst, _ = bindings()
        if not text:
            raise DataError("gst: needs a pipeline, such as 'gst:v4l2src ! jpegdec'")
        if not SINK.search(text):
            text += " ! videoconvert ! appsink"
        try:
            self._pipeline = gst.parse_launch(text)
        except glib.Error as exc:
            raise DataError(f"GStreamer does not understand {clipped(text)}: {exc.message}{self._hint(exc)}") from exc
        sinks = [e for e in _elements(self._pipeline) if e.get_factory().get_name() == "appsink"]
        if len(sinks) != 1:
            raise DataError(
                f"a pipeline must end in one appsink, or in what goes before it, but {clipped(text)} has {len(sinks)}"
            )
        self._sink = sinks[0]
        self._sink.set_property("caps", gst.Caps.from_string("video/x-raw,format=BGR"))
        self._sink.set_property("sync", False)
        # The monotonic clock, which time.perf_counter() reads too on Linux.
        self._pipeline.use_clock(gst.SystemClock.obtain())
        self._waiting: Any = None
        try:
            self.live = self._start()
            self._waiting = self._pull(OPEN_SECONDS)
            if self._waiting is None:
                raise DataError(f"the pipeline {clipped(text)} gave no frame within {OPEN_SECONDS:.0f} s")
        except BaseException:
            self.close()
            raise
        there, top, bottom = self._waiting.get_caps().get_structure(0).get_fraction("framerate")
        self.frame_rate = top / bottom if there and bottom else 0.0
        if self.live:
            self._waiting = None  # it ages

    def _start(self) -> bool:
        """Start; whether the pipeline is live."""
        gst = self._gst
        change = self._pipeline.set_state(gst.State.PAUSED)
        deadline = time.monotonic() + OPEN_SECONDS
        while change == gst.StateChangeReturn.ASYNC and time.monotonic() < deadline:
            self._check()
            change, _, _ = self._pipeline.get_state(POLL_NANOSECONDS)
        live = bool(change == gst.StateChangeReturn.NO_PREROLL)
        self._sink.set_property("max-buffers", 1 if live else FILE_BUFFERS)
        self._sink.set_property("drop", live)
        if (
            change == gst.StateChangeReturn.FAILURE
            or self._pipeline.set_state(gst.State.PLAYING) == gst.StateChangeReturn.FAILURE
        ):
            self._check(OPEN_SECONDS)
            raise DataError("the pipeline does not start")
        return live

    def read(self) -> tuple[NDArray[np.uint8], float] | None:
        sample, self._waiting = self._waiting or self._pull(SILENT_SECONDS), None
        if sample is None:
            return None
        buffer, shape = sample.get_buffer(), sample.get_caps().get_structure(0)
        height, width = shape.get_value("height"), shape.get_value("width")
        there, content = buffer.map(self._gst.MapFlags.READ)
        if not there:
            raise DataError("a frame of the pipeline cannot be read: it is not in the processor's memory")
        try:
            rows = np.frombuffer(content.data, np.uint8).reshape(height, -1)  # rows are padded to four bytes
            pixels = rows[:, : 3 * width].reshape(height, width, 3).copy()
        finally:
            buffer.unmap(content)
        return pixels, believed(self._taken(sample, buffer.pts) if self.live else None)

    def _taken(self, sample: Any, stamp: int) -> float | None:
        """When a buffer of a live pipeline was stamped, on the pipeline's clock, in seconds."""
        if stamp == self._gst.CLOCK_TIME_NONE:
            return None
        running = sample.get_segment().to_running_time(self._gst.Format.TIME, stamp)
        if running == self._gst.CLOCK_TIME_NONE:
            return None
        return float(running + self._pipeline.get_base_time()) / 1e9

    def _pull(self, seconds: float) -> Any:
        """The next sample, None at the end, or where a live pipeline stays silent. Raises DataError."""
        deadline = time.monotonic() + seconds
        while True:
            sample = self._sink.try_pull_sample(POLL_NANOSECONDS)
            if sample is not None:
                return sample
            self._check()
            if self._sink.is_eos() or time.monotonic() > deadline:
                return None

    def _check(self, seconds: float = 0.0) -> None:
        """Raise what the pipeline reports as an error."""
        gst = self._gst
        message = self._pipeline.get_bus().timed_pop_filtered(int(1e9 * seconds), gst.MessageType.ERROR)
        if message is not None:
            error, detail = message.parse_error()
            reason = re.search(r"reason ([\w-]+)", detail or "")
            told = f"{error.message.rstrip('.')}{f' ({reason[1]})' if reason else ''}"
            raise DataError(f"{message.src.get_name()}: {told}{self._hint(error, reason[1] if reason else '')}")

    def _hint(self, error: Any, reason: str = "") -> str:
        """What to do about an error of GStreamer, by its code."""
        gst = self._gst
        hints = {
            (gst.ResourceError, gst.ResourceError.BUSY): "another program uses it; end that one first",
            (gst.ResourceError, gst.ResourceError.NOT_FOUND): "is it there, plugged in, and the name right?",
            (gst.ResourceError, gst.ResourceError.NOT_AUTHORIZED): "user or password is wrong, or you may not use it",
            (gst.ResourceError, gst.ResourceError.OPEN_READ): "is the server up, the address right; may you read it?",
            (gst.ResourceError, gst.ResourceError.OPEN_READ_WRITE): "is it there, and may you use it (cameras: group video)?",
            (gst.CoreError, gst.CoreError.MISSING_PLUGIN): "a plugin is missing: sudo apt-get install gstreamer1.0-plugins-good "
            "gstreamer1.0-plugins-bad gstreamer1.0-libav",
            (gst.ParseError, gst.ParseError.NO_SUCH_ELEMENT): "gst-inspect-1.0 lists the elements; more are in "
            "gstreamer1.0-plugins-good, -bad and gstreamer1.0-libav",
        }  # fmt: skip
        if reason == "not-negotiated":
            return "; the camera does not offer that format, size or rate: leave it out, or ask gst-device-monitor-1.0 what it offers"
        for (domain, code), hint in hints.items():
            if error.matches(domain.quark() if hasattr(domain, "quark") else gst.parse_error_quark(), code):
                return f"; {hint}"
        return ""

    def close(self) -> None:
        self._pipeline.set_state(self._gst.State.NULL)


def _elements(group: Any) -> list[Any]:
    """All elements of a pipeline, those of its bins too."""
    found: list[Any] = []
    iterator = group.iterate_recurse()
    while True:
        result, element = iterator.next()
        if int(result) != 1:  # GST_ITERATOR_OK
            return found
        found.append(element)


class PipelineSource(Source):
    """A pipeline that waits, such as one that reads a file: every frame, and an end."""

    def __init__(self, capture: PipelineCapture) -> None:
        super().__init__()
        self._capture = capture
        self.frame_rate = capture.frame_rate

    def read(self) -> NDArray[np.uint8] | None:
        taken = self._capture.read()
        return None if taken is None else taken[0]

    def close(self) -> None:
        self._capture.close()


def open_pipeline(text: str, patience: float = 30.0, label: str = "the pipeline") -> Source:
    """Frames of a pipeline in gst-launch's words; live ones are started again when they fail.

    Where it does not end in appsink, ``! videoconvert ! appsink`` is added. Raises DataError, NotInstalled.
    """
    capture = PipelineCapture(text)
    if not capture.live:
        return PipelineSource(capture)
    return LiveSource(label, lambda: PipelineCapture(text), patience, capture)


def open_csi(address: CameraAddress, patience: float = 30.0) -> Source:
    """A camera on a board's CSI connector: a Jetson's through nvarguscamerasrc, others through libcamera.

    The first one's controls are that element's properties. Raises DataError, NotInstalled.
    """
    gst, _ = bindings()
    for element, pipeline in (("nvarguscamerasrc", jetson_pipeline), ("libcamerasrc", libcamera_pipeline)):
        factory = gst.ElementFactory.find(element)
        if factory is None:
            continue
        offered = {p.name for p in factory.create(None).list_properties()}
        for name in address.controls:
            if name not in offered:
                raise DataError(f"{element} has no property {name!r}; it has: {', '.join(sorted(offered))}")
        return open_pipeline(pipeline(address), patience, f"camera csi://{address.place}")
    raise DataError(
        "this device has neither nvarguscamerasrc (a Jetson's GStreamer plugin) nor libcamerasrc (sudo apt-get install "
        "gstreamer1.0-libcamera); a Raspberry Pi's camera is also there as picamera2:0, a USB camera as v4l2:///dev/video0"
    )


def jetson_pipeline(address: CameraAddress) -> str:
    """The pipeline for a Jetson's CSI camera: the sensor's frames are converted by the board's own hardware."""
    width, height = address.size or (1280, 720)
    rate = f",framerate={_fraction(address.fps)}" if address.fps is not None else ""
    return (
        f"nvarguscamerasrc sensor-id={address.place}{_properties(address)} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},format={address.format or 'NV12'}{rate} ! "
        "nvvidconv ! video/x-raw,format=BGRx"
    )


def libcamera_pipeline(address: CameraAddress) -> str:
    """The pipeline for the only camera that libcamera knows."""
    if address.place != "0":
        raise DataError("libcamerasrc is used for csi://0 alone; name others by gst:libcamerasrc camera-name=...")
    width, height = address.size or (1280, 720)
    rate = f",framerate={_fraction(address.fps)}" if address.fps is not None else ""
    format_ = f",format={address.format}" if address.format else ""
    return f"libcamerasrc{_properties(address)} ! video/x-raw,width={width},height={height}{format_}{rate}"


def _properties(address: CameraAddress) -> str:
    """Controls as properties in gst-launch's words; values in quotes, so that none of them is read as an element."""
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in address.controls.items()}
    return "".join(f' {name}="{value}"' for name, value in quoted.items())


def _fraction(rate: float) -> str:
    return f"{rate:.0f}/1" if rate == round(rate) else f"{round(1001 * rate)}/1001"
