"""Arrays in NumPy's .npz files that may be a stranger's: nothing is unpacked or allocated that was not measured before."""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError

# What numpy writes. Others unpack without heed of how much was asked for.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(data: bytes, most_bytes: int) -> dict[str, NDArray[Any]]:
    """Every array of a file's content by its name, no pickles; at most so many bytes of them.

    Raises DataError, whose message goes on after the file's name ("is no ...").
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            members = packed.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > most_bytes:
                raise DataError(f"unpacks to more than {most_bytes >> 20} MiB ({unpacked / 2**20:,.1f})")
            return {member.filename.removesuffix(".npy"): _array(packed, member) for member in members}
    except DataError:
        raise
    except Exception as exc:  # what zipfile, zlib and numpy raise for damaged bytes is told nowhere, and much
        raise DataError(f"is no whole .npz file ({type(exc).__name__}: {exc!s:.100})") from exc


def _array(packed: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    if member.compress_type not in METHODS:
        raise DataError(f"is no .npz file of numpy ({member.filename!r:.80} is packed in another way)")
    content = io.BytesIO(packed.read(member))
    header = HEADERS.get(np.lib.format.read_magic(content))
    if header is None:
        raise DataError(f"is no .npz file of plain arrays ({member.filename!r:.80} is of another version)")
    shape, _, dtype = header(content)
    # numpy makes room for what the header says before it reads.
    stated = math.prod(shape) * dtype.itemsize
    if (
        dtype.hasobject
        or not dtype.itemsize
        or min(shape, default=0) < 0
        or stated != member.file_size - content.tell()
    ):
        raise DataError(f"is no .npz file of plain arrays ({member.filename!r:.80} is not what its header says)")
    content.seek(0)
    return np.asarray(np.lib.format.read_array(content, allow_pickle=False))
