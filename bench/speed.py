"""Speed scenarios, beside a rival in the same run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.bench.measure import Ratio, Timing, alternate, ratio
from tinyseg.engines import create_engine
from tinyseg.engines.base import GraphSource
from tinyseg.errors import InputError, NotInstalled
from tinyseg.segmenter import Segmenter, SegmenterInfo

if TYPE_CHECKING:
    from tinyseg.bench.peers import PeerGraphs

FRAME_WIDTH, FRAME_HEIGHT = 1280, 720
BOX = (320, 140, 960, 620)
PEER_NAMES = ("mobilesam",)


@dataclass(frozen=True)
class SpeedReport:
    """One scenario's timings; ratios are the rival's time over ours."""

    scenario: str
    segmenter: SegmenterInfo
    frame: tuple[int, int]
    ours: Timing
    peer: Timing | None
    peer_encoder: Timing | None
    peer_decoder: Timing | None
    times_faster: Ratio | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> str:
        lines = [f"{self.scenario}, {self.frame[0]} x {self.frame[1]} frame; {self.segmenter}"]
        lines += [
            f"  {t.label}: p50 {t.p50_ms:.2f} ms, p90 {t.p90_ms:.2f} ms, {len(t.samples_ms)} rounds"
            for t in (self.ours, self.peer, self.peer_encoder, self.peer_decoder)
            if t is not None
        ]
        if self.times_faster is not None:
            r = self.times_faster
            lines.append(f"  {r.value:.1f} times faster (median of rounds, 95% interval {r.low:.1f} to {r.high:.1f})")
        return "\n".join(lines)


def test_frame(width: int = FRAME_WIDTH, height: int = FRAME_HEIGHT) -> NDArray[np.uint8]:
    """A BGR frame with an ellipse on a gradient with noise; the same for everybody."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    frame = np.stack([60 + 60 * x / width, 80 + 60 * y / height, np.full_like(x, 90)], 2)
    inside = ((x - width / 2) / (width / 5)) ** 2 + ((y - height / 2) / (height / 3.2)) ** 2 < 1
    frame[inside] = (40, 120, 210)
    return np.clip(frame + rng.normal(0, 6, frame.shape), 0, 255).astype(np.uint8)


def load_peer(name: str) -> PeerGraphs:
    """A rival's architecture by name. Raises InputError or NotInstalled."""
    if name not in PEER_NAMES:
        raise InputError(f"there is no peer {name!r}; known are {', '.join(PEER_NAMES)}")
    if importlib.util.find_spec("torch") is None:
        raise NotInstalled("a peer's graph is built with torch; run: pip install 'tinyseg[peers]'")
    from tinyseg.bench.peers import PEERS  # noqa: PLC0415 - needs torch, which only peers do

    return PEERS[name]()


def peer_calls(peer: PeerGraphs, threads: int | None) -> tuple[Callable[[], object], Callable[[], object]]:
    """Encoder and decoder of a rival on ONNX Runtime, fp32, as callables."""
    engine = create_engine("onnxruntime", "fp32", threads).engine
    encoder = engine.compile(GraphSource("peer encoder", peer.encoder, {}, {"features": ()}), {})
    decoder = engine.compile(GraphSource("peer decoder", peer.decoder, {}, {"masks": (), "iou": ()}), {})
    image = np.zeros((1, 3, peer.side, peer.side), np.float32)
    features = encoder.run({"image": image})["features"]
    prompt = np.array([[[256.0, 112.0], [768.0, 496.0]]], np.float32)
    feeds = {"embedding": features, "points": prompt, "labels": np.array([[2.0, 3.0]], np.float32)}
    return (lambda: encoder.run({"image": image})), (lambda: decoder.run(feeds))


def predict_scenario(seg: Segmenter, peer: str | None, rounds: int) -> SpeedReport:
    """Embed one frame, prompt one box, make the mask in the frame's pixels; one frame at a time.

    Ours is timed from the frame to the mask. A rival's time is its encoder and decoder alone: its resizing, its mask's
    upsampling and its thresholding come on top and are left out, in its favour.
    """
    if rounds < 3:
        raise InputError(f"--rounds must be at least 3, but is {rounds}")
    frame = test_frame()

    def ours() -> object:
        return seg.embed(frame).predict(box=BOX, multimask=False, zoom="off")

    label = f"tinyseg on {seg.info.engine} {seg.info.precision}, frame to mask"
    calls: dict[str, Callable[[], object]] = {label: ours}
    name = ""
    if peer is not None:
        graphs = load_peer(peer)
        encode, decode = peer_calls(graphs, seg.info.threads)
        name = f"{graphs.label} on onnxruntime fp32"
        calls |= {f"{name}, encoder": encode, f"{name}, decoder": decode}
    found = alternate(calls, rounds)
    size = (FRAME_WIDTH, FRAME_HEIGHT)
    if peer is None:
        return SpeedReport("predict", seg.info, size, found[label], None, None, None, None)
    encoder, decoder = found[f"{name}, encoder"], found[f"{name}, decoder"]
    both = tuple(a + b for a, b in zip(encoder.samples_ms, decoder.samples_ms))
    total = Timing(f"{name}, encoder and decoder", both)
    return SpeedReport("predict", seg.info, size, found[label], total, encoder, decoder, ratio(total, found[label]))
