"""What a rival is to the benchmark: two ONNX graphs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PeerGraphs:
    """A rival as ONNX: an encoder for one image, and a decoder with the input names of SAM's export."""

    label: str
    encoder: bytes
    decoder: bytes
