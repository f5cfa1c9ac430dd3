"""One worker: a segmenter and a finder, which label one shard after the other. The same in every process and on every machine."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError, EngineError, TinysegError
from tinyseg.files import write_bytes
from tinyseg.images import MAX_FILE_BYTES, decode_image
from tinyseg.label.finding import Follower, Wanted
from tinyseg.label.inputs import FILES, VIDEO, Member, Shard, tar_images
from tinyseg.label.shard import WORST_TRIES, Journal, ShardStats, ShardWriter, open_binary
from tinyseg.pixels import check_frame
from tinyseg.predict.load import load
from tinyseg.predict.segmenter import Segmenter
from tinyseg.shard_rows import ROWS, TAR, is_inside
from tinyseg.sources.video import VideoFileSource

FRAME_QUALITY = 95  # of the JPEG files that frames of videos become
AUTO, COPY, NONE = "auto", "copy", "none"
PICTURES = "images"  # folder of the pictures that are kept
OF_NAMES = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


@dataclass(frozen=True)
class Setup:
    """All that a worker needs to know; it travels to other processes.

    root: what names are relative to. kind: ROWS or TAR. images: "auto" keeps what is no file of its own (frames and members of
    tars), "copy" everything, "none" nothing. tracks: how many objects of a video are followed, 0: every frame by itself. every:
    of a video's frames. journal: whether a picture may kill the process (then another process goes on).
    """

    wanted: Wanted
    out: Path
    root: Path
    kind: str
    images: str
    every: int
    tracks: int
    model: str | None
    engine: str
    precision: str
    threads: int | None
    journal: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture that was read: BGR (H, W, 3), and its file's bytes (None: of no file)."""

    frame: NDArray[np.uint8]
    data: bytes | None


class Worker:
    """Labels shards. Raises what opening the model and the finder raises."""

    def __init__(self, setup: Setup, segmenter: Segmenter | None = None) -> None:
        self.setup = setup
        self.segmenter = segmenter or load(setup.model, setup.engine, setup.precision, threads=setup.threads)
        self._finder = setup.wanted.open(self.segmenter, setup.engine, setup.threads)
        self._video: tuple[str, VideoFileSource, int] | None = None  # name, reader, frames given so far
        self._tar: tuple[str, list[Member], str | None] | None = None

    def label(self, shard: Shard) -> Iterator[ShardStats]:
        """Label a shard, and write it; gives the stats so far after every picture. Raises DataError where it cannot be written.

        A picture that fails is noted. EngineError where not one of the shard's pictures could be run.
        """
        setup = self.setup
        journal = Journal(setup.out, shard.number) if setup.journal else None
        broken: EngineError | None = None
        with ShardWriter(setup.out, shard.number, setup.kind) as writer:
            finder = Follower(self.segmenter, self._finder, setup.tracks) if self._follows(shard) else self._finder
            for index, name, reader in self._pictures(shard, writer):
                if journal is not None and not journal.begin(index):
                    writer.fail(name, f"the process died at this picture {WORST_TRIES} times; it was left out")
                    yield writer.stats
                    continue
                try:
                    picture = reader()
                    if picture is None:
                        continue  # the video has ended
                    check_frame(picture.frame, "bgr")
                    found = finder.find(picture.frame, name)
                except EngineError as exc:
                    broken = exc
                    writer.fail(name, str(exc))
                except (TinysegError, MemoryError) as exc:
                    writer.fail(name, str(exc) or "not enough memory")
                except Exception as exc:  # one picture must not end a job of millions: it is told with its name
                    writer.fail(name, f"{type(exc).__name__}: {exc}")
                else:
                    try:
                        self._write(writer, shard, name, picture, [f.to_annotation() for f in found])
                    except DataError as exc:
                        reason = self._fault_of_name(exc)
                        if reason is None:
                            raise
                        writer.fail(name, f"its copy cannot be written: {reason}")
                yield writer.stats
            if broken is not None and not writer.stats.images:
                raise EngineError(f"no picture of shard {shard.number} could be labelled: {broken}") from broken
        if journal is not None:
            journal.end()
        yield writer.stats

    def _follows(self, shard: Shard) -> bool:
        return self.setup.tracks > 0 and shard.kind == VIDEO

    def _fault_of_name(self, exc: DataError) -> str | None:
        """Why a file's name is to blame that it could not be written, a matter of this picture; a full disk is one of all."""
        code = getattr(exc.__cause__, "errno", None)
        return os.strerror(code) if code in OF_NAMES and (self.setup.out / PICTURES).is_dir() else None

    def _write(
        self, writer: ShardWriter, shard: Shard, name: str, picture: Picture, annotations: list[dict[str, object]]
    ) -> None:
        setup = self.setup
        height, width = picture.frame.shape[:2]
        image: dict[str, object] = {"file_name": name, "width": width, "height": height}
        data = picture.data
        if data is not None:
            image["sha256"] = hashlib.sha256(data).hexdigest()[:32]
        keep = setup.images == COPY or (setup.images == AUTO and (shard.kind != FILES or setup.kind == TAR))
        if keep and data is None:
            quality = [cv2.IMWRITE_JPEG_QUALITY, FRAME_QUALITY]
            data = cv2.imencode(".jpg", picture.frame, quality)[1].tobytes()
        if keep and data is not None and setup.kind == ROWS:
            if not is_inside(name):  # kept under such a name, it would replace a file elsewhere
                writer.fail(name, "its name holds .. or a backslash, and its copy could land elsewhere; rename it")
                return
            write_bytes(setup.out / PICTURES / name, data)
        writer.add({"image": image, "annotations": annotations}, data if keep else None)

    def _pictures(self, shard: Shard, writer: ShardWriter) -> Iterator[tuple[int, str, _Reader]]:
        """(number in the shard, name, what reads it) of every picture; the reader gives None after a video's last frame."""
        if shard.kind == FILES:
            for index, name in enumerate(shard.files):
                yield index, name, _FileReader(self.setup.root / name)
        elif shard.kind == VIDEO:
            yield from self._frames(shard, writer)
        else:
            yield from self._members(shard, writer)

    def _members(self, shard: Shard, writer: ShardWriter) -> Iterator[tuple[int, str, _Reader]]:
        path = self.setup.root / shard.place
        if self._tar is None or self._tar[0] != shard.place:
            self._tar = (shard.place, *tar_images(path))
        _, members, problem = self._tar
        if problem is not None and shard.first + (shard.count or 0) >= len(members):
            writer.fail(shard.place, problem)
        if not members:
            return
        last = shard.first + shard.count if shard.count is not None else None
        earlier = {m.name for m in members[: shard.first]}
        kept = self.setup.kind == ROWS and self.setup.images != NONE
        folders = {f for last in {n.rpartition("/")[0] for n in earlier} for f in (last, *_folders_of(last))}
        with open_binary(path) as file:
            for index, member in enumerate(members[shard.first : last]):
                name = f"{shard.place}/{member.name}"
                if not is_inside(member.name):
                    writer.fail(name, "its name leads out of the tar; it was left out")
                elif member.name in earlier:
                    writer.fail(name, "the tar holds this name twice; the later one was left out")
                elif kept and (member.name in folders or not earlier.isdisjoint(_folders_of(member.name))):
                    # Told here, and not when it is written: which one was first there depends on who labels what when.
                    writer.fail(name, "the tar has a picture of the name of a folder; the later one was left out")
                else:
                    earlier.add(member.name)
                    folders.update(_folders_of(member.name))
                    yield index, name, _MemberReader(file, member)

    def _frames(self, shard: Shard, writer: ShardWriter) -> Iterator[tuple[int, str, _Reader]]:
        every = self.setup.every
        try:
            source, given = self._open_video(shard)
            while given < shard.first * every and source.read() is not None:
                given += 1
        except DataError as exc:
            writer.fail(shard.place, str(exc))
            return
        damaged = source.damaged
        count = shard.count if shard.count is not None else 1 << 62
        for index in range(count):
            number = (shard.first + index) * every
            reader = _FrameReader(source, number - given + 1)
            yield index, f"{shard.place}/{number:06d}.jpg", reader
            if not reader.called:  # it was left out: a process died there
                reader.skip()
            given = number + 1
            if reader.ended:
                break
        if source.damaged > damaged:
            writer.fail(shard.place, f"{source.damaged - damaged} frames of it are missing or cannot be decoded")
        if reader.ended:
            self._close_video()
        else:
            self._video = (shard.place, source, given)

    def _open_video(self, shard: Shard) -> tuple[VideoFileSource, int]:
        """A reader of the shard's video and how many frames it gave: the one in hand, if it did not read too far."""
        if self._video is not None:
            place, source, given = self._video
            if place == shard.place and given <= shard.first * self.setup.every and not self._follows(shard):
                return source, given
            self._close_video()
        source = VideoFileSource(self.setup.root / shard.place)
        self._video = (shard.place, source, 1 << 62)  # of no use to others until this shard is done
        return source, 0

    def _close_video(self) -> None:
        if self._video is not None:
            self._video[1].close()
            self._video = None


