"""What commands write about photographs: where it goes, under which name, in which format."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_path, clipped, is_url, path_kind
from tinyseg.draw import overlay, readings
from tinyseg.errors import DataError, InputError
from tinyseg.files import write_bytes
from tinyseg.images import SUFFIXES, encode_image
from tinyseg.masks import Masks
from tinyseg.prompts import Prompt
from tinyseg.system.console import tell
from tinyseg.system.folders import ResultFolder

FORMATS = ("png", "mask", "cutout", "coco", "polygons")


class Target:
    """Where results go: a folder, one file that the user named, or standard output."""

    def __init__(self, text: str, kind: str, images: Sequence[str]) -> None:
        """What --out says, for results of a --format about images. Raises DataError or InputError."""
        self.stream = text == "-"
        self._file: Path | None = None
        self._folder: ResultFolder | None = None
        self._place = place = check_path("--out", text)
        there = None if self.stream else path_kind(place)
        if there == "folder" or (not self.stream and place.suffix.lower() not in (*SUFFIXES, ".json")):
            if there not in (None, "folder"):
                raise DataError(f"--out {clipped(place)} is no folder; give a folder, or a file ending in .png")
            return
        if len(images) != 1 and kind != "coco":
            raise InputError(
                f"--out {clipped(place)} takes the result of one image, but there are {len(images)}; give a folder"
            )
        if self.stream:
            return
        if there is not None and any(path_kind(Path(i)) and place.samefile(i) for i in images if not is_url(i)):
            raise DataError(f"--out {clipped(place)} is an input; give a folder, or another file")
        wants_json = kind in ("polygons", "coco")
        if wants_json != (place.suffix.lower() == ".json"):
            raise InputError(
                f"--format {kind} writes {'JSON' if wants_json else 'pictures'}, but --out is {clipped(place)}; "
                f"{'name a .json file' if wants_json else 'name a .png file, or add --format polygons or coco'}"
            )
        if kind == "cutout" and place.suffix.lower() in (".jpg", ".jpeg"):
            raise InputError(
                f"--format cutout is transparent around the object, which JPEG is not, but --out is {clipped(place)}; "
                "name a .png or .webp file"
            )
        self._file = place

    @property
    def single(self) -> bool:
        return self.stream or self._file is not None

    @property
    def suffix(self) -> str:
        """Of pictures: the file's, else .png."""
        return ".png" if self._file is None else self._file.suffix

    def open(self) -> None:
        """Make the folder, if it is one. Raises DataError."""
        if not self.single:
            self._folder = ResultFolder(self._place)

    def without_own(self, images: Sequence[str], named: Sequence[str]) -> list[str]:
        """The images without those that an earlier run wrote into this folder, unless the user named them; see
        :meth:`ResultFolder.without_own`."""
        return list(images) if self._folder is None else self._folder.without_own(images, named)

    def name(self, name: str) -> str:
        """Where a result of that name in a folder goes, for messages."""
        return "standard output" if self.stream else str(self._file or self._place / name)

    def write(self, name: str, content: bytes) -> str:
        """Write a result; ``name`` is its name in a folder. Returns where it went. Raises DataError."""
        if self.stream:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        else:
            write_bytes(self._file if self._folder is None else self._folder.place(name), content)  # type: ignore[arg-type]
        return self.name(name)


def folder_for_results(text: str) -> Path:
    """What --out says, for commands whose results of images go into a folder alone. Raises DataError or InputError."""
    place = check_path("--out", text)
    there = path_kind(place)
    if there not in (None, "folder"):
        raise DataError(f"--out {clipped(place)} is no folder; give a folder")
    if there is None and (text == "-" or place.suffix.lower() in (*SUFFIXES, ".json")):
        told = "is standard output" if text == "-" else "is the name of a file"
        raise InputError(
            f"--out {clipped(place)} {told}, and results go into a folder, each under its own name; give a folder"
        )
    return place


def file_for_results(option: str, text: str) -> Path:
    """A file that is written when the work is done. Raises DataError, before the work, where none can be written there."""
    place = check_path(option, text)
    there = path_kind(place)
    if there == "folder":
        raise DataError(f"{option} {clipped(place)} is a folder; name a file")
    if there is None:
        above = next(p for p in place.absolute().parents if path_kind(p) is not None)
        if path_kind(above) != "folder" or not os.access(above, os.W_OK):
            raise DataError(
                f"{option} {clipped(place)} cannot be written: nothing can be put into {clipped(above)}; name another file"
            )
    return place


def describe(answer: Masks, index: int) -> dict[str, Any]:
    return {
        "score": round(float(answer.scores[index]), 4),
        "stability": round(float(answer.stability[index]), 4),
        "area": int(answer.areas[index]),
        "box": answer.boxes[index].tolist(),
        "zoom": answer.zoom,
    }


def write_results(
    frame: NDArray[np.uint8], kept: list[tuple[Masks, int]], prompts: list[Prompt], kind: str, target: Target, name: str
) -> list[str]:
    """Write the files of one image; returns their names. Raises DataError or InputError."""
    picture = Path(f"{name}{target.suffix}")
    if kind == "polygons":
        rows = [{**describe(a, i), "polygons": [p.tolist() for p in a.to_polygons()[i]]} for a, i in kept]
        return [target.write(f"{name}.polygons.json", json.dumps(rows).encode())]
    if kind == "png":
        masks = [a.masks[i] for a, i in kept]
        if len(prompts) == 1 and len(kept) > 1:
            drawn = readings(frame, masks, [float(a.scores[i]) for a, i in kept], prompts)
        else:
            drawn = overlay(frame, masks, prompts)
        return [target.write(f"{name}.overlay.png", encode_image(picture, drawn))]
    files = []
    for number, (answer, index) in enumerate(kept):
        if kind == "mask":
            pixels = answer.masks[index].astype(np.uint8) * np.uint8(255)
        else:  # OpenCV writes BGRA
            pixels = answer.cutout(frame, "bgr", index)[..., [2, 1, 0, 3]]
        files.append(target.write(f"{name}.{kind}{number}.png", encode_image(picture, pixels)))
    return files


def unique_names(images: Sequence[str]) -> dict[str, str]:
    """A name for the results of every image: its stem; where others have that too, its whole name, then with a digest of its
    path.

    So a name says nothing of an image's place in a list, and what an image is called when others join it was never another's.
    Names that differ in case alone are the same to some file systems.
    """
    levels = {image: 0 for image in images}
    while True:
        names = {image: _name(image, level) for image, level in levels.items()}
        counts = Counter(name.casefold() for name in names.values())
        shared = [image for image, name in names.items() if counts[name.casefold()] > 1 and levels[image] < LAST_LEVEL]
        if not shared:
            return names
        for image in shared:
            levels[image] += 1


LAST_LEVEL = 2


def _name(image: str, level: int) -> str:
    name = _file_name(image)
    if level == 0:
        return Path(name).stem or "image"
    digest = hashlib.sha256(image.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return (name or "image") + (f"-{digest}" if level == LAST_LEVEL else "")


def _file_name(image: str) -> str:
    if image == "-":
        return "stdin"
    return Path(re.sub(r"[?#].*", "", image) if is_url(image) else image).name


def tell_failure(image: str | Path, exc: Exception, as_json: bool) -> None:
    """Say why an image failed; the command goes on with the next one. as_json: print its row, too."""
    tell(f"tinyseg: {clipped(image)}: {exc or 'not enough memory'}")
    if as_json:
        print(json.dumps({"image": str(image), "error": str(exc)}), flush=True)
