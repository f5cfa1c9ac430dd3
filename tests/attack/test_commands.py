"""The command line, handed anything: an exit code that is documented and one message, never a traceback."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.attack.conftest import Attack
from tests.attack.hostile import WORDS
from tests.attack.mutation import seeds
from tinyseg.cli import main
from tinyseg.images import write_image

FAKE = ["--engine", "fake"]
LINES = [
    ["run", "synthetic:9x9:1", "--box", "1,1,8,8", *FAKE],
    ["run", "synthetic:9x9:2", "--point", "4,4", "--sink", "jsonl:m.jsonl", "--json", "--mode", "latency", *FAKE],
    ["run", "film.avi", "--box", "1,1,8,8", "--sink", "png:pictures", "--drop", "latest", *FAKE],
    ["run", "-", "--raw-size", "3x3", "--raw-color", "gray", "--box", "0,0,3,3", "--sink", "raw", *FAKE],
    ["run", "synthetic:9x9:1", "--every-frame-prompts", "prompts.jsonl", *FAKE],
    ["segment", "photo.png", "--point", "5,5", "--box", "1,1,30,30", "--out", "out", *FAKE],
    ["segment", "photo.png", "text.png", "--box", "1,1,30,30", "--format", "coco", "--json", "--out", "out", *FAKE],
    ["segment", "photo.png", "--mask", "photo.png", "--format", "cutout", "--all-masks", "--threads", "1", "--out", "out", *FAKE],
    ["compile", "--size", "32x32", "--prompts", "1", "--precision", "fp32", *FAKE],
    ["eval", "photos.tar", "--limit", "1", *FAKE],
    ["info", "--json", "--model", "base", *FAKE],
    ["models", "--json"],
    ["cache", "list", "--json"],
    ["-v", "cache", "verify"],
]  # fmt: skip
# Tokens that make a run endless, slow or leave the folder: not tried.
LEFT_OUT = (
    "gst:",
    "v4l2",
    "csi",
    "picamera2",
    "rtsp",
    "http",
    "udp",
    "tcp",
    "/dev/video",
    "--time",
    "-h",
    "--h",
    "~",
    "/",
    "..",
)
NUMBERS = [
    "-1",
    "0",
    "1",
    "²",
    "٣",
    "1e999",
    "nan",
    "9" * 30,
    "1,2",
    "1,2,3",
    "5,5,1,1",
    "0x10",
    "3x3",
    "9x²",
    "999999x999999",
    "1,,2",
    ",",
]


def mutated(line: list[str], choice: random.Random) -> list[str]:
    """A few tokens replaced, dropped, doubled, swapped or cut."""
    line = list(line)
    for _ in range(choice.randrange(1, 4)):
        at = choice.randrange(len(line))
        kind = choice.randrange(6)
        if kind < 3:
            line[at] = choice.choice([*WORDS, *NUMBERS, *choice.choice(LINES)])
        elif kind == 3 and len(line) > 1:
            del line[at]
        elif kind == 4:
            line.insert(at, choice.choice([*line, *WORDS, *NUMBERS]))
        elif not line[at].startswith("synthetic"):  # without its number of frames it has no end
            line[at] = line[at][: choice.randrange(len(line[at]) + 1)]
    return line


def is_bounded(line: list[str]) -> bool:
    """Whether a line ends soon, and touches nothing outside its folder."""
    return not any(
        token.lstrip("-").isdecimal() and len(token) < 9 and token in line[:3] for token in line
    ) and not any(token.startswith(LEFT_OUT) or ":/" in token for token in line)


def test_command_lines(
    attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "photo.png", np.full((32, 40, 3), 90, np.uint8))
    for name in ("film.avi", "text.png", "photos.tar", "prompts.jsonl"):
        (tmp_path / name).write_bytes(b"\xff\xfe neither a picture nor text")
    before = signal.getsignal(signal.SIGTERM)

    def check(choice: random.Random) -> None:
        line = mutated(choice.choice(LINES), choice)
        if not is_bounded(line):
            return
        capfd.readouterr()
        try:
            code = main(line)
        except SystemExit as exc:  # argparse: wrong options, --version
            assert exc.code in (0, 2), line
        else:
            told = capfd.readouterr().err
            assert code in (0, 1, 2, 3) and "Traceback" not in told, (line, told)
            assert code == 0 or "tinyseg: " in told, (line, told)

    try:
        attack("command lines", seeds, check, 200, each=5)
    finally:
        signal.signal(signal.SIGTERM, before)
