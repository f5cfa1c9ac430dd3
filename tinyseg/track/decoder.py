"""Asks a decoder where objects are: the tracking decoder of a model that has one, else the decoder of still images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinyseg.geometry import Letterbox
from tinyseg.graphs.roles import TRACK_DECODER
from tinyseg.graphs.shapes import BATCH_SIZES, prompt_dimensions
from tinyseg.predict.network import Features, Network, require_answer
from tinyseg.predict.specks import without_specks
from tinyseg.predict.workspace import Workspace
from tinyseg.prompts import Prompt
from tinyseg.track.hints import Hint, lay_out_hints, with_box
from tinyseg.track.memory import READ_LIMIT

BOX_SLOTS = 2  # points that a box takes


def has_track_decoder(network: Network) -> bool:
    """Whether a model carries a decoder of its own for tracking."""
    return TRACK_DECODER in network.graphs


def decode_hints(
    network: Network, features: Features, view: Letterbox, hints: Sequence[Hint], workspace: Workspace
) -> list[NDArray[np.float32]]:
    """Logits (h, w) on the view's grid of every object that is hinted at, negative everywhere where nothing is found."""
    if has_track_decoder(network):
        return _decode_tracked(network, features, view, hints, workspace)
    answers = [np.full(view.grid, -READ_LIMIT, np.float32) for _ in hints]
    boxed = [with_box(hint, view) for hint in hints]
    asked = [i for i, hint in enumerate(boxed) if hint.box is not None]
    if asked:
        prompts = [Prompt(box=boxed[i].box, mask=boxed[i].read_out) for i in asked]
        logits, _ = network.decode(features, view, view, prompts, workspace)
        for i, prompt, one in zip(asked, prompts, logits):
            answers[i] = without_specks(one[:1], prompt, view)[0].copy()
    return answers


def _decode_tracked(
    network: Network, features: Features, view: Letterbox, hints: Sequence[Hint], workspace: Workspace
) -> list[NDArray[np.float32]]:
    answers: list[NDArray[np.float32]] = []
    for start in range(0, len(hints), BATCH_SIZES[-1]):
        chunk = hints[start : start + BATCH_SIZES[-1]]  # without boxes: one that leaves a part out cuts it off for ever
        graph = network.compiled(TRACK_DECODER, view, len(chunk), BOX_SLOTS)
        dimensions = prompt_dimensions(view, len(chunk), BOX_SLOTS)
        inputs = lay_out_hints(chunk, view, dimensions["prompts"], dimensions["points"])
        out = workspace.run(graph, {**features, **inputs})
        require_answer(out, network.graphs[TRACK_DECODER], dimensions)
        for one, hint in zip(out["logits"], chunk):
            answers.append(without_specks(one[:1], Prompt(mask=hint.read_out), view)[0].copy())
    return answers
