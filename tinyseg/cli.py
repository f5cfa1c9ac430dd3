"""The command line: ``tinyseg COMMAND``; every command lives in its own file under ``tinyseg/commands``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tinyseg.commands import bench, cache, doctor, info, models, segment
from tinyseg.commands import compile as compile_command
from tinyseg.commands import eval as eval_command
from tinyseg.commands import run as run_command
from tinyseg.errors import EngineError, InputError, ModelError, NativeModuleError, TinysegError
from tinyseg.version import __version__

EXIT_BAD_INPUT = 2
EXIT_NOT_USABLE = 3
EXIT_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tinyseg", description="Point at anything in a camera frame and get its mask.",
        epilog="exit codes: 0 done, 1 done in part, 2 bad input, 3 model or engine not usable, 130 interrupted",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"tinyseg {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (segment, run_command, eval_command, bench, compile_command, cache, models, doctor, info):
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    args = build_parser().parse_args(arguments)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except TinysegError as exc:
        print(f"tinyseg: {exc}", file=sys.stderr)
        if isinstance(exc, InputError):
            return EXIT_BAD_INPUT
        return EXIT_NOT_USABLE if isinstance(exc, (EngineError, ModelError, NativeModuleError)) else 1
    except KeyboardInterrupt:
        print("tinyseg: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