def _folders_of(name: str) -> list[str]:
    return [name[:i] for i, letter in enumerate(name) if letter == "/"]


class _FileReader:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> Picture | None:
        with open_binary(self._path) as file:
            try:
                data = file.read(MAX_FILE_BYTES + 1)
            except OSError as exc:
                raise DataError(f"{self._path.name} cannot be read: {exc.strerror or exc}") from exc
        return Picture(decode_image(data, self._path.name), data)


class _MemberReader:
    def __init__(self, file: BinaryIO, member: Member) -> None:
        self._file, self._member = file, member

    def __call__(self) -> Picture | None:
        name, size = self._member.name, self._member.size
        if size > MAX_FILE_BYTES:
            raise DataError(f"{name} is larger than {MAX_FILE_BYTES >> 20} MiB; images may have that much at most")
        try:
            self._file.seek(self._member.offset)
            data = self._file.read(size)
        except OSError as exc:
            raise DataError(f"{name} cannot be read: {exc.strerror or exc}") from exc
        if len(data) < size:
            raise DataError(f"the tar ends within {name}")
        return Picture(decode_image(data, name), data)


class _FrameReader:
    """The frame that comes ``steps`` reads later."""

    def __init__(self, source: VideoFileSource, steps: int) -> None:
        self._source, self._steps = source, steps
        self.called = self.ended = False

    def __call__(self) -> Picture | None:
        self.called = True
        frame = self.skip()
        return None if frame is None else Picture(frame, None)

    def skip(self) -> NDArray[np.uint8] | None:
        self.ended = True  # also where reading fails
        frame = None
        for _ in range(self._steps):
            frame = self._source.read()
            if frame is None:
                return None
        self.ended = False
        return frame


_Reader = _FileReader | _MemberReader | _FrameReader
