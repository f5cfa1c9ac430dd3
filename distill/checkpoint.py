"""Checkpoints of a training: everything that is needed to go on, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tinyseg.errors import DataError, InputError
from tinyseg.files import commit, create_beside

KEYS = ("student", "average", "shape", "optimizer", "step", "spent", "config")


def save_checkpoint(path: Path, state: Mapping[str, object]) -> None:
    """Write whole or not at all; ``state`` has at least KEYS. Raises DataError."""
    temporary: Path | None = None
    try:
        temporary, file = create_beside(path)
        with file:
            torch.save(dict(state), file)
        commit(temporary, path)
        temporary = None
    except (OSError, RuntimeError) as exc:  # torch tells a full disk by the latter
        first = str(getattr(exc, "strerror", None) or exc).partition("\n")[0]
        raise DataError(f"{path} cannot be written ({first})") from exc
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def require_place(path: Path) -> None:
    """Make the folder of a checkpoint that is to be written. Raises DataError, before the work that leads to it."""
    if path.is_dir():
        raise DataError(f"--out {path} is a folder, and a checkpoint is a file; name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DataError(f"--out {path} cannot be written ({exc.strerror or exc}); name another place") from exc


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """A checkpoint as save_checkpoint() writes it. Raises InputError."""
    if not path.is_file():
        raise InputError(f"there is no checkpoint at {path}")
    try:
        saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        missing = set(KEYS) - set(saved)
    except Exception as exc:  # torch.load raises whatever the bytes lead it to
        # Its text is long, and advises to run whatever code the file holds.
        raise InputError(f"{path} is not a checkpoint of tinyseg.distill ({type(exc).__name__})") from exc
    if missing:
        raise InputError(f"{path} is not a checkpoint of tinyseg.distill: it lacks {', '.join(sorted(missing))}")
    return saved
