"""Where a prompt is looked at, and what becomes of the answers; on networks whose answers are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tinyseg import Prompt
from tinyseg.geometry import Letterbox, letterbox
from tinyseg.graphs.model import ZoomRule
from tinyseg.pixels import FrameLayout
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.second_look import plan_looks
from tinyseg.predict.specks import clicked_cells
from tinyseg.predict.workspace import Workspace

RULE = ZoomRule(256, 2.0, 0.3)
VIEW = letterbox(640, 480, 512)


def test_every_prompt_has_one_place_to_begin() -> None:
    small, large, click = Prompt(box=(100, 100, 130, 130)), Prompt(box=(10, 10, 600, 400)), Prompt([[50, 50]], [1])
    plan = plan_looks([small, large, click], VIEW, RULE, "auto")
    assert plan.whole == (1, 2) and list(plan.crops) == [0] and plan.undecided == {2}
    assert [p.box is None for p in plan.whole_prompts] == [False, True]
    x0, y0, x1, y1 = plan.crops[0].region
    assert x0 <= 100 and y0 <= 100 and x1 >= 130 and y1 >= 130 and plan.crops[0].input == (256, 256)
    off = plan_looks([small, large, click], VIEW, RULE, "off")
    assert off.whole == (0, 1, 2) and not off.crops and not off.undecided


class Drawn:
    """A network that answers every prompt with what ``draw`` makes of the view that it sees: logits (4, h, w)."""

    SCORES = (0.9, 0.1, 0.2, 0.3)

    def __init__(self, draw: Callable[[Letterbox], NDArray[np.float32]]) -> None:
        self.draw = draw
        self.views: list[Letterbox] = []

    def encode(self, frame: object, view: Letterbox, workspace: object = None) -> dict[str, object]:
        return {}

    def decode(
        self, features: object, frame: object, view: Letterbox, prompts: Sequence[Prompt], workspace: object = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.views.append(view)
        return np.stack([self.draw(view)] * len(prompts)), np.array([self.SCORES] * len(prompts), np.float32)


def embedding(network: Any) -> Embedding:
    return Embedding({}, VIEW, FrameLayout(np.zeros((480, 640, 3), np.uint8), True), network, RULE)


def test_where_nothing_was_found_nothing_is_looked_at_again() -> None:
    network = Drawn(lambda view: np.full((4, *view.grid), -1.0, np.float32))
    out = embedding(network).predict([[100, 100]], [1])
    assert out.zoom is None and out.areas.tolist() == [0, 0, 0] and network.views == [VIEW]


def test_clicks_keep_what_they_point_at_in_a_crop_too() -> None:
    prompt = Prompt([[131, 131]], [1], box=(100, 100, 130, 130))

    def draw(view: Letterbox) -> NDArray[np.float32]:
        """A square, and a speck under the click."""
        logits = np.full((4, *view.grid), -1.0, np.float32)
        logits[:, 10:40, 10:40] = 1.0
        ((row, column, _),) = clicked_cells(prompt, view)
        assert row > 42 and column > 42
        logits[:, row, column] = 1.0
        return logits

    out = embedding(Drawn(draw)).predict(prompt.points, prompt.labels, prompt.box, multimask=False)
    assert out.zoom is not None and out.masks[0, 131, 131] and not out.masks[0, 131, 136]


def test_readings_of_a_crop_have_their_own_scores() -> None:
    places = (
        (4, 20),
        (40, 60),
        (6, 20),
        (24, 36),
    )  # of mask 0 and three readings, of which the second is most alike it

    def draw(view: Letterbox) -> NDArray[np.float32]:
        logits = np.full((4, *view.grid), -5.0, np.float32)
        for one, (first, last) in zip(logits, places):
            if view.whole_frame:
                first, last = 20, 24  # small: it is looked at again
            one[first:last, first:last] = 5.0
        return logits

    out = embedding(Drawn(draw)).predict([[110, 110]], [1])
    assert out.zoom is not None
    np.testing.assert_array_equal(out.scores, np.array([0.1, 0.9, 0.3], np.float32))
    assert len(set(out.areas.tolist())) == 3 and out.best == 1


@pytest.mark.parametrize("region", [(0, 0, 64, 41), (0, 0, 65, 40), (-1, 0, 9, 9), (5, 0, 5, 9), (0, 9, 9, 9)])
def test_regions_lie_in_their_frame(region: tuple[int, int, int, int], fake: tinyseg.Segmenter) -> None:
    frame = np.zeros((40, 64, 3), np.uint8)
    with pytest.raises(tinyseg.FrameError, match="does not lie in the frame of 64 x 40"):
        fake.embed(frame, region=region)
    assert fake.embed(frame, region=(0, 0, 64, 40)).geometry.whole_frame


@pytest.mark.parametrize("side", [33, 100, 0, 2080, 64.0, True])
def test_sides_are_multiples_of_the_encoders_stride(side: int, fake: tinyseg.Segmenter) -> None:
    with pytest.raises(tinyseg.FrameError, match="multiple of 32 from 32 to 2048"):
        fake.embed(np.zeros((40, 64, 3), np.uint8), long_side=side)


def test_answers_of_a_workspace_do_not_hold_the_frame(fake: tinyseg.Segmenter) -> None:
    frame, prompt = np.zeros((40, 64, 3), np.uint8), Prompt(box=(2, 2, 30, 30))
    (looped,) = fake.run(frame, [prompt], Workspace())
    assert looped.frame is None and looped.prompt is None
    assert fake.embed(frame).predict(box=prompt.box).frame is not None
