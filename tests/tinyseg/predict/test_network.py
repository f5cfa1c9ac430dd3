"""What an engine answers is looked at before it becomes a mask."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import tinyseg
from tinyseg.engines.fake import FakeGraph


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (
            "logits",
            lambda a: np.where(a > 0, np.nan, a).astype(np.float32),
            "logits with values that are no finite numbers",
        ),
        ("iou", lambda a: np.full_like(a, np.inf), "iou with values that are no finite numbers"),
        ("logits", lambda a: a[:, :, 1:], "logits of shape .* where the model says"),
        ("logits", lambda a: a.astype(np.float64), "type float64"),
    ],
)
def test_answers_that_are_none(name: str, spoil: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = FakeGraph.run

    def run(self: FakeGraph, feeds: Mapping[str, Any]) -> dict[str, Any]:
        found = real(self, feeds)
        return {n: spoil(a) if n == name else a for n, a in found.items()}

    monkeypatch.setattr(FakeGraph, "run", run)
    embedding = tinyseg.load(engine="fake").embed(np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(tinyseg.EngineError, match=message):
        embedding.predict(box=(8, 8, 40, 40), zoom="off")


def test_a_loaded_model_is_not_handed_to_another_process(fake: tinyseg.Segmenter) -> None:
    embedding = fake.embed(np.zeros((32, 32, 3), np.uint8))
    for thing in (fake, embedding, fake.tracker()):
        for hand_over in (pickle.dumps, copy.deepcopy):
            with pytest.raises(
                tinyseg.InputError, match=r"belongs to its process.*tinyseg\.load\(\) in the other process"
            ):
                hand_over(thing)
    masks = embedding.predict(box=[2, 2, 20, 20])
    assert np.array_equal(pickle.loads(pickle.dumps(masks)).masks, masks.masks)
    assert copy.copy(fake).network is fake.network
