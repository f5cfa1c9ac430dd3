"""Arrays of strangers: what is damaged or lies about its size is told, and nothing is allocated for it."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from tinyseg.errors import DataError
from tinyseg.npz import read_npz

MOST = 1 << 20
WORDS = np.random.default_rng(0).integers(0, 9, 4000)


def packed(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """A zip of such members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def array_file(array: Any, **header: Any) -> bytes:
    """An .npy file whose header may say something else."""
    array = np.asarray(array)
    stated = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {**stated, **header})
    return buffer.getvalue() + array.tobytes()


def misplaced(data: bytes) -> bytes:
    """A zip whose list of members lies about where they begin."""
    place = data.rindex(b"PK\x01\x02") + 42
    return data[:place] + b"\xff\xff\xff\x7f" + data[place + 4 :]


def flipped(data: bytes) -> bytes:
    """The same with some bytes of its first member changed."""
    bad = bytearray(data)
    bad[60:400:7] = bytes(b ^ 0xFF for b in bad[60:400:7])
    return bytes(bad)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(save: Any) -> None:
    given = {
        "words": WORDS, "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "text": np.array("abc"),
        "one": np.array(3), "none": np.zeros((0, 4), np.float32),
    }  # fmt: skip
    buffer = io.BytesIO()
    save(buffer, **given)
    read = read_npz(buffer.getvalue(), MOST)
    assert list(read) == list(given)
    for name, array in given.items():
        assert read[name].dtype == array.dtype and np.array_equal(read[name], array)


DAMAGED = {
    "empty": b"",
    "no zip": b"no zip",
    "flipped, deflated": flipped(packed(zipfile.ZIP_DEFLATED, a=array_file(WORDS))),
    "flipped, stored": flipped(packed(a=array_file(WORDS))),
    "LZMA": packed(zipfile.ZIP_LZMA, a=array_file(WORDS)),
    "flipped, LZMA": flipped(packed(zipfile.ZIP_LZMA, a=array_file(WORDS))),
    "bzip2": packed(zipfile.ZIP_BZIP2, a=array_file(WORDS)),
    "no array": packed(a=b"plain"),
    "empty member": packed(a=b""),
    "misplaced member": misplaced(packed(a=array_file(WORDS))),
    "states far more than it has": packed(a=array_file(WORDS, shape=(50 * 2**40,))),
    "states negative sides": packed(a=array_file(WORDS, shape=(-2, -2000))),
    "states less than it has": packed(a=array_file(WORDS, shape=(3000,))),
    "objects": packed(a=array_file(WORDS, descr="|O")),
    "endless empty texts": packed(a=array_file(WORDS, descr="<U0", shape=(1 << 40,))),
    "more than may be": packed(a=array_file(np.zeros(MOST, np.uint8))),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_and_lying_files_are_told(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^(is no|unpacks to)"):
        read_npz(data, MOST)
