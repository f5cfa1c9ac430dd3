"""Beside a rival, in alternating rounds of one run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyseg.bench.measure import Ratio, Timing, alternate, ratio
from tinyseg.bench.scenarios import FRAME_HEIGHT, FRAME_WIDTH, boxes, scene
from tinyseg.engines import create_engine
from tinyseg.engines.base import GraphSource
from tinyseg.errors import InputError, NotInstalled
from tinyseg.segmenter import Segmenter, SegmenterInfo

if TYPE_CHECKING:
    from tinyseg.bench.peers import PeerGraphs

PEER_NAMES = ("mobilesam",)


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


def compare_predict(seg: Segmenter, peer: str, rounds: int) -> SpeedReport:
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
    graphs = load_peer(peer)
    encode, decode = peer_calls(graphs, seg.info.threads)
    names = [
        f"tinyseg on {seg.info.engine} {seg.info.precision}, frame to mask",
        f"tinyseg on {seg.info.engine} {seg.info.precision}, one more prompt",
        f"{graphs.label} on onnxruntime fp32, encoder",
        f"{graphs.label} on onnxruntime fp32, decoder",
    ]
    found = alternate(dict(zip(names, (ours, prompt, encode, decode))), rounds)
    whole, more, encoder, decoder = (found[n] for n in names)
    both = tuple(a + b for a, b in zip(encoder.samples_ms, decoder.samples_ms))
    total = Timing(f"{graphs.label} on onnxruntime fp32, encoder and decoder", both)
    size = (FRAME_WIDTH, FRAME_HEIGHT)
    return SpeedReport(seg.info, size, whole, more, total, decoder, ratio(total, whole), ratio(decoder, more))
