"""``tinyseg cameras``: which cameras are there, what they offer, and how old their frames are."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tinyseg.errors import DataError, InputError
from tinyseg.sources import Frame, open_source
from tinyseg.sources.v4l2 import (
    CameraControl,
    CameraMode,
    camera_name,
    find_cameras,
    lasting_path,
    list_controls,
    list_modes,
)

EXIT_IN_PART = 1
MOST_SECONDS = 3600.0

EXAMPLES = """examples:
  tinyseg cameras
  tinyseg cameras /dev/video0                                  # its modes and controls
  tinyseg cameras --try 'v4l2:///dev/video0?size=1280x720&fps=30&format=MJPG'
  tinyseg cameras --try csi://0
  tinyseg cameras --try 'gst:videotestsrc is-live=true ! video/x-raw,width=1280,height=720,framerate=30/1'"""


@dataclass(frozen=True)
class CameraRow:
    """One V4L2 camera."""

    path: str
    lasting_path: str  # stays when it is plugged in again
    name: str = ""
    modes: list[CameraMode] = field(default_factory=list)
    controls: list[CameraControl] = field(default_factory=list)
    error: str = ""  # why it does not tell


@dataclass(frozen=True)
class CameraTrial:
    """What a source gave while it was tried. Ages are from a frame's capture to its being there, milliseconds."""

    width: int
    height: int
    stated_fps: float  # 0: it does not say
    frames: int
    fps: float
    opened_s: float  # from asking for it to its first frame, seconds
    age_p50_ms: float
    age_p99_ms: float


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "cameras", help="the cameras that are there, their modes and controls; try one",
        description="List V4L2 cameras (Linux) with the modes they offer and the controls that can be set in their address, or "
        "open any source as `tinyseg run` does and say what it gives.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("device", nargs="?", metavar="DEVICE", help="only this device, such as /dev/video0")
    parser.add_argument("--try", dest="source", metavar="SOURCE", help="open a source and time its frames")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="with --try: for how long (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def try_source(text: str, seconds: float) -> CameraTrial:
    """Open a source and read it for some seconds, or to its end. Raises DataError."""
    start = time.perf_counter()
    source = open_source(text)
    ages, ended = [], start
    first: Frame | None = None
    try:
        while (frame := source.next_frame()) is not None:
            now = time.perf_counter()
            if first is None:
                first, begun = frame, now
                continue  # it waited for the source to open
            ages.append(1e3 * (now - frame.captured))
            ended = now
            if now - begun >= seconds:
                break
    finally:
        source.close()
    if first is None:
        raise DataError(f"{text} gave no frame")
    height, width = first.pixels.shape[:2]
    middle, late = np.percentile(ages or [0.0], (50, 99))
    fps = len(ages) / (ended - begun) if ages else 0.0
    return CameraTrial(
        width, height, source.frame_rate, len(ages) + 1, fps, begun - start, float(middle), float(late)
    )  # fmt: skip


def describe(path: str) -> CameraRow:
    """What a V4L2 camera says of itself, or why it does not."""
    try:
        return CameraRow(path, lasting_path(path), camera_name(path), list_modes(path), list_controls(path))
    except DataError as exc:
        return CameraRow(path, lasting_path(path), error=str(exc))


def _shown(row: CameraRow) -> str:
    lasting = f"  {row.lasting_path}" if row.lasting_path != row.path else ""
    lines = [f"{row.path}  {row.error or row.name}{lasting}"]
    lines += [f"  mode     {mode}" for mode in row.modes] + [f"  control  {control}" for control in row.controls]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    if args.source is not None:
        if args.device is not None:
            raise InputError("give a DEVICE to list, or --try SOURCE, not both")
        if not 0 < args.seconds <= MOST_SECONDS:
            raise InputError(f"--seconds must be a positive number, {MOST_SECONDS:.0f} at most, but is {args.seconds}")
        trial = try_source(args.source, args.seconds)
        if args.json:
            print(json.dumps(asdict(trial)))
        else:
            stated = f" (it states {trial.stated_fps:.4g})" if trial.stated_fps else ""
            print(
                f"{trial.width}x{trial.height}, {trial.frames} frames at {trial.fps:.1f}/s{stated}, first one after "
                f"{trial.opened_s:.2f} s; frames are {trial.age_p50_ms:.1f} ms old when they are there (p99 {trial.age_p99_ms:.1f})"
            )
        return 0
    paths = find_cameras() if args.device is None else [args.device]
    if args.device is not None:
        list_modes(args.device)  # the one device must be there
    rows = [describe(path) for path in paths]
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    elif rows:
        print("\n".join(map(_shown, rows)))
    else:
        print("no V4L2 camera found; streams, pipelines and cameras on CSI connectors: tinyseg cameras --try SOURCE")
    return EXIT_IN_PART if any(row.error for row in rows) else 0
