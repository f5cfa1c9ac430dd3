"""What a model's graphs are for: one row a graph, from which everything that handles graphs works.

A further graph (a detector, say) is a further row: its dimensions, what it is tried with, how what it makes is
judged, and who reads its outputs. Opening models, compiling ahead, the parity gate, bisection and the engines ask here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from tinyseg.graphs.probes import PROMPTS, PROMPTS_EACH, input_image, prompt_feeds
from tinyseg.prompts.layout import LABEL_PADDING, LABEL_POSITIVE

Arrays = Mapping[str, NDArray[np.float32]]
# Runs one of the model's graphs by its name, on the reference.
Run = Callable[[str, Arrays], Arrays]

TRACK_DECODER = "track_decoder"
VIEW_DIMENSIONS = ("rows4", "columns4", "rows8", "columns8", "rows16", "columns16")


class View(Enum):
    """What a graph is asked about."""

    FRAME = "whole frame"
    SECOND_LOOK = "second look at a small object"
    CROP = "crop in which an object is followed"


@dataclass(frozen=True)
class Case:
    """One trial of a graph: what it is fed, and which masks are to be seen from what it makes."""

    feeds: Arrays
    prompts: Arrays  # the decoder's prompts whose masks are compared
    distinct: int  # so many of the prompts are different ones; the others repeat them


@dataclass(frozen=True)
class Role:
    """A row of the table.

    name: the graph's key in model.json. required: no model works without it. dimensions: the named dimensions that it is
    compiled for. views: what it is asked about; one that feeds others serves theirs. feeds_others: its outputs are inputs of
    another graph, so an engine with memory of its own leaves them there. cases: trials at given dimensions, made with the
    reference's other graphs. masks: the decoder's answer {"logits", "iou"} that a user would see when the graph made these
    outputs in a case.
    """

    name: str
    required: bool
    dimensions: tuple[str, ...]
    views: tuple[View, ...]
    feeds_others: bool
    cases: Callable[[Run, Mapping[str, int]], Iterator[Case]]
    masks: Callable[[Run, Arrays, Case], Arrays]


def _encoder_cases(_run: Run, dimensions: Mapping[str, int]) -> Iterator[Case]:
    """Every photograph with all its prompts."""
    for photograph in PROMPTS:
        prompts = prompt_feeds(photograph, dimensions, PROMPTS_EACH, 4)
        yield Case(input_image(photograph, dimensions), prompts, PROMPTS_EACH)


def _decode_with_reference(run: Run, outputs: Arrays, case: Case) -> Arrays:
    """What the reference's decoder makes of an encoder's features."""
    return run("decoder", {**{name: np.asarray(array) for name, array in outputs.items()}, **case.prompts})


def _decoder_cases(run: Run, dimensions: Mapping[str, int]) -> Iterator[Case]:
    """Every photograph's prompts in as many calls as they take, and each with its own answer as hint.

    A decoder of few prompts is run several times: what one prompt loses says little.
    """
    count, slots = dimensions["prompts"], dimensions["points"]
    for photograph in PROMPTS:
        features = run("encoder", input_image(photograph, dimensions))
        for first in range(0, PROMPTS_EACH, count):
            prompts = prompt_feeds(photograph, dimensions, count, slots, first)
            feeds = {**features, **prompts}
            distinct = min(count, PROMPTS_EACH - first)
            yield Case(feeds, prompts, distinct)
            # A second round, as a correcting user has it.
            hint = np.ascontiguousarray(run("decoder", feeds)["logits"][:, :1])
            hinted = {**prompts, "mask": hint, "has_mask": np.ones(count, np.float32)}
            yield Case({**features, **hinted}, hinted, distinct)


def _track_cases(run: Run, dimensions: Mapping[str, int]) -> Iterator[Case]:
    """Every photograph's things as a tracker meets them: a coarse hint, a last mask that lies a little aside, matches.

    What a click points at comes without a box, as what is hardly to be seen does.
    """
    count = dimensions["prompts"]
    cells = dimensions["rows16"], dimensions["columns16"]
    for photograph in PROMPTS:
        features = run("encoder", input_image(photograph, dimensions))
        for first in range(0, PROMPTS_EACH, count):
            prompts = prompt_feeds(photograph, dimensions, count, dimensions["points"], first)
            found = np.clip(run("decoder", {**features, **prompts})["logits"][:, :1], -6.0, 6.0)
            coarse = found.reshape(count, 1, cells[0], 4, cells[1], 4).mean((3, 5))
            on, off = coarse[:, 0] / 3.0, -coarse[:, 0] / 3.0
            memory = np.clip(np.stack([on, off, 0.8 * on, 0.8 * off], 1), -3.0, 2.0)
            clicked = prompts["labels"] == LABEL_POSITIVE
            labels = np.where(clicked, np.float32(LABEL_PADDING), prompts["labels"])
            feeds = {
                "points": prompts["points"], "labels": labels, "mask": coarse.repeat(4, 2).repeat(4, 3),
                "last": np.roll(found, (2, -1), (2, 3)), "memory": memory,
            }  # fmt: skip
            told = {name: np.ascontiguousarray(array, np.float32) for name, array in feeds.items()}
            yield Case({**features, **told}, told, min(count, PROMPTS_EACH - first))


def _as_they_are(_run: Run, outputs: Arrays, _case: Case) -> Arrays:
    return outputs


ROLES = {
    role.name: role
    for role in (
        Role(
            "encoder", True, ("height", "width", *VIEW_DIMENSIONS), (), True, _encoder_cases, _decode_with_reference
        ),
        Role(
            "decoder", True, ("prompts", "points", *VIEW_DIMENSIONS), (View.FRAME, View.SECOND_LOOK), False, _decoder_cases,
            _as_they_are,
        ),
        # The tracker's own decoder; a model without one is followed with the decoder above.
        Role(
            TRACK_DECODER, False, ("prompts", "points", *VIEW_DIMENSIONS), (View.CROP,), False, _track_cases, _as_they_are
        ),
    )
}  # fmt: skip
