"""What callers hand in, checked where it enters: choices, whole numbers and paths of whatever type was given.

A value of a wrong type is told like a wrong value: one exception that names the argument, what it was and what it may be.
"""

from __future__ import annotations

import os
import re
import reprlib
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyseg.errors import DataError, InputError

# Digits that int() reads in any script ("²" is none, "٣" is one) are not what a command line means.
DIGITS = re.compile(r"[0-9]{1,18}")


def shown(value: Any) -> str:
    """A value for a message: short, whatever it is; what cannot show itself is told by its type."""
    try:
        text = reprlib.repr(value).replace("\n", " ")
        return text if len(text) <= 200 else f"{text[:200]}..."
    except Exception:
        return f"an object of type {type(value).__name__}"


def check_choice(name: str, value: Any, choices: Sequence[str], error: type[InputError] = InputError) -> str:
    """``value`` if it is one of ``choices``; else ``error``, whatever type it has."""
    if isinstance(value, str) and value in choices:
        return str(value)
    raise error(f"{name} must be one of {', '.join(choices)}, but is {shown(value)}")


def check_whole(name: str, value: Any, least: int, most: int, error: type[InputError] = InputError) -> int:
    """``value`` as int if it is a whole number (not a bool) from ``least`` to ``most``; else ``error``."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    raise error(f"{name} must be a whole number from {least} to {most}, but is {shown(value)}")


def check_flag(name: str, value: Any, error: type[InputError] = InputError) -> bool:
    """``value`` as bool if it is one, or 0 or 1; else ``error``."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, (int, np.integer)) and value in (0, 1)):
        return bool(value)
    raise error(f"{name} must be True or False, but is {shown(value)}")


def parse_whole(text: str) -> int | None:
    """ASCII digits as a number; None for everything else, absurdly long ones included."""
    return int(text) if DIGITS.fullmatch(text) else None


def parse_size(name: str, text: str, most: int) -> tuple[int, int]:
    """ "1280x720" -> (1280, 720), each from 1 to ``most``. Raises InputError."""
    width, cross, height = text.lower().partition("x")
    sides = parse_whole(width), parse_whole(height)
    if not cross or sides[0] is None or sides[1] is None or not all(1 <= s <= most for s in (sides[0], sides[1])):
        raise InputError(
            f"{name} takes WIDTHxHEIGHT in pixels, such as 1280x720, {most} a side at most, but got {shown(text)}"
        )
    return sides[0], sides[1]


def check_path(name: str, value: Any) -> Path:
    """A path from a string or path object. Raises DataError for other types, an empty name and null bytes."""
    if not isinstance(value, (str, os.PathLike)) or isinstance(value, bytes):
        raise DataError(f"{name} must be a path (str or pathlib.Path), but is {shown(value)}")
    try:
        text = os.fspath(value)
    except Exception as exc:  # the object's own method
        raise DataError(f"{name} must be a path (str or pathlib.Path), but is {shown(value)}") from exc
    if not isinstance(text, str) or not text or "\0" in text:
        raise DataError(f"{name} must be a path (str or pathlib.Path), but is {shown(text)}")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as exc:
        raise DataError(f"{name} must be a path that the system can encode, but is {shown(text)}") from exc
    return Path(text)


def is_url(text: str) -> bool:
    """Whether a text is an http(s) address."""
    return text.lower().startswith(("http://", "https://"))


def path_kind(path: Path) -> str | None:
    """What lies at a path: "file", "folder", "other" (a device, pipe or socket); None for nothing. Links are followed.

    Raises DataError where the system does not tell: a folder on the way may not be searched, a name is too long.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as exc:
        raise DataError(f"{clipped(path)} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def clipped(path: Path | str) -> str:
    """A path for a message: long names shortened in the middle."""
    text = str(path)
    return text if len(text) <= 200 else f"{text[:120]}...{text[-60:]}"
