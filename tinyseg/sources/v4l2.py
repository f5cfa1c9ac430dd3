"""What a V4L2 camera offers and why it does not open, asked of the driver (Linux): modes, controls, who holds it.

Frames are read by OpenCV, which tells neither. Structures and numbers are those of linux/videodev2.h; a test compares them
with the header.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tinyseg.arguments import clipped, shown
from tinyseg.errors import DataError

# What OpenCV decodes to BGR; those that cost the bus and the processor least come first among equals.
DECODED = ("YUYV", "UYVY", "NV12", "NV21", "YU12", "YV12", "BGR3", "RGB3", "MJPG", "JPEG", "GREY")
USUAL_SIZE, USUAL_FPS = (640, 480), 25.0  # where nothing else was asked for
MOST_ENTRIES = 512  # of any list that a driver gives

CAPTURE = 1  # v4l2_buf_type of frames
IS_CAPTURE, IS_CAPTURE_MPLANE, HAS_DEVICE_CAPS = 0x1, 0x1000, 0x80000000  # of v4l2_capability
DISCRETE = 1  # of frame sizes and intervals
MEMORY_MMAP = 1
CONTROL_TYPES = {1: "integer", 2: "boolean", 3: "menu", 4: "button", 9: "integer menu"}
NEXT_CONTROL, DISABLED, READ_ONLY, INACTIVE = 0x80000000, 0x1, 0x4, 0x10

CAPABILITY = struct.Struct("@16s32s32sIII3I")
FORMAT_ENTRY = struct.Struct("@III32sII3I")
SIZE_ENTRY = struct.Struct("@III6I2I")
INTERVAL_ENTRY = struct.Struct("@IIIII6I2I")
FORMAT = struct.Struct("@I0P200s")
QUERY_CONTROL = struct.Struct("@II32siiiiI2I")
CONTROL = struct.Struct("@Ii")
REQUEST_BUFFERS = struct.Struct("@IIIIB3B")


def _number(direction: int, number: int, layout: struct.Struct) -> int:
    """An ioctl's number, as the kernel's _IOR (2), _IOW (1) and _IOWR (3) make it."""
    return direction << 30 | layout.size << 16 | ord("V") << 8 | number


QUERYCAP = _number(2, 0, CAPABILITY)
ENUM_FMT = _number(3, 2, FORMAT_ENTRY)
G_FMT, S_FMT = _number(3, 4, FORMAT), _number(3, 5, FORMAT)
REQBUFS = _number(3, 8, REQUEST_BUFFERS)
S_CTRL, G_CTRL = _number(3, 28, CONTROL), _number(3, 27, CONTROL)
QUERYCTRL = _number(3, 36, QUERY_CONTROL)
ENUM_FRAMESIZES = _number(3, 74, SIZE_ENTRY)
ENUM_FRAMEINTERVALS = _number(3, 75, INTERVAL_ENTRY)


@dataclass(frozen=True)
class CameraMode:
    """One way in which a camera films: the format's four letters, size in pixels, and the highest rate (0: not told)."""

    format: str
    width: int
    height: int
    fps: float

    def __str__(self) -> str:
        rate = f" up to {self.fps:.4g}/s" if self.fps else ""
        return f"{self.format} {self.width}x{self.height}{rate}"


@dataclass(frozen=True)
class CameraControl:
    """One thing that can be set on a camera, under the name that v4l2-ctl uses too."""

    name: str
    id: int
    kind: str
    minimum: int
    maximum: int
    default: int
    value: int | None  # None: it cannot be read
    settable: bool  # not read-only, and not switched off by another control (such as automatic exposure)

    def __str__(self) -> str:
        state = "" if self.settable else ", not settable now"
        return f"{self.name}={self.value} ({self.kind} {self.minimum}..{self.maximum}, default {self.default}{state})"


def fourcc(number: int) -> str:
    """A pixel format's four letters."""
    return (number & 0x7FFFFFFF).to_bytes(4, "little").decode("ascii", "replace").rstrip()


def lasting_path(path: str) -> str:
    """The name of a camera that stays when it is plugged in again (/dev/v4l/by-id/...), else the path that was given.

    A camera that comes back while a program still holds its old number gets another one.
    """
    for folder in ("/dev/v4l/by-id", "/dev/v4l/by-path"):
        place = Path(folder)
        if path.startswith(folder) or not place.is_dir():
            continue
        for link in sorted(place.iterdir()):
            if os.path.realpath(link) == os.path.realpath(path):
                return str(link)
    return path


def find_cameras() -> list[str]:
    """Paths of the devices that give pictures, and of those that this user may not ask, by number; empty elsewhere than on Linux."""
    places = [p for p in Path("/dev").glob("video*") if p.name.removeprefix("video").isdigit()]
    return [str(p) for p in sorted(places, key=lambda p: int(p.name.removeprefix("video"))) if _may_film(str(p))]


