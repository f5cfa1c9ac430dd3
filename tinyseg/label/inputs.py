"""What a user names -> shards: folders with all that is in them, files, globs, videos, and WebDataset tars.

A shard is what one worker labels in one go, and what a kill loses. It knows where its pictures lie and nothing else, so it can be
handed to any process or machine that sees the same files. Pictures have names that are unique in the job and do not depend on
where the data lies: a file's path below the root, ``film.mp4/000120.jpg`` for a frame, ``part.tar/cat.jpg`` for a member.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tinyseg.arguments import check_path, check_whole, clipped, path_kind, shown
from tinyseg.errors import DataError, InputError
from tinyseg.images import SUFFIXES
from tinyseg.sources.video import VideoFileSource

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
TAR_SUFFIX = ".tar"
PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
MOST_SHARD = 100_000
FILES, VIDEO, TAR = "files", "video", "tar"


@dataclass(frozen=True)
class Shard:
    """A run of pictures. kind: "files", "video" or "tar".

    files: names of image files below the root. Else ``place`` is the video's or tar's name below the root, and the pictures are
    those from ``first`` on, ``count`` of them, None for all up to the end. They are counted among a video's kept frames, or among
    a tar's images.
    """

    number: int
    kind: str
    files: tuple[str, ...] = ()
    place: str = ""
    first: int = 0
    count: int | None = None


@dataclass(frozen=True)
class Plan:
    """All shards of a job. root: the folder that names are relative to. images: how many are expected, None if not known."""

    root: Path
    shards: tuple[Shard, ...]
    images: int | None
    digest: str

    def groups(self, numbers: Iterable[int]) -> list[list[Shard]]:
        """Some of the shards, those that follow each other in one video or tar together: its reader may go on then."""
        found: list[list[Shard]] = []
        for shard in (self.shards[n] for n in numbers):
            last = found[-1][-1] if found else None
            if (
                last is not None
                and shard.kind != FILES
                and (last.place, last.number + 1) == (shard.place, shard.number)
            ):
                found[-1].append(shard)
            else:
                found.append([shard])
        return found


def make_plan(
    inputs: Sequence[str | Path],
    shard_size: int = 64,
    every: int = 1,
    whole_videos: bool = False,
    avoid: Sequence[Path] = (),
) -> Plan:
    """Find the inputs and cut them into shards. Raises DataError or InputError.

    inputs: folders (with the folders in them), image files, videos, tars, globs. shard_size: pictures a shard. every: of a video,
    every so many frames. whole_videos: a video is one shard. avoid: folders that are not looked into. The same inputs give the
    same plan: everything is sorted.
    """
    check_whole("shard", shard_size, 1, MOST_SHARD)
    check_whole("every", every, 1, 1 << 30)
    inputs = input_list(inputs)
    left_out = {plain_path(a) for a in avoid} | {Path(os.path.realpath(a)) for a in avoid}
    files = list(dict.fromkeys(path for given in inputs for path in _found(given, left_out)))
    if not files:
        raise DataError("nothing to label: name images, folders, videos, tars or globs")
    root = _root(inputs, files)
    shards: list[Shard] = []
    waiting: list[str] = []
    known: int | None = 0

    def flush() -> None:
        if waiting:
            shards.append(Shard(len(shards), FILES, tuple(waiting)))
            waiting.clear()

    for path in files:
        name, suffix = _name(path, root), path.suffix.lower()
        if suffix in SUFFIXES:
            waiting.append(name)
            if len(waiting) == shard_size:
                flush()
            known = None if known is None else known + 1
            continue
        flush()
        if suffix == TAR_SUFFIX:
            count = len(tar_images(path)[0])
            known = None if known is None else known + count
            starts = range(0, max(count, 1), shard_size)
            shards += [Shard(len(shards) + i, TAR, (), name, s, shard_size) for i, s in enumerate(starts)]
        else:
            stated = 0 if whole_videos else _stated_frames(path)
            kept = -(-stated // every)
            starts = range(0, max(kept, 1), shard_size)
            # What a container states may be too little: the last shard goes to the end.
            shards += [
                Shard(len(shards) + i, VIDEO, (), name, s, shard_size if s + shard_size < kept else None)
                for i, s in enumerate(starts)
            ]
            known = None if known is None or not stated else known + kept
    flush()
    digest = hashlib.sha256(f"every {every}\n".encode())
    for shard in shards:
        told = (shard.kind, *shard.files, shard.place, shard.first, shard.count)
        digest.update("\0".join(map(str, told)).encode(errors="surrogateescape") + b"\n")
    return Plan(root, tuple(shards), known, digest.hexdigest())


def input_list(inputs: Any) -> list[str | Path]:
    """Inputs as a list of paths or patterns. Raises DataError."""
    if not isinstance(inputs, (str, bytes, os.PathLike)):
        try:
            return list(inputs)
        except TypeError:
            pass
    raise DataError(f"inputs must be a list of files, folders or globs, but is {shown(inputs)}")


def plain_path(path: Path) -> Path:
    """A path, absolute and without "..": names are cut from such paths, and must not lead out of the folder they are joined to."""
    path = path.absolute()
    if ".." not in path.parts:
        return path
    plain = Path(os.path.abspath(path))
    end = len(path.parts) - path.parts[::-1].index("..")
    head, rest = Path(*path.parts[:end]), path.parts[end:]  # what follows may be a pattern, or not be there yet
    try:
        same = head.samefile(os.path.abspath(head))
    except OSError:
        return plain
    return plain if same else Path(os.path.realpath(head), *rest)  # ".." after a link is where the link leads


def _found(given: str | Path, avoid: set[Path]) -> Iterator[Path]:
    """Files that one input names, absolute, in order. Raises DataError."""
    place = plain_path(check_path("an input", given))
    kind = path_kind(place)
    if kind == "folder":
        inside = list(_walk(place, avoid))
        if not inside:
            raise DataError(f"folder {clipped(place)} holds no image, video or tar")
        yield from inside
    elif kind is not None:
        if place.name.lower().endswith(PACKED_SUFFIXES):
            raise DataError(
                f"{clipped(place)} is compressed, and pictures in it cannot be reached one by one; unpack it to a .tar"
            )
        if place.suffix.lower() not in (*SUFFIXES, *VIDEO_SUFFIXES, TAR_SUFFIX):
            kinds = ", ".join(s[1:] for s in (*SUFFIXES, *VIDEO_SUFFIXES, TAR_SUFFIX))
            raise DataError(f"{clipped(place)} is not of a known kind ({kinds})")
        yield place
    else:
        # A pattern that does not name the folder of the labels does not mean them.
        own = avoid.difference(place.parents, Path(os.path.realpath(place)).parents)
        real = functools.cache(os.path.realpath)
        found = (Path(p) for p in glob.glob(str(place), recursive=True))
        matches = sorted(p for p in found if not any(_lies_in(q, own) for q in (p, Path(real(p.parent), p.name))))
        if not matches:
            raise DataError(f"{clipped(place)} matches no file")
        for match in matches:
            if match.is_dir():
                yield from _walk(match, avoid)
            elif match.suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES, TAR_SUFFIX):
                yield match


def _lies_in(path: Path, folders: set[Path]) -> bool:
    return not folders.isdisjoint((path, *path.parents))


def _walk(folder: Path, avoid: set[Path]) -> Iterator[Path]:
    """Images, videos and tars of a folder and the folders in it; hidden ones and links to folders are passed over."""

    def fail(exc: OSError) -> None:
        raise DataError(f"folder {clipped(exc.filename)} cannot be read: {exc.strerror or exc}") from exc

    real = Path(os.path.realpath(folder))  # the folder may be named through a link, and what to avoid may not
    for here, folders, names in os.walk(folder, onerror=fail):
        inside = real / Path(here).relative_to(folder)
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and avoid.isdisjoint((Path(here, f), inside / f))
        )
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES, TAR_SUFFIX):
                yield Path(here, name)


def _root(inputs: Sequence[str | Path], files: Sequence[Path]) -> Path:
    """The folder that was named, if it is one; else the innermost that holds all files."""
    if len(inputs) == 1 and Path(inputs[0]).is_dir():
        return plain_path(Path(inputs[0]))
    try:
        return Path(os.path.commonpath([p.parent for p in files]))
    except ValueError as exc:  # two drives of Windows
        raise DataError("inputs must lie on one drive; run the command once for each") from exc


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _stated_frames(path: Path) -> int:
    """As many frames as a video says it has; 0 where it cannot be opened, which its shard will tell."""
    try:
        source = VideoFileSource(path)
    except DataError:
        return 0
    stated = source.stated_frames
    source.close()
    return stated


@dataclass(frozen=True)
class Member:
    """An image in a tar: its name there, and where its bytes lie."""

    name: str
    offset: int
    size: int


def tar_images(path: Path) -> tuple[list[Member], str | None]:
    """Images of a tar in its order, and what is wrong with it, None if nothing is. Links and devices are passed over."""
    members: list[Member] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = str(PurePosixPath(member.name))  # q/./a.jpg and q//a.jpg would be one file
                if member.isreg() and PurePosixPath(name).suffix.lower() in SUFFIXES:
                    members.append(Member(name, member.offset_data, member.size))
                tar.members.clear()  # type: ignore[attr-defined] # it keeps every header otherwise
    except (OSError, tarfile.TarError, ValueError, EOFError) as exc:
        return members, f"{clipped(path)} is no tar, or damaged: {exc}"
    return members, None


def require_apart(plan: Plan) -> None:
    """Raises InputError where two pictures differ in their suffix alone: YOLO's label files would be the same."""
    _require_stems([f for shard in plan.shards for f in shard.files])
    for place in (shard.place for shard in plan.shards if shard.kind == TAR and shard.first == 0):
        _require_stems([f"{place}/{member.name}" for member in tar_images(plan.root / place)[0]])


def _require_stems(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.rpartition(".")[0], name)
        if other != name:  # a name that comes twice in a tar is its worker's to tell
            raise InputError(
                f"{clipped(other)} and {clipped(name)} would share one label file of YOLO's; rename one, or write another --format"
            )
