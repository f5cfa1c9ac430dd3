"""The command line: ``tinyseg COMMAND``; every command lives in its own file under ``tinyseg/commands``."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from tinyseg.errors import EngineError, InputError, ModelError, NativeModuleError, NotInstalled, TinysegError
from tinyseg.system.console import drop_output, log_to_console, remembered_interrupts, tell
from tinyseg.version import __version__

# Commands in the order of the help, and their modules in tinyseg/commands. Only the one that runs is imported: together they
# take longer than all the rest of a start.
COMMANDS = {
    "segment": "segment", "everything": "everything", "find": "find", "cutout": "cutout", "run": "run", "track": "track",
    "label": "label", "review": "review", "serve": "serve", "eval": "eval", "bench": "bench", "compile": "compile",
    "export": "export", "web": "web", "cache": "cache", "models": "models", "cameras": "cameras", "doctor": "doctor",
    "info": "info", "cmake-dir": "cmake_dir",
}  # fmt: skip
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_NOT_USABLE = 3
EXIT_INTERRUPTED = 130


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands, or of ``only`` this one."""
    parser = argparse.ArgumentParser(
        prog="tinyseg", description="Point at anything in a camera frame and get its mask.",
        epilog="exit codes: 0 done, 1 done in part, 2 bad input, 3 model, engine or optional package not usable, 130 interrupted",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"tinyseg {__version__}")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument(
        "-v", "--verbose", action="count", default=0, help="say on standard error what is done; -vv: everything"
    )
    loudness.add_argument("-q", "--quiet", action="store_true", help="no warnings on standard error, only errors")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        if only in (None, name):
            importlib.import_module(f"tinyseg.commands.{module}").add_parser(commands)
    return parser


def _tell_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
    line: str | None = None,
) -> None:  # fmt: skip
    """A warning as a user of the command line reads it: its text alone."""
    logging.getLogger("tinyseg").warning("warning: %s", message)


def named_command(arguments: Sequence[str]) -> str | None:
    """The command that a line names, None where it names none that there is: then all are needed, to say what there is."""
    word = next((a for a in arguments if not a.startswith("-")), None)
    return word if word in COMMANDS else None


def joined_numbers(arguments: Sequence[str]) -> list[str]:
    """The arguments, with numbers that begin with a minus and go on after a comma, as in --box -5,0,90,80, joined to the
    option before them: argparse would take them for an option.
    """
    out: list[str] = []
    for argument in arguments:
        if re.match(r"-[\d.][^,]*,", argument) and out and out[-1].startswith("--") and "=" not in out[-1]:
            out[-1] += f"={argument}"
        else:
            out.append(argument)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = joined_numbers(sys.argv[1:] if arguments is None else arguments)
    completing = "_ARGCOMPLETE" in os.environ  # a shell asks what could come next
    parser = build_parser(None if completing else named_command(arguments))
    if completing:
        try:
            import argcomplete  # noqa: PLC0415 - an extra
        except ImportError as exc:
            raise NotInstalled("argcomplete is not installed; run: pip install 'tinyseg[completion]'") from exc
        argcomplete.autocomplete(parser)
    with remembered_interrupts() as interrupts:
        try:
            args = parser.parse_args(arguments)
            with log_to_console(-1 if args.quiet else args.verbose), warnings.catch_warnings():
                warnings.showwarning = _tell_warning
                code: int = args.run(args)
                if sys.stdout is not None:
                    sys.stdout.flush()
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        except Exception as exc:
            # An extension that is interrupted while it is imported turns Ctrl-C into an ImportError of its own.
            code = EXIT_INTERRUPTED if interrupts.seen else _ended_by(exc)
        # A library may swallow the exception, and the command then ends as if nothing had been asked.
        if interrupts.seen:
            tell("tinyseg: interrupted")
            return EXIT_INTERRUPTED
        return code


def _ended_by(exc: Exception) -> int:
    """Tell what ended a command; returns the exit code. What no user can cause is a defect, and raised."""
    if isinstance(exc, TinysegError):
        return _failed(exc)
    if isinstance(exc, BrokenPipeError):  # the reader of our output has gone, as `head` does
        drop_output()
        return 0
    if isinstance(exc, OSError):  # standard output, or what no command expected
        drop_output()
        tell(f"tinyseg: {exc.filename or 'standard output'} cannot be written or read: {exc.strerror or exc}")
        return EXIT_FAILED
    if isinstance(exc, MemoryError):
        tell("tinyseg: not enough memory")
        return EXIT_FAILED
    if isinstance(exc, RecursionError):
        tell("tinyseg: the input is nested too deeply")
        return EXIT_FAILED
    raise exc


def _failed(exc: TinysegError) -> int:
    tell(f"tinyseg: {exc}")
    logging.getLogger("tinyseg").debug("where it happened", exc_info=exc)
    if isinstance(exc, InputError):
        return EXIT_BAD_INPUT
    return (
        EXIT_NOT_USABLE if isinstance(exc, (EngineError, ModelError, NativeModuleError, NotInstalled)) else EXIT_FAILED
    )