def _may_film(path: str) -> bool:
    try:
        with _opened(path):
            return True
    except DataError as exc:
        return isinstance(exc.__cause__, OSError) and exc.__cause__.errno in (errno.EACCES, errno.EPERM, errno.EBUSY)


def camera_name(path: str) -> str:
    """The name that the driver gives a camera. Raises DataError."""
    with _opened(path) as ask:
        return ask_name(ask)


def list_modes(path: str, size: tuple[int, int] = USUAL_SIZE) -> list[CameraMode]:
    """What a camera offers; empty where its driver does not tell. Raises DataError.

    size: listed among the others by cameras that make any size between two.
    """
    with _opened(path) as ask:
        return list(_modes(ask, size))


def list_controls(path: str) -> list[CameraControl]:
    """What can be set on a camera. Raises DataError."""
    with _opened(path) as ask:
        return list(_controls(ask))


def choose_mode(path: str, size: tuple[int, int] | None, fps: float | None, format_: str | None) -> CameraMode | None:
    """The mode for what was asked; None where the driver lists none and OpenCV must try.

    Of the sizes the one asked for (else the one nearest to 640x480); of its formats one that is fast enough (fps, else 25/s)
    and costs least to read, else the fastest. Raises DataError, which lists what there is.
    """
    modes = list_modes(path, size or USUAL_SIZE)
    readable = [m for m in modes if m.format in DECODED]
    if not modes:
        return None
    fitting = [
        m for m in readable
        if (size is None or (m.width, m.height) == size) and (format_ is None or m.format == format_)
        and (fps is None or not m.fps or m.fps >= fps - 0.5)
    ]  # fmt: skip
    if not fitting:
        wanted = [format_ or "", f"{size[0]}x{size[1]}" if size else "", f"at {fps:g}/s" if fps else ""]
        best: dict[tuple[str, int, int], CameraMode] = {(m.format, m.width, m.height): m for m in readable}
        offered = (
            "; ".join(map(str, best.values()))
            or f"only {', '.join(sorted({m.format for m in modes}))}, which cannot be read"
        )
        raise DataError(
            f"camera {path} does not offer {' '.join(w for w in wanted if w) or 'a readable format'}; it offers: {clipped(offered)}"
        )

    def away(mode: CameraMode) -> int:
        width, height = USUAL_SIZE if size is None else size
        return abs(mode.width - width) + abs(mode.height - height)

    nearest = min(map(away, fitting))
    fitting = [m for m in fitting if away(m) == nearest]
    fast = [m for m in fitting if not m.fps or m.fps >= (USUAL_FPS if fps is None else fps) - 0.5]
    if fast:
        return min(fast, key=lambda m: DECODED.index(m.format))
    return max(fitting, key=lambda m: m.fps)


def set_controls(path: str, controls: dict[str, str]) -> None:
    """Set controls by name, in the order given. Raises DataError for names and values that the camera does not take."""
    if not controls:
        return
    with _opened(path) as ask:
        for name, text in controls.items():
            offered = {c.name: c for c in _controls(ask)}  # again: one control switches others on and off
            control = offered.get(name)
            if control is None:
                names = ", ".join(offered) or "none"
                raise DataError(f"camera {path} has no control {shown(name)}; it has: {names}")
            value = int(text) if re.fullmatch("-?[0-9]{1,10}", text) else None
            if value is None or not control.minimum <= value <= control.maximum:
                raise DataError(
                    f"{name} of camera {path} must be a whole number from {control.minimum} to {control.maximum}, but is {shown(text)}"
                )
            try:
                ask(S_CTRL, CONTROL, (control.id, value))
            except OSError as exc:
                hint = "" if control.settable else "; another control, such as an automatic one, holds it"
                raise DataError(f"camera {path} does not take {name}={value}: {exc.strerror}{hint}") from exc


def occupy(path: str) -> None:
    """Ask for a buffer and give it back: what fails while another program films. Raises DataError that says so."""
    with _opened(path) as ask:
        ask(S_FMT, FORMAT, (CAPTURE, FORMAT.unpack(ask(G_FMT, FORMAT, (CAPTURE, bytes(200))))[1]))
        for count in (1, 0):
            ask(REQBUFS, REQUEST_BUFFERS, (count, CAPTURE, MEMORY_MMAP, 0, 0, 0, 0, 0))


Asker = Callable[[int, struct.Struct, tuple[int | bytes, ...]], bytes]


@contextmanager
def _opened(path: str) -> Iterator[Asker]:
    """Questions to a device; it is closed after them."""
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        if not stat.S_ISCHR(Path(path).stat().st_mode):
            raise DataError(f"{clipped(path)} is no camera: it is no device")
        device = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise _told(path, exc) from exc

    def ask(number: int, layout: struct.Struct, fields: tuple[int | bytes, ...]) -> bytes:
        return fcntl.ioctl(device, number, layout.pack(*fields))

    try:
        _check_camera(path, ask)
        yield ask
    except OSError as exc:
        raise _told(path, exc) from exc
    finally:
        os.close(device)


