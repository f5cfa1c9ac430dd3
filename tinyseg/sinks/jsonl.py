"""Results as JSON lines."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from tinyseg.arguments import clipped
from tinyseg.errors import DataError
from tinyseg.masks import coco_box
from tinyseg.rle import encode_rle
from tinyseg.sinks.base import FrameResult, Sink
from tinyseg.sinks.target import Target


class JsonLinesSink(Sink):
    """One JSON line a frame: COCO RLE, box, area and score of every object. A full disk loses no line that was there.

    A tracker's objects also have "id" and "visible".
    """

    def __init__(self, path: Path) -> None:
        self._target = Target(path)
        self._whole = 0  # bytes of complete lines
        self._file = self._target.open()

    def write(self, result: FrameResult) -> None:
        objects: list[dict[str, object]] = [
            {
                "segmentation": encode_rle(answer.masks[answer.best]), "bbox": coco_box(answer.boxes[answer.best]),
                "area": int(answer.areas[answer.best]), "score": round(float(answer.scores[answer.best]), 4),
            }
            for answer in result.answers
        ]  # fmt: skip
        for row_of_object, track in zip(objects, result.tracks):
            row_of_object |= {"id": track.id, "visible": track.visible}
        row = {"frame": result.frame.index, "name": result.frame.name, "objects": objects}
        line = (json.dumps({**row, "latency_ms": round(result.latency_ms, 3)}) + "\n").encode()
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._file.flush()
        except BrokenPipeError:  # the reader of a pipe has enough; the command line ends quietly
            raise
        except OSError as exc:
            raise DataError(f"{clipped(self._target.path)}: {exc.strerror or exc}; the lines before are whole") from exc
        self._whole += len(line)

    def close(self) -> None:
        try:
            if not self._target.streamed:
                self._file.truncate(self._whole)
            self._file.close()
        except BrokenPipeError:
            return
        except OSError as exc:
            raise self._target.failure(exc) from exc
        self._target.finish()
