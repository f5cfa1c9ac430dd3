"""Command-line flags from the dataclass that they fill: name, default, help and type are written once, at the field."""

from __future__ import annotations

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tinyseg.errors import InputError

T = TypeVar("T")
_KEY = "flag"
MOST_SEED = 2**31 - 1  # torch, NumPy and OpenCV agree on seeds up to there


@dataclass(frozen=True)
class Flag:
    """How a field shows on the command line: ``--field-name``, or ``--PREFIX-field-name`` inside a nested dataclass.

    group: the heading it stands under; commands choose groups. metavar: also tells that the value is counted in it. least
    and most: of a number, for :func:`check_numbers`.
    """

    help: str
    group: str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    least: float = 0.0
    most: float = math.inf


@dataclass(frozen=True)
class Nested:
    """A field that is a dataclass with flags of its own; prefix goes before their names."""

    group: str
    prefix: str = ""


def flag(
    help: str, group: str, metavar: str | None = None, choices: tuple[str, ...] | None = None, *, least: float = 0.0,
    most: float = math.inf,
) -> dict[str, Any]:  # fmt: skip
    """Metadata of a dataclass field that has a flag."""
    return {_KEY: Flag(help, group, metavar, choices, least, most)}


def nested(group: str, prefix: str = "") -> dict[str, Any]:
    """Metadata of a dataclass field whose own fields have flags."""
    return {_KEY: Nested(group, prefix)}


def check_numbers(config: Any, prefix: str = "") -> None:
    """Raises InputError for a number of a dataclass that is not finite, or outside what its flag allows."""
    for field in dataclasses.fields(config):
        shown, value = field.metadata.get(_KEY), getattr(config, field.name)
        if not isinstance(shown, Flag) or isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if not (shown.least <= value <= shown.most and value < math.inf):  # also nan
            up_to = f" and at most {shown.most:.10g}" if math.isfinite(shown.most) else ""
            name = f"--{prefix}{field.name.replace('_', '-')}"
            raise InputError(f"{name} must be a number of at least {shown.least:g}{up_to}, got {value!r:.40}")


def add_flags(
    parser: argparse.ArgumentParser, config: type[Any], groups: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> None:
    """Add the flags of a dataclass's fields in these groups; defaults: where a command has others than the fields."""
    headings = {name: parser.add_argument_group(name) for name in groups}
    _add(headings, config, "", None, defaults or {})


def read_flags(config: type[T], args: argparse.Namespace, groups: Sequence[str], **others: Any) -> T:
    """The dataclass that the flags of these groups fill; others: its remaining fields by name. Raises InputError."""
    return config(**{**_values(config, args, "", groups), **others})


def _add(
    headings: Mapping[str, Any], config: type[Any], prefix: str, group: str | None, defaults: Mapping[str, Any]
) -> None:
    types_of = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        shown = field.metadata.get(_KEY)
        if isinstance(shown, Nested):
            if shown.group in headings:
                _add(headings, types_of[field.name], shown.prefix, shown.group, {})
        elif isinstance(shown, Flag) and (group or shown.group) in headings:
            default = defaults.get(field.name, _default(field))
            name = f"--{prefix}{field.name.replace('_', '-')}"
            headings[group or shown.group].add_argument(name, **_settings(shown, types_of[field.name], default))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _settings(shown: Flag, kind: Any, default: Any) -> dict[str, Any]:
    """add_argument's settings for a field of a type."""
    required = default is dataclasses.MISSING
    settings: dict[str, Any] = {"required": required}
    if not required and default is not None and default is not False and default != {}:
        settings["help"] = f"{shown.help} (default: {default:g})" if isinstance(default, (int, float)) else (
            f"{shown.help} (default: {default})"
        )  # fmt: skip
    else:
        settings["help"] = shown.help
    if kind is bool:
        return {"action": "store_true", "help": settings["help"]}
    if typing.get_origin(kind) is dict:
        return {"action": "append", "default": [], "metavar": shown.metavar, "help": settings["help"]}
    if typing.get_origin(kind) is tuple:
        settings["nargs"] = "+"
    plain = [a for a in typing.get_args(kind) if a is not types.NoneType] if _is_optional(kind) else [kind]
    if plain[0] in (int, float):
        settings["type"] = plain[0]
    if shown.choices:
        settings["choices"] = shown.choices
    else:
        settings["metavar"] = shown.metavar
    if not required:
        settings["default"] = default
    return settings


def _is_optional(kind: Any) -> bool:
    return types.NoneType in typing.get_args(kind)


def _values(config: type[Any], args: argparse.Namespace, prefix: str, groups: Sequence[str] | None) -> dict[str, Any]:
    types_of = typing.get_type_hints(config)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        shown = field.metadata.get(_KEY)
        if shown is None or (groups is not None and shown.group not in groups):
            continue
        kind = types_of[field.name]
        if isinstance(shown, Nested):
            values[field.name] = kind(**_values(kind, args, shown.prefix, None))
            continue
        name = f"{prefix}{field.name.replace('_', '-')}"
        value = getattr(args, name.replace("-", "_"))
        if typing.get_origin(kind) is dict:
            value = _factors(value, f"--{name}", shown.metavar)
        values[field.name] = tuple(value) if typing.get_origin(kind) is tuple else value
    return values


def _factors(texts: Sequence[str], name: str, metavar: str | None) -> dict[str, float]:
    """["NAME=FACTOR", ...] -> {NAME: FACTOR}. Raises InputError."""
    factors: dict[str, float] = {}
    for text in texts:
        key, _, factor = text.rpartition("=")
        try:
            factors[key] = float(factor)
        except ValueError:
            key = ""
        if not key or not 0 < factors[key] < float("inf"):
            raise InputError(f"{name} takes {metavar} with a positive factor, but got {text!r}")
    return factors
