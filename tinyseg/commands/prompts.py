"""Prompts on the command line: --point, --box and --mask, and files of JSON lines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tinyseg.arguments import check_path, clipped, shown
from tinyseg.errors import DataError, PromptError
from tinyseg.images import read_mask
from tinyseg.prompts import Prompt

MOST_FILE_BYTES = 256 << 20

Row = TypeVar("Row")


def numbers(text: str, counts: Sequence[int], what: str) -> list[float]:
    """Parse "1,2,3"; PromptError unless there are as many numbers as one of ``counts``."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts:
        raise PromptError(f"{what}, but got {text!r}")
    return values


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """--point and --box, for :func:`parse_prompts`."""
    parser.add_argument(
        "--point", action="append", default=[], metavar="X,Y[,0|1]",
        help="a click in pixels; 1 (default) on the object, 0 off it",
    )  # fmt: skip
    parser.add_argument(
        "--box", action="append", default=[], metavar="X0,Y0,X1,Y1", help="a box in pixels; an object each"
    )


def add_mask_option(parser: argparse.ArgumentParser) -> None:
    """--mask, for :func:`parse_prompts`."""
    parser.add_argument(
        "--mask", metavar="FILE", help="image of the frame's size, not black where the object roughly is"
    )


def parse_points(texts: Sequence[str]) -> tuple[list[list[float]] | None, list[float] | None]:
    """--point X,Y[,LABEL], each -> points and their labels, None where there are none. Raises PromptError."""
    clicks = [numbers(text, (2, 3), "--point takes X,Y or X,Y,LABEL") for text in texts]
    return [c[:2] for c in clicks] or None, [c[2] if len(c) == 3 else 1.0 for c in clicks] or None


def parse_boxes(texts: Sequence[str]) -> list[list[float]]:
    """--box X0,Y0,X1,Y1, each -> boxes. Raises PromptError."""
    return [numbers(text, (4,), "--box takes X0,Y0,X1,Y1") for text in texts]


def parse_prompts(
    points: Sequence[str],
    boxes: Sequence[str],
    mask: str | None = None,
    options: str = "--point X,Y, --box X0,Y0,X1,Y1 or --mask FILE",
) -> list[Prompt]:
    """The prompts that --point, --box and --mask describe; ``options``: those that the command has. Raises PromptError.

    All points make one prompt, every box one of its own; one box and points together are one prompt.
    """
    xy, labels = parse_points(points)
    corners = parse_boxes(boxes)
    hint = read_mask(mask) if mask else None
    if len(corners) > 1 and (xy or hint is not None):
        raise PromptError("points or a mask can be combined with one --box only; run the command once for each object")
    if not corners and not xy and hint is None:
        raise PromptError(f"say what to segment: {options}")
    return [Prompt(xy, labels, box, hint) for box in corners] or [Prompt(xy, labels, mask=hint)]


PROMPT_KEYS = ("points", "labels", "box")


def prompt_of(row: dict[str, Any], beside: Sequence[str] = ()) -> Prompt:
    """A prompt as JSON has it, {"points", "labels", "box"}, each of which may be missing. Raises PromptError.

    beside: other keys that the row may have, for others to read.
    """
    unknown = sorted(set(row) - {*PROMPT_KEYS, *beside})
    if unknown:
        raise PromptError(f"{shown(unknown[0])} is nothing that a prompt has here; it has {', '.join(PROMPT_KEYS)}")
    return Prompt(row.get("points"), row.get("labels"), row.get("box"))


def read_prompt_file(option: str, path: str | Path, shape: str, parse: Callable[[Any], Row]) -> list[Row]:
    """The rows of a file of JSON lines that ``option`` names; empty lines are left out.

    parse: of one line's JSON; it may raise PromptError, or whatever comes of JSON that has another shape. shape: what a
    line should look like, for messages. Raises DataError or PromptError, naming the line.
    """
    try:
        with check_path(option, path).open("rb") as file:
            content = file.read(MOST_FILE_BYTES + 1)
        if len(content) > MOST_FILE_BYTES:
            raise DataError(f"{clipped(path)} is larger than {MOST_FILE_BYTES >> 20} MiB; that is no file of prompts")
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as exc:
        raise DataError(f"{clipped(path)} is not text in UTF-8 (byte {exc.start}); a line is {shape}") from exc
    except OSError as exc:
        raise DataError(f"{clipped(path)} cannot be read: {exc.strerror or exc}") from exc
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(parse(json.loads(line)))
        except PromptError as exc:
            raise PromptError(f"{clipped(path)}, line {number}: {exc}") from exc
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise DataError(f"{clipped(path)}, line {number}: expected {shape} ({exc!s:.200})") from exc
    return rows
