"""The tracking decoder: the student's decoder, told besides a box and a hint how features match what is remembered.

It begins as the decoder of a model and is trained further (``python -m tinyseg.distill track``); the encoder and the
decoder of still images stay as they are. Global matches as maps beside the last mask are FEELVOS' idea (arXiv 1902.09513,
section 3.2); there, too, the network is free to trust neither.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tinyseg.distill.export import example_inputs
from tinyseg.distill.model import EMBED_DIM, SKIP4_DIM, SKIP8_DIM, Decoder, Student, rasterize_prompt
from tinyseg.distill.shape import StudentShape
from tinyseg.distill.teachers import run_on_noise
from tinyseg.distill.warm_start import folder_shape, graph_state, load_folded, load_folder
from tinyseg.graphs.roles import TRACK_DECODER
from tinyseg.track.hints import MATCHES

MATCH_DIM = 64


class TrackDecoder(Decoder):
    """One mask an object, from features, a box, a read-out, the last mask and maps of matches."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers)
        self.mask_mlps = self.mask_mlps[:1]
        self.last16 = nn.Conv2d(1, EMBED_DIM, 4, 4, bias=False)
        self.last8 = nn.Conv2d(1, SKIP8_DIM, 2, 2, bias=False)
        self.last4 = nn.Conv2d(1, SKIP4_DIM, 1, bias=False)
        self.memory16 = nn.Sequential(
            nn.Conv2d(MATCHES, MATCH_DIM, 3, padding=1), nn.ReLU(), nn.Conv2d(MATCH_DIM, EMBED_DIM, 1)
        )
        # What is new adds nothing at first: it begins as the decoder that it comes from.
        for layer in (self.last16, self.last8, self.last4, self.memory16[-1]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    @property
    def new_parts(self) -> tuple[nn.Module, ...]:
        """Modules that the still-image decoder lacks."""
        return self.last16, self.last8, self.last4, self.memory16

    def forward(  # type: ignore[override]
        self,
        embedding: Tensor,
        skip8: Tensor,
        skip4: Tensor,
        points: Tensor,
        labels: Tensor,
        mask: Tensor,
        last: Tensor,
        memory: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Features, points and labels as :meth:`Decoder.forward` has them.

        mask (B, 1, 4h, 4w): logits that the memory reads. last (B, 1, 4h, 4w): logits of the frame before, 0 where there
        are none. memory (B, 4, h, w): maps of :func:`tinyseg.track.hints.match_maps`.
        Returns logits (B, 1, 4h, 4w) and predicted IoU (B, 1) in [0, 1].
        """
        raster = rasterize_prompt(points, labels, mask, torch.ones_like(points[:, 0, 0]))
        before = (last * 0.25).tanh()
        drawn = (
            self.raster16(raster) + self.last16(before) + self.memory16(memory),
            self.raster8(raster) + self.last8(before),
            self.raster4(raster) + self.last4(before),
        )
        logits, iou, _ = self.answer(embedding, skip8, skip4, points, labels, drawn)
        return logits, iou[:, :1]


def student_without_scores(folder: Path) -> Student:
    """The student of a model folder with the older head of scores, which needs no masks. Raises InputError."""
    student = Student(replace(folder_shape(folder), score_width=0))
    load_folder(student, folder, run_on_noise)
    return student.eval()


def begin_track_decoder(student: Student) -> TrackDecoder:
    """A tracking decoder that answers as a student's decoder does."""
    decoder = new_track_decoder(student.shape)
    own = decoder.state_dict()
    decoder.load_state_dict({k: v for k, v in student.decoder.state_dict().items() if k in own}, strict=False)
    return decoder


def packaged_track_decoder(folder: Path, shape: StudentShape) -> TrackDecoder:
    """The tracking decoder that a model folder carries, to be trained further. Raises InputError."""
    decoder = new_track_decoder(shape)
    inputs = example_inputs(TRACK_DECODER, 16, 16, 2)
    load_folded(decoder, graph_state(folder, TRACK_DECODER), folder, lambda: decoder(*inputs))
    return decoder


def new_track_decoder(shape: StudentShape) -> TrackDecoder:
    """One of a student's shape, with weights of no meaning."""
    return TrackDecoder(shape.decoder_layers).eval()
