"""A tracker in a file: everything it needs to go on, as arrays and JSON, without code in it.

A zip of ``.npy`` members (NumPy's .npz, no pickles). What is read may come from a stranger: sizes are bounded before
anything is unpacked, and every array's shape and type is checked.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.files import write_bytes

FORMAT = 2
MOST_BYTES = 1 << 30  # of all members unpacked: 256 objects of 1.4 MiB are well below
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Saved:
    """What a file holds. facts: JSON values. arrays: by name."""

    facts: dict[str, Any]
    arrays: Arrays

    def array(self, name: str, shape: tuple[int | None, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """An array of this shape (None: any length) and type, finite if it is float. Raises DataError."""
        array = self.arrays.get(name)
        fits = (
            array is not None
            and array.dtype == dtype
            and len(array.shape) == len(shape)
            and all(want is None or want == have for want, have in zip(shape, array.shape))
        )
        if array is None or not fits or (array.dtype.kind == "f" and not np.isfinite(array).all()):
            raise DataError(f"it is no tracker state, or damaged ({name}); save it again with Tracker.save")
        return array


def write_state(path: Path, facts: dict[str, Any], arrays: Arrays) -> None:
    """Write a file whole or not at all. Raises DataError."""
    content = io.BytesIO()
    text = np.frombuffer(json.dumps({"format": FORMAT, **facts}).encode(), np.uint8)
    np.savez(content, allow_pickle=False, facts=text, **arrays)
    write_bytes(path, content.getvalue())


def read_state(path: Path) -> Saved:
    """Read what write_state wrote. Raises DataError."""
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(member.file_size for member in packed.infolist())
        if unpacked > MOST_BYTES:
            raise DataError(f"{path} unpacks to {unpacked >> 20} MiB; a tracker's state has at most {MOST_BYTES >> 20}")
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        facts = json.loads(arrays.pop("facts").tobytes())
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise DataError(f"{path} holds a tracker of another version of tinyseg; save it again with Tracker.save")
    except OSError as exc:
        raise DataError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError, RuntimeError) as exc:
        if isinstance(exc, DataError):
            raise
        raise DataError(f"{path} is no tracker state ({exc}); write one with Tracker.save") from exc
    return Saved(facts, arrays)
