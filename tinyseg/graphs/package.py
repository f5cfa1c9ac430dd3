"""The files of a model: a folder or a zip, read as what a stranger made.

Names are plain file names, links are refused, and sizes are bounded before anything is read or inflated.
"""

from __future__ import annotations

import re
import stat
import struct
from pathlib import Path

from tinyseg.errors import ModelError
from tinyseg.files import read_regular

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CARD = "model.json"
MOST_CARD_BYTES = 4 << 20
MOST_FILE_BYTES = 1 << 30  # a graph, or a compiled engine
MOST_ZIP_BYTES = 4 << 30
# A folder of a model with engines for every size has a few hundred files; an entry of a zip's directory takes 46 bytes
# and its name.
MOST_MEMBERS = 10_000
MOST_DIRECTORY_BYTES = 4 << 20
# Weights hardly shrink (1.1 times), JSON does so about 10 times; what shrinks more is made to fill the memory.
MOST_INFLATION = 100
SMALL_BYTES = 1 << 20  # below this any ratio will do
END_OF_DIRECTORY = struct.Struct("<4s4H2LH")  # PKWARE's APPNOTE 4.3.16
LONGEST_COMMENT = 0xFFFF


def is_plain_name(name: object) -> bool:
    """Whether this is a name for a file right in a model's folder: no path, nothing hidden, ASCII."""
    return isinstance(name, str) and PLAIN_NAME.fullmatch(name) is not None


def read_member(place: Path, name: str, most_bytes: int = MOST_FILE_BYTES) -> bytes:
    """A file of a model folder or zip. Raises ModelError, also for what is larger than ``most_bytes``."""
    if not is_plain_name(name):
        raise ModelError(f"{place}: a model's files have plain names (letters, digits, . _ -), not {name!r}")
    try:
        if place.is_dir():
            return read_regular(place / name, most_bytes)
        if not place.is_file():
            raise ModelError(f"{place} is neither a model folder nor a zip file")
        return _from_zip(place, name, most_bytes)
    except FileNotFoundError as exc:
        raise ModelError(f"{place} holds no {name}; a model is a folder or zip with model.json and its graphs") from exc
    except OSError as exc:
        raise ModelError(f"{place}: {name} cannot be read ({exc.strerror or exc})") from exc


def _too_large(place: Path, name: str, size: int, most_bytes: int) -> ModelError:
    return ModelError(f"{place}: {name} has {size:,} bytes, more than the {most_bytes:,} that such a file may have")


def _from_zip(place: Path, name: str, most_bytes: int) -> bytes:
    import zipfile  # noqa: PLC0415 - models are folders most of the time, and programs start sooner without it

    _check_directory(place)
    try:
        with zipfile.ZipFile(place) as archive:
            found = [info for info in archive.infolist() if info.filename == name]
            if not found:
                raise FileNotFoundError(name)
            info = found[0]
            if len(found) > 1:
                raise ModelError(f"{place} holds {len(found)} files of the name {name}; make it anew")
            if info.flag_bits & 1:
                raise ModelError(f"{place}: {name} is encrypted; make the zip without a password")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise ModelError(f"{place}: {name} is a link; put the file itself into the zip")
            if info.file_size > most_bytes:
                raise _too_large(place, name, info.file_size, most_bytes)
            if info.file_size > max(SMALL_BYTES, MOST_INFLATION * info.compress_size):
                raise ModelError(
                    f"{place}: {name} inflates from {info.compress_size:,} to {info.file_size:,} bytes, which no model does"
                )
            with archive.open(info) as file:
                return file.read(info.file_size)  # never more than was stated and checked
    except (ModelError, FileNotFoundError):
        raise
    except zipfile.BadZipFile as exc:
        raise ModelError(
            f"{place} is neither a model folder nor a zip file, or a damaged one ({exc}); get it again"
        ) from exc
    except Exception as exc:  # zlib.error, NotImplementedError, struct.error, ...: whatever the bytes lead zipfile to
        raise ModelError(
            f"{place}: {name} cannot be unpacked ({type(exc).__name__}: {exc}); get the model again"
        ) from exc


def _check_directory(place: Path) -> None:
    """The size of a zip's directory, which zipfile reads into memory as a whole. Raises ModelError or OSError."""
    size = place.stat().st_size
    if size > MOST_ZIP_BYTES:
        raise _too_large(place, "the zip file", size, MOST_ZIP_BYTES)
    with place.open("rb") as file:
        file.seek(max(0, size - END_OF_DIRECTORY.size - LONGEST_COMMENT))
        tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < END_OF_DIRECTORY.size:
        raise ModelError(f"{place} is neither a model folder nor a zip file")
    _, _, _, _, members, bytes_of_directory, _, _ = END_OF_DIRECTORY.unpack_from(tail, at)
    # Zip64 states 0xFFFF and 0xFFFFFFFF here; a model has no need of it.
    if members > MOST_MEMBERS or bytes_of_directory > MOST_DIRECTORY_BYTES or b"PK\6\7" in tail[max(0, at - 20) : at]:
        raise ModelError(f"{place} is a zip of more files than a model has ({members:,} stated)")
