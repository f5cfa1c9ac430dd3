"""The command as a process: closed and full standard streams, and Ctrl-C at any moment, without a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

TINYSEG = [sys.executable, "-m", "tinyseg"]
FAKE = ["--engine", "fake"]
RUN = ["run", "synthetic:64x48:3", "--box", "2,2,20,20", *FAKE]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a POSIX shell closes the streams")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run ``tinyseg`` in a shell; {tinyseg} stands for the command."""
    command = line.format(tinyseg=f"'{sys.executable}' -m tinyseg")
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "line, code, says",
    [
        ("run - --raw-size 64x48 --box 2,2,20,20 --engine fake <&-", 2, "no standard input"),
        ("models >&-", 1, "standard output"),
        ("models >/dev/full", 1, "No space left"),
        ("models --json >/dev/full", 1, "No space left"),
        ("run synthetic:64x48:3 --box 2,2,20,20 --engine fake --sink raw >&-", 2, "cannot be written"),
        ("run synthetic:64x48:3 --box 2,2,20,20 --engine fake --sink raw >/dev/full", 2, "No space left"),
        ("run synthetic:64x48:3 --box 2,2,20,20 --engine fake <&- 2>&-", 0, ""),
        ("run nothing.mp4 --box 2,2,20,20 --engine fake 2>&-", 2, ""),
        ("run nothing.mp4 --box 2,2,20,20 --engine fake 2>/dev/full", 2, ""),
        ("models <&- >&- 2>&-", 1, ""),
    ],
)
def test_closed_and_full_streams(line: str, code: int, says: str) -> None:
    if "/dev/full" in line and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = shell(f"{{tinyseg}} {line}")
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert says in done.stderr and done.stderr.count("\n") <= 1 and "Exception ignored" not in done.stderr, done.stderr


def test_what_libraries_print_does_not_go_into_results(tmp_path: Path) -> None:
    out = tmp_path / "m.jsonl"
    done = shell(f"{{tinyseg}} run synthetic:64x48:3 --box 2,2,20,20 --engine fake --sink 'jsonl:{out}' <&- >&- 2>&-")
    # Standard output is closed, so the summary is lost, which is told by the code; the results are whole.
    assert done.returncode == 1 and [json.loads(x)["frame"] for x in out.read_text().splitlines()] == [0, 1, 2]


def test_warnings_are_shown_or_not(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"x")
    (tmp_path / "good.png").write_bytes((Path(__file__).parents[3] / "examples" / "coffee.jpg").read_bytes())
    told = {}
    for option in ([], ["-q"]):
        command = [*TINYSEG, *option, "run", str(tmp_path), "--box", "2,2,20,20", *FAKE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        told["-q" in option] = "bad.png" in done.stderr
    assert told == {False: True, True: False}


def interrupted(delay: float, arguments: list[str]) -> tuple[int, str]:
    """Exit code and messages of a command that gets Ctrl-C after so many seconds."""
    # A shell's background jobs ignore SIGINT, and so would the child: what is tested is a terminal's Ctrl-C.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        [*TINYSEG, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    # The interpreter's own start is not ours: wait until our imports have begun, which a mapped library shows.
    maps, deadline = Path(f"/proc/{process.pid}/maps"), time.monotonic() + 20
    while maps.exists() and "numpy" not in maps.read_text() and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    return process.returncode, told


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.7])
def test_a_start_can_be_stopped(delay: float) -> None:
    code, told = interrupted(delay, ["run", "synthetic:64x48", "--box", "2,2,20,20", "--engine", "onnxruntime"])
    *waiting, last = told.splitlines()  # a machine may be slow to compile, and say so
    assert (code, last) == (130, "tinyseg: interrupted")
    assert all(line.startswith("tinyseg: getting the ") for line in waiting), told


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as Python begins with it: a shell's background jobs, and what they start, have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_a_library_swallows_still_counts(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyseg import cli  # noqa: PLC0415

    def swallows(args: object) -> int:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        return 0

    monkeypatch.setattr("tinyseg.commands.models.run", swallows)
    before = signal.getsignal(number)
    assert cli.main(["models"]) == 130 and signal.getsignal(number) == before


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_in_a_finalizer_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tinyseg import cli  # noqa: PLC0415

    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def goes_on(args: object) -> int:
        Finalized()  # Python tells sys.unraisablehook, and nobody else
        time.sleep(20)
        return 0

    monkeypatch.setattr("tinyseg.commands.models.run", goes_on)
    hook, start = sys.unraisablehook, time.monotonic()
    assert cli.main(["models"]) == 130 and capsys.readouterr().err == "tinyseg: interrupted\n"
    assert time.monotonic() - start < 15 and sys.unraisablehook is hook


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("when", ["run.load", "stream.live_line"])
def test_a_stream_ends_after_an_interrupt_that_was_swallowed(
    when: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tinyseg import cli, commands  # noqa: PLC0415
    from tinyseg.commands import run, stream  # noqa: F401, PLC0415

    module, name = when.split(".")
    ours = getattr(getattr(commands, module), name)

    def swallows(*args: object, **others: object) -> object:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return ours(*args, **others)

    monkeypatch.setattr(f"tinyseg.commands.{when}", swallows)
    start = time.monotonic()
    line = ["run", "synthetic:64x48:100000", "--box", "2,2,20,20", *FAKE, "--sink", f"jsonl:{tmp_path / 'out.jsonl'}"]
    assert cli.main(line) == 130
    written = len((tmp_path / "out.jsonl").read_text().splitlines())
    assert (written == 0) if when == "run.load" else (0 < written < 100_000), time.monotonic() - start


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_a_library_renames_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tinyseg import cli  # noqa: PLC0415

    def renames(args: object) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as exc:
            raise ImportError("initialization failed") from exc
        return 0

    monkeypatch.setattr("tinyseg.commands.models.run", renames)
    assert cli.main(["models"]) == 130 and capsys.readouterr().err == "tinyseg: interrupted\n"


def test_a_shell_can_complete_the_line(tmp_path: Path) -> None:
    pytest.importorskip("argcomplete", reason="argcomplete is not installed (pip install 'tinyseg[completion]')")
    found = tmp_path / "found"
    line = "tinyseg run film.mp4 --mo"
    environment = {**os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(found), "_ARGCOMPLETE_IFS": "\n",
                   "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}  # fmt: skip
    subprocess.run(TINYSEG, env=environment, check=False, capture_output=True)
    assert found.read_text().split() == ["--mode", "--model"]


def test_what_is_done_is_told_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "m.jsonl"
    told = {}
    for option in ([], ["-v"]):
        done = subprocess.run(
            [*TINYSEG, *option, *RUN, "--sink", f"jsonl:{out}"], capture_output=True, text=True, check=True
        )
        told["-v" in option] = done.stderr
    assert told[False] == "" and "info: model tinyseg-base on fake" in told[True] and f"wrote {out}" in told[True]
