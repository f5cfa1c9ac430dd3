"""A tracker in a file: everything it needs to go on, as arrays and JSON, without code in it.

A zip of ``.npy`` members (NumPy's .npz, no pickles). What is read may come from a stranger: sizes are bounded before
anything is unpacked, and every array's shape and type is checked.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.files import read_regular, write_bytes
from tinyseg.npz import read_npz

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
            raise DataError(f"its array {name} is missing, or not what a tracker has")
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
        arrays = read_npz(read_regular(Path(os.path.realpath(path)), MOST_BYTES), MOST_BYTES)
        text = arrays.pop("facts", None)
        if text is None:
            raise DataError("is an .npz file without a tracker's facts")
        facts = json.loads(text.tobytes())
    except OSError as exc:
        raise DataError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError) as exc:  # also what is no JSON
        reason = exc if isinstance(exc, DataError) else "holds no facts of a tracker"
        raise DataError(f"{path} {reason}; save it again with Tracker.save") from exc
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise DataError(f"{path} holds a tracker of another version of tinyseg; save it again with Tracker.save")
    return Saved(facts, arrays)
