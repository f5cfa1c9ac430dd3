"""Checkpoints of a training: everything that is needed to go on, in one file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tinyseg.errors import InputError

KEYS = ("student", "average", "shape", "optimizer", "step", "spent", "config")


def save_checkpoint(path: Path, state: Mapping[str, object]) -> None:
    """Write atomically; ``state`` has at least KEYS."""
    temporary = path.with_suffix(".tmp")
    torch.save(dict(state), temporary)
    os.replace(temporary, path)


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
