"""Recordings: the masked video, and every frame's masks as COCO, in files that the server names."""

from __future__ import annotations

import json
import queue
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.serve.coco import annotations_of, categories_of
from tinyseg.serve.limits import DISK_RESERVE_BYTES, RECORDED_BYTES
from tinyseg.serve.objects import ObjectState
from tinyseg.serve.picture import Picture
from tinyseg.sinks.video import even

DISK_CHECK_FRAMES = 30
WAITING_FRAMES = 8


@dataclass(frozen=True)
class RecordingState:
    """A recording as viewers are told. lost: frames of a live source that the disk or the encoder was too slow for."""

    number: int
    frames: int
    lost: int
    running: bool
    message: str  # why it ended by itself, or ""


class Recording:
    """Writes frames to ``folder`` in a thread of its own, until :meth:`finish`.

    Files have a leading dot until they are whole. wait: whether a frame waits when the writer is behind (files), or is
    counted as lost (cameras).
    """

    def __init__(self, folder: Path, number: int, stem: str, frame_rate: float, wait: bool) -> None:
        self.number = number
        self.video = folder / f"{stem}.mp4"
        self.masks = folder / f"{stem}.json"
        self._parts = folder / f".{stem}.part.mp4", folder / f".{stem}.part.jsonl"
        self._rate, self._wait = frame_rate, wait
        self._queue: queue.Queue[tuple[Picture, tuple[ObjectState, ...]]] = queue.Queue(WAITING_FRAMES)
        self._size: tuple[int, int] | None = None  # (H, W)
        self._frames = self._lost = 0
        self._message = ""
        self._finishing = threading.Event()
        self._ended = threading.Event()
        self._names: dict[int, str] = {}
        self._thread = threading.Thread(target=self._write_all, name="tinyseg-serve-recording", daemon=True)
        self._thread.start()

    @property
    def state(self) -> RecordingState:
        return RecordingState(self.number, self._frames, self._lost, not self._ended.is_set(), self._message)

    @property
    def accepting(self) -> bool:
        """Whether further frames belong to it."""
        return not (self._finishing.is_set() or self._ended.is_set())

    def add(self, picture: Picture, objects: tuple[ObjectState, ...]) -> None:
        """Take a frame. From the live thread."""
        while self.accepting and self._queue.full() and self._wait:
            time.sleep(0.01)
        if self._queue.full():
            self._lost += 1
            return
        self._queue.put((picture, objects))  # there is room: only this thread adds

    def finish(self) -> None:
        """No further frame comes; those that wait are written, then the files become whole. Does not wait for that."""
        self._finishing.set()

    def join(self) -> None:
        """Wait until the files are whole."""
        self._thread.join(timeout=60.0)

    def delete(self) -> None:
        for path in (self.video, self.masks, *self._parts):
            path.unlink(missing_ok=True)

    def _write_all(self) -> None:
        writer: cv2.VideoWriter | None = None
        try:
            with self._parts[1].open("w") as rows:
                while not (self._finishing.is_set() and self._queue.empty()):
                    try:
                        picture, objects = self._queue.get(timeout=0.2)
                    except queue.Empty:
                        continue
                    if writer is None:
                        writer = self._open(picture.pixels)
                    self._write(writer, rows, picture, objects)
        except DataError as exc:
            self._message = str(exc)
        except OSError as exc:
            self._message = f"the recording ended: {exc.strerror or exc}"
        finally:
            if writer is not None:
                writer.release()
            try:
                self._finish(writer is not None)
            except OSError as exc:
                self._message = f"the recording could not be finished: {exc.strerror or exc}"
            self._ended.set()

    def _open(self, pixels: NDArray[np.uint8]) -> cv2.VideoWriter:
        self._size = (pixels.shape[0], pixels.shape[1])
        height, width = even(pixels).shape[:2]
        writer = cv2.VideoWriter(str(self._parts[0]), cv2.VideoWriter.fourcc(*"mp4v"), self._rate, (width, height))
        if not writer.isOpened():
            raise DataError("this build of OpenCV has no mp4v encoder, or the folder cannot be written")
        return writer

    def _write(self, writer: cv2.VideoWriter, rows: TextIO, picture: Picture, objects: tuple[ObjectState, ...]) -> None:
        size = (picture.pixels.shape[0], picture.pixels.shape[1])
        if size != self._size:
            raise DataError("the picture's size changed; a video has one size, so the recording ended before that")
        if self._frames % DISK_CHECK_FRAMES == 0:
            written = sum(path.stat().st_size for path in self._parts if path.exists())
            if written > RECORDED_BYTES:
                raise DataError(
                    f"the recording reached its limit of {RECORDED_BYTES >> 20} MiB and is whole up to there"
                )
            if shutil.disk_usage(self.video.parent).free < DISK_RESERVE_BYTES:
                raise DataError(
                    f"the disk is full but for {DISK_RESERVE_BYTES >> 20} MiB; the recording is whole so far"
                )
        writer.write(even(picture.masked()))
        self._frames += 1
        self._names.update((one.id, one.name) for one in objects)
        for row in annotations_of(objects, self._frames, size):
            rows.write(json.dumps(row) + "\n")

    def _finish(self, any_frame: bool) -> None:
        """The masks as one COCO document, without holding them all in memory; then both files take their names."""
        if not any_frame or self._size is None:
            for path in self._parts:
                path.unlink(missing_ok=True)
            return
        part = self._parts[1].with_suffix(".json")
        with part.open("w") as out:
            images = [
                {"id": i, "file_name": f"{self.video.name}#{i}", "height": self._size[0], "width": self._size[1]}
                for i in range(1, self._frames + 1)
            ]
            head = {"images": images, "categories": categories_of(sorted(self._names.items()))}
            out.write(json.dumps(head)[:-1] + ', "annotations": [')
            for i, row in enumerate(self._rows(), 1):
                out.write(("," if i > 1 else "") + "\n" + json.dumps({**row, "id": i}))
            out.write("\n]}\n")
        part.replace(self.masks)
        self._parts[0].replace(self.video)
        self._parts[1].unlink()

    def _rows(self) -> Iterator[dict[str, object]]:
        with self._parts[1].open() as rows:
            for line in rows:
                yield json.loads(line)