def _check_camera(path: str, ask: Asker) -> None:
    try:
        _, _, _, _, all_parts, own_parts, *_ = CAPABILITY.unpack(
            ask(QUERYCAP, CAPABILITY, (b"", b"", b"", 0, 0, 0, 0, 0, 0))
        )
    except OSError as exc:
        if exc.errno in (errno.ENOTTY, errno.EINVAL):
            raise DataError(f"{clipped(path)} is no camera: its driver is not of V4L2") from exc
        raise
    parts = own_parts if all_parts & HAS_DEVICE_CAPS else all_parts
    if not parts & (IS_CAPTURE | IS_CAPTURE_MPLANE):
        raise DataError(
            f"{clipped(path)} gives no pictures (a camera's second device holds data about them); `tinyseg cameras` lists those that do"
        )


def _told(path: str, error: OSError) -> DataError:
    """What a system error of a camera means, and what to do."""
    reasons = {
        errno.EBUSY: f"another program uses it; `fuser -v {path}` says which, end that one first",
        errno.EACCES: "you may not use it; join the group that may (sudo usermod -aG video $USER, then log in again)",
        errno.EPERM: "you may not use it; in a container, pass the device in (docker run --device ...)",
        errno.ENOENT: "it is not there; is it plugged in? `tinyseg cameras` lists those that are",
        errno.ENODEV: "it was unplugged",
        errno.ENXIO: "it was unplugged",
        errno.ENOSPC: "the USB bus has no room left; ask for a smaller size or rate, for format=MJPG, or use another port",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    return DataError(f"camera {clipped(path)} does not open: {reason}")


def ask_name(ask: Asker) -> str:
    _, name, *_ = CAPABILITY.unpack(ask(QUERYCAP, CAPABILITY, (b"", b"", b"", 0, 0, 0, 0, 0, 0)))
    return bytes(name).partition(b"\0")[0].decode("utf-8", "replace")


def _entries(
    ask: Asker, number: int, layout: struct.Struct, fields: tuple[int | bytes, ...]
) -> Iterator[tuple[int, ...]]:
    """A driver's list, one entry after the other until it says that there is none."""
    for index in range(MOST_ENTRIES):
        try:
            entry = layout.unpack(ask(number, layout, (index, *fields)))
        except OSError as exc:
            if exc.errno in (errno.EINVAL, errno.ENOTTY):  # the end, or a driver that keeps no list
                return
            raise
        yield entry


def _modes(ask: Asker, wanted: tuple[int, int]) -> Iterator[CameraMode]:
    for entry in _entries(ask, ENUM_FMT, FORMAT_ENTRY, (CAPTURE, 0, b"", 0, 0, 0, 0, 0)):
        pixels = entry[4]
        for size in _entries(ask, ENUM_FRAMESIZES, SIZE_ENTRY, (pixels, 0, *[0] * 8)):
            if size[2] == DISCRETE:
                sizes = [(size[3], size[4])]
            else:  # from .. to, in steps
                least, most, step, low, high, rise = size[3:9]
                sizes = [(least, low), (most, high)]
                if wanted[0] in range(least, most + 1, step or 1) and wanted[1] in range(low, high + 1, rise or 1):
                    sizes.insert(0, wanted)
            for width, height in sizes:
                yield CameraMode(fourcc(pixels), width, height, _highest_rate(ask, pixels, width, height))
            if size[2] != DISCRETE:
                break


def _highest_rate(ask: Asker, pixels: int, width: int, height: int) -> float:
    rates = [0.0]
    for entry in _entries(ask, ENUM_FRAMEINTERVALS, INTERVAL_ENTRY, (pixels, width, height, 0, *[0] * 8)):
        top, bottom = entry[5], entry[6]  # the interval itself, or the shortest
        if top:
            rates.append(bottom / top)
        if entry[4] != DISCRETE:
            break
    return max(rates)


def _controls(ask: Asker) -> Iterator[CameraControl]:
    last = 0
    for _ in range(MOST_ENTRIES):
        try:
            entry = QUERY_CONTROL.unpack(
                ask(QUERYCTRL, QUERY_CONTROL, (last | NEXT_CONTROL, 0, b"", 0, 0, 0, 0, 0, 0, 0))
            )
        except OSError:
            return
        last, kind, name, minimum, maximum, _, default, flags, *_ = entry
        if kind not in CONTROL_TYPES or flags & DISABLED:
            continue
        text = bytes(name).partition(b"\0")[0].decode("ascii", "replace").lower()
        yield CameraControl(
            re.sub("[^a-z0-9]+", "_", text).strip("_"), last, CONTROL_TYPES[kind], minimum, maximum, default, _value(ask, last),
            not flags & (READ_ONLY | INACTIVE),
        )  # fmt: skip


def _value(ask: Asker, id: int) -> int | None:
    try:
        return int(CONTROL.unpack(ask(G_CTRL, CONTROL, (id, 0)))[1])
    except OSError:
        return None
