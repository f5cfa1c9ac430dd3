"""Files of one shard: its rows, written whole and flushed to disk before its name, and ``_stats.json``, which comes last.

A shard is done when its stats are there; a kill before that leaves nothing that counts. The scheme is img2dataset's. What is written
is a function of the shard alone (no times, no random names), so a shard that is done twice gives the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO

from tinyseg.arguments import clipped
from tinyseg.errors import DataError
from tinyseg.files import commit, create_beside, write_bytes
from tinyseg.shard_rows import ROWS, read_samples

SHARDS = "shards"
STATS = "_stats.json"
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
WORST_TRIES = 3  # deaths of a process at one picture after which that is left out


@dataclass
class ShardStats:
    """What became of a shard. errors: one for each picture that could not be labelled."""

    shard: int
    images: int = 0
    annotations: int = 0
    bytes: int = 0
    seconds: float = 0.0
    errors: list[dict[str, str]] = field(default_factory=list)


def shard_path(out: Path, number: int, kind: str) -> Path:
    """Where a shard's rows lie. kind: ROWS or TAR."""
    return out / SHARDS / f"{number:05d}{kind}"


def stats_path(out: Path, number: int) -> Path:
    return out / SHARDS / f"{number:05d}{STATS}"


def read_stats(out: Path, number: int) -> ShardStats:
    """Raises DataError where they are missing or damaged."""
    path = stats_path(out, number)
    try:
        content = json.loads(path.read_bytes())
        return ShardStats(
            int(content["shard"]), int(content["images"]), int(content["annotations"]), int(content["bytes"]),
            float(content["seconds"]), [{str(k): str(v) for k, v in e.items()} for e in content["errors"]],
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as exc:
        raise DataError(f"{clipped(path)} cannot be read ({exc}); delete it and run the command again") from exc


def shards_done(out: Path, kind: str) -> set[int]:
    """Numbers of the shards that are whole: rows and stats are there. Raises OSError."""
    names = set(os.listdir(out / SHARDS))
    found = (n.removesuffix(STATS) for n in names if n.endswith(STATS))
    return {int(n) for n in found if n.isascii() and n.isdigit() and f"{n}{kind}" in names}


def is_done(out: Path, number: int, kind: str) -> bool:
    """The same of one shard."""
    return stats_path(out, number).exists() and shard_path(out, number, kind).exists()


class ShardWriter:
    """Rows of a shard as gzipped JSON lines, or, as a tar of WebDataset samples, together with the pictures.

    Used as a context: what was written takes its name at the end, and nothing stays after an error. Raises DataError.
    """

    def __init__(self, out: Path, number: int, kind: str) -> None:
        self._out, self._number, self._kind = out, number, kind
        self._path = shard_path(out, number, kind)
        self._start = time.monotonic()
        self.stats = ShardStats(number)

    def __enter__(self) -> ShardWriter:
        try:
            self._temporary, self._file = create_beside(self._path)
        except OSError as exc:
            raise self._failure(exc) from exc
        self._gzip: gzip.GzipFile | None = None
        self._tar: tarfile.TarFile | None = None
        if self._kind == ROWS:
            self._gzip = gzip.GzipFile("", "wb", 6, self._file, mtime=0)
        else:
            self._tar = tarfile.open(fileobj=self._file, mode="w|", format=tarfile.USTAR_FORMAT)
        return self

    def add(self, row: dict[str, Any], picture: bytes | None) -> None:
        """A row {"image", "annotations"}; picture: its file's bytes, for a tar."""
        text = json.dumps(row, separators=(",", ":")).encode()
        try:
            if self._gzip is not None:
                self._gzip.write(text + b"\n")
            elif self._tar is not None:
                key = f"{self._number:05d}{self.stats.images:06d}"
                if picture is not None:
                    _add_member(self._tar, key + PurePosixPath(row["image"]["file_name"]).suffix.lower(), picture)
                _add_member(self._tar, key + ".json", text)
        except OSError as exc:
            raise self._failure(exc) from exc
        self.stats.images += 1
        self.stats.annotations += len(row["annotations"])

    def fail(self, name: str, reason: str) -> None:
        """A picture that could not be labelled."""
        self.stats.errors.append({"name": name, "error": reason})

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        whole = exc is None
        try:
            self._close(whole)
            if whole:
                self.stats.bytes = self._path.stat().st_size
                self.stats.seconds = round(time.monotonic() - self._start, 3)
                write_bytes(stats_path(self._out, self._number), json.dumps(asdict(self.stats)).encode())
        except OSError as failed:
            if whole:
                raise self._failure(failed) from failed
        finally:
            with suppress(OSError):
                self._temporary.unlink()

    def _close(self, whole: bool) -> None:
        try:
            if self._gzip is not None:
                self._gzip.close()
            if self._tar is not None:
                self._tar.close()
            self._file.flush()
            if whole:
                os.fsync(self._file.fileno())  # before its name, and before the stats that say it is there
        finally:
            with suppress(OSError):
                self._file.close()
        if whole:
            commit(self._temporary, self._path)

    def _failure(self, exc: OSError) -> DataError:
        return DataError(
            f"{clipped(self._path)} cannot be written: {exc.strerror or exc}; shards that are whole stay, run again to go on"
        )


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # its times and owners are zeros: the same bytes every time
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def copy_pictures(path: Path) -> Iterator[tuple[dict[str, Any], bytes | None]]:
    """Rows of a shard with the bytes of their pictures, where it holds them. Raises DataError."""
    with open_binary(path) as file:
        for row, place in read_samples(path):
            data = None
            if place is not None:
                file.seek(place[0])
                data = file.read(place[1])
            yield row, data


class Journal:
    """What a worker is at, so that a picture that kills it three times is left out instead of killing it for ever.

    A file ``shards/NNNNN.trying`` with the number of the picture and how often it was begun. A job removes all of them when it
    starts: that a whole job was killed says nothing about a picture.
    """

    SUFFIX = ".trying"

    def __init__(self, out: Path, number: int) -> None:
        self._path = out / SHARDS / f"{number:05d}{self.SUFFIX}"
        self._left_out: list[int] = []
        self._at, self._tries = -1, 0
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
            content = json.loads(self._path.read_bytes())
            self._left_out = [int(n) for n in content["left_out"]]
            self._at, self._tries = int(content["at"]), int(content["tries"])

    def begin(self, index: int) -> bool:
        """Note that a picture is begun; False where it was begun too often. Raises DataError."""
        if index in self._left_out:
            return False
        tries = self._tries + 1 if index == self._at else 1
        if tries > WORST_TRIES:
            self._left_out.append(index)
        elif index < self._at:
            # The shard is done anew up to where it died: that place stays noted until it is reached.
            return True
        else:
            self._at, self._tries = index, tries
        content = {"at": self._at, "tries": self._tries, "left_out": self._left_out}
        write_bytes(self._path, json.dumps(content).encode())
        return index not in self._left_out

    def end(self) -> None:
        with suppress(OSError):
            self._path.unlink()


def open_binary(path: Path) -> BinaryIO:
    """A file to read from. Raises DataError."""
    try:
        return path.open("rb")
    except OSError as exc:
        raise DataError(f"{clipped(path)} cannot be read: {exc.strerror or exc}") from exc
