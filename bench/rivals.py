"""Beside a rival, in alternating rounds of one run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.bench.measure import Ratio, Timing, alternate, ratio
from tinyseg.bench.peer_graphs import PeerGraphs
from tinyseg.bench.scenarios import FRAME_HEIGHT, FRAME_WIDTH, boxes, scene
from tinyseg.errors import DataError, InputError, NotInstalled, engine_errors
from tinyseg.predict.segmenter import Segmenter, SegmenterInfo

PEER_NAMES = ("mobilesam", "edgesam", "nanosam")
PEER_SIDE = 1024


@dataclass(frozen=True)
class SpeedReport:
    """Timings of one frame to its mask and of one more prompt; ratios are the rival's time over ours."""

    segmenter: SegmenterInfo
    frame: tuple[int, int]
    ours: Timing
    ours_prompt: Timing
    peer: Timing
    peer_decoder: Timing
    times_faster: Ratio
    prompt_times_faster: Ratio

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> str:
        lines = [f"{self.frame[0]} x {self.frame[1]} frame; {self.segmenter}"]
        lines += [
            f"  {t.label}: p50 {t.p50_ms:.2f} ms, p90 {t.p90_ms:.2f} ms, {len(t.samples_ms)} rounds"
            for t in (self.ours, self.ours_prompt, self.peer, self.peer_decoder)
        ]
        for what, r in (("frame to mask", self.times_faster), ("one more prompt", self.prompt_times_faster)):
            lines.append(
                f"  {what}: {r.value:.1f} times faster (median of rounds, 95% interval {r.low:.1f} to {r.high:.1f})"
            )
        return "\n".join(lines)


def load_peer(name: str) -> PeerGraphs:
    """A rival's architecture by name. Raises InputError or NotInstalled."""
    if name not in PEER_NAMES:
        raise InputError(f"there is no peer {name!r}; known are {', '.join(PEER_NAMES)}")
    if importlib.util.find_spec("torch") is None:
        raise NotInstalled("a peer's graph is built with torch; run: pip install 'tinyseg[peers]'")
    from tinyseg.bench.peers import build_peer  # noqa: PLC0415 - needs torch, which only peers do

    return build_peer(name)


def read_peer(encoder: Path, decoder: Path) -> PeerGraphs:
    """A rival's real files. Raises DataError."""
    try:
        return PeerGraphs(f"{encoder.name} and {decoder.name}", encoder.read_bytes(), decoder.read_bytes())
    except OSError as exc:
        raise DataError(f"{exc.filename} cannot be read: {exc.strerror or exc}") from exc


@dataclass(frozen=True)
class Rival:
    """Somebody else's model, ready to run on inputs of its own: its image encoder, and one box prompt."""

    label: str
    encode: Callable[[], object]
    decode: Callable[[], object]


def run_peer(peer: PeerGraphs, threads: int) -> Rival:
    """A rival's graphs on ONNX Runtime, fp32.

    Inputs are known by the names and ranks of SAM's ONNX exports and their kin. Raises EngineError or DataError.
    """
    import onnxruntime as ort  # noqa: PLC0415 - imported where it is needed

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # As our own sessions: the other graph's idle threads do not slow this one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with engine_errors("onnxruntime", f"opening {peer.label}"):
        encoder, decoder = (
            ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            for data in (peer.encoder, peer.decoder)
        )
    with engine_errors("onnxruntime", f"running {peer.label}"):
        image = {encoder.get_inputs()[0].name: peer_image(encoder.get_inputs()[0])}
        features = [f for f in encoder.run(None, image) if f.ndim == 4]
        if not features:
            raise DataError(f"{peer.label}: the encoder gives no (1, C, h, w) embedding")
        feeds = {i.name: decoder_feed(i.name, features[0]) for i in decoder.get_inputs()}
        decoder.run(None, feeds)
    label = f"{peer.label} on onnxruntime {ort.__version__} fp32"
    return Rival(label, lambda: encoder.run(None, image), lambda: decoder.run(None, feeds))


def peer_image(value: Any) -> NDArray[Any]:
    """A black image for an encoder's input: (1, 3, S, S) or (S, S, 3), 1024 where the graph leaves sizes open."""
    default = (1, 3, PEER_SIDE, PEER_SIDE) if len(value.shape) == 4 else (PEER_SIDE, PEER_SIDE, 3)
    shape = tuple(d if isinstance(d, int) else default[i] for i, d in enumerate(value.shape))
    return np.zeros(shape, np.uint8 if "uint8" in value.type else np.float32)


def decoder_feed(name: str, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a SAM-like decoder wants under a name, for one box. Raises DataError for unknown names."""
    known = {
        "embedding": features,
        "coord": np.array([[[256.0, 112.0], [768.0, 496.0]]], np.float32),
        "label": np.array([[2.0, 3.0]], np.float32),
        "has_mask": np.zeros(1, np.float32),
        "mask": np.zeros((1, 1, 256, 256), np.float32),
        "orig": np.array([720.0, 1280.0], np.float32),
    }
    for part, value in known.items():
        if part in name:
            return value
    raise DataError(
        f"the decoder has an input {name!r} that is not one of SAM's export; expected names with {', '.join(known)}"
    )


def compare_predict(seg: Segmenter, rival: Rival, rounds: int) -> SpeedReport:
    """Embed one frame, prompt one box, make the mask in the frame's pixels; one frame at a time.

    Ours is timed from the frame to the mask. A rival's time is its encoder and decoder alone: its resizing, its mask's
    upsampling and its thresholding come on top and are left out, in its favour.
    """
    if rounds < 3:
        raise InputError(f"--rounds must be at least 3, but is {rounds}")
    frame, box = scene(), boxes(1)[0]

    def ours() -> object:
        return seg.embed(frame).predict(box=box, multimask=False, zoom="off")

    def prompt() -> object:
        return embedding.predict(box=box, multimask=False, zoom="off")

    embedding = seg.embed(frame)
    names = [
        f"tinyseg on {seg.info.engine} {seg.info.precision}, frame to mask",
        f"tinyseg on {seg.info.engine} {seg.info.precision}, one more prompt",
        f"{rival.label}, encoder",
        f"{rival.label}, decoder",
    ]
    found = alternate(dict(zip(names, (ours, prompt, rival.encode, rival.decode))), rounds)
    whole, more, encoder, decoder = (found[n] for n in names)
    both = tuple(a + b for a, b in zip(encoder.samples_ms, decoder.samples_ms))
    total = Timing(f"{rival.label}, encoder and decoder", both)
    size = (FRAME_WIDTH, FRAME_HEIGHT)
    return SpeedReport(seg.info, size, whole, more, total, decoder, ratio(total, whole), ratio(decoder, more))
