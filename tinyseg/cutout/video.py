"""Cut-outs as a video: with an alpha channel (VP9 in .webm, ProRes 4444 in .mov), or over a background."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.cutout.alpha import Cutout
from tinyseg.cutout.background import Background
from tinyseg.errors import DataError, InputError, NotInstalled
from tinyseg.sinks.video import CODECS, DEFAULT_FRAME_RATE, VideoTarget, even

# Containers that carry alpha: encoder, its pixel format, its options.
ALPHA = {
    ".webm": ("libvpx-vp9", "yuva420p", {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "6"}),
    ".mov": ("prores_ks", "yuva444p10le", {"profile": "4444"}),
}


class CutoutVideo:
    """A video of cut-outs. It appears whole under its name when it is closed, also after an error or Ctrl-C.

    path: .webm or .mov with alpha (needs the ``video`` extra, PyAV) or a background; .mp4, .mkv or .avi need a background.
    frame_rate: 0 where nobody knows. Raises InputError, NotInstalled or DataError.
    """

    def __init__(self, path: Path, frame_rate: float, background: Background | None) -> None:
        suffix = path.suffix.lower()
        if suffix not in ALPHA and suffix not in CODECS:
            raise InputError(f"{path}: videos are written as {', '.join([*ALPHA, *CODECS])}")
        if suffix in CODECS and background is None:
            raise InputError(
                f"{path}: {suffix} carries no alpha; write .webm (VP9) or .mov (ProRes 4444), or give a --background"
            )
        self._path, self._background = path, background
        self._rate = frame_rate or DEFAULT_FRAME_RATE
        self._av: Any = _pyav() if suffix in ALPHA else None
        self._target = VideoTarget(path)
        self._writer: Any = None
        self._stream: Any = None
        self._frames = 0

    def write(self, frame: NDArray[np.uint8], cutout: Cutout) -> None:
        """The next frame (H, W, 3) BGR and what was cut out of it. Raises DataError."""
        size = (frame.shape[1], frame.shape[0])
        if self._writer is None:
            self._open(size)
        self._target.check(size)
        if self._background is None:
            picture = cutout.rgba()
        else:
            over = cutout.over(self._background(frame, cutout))
            picture = over if self._av is None else np.dstack([over[..., ::-1], np.full(over.shape[:2], 255, np.uint8)])
        if self._av is None:
            self._writer.write(even(picture))
        else:
            image = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgba")
            image.pts = self._frames
            self._mux(self._stream.encode(image))
        self._frames += 1

    def _open(self, size: tuple[int, int]) -> None:
        suffix = self._path.suffix.lower()
        if self._av is None:
            self._writer = self._target.opencv_writer(self._rate, size)
            return
        codec, pixel_format, options = ALPHA[suffix]
        part = self._target.container()
        try:
            self._writer = self._av.open(str(part), "w", format=suffix[1:])
            stream = self._writer.add_stream(codec, rate=Fraction(self._rate).limit_denominator(1001), options=options)
        except (OSError, ValueError) as exc:  # PyAV's errors are both
            raise DataError(f"{self._path} cannot be written as {codec}: {exc}") from exc
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        if suffix == ".webm":
            stream.metadata["alpha_mode"] = "1"  # what players look for before they decode the alpha layer
        self._stream = stream

    def _mux(self, packets: Any) -> None:
        try:
            self._writer.mux(packets)
        except OSError as exc:
            raise DataError(f"{self._path} cannot be written: {exc}") from exc

    def close(self) -> None:
        """Finish the file."""
        if self._writer is None:
            self._target.discard()
            return
        writer, self._writer = self._writer, None
        if self._av is None:
            writer.release()
        else:
            try:
                writer.mux(self._stream.encode())
            finally:
                writer.close()
        self._target.finish()


def _pyav() -> Any:
    try:
        import av  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise NotInstalled("video with alpha is written with PyAV; run: pip install 'tinyseg[video]'") from exc
    return av
