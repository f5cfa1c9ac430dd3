"""Video sequences with masks, in DAVIS' layout: ``<sequence>/frames/*`` and ``<sequence>/masks/*.png``, a tar file or a folder.

A mask file is an index map, a palette picture or black and white; every value or colour but black is an object. Objects
are those of the sequence's first mask; DAVIS' void (255 of an index map) is no object.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.images import SUFFIXES

FOLDERS = {"frames": "frames", "JPEGImages": "frames", "masks": "masks", "Annotations": "masks"}
VOID = 255 | 255 << 8 | 255 << 16  # white, unless it is the only value
DAVIS_VOID = 192 | 224 << 8 | 224 << 16  # the palette's colour of 255


@dataclass(frozen=True)
class Entry:
    """Where a file's bytes lie. offset: in a tar file, None for a plain file."""

    name: str
    path: Path
    offset: int | None
    size: int

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) BGR. Raises DataError."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset or 0)
                data = np.frombuffer(file.read(self.size), np.uint8)
        except OSError as exc:
            raise DataError(f"{self.path} cannot be read: {exc.strerror or exc}") from exc
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if image is None:
            raise DataError(f"{self.path}: {self.name} is not an image that OpenCV can decode")
        return np.asarray(image, np.uint8)


@dataclass(frozen=True)
class Sequence:
    """One video: frames and as many masks. Nothing is held in memory."""

    name: str
    frames: tuple[Entry, ...]
    masks: tuple[Entry, ...]

    def __len__(self) -> int:
        return len(self.frames)

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """(H, W, 3) BGR frames, one after the other."""
        return (f.image() for f in self.frames)

    def colors(self, frame: int = 0) -> list[int]:
        """What the objects of a frame's mask are drawn in."""
        found = [int(c) for c in np.unique(_packed(self.masks[frame].image())) if c]
        return found if len(found) < 2 else [c for c in found if c not in (VOID, DAVIS_VOID)]

    def truth(self, frame: int, colors: list[int]) -> NDArray[np.bool_]:
        """(objects, H, W) masks of a frame."""
        packed = _packed(self.masks[frame].image())
        return np.stack([packed == c for c in colors])


def _packed(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    wide = image.astype(np.int32)
    return np.asarray(wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16, np.int32)


def read_sequences(path: Path) -> list[Sequence]:
    """All sequences of a tar file or folder that have a mask for every frame, by name. Raises DataError."""
    if not path.exists():
        raise DataError(
            f"there is no data set at {path}; give a tar file or folder of <sequence>/frames and <sequence>/masks"
        )
    try:
        entries = _folder_entries(path) if path.is_dir() else _tar_entries(path)
    except (OSError, tarfile.TarError) as exc:
        raise DataError(f"{path} is neither a folder nor a tar file of sequences ({exc})") from exc
    found: dict[str, dict[str, list[Entry]]] = {}
    for entry in entries:
        place = PurePosixPath(entry.name)
        if len(place.parts) < 3 or place.suffix.lower() not in SUFFIXES:
            continue
        sequence, kind = place.parts[-3], FOLDERS.get(place.parts[-2])
        if kind is not None:
            found.setdefault(sequence, {"frames": [], "masks": []})[kind].append(entry)
    sequences = []
    for name, files in sorted(found.items()):
        frames, masks = (sorted(files[kind], key=lambda e: e.name) for kind in ("frames", "masks"))
        if not frames or len(frames) != len(masks):
            raise DataError(
                f"{path}: sequence {name} has {len(frames)} frames and {len(masks)} masks; it needs as many"
            )
        if len(frames) > 2:
            sequences.append(Sequence(name, tuple(frames), tuple(masks)))
    if not sequences:
        raise DataError(f"{path} holds no <sequence>/frames/* with <sequence>/masks/*.png of three frames or more")
    return sequences


def _folder_entries(path: Path) -> list[Entry]:
    return [
        Entry(p.relative_to(path.parent).as_posix(), p, None, p.stat().st_size) for p in path.rglob("*") if p.is_file()
    ]


def _tar_entries(path: Path) -> list[Entry]:
    with tarfile.open(path, "r:") as tar:
        return [Entry(m.name, path, m.offset_data, m.size) for m in tar if m.isfile()]
