"""An encoded frame, and the answers to prompts about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyseg import pixels
from tinyseg.arguments import shown
from tinyseg.core import core
from tinyseg.errors import InputError
from tinyseg.geometry import Letterbox
from tinyseg.graphs.everything_rule import DEFAULT_RULE, EverythingRule
from tinyseg.graphs.model import ZoomRule
from tinyseg.masks import Masks
from tinyseg.predict.network import Features, Network
from tinyseg.predict.second_look import plan_looks, second_look
from tinyseg.predict.specks import without_specks
from tinyseg.predict.workspace import Workspace
from tinyseg.prompts import Prompt

if TYPE_CHECKING:
    from tinyseg.predict.everything import Search
    from tinyseg.regions import Regions


@dataclass(frozen=True)
class Embedding:
    """An encoded frame, or an encoded region of it. Immutable; prompts may be asked from several threads.

    features: the encoder's outputs by name. geometry: how the frame, or its region, lies in the encoder's input.
    frame: the frame's pixels, for second looks. network: what encoded it. zoom_rule: when a second look is taken.
    """

    features: Features
    geometry: Letterbox
    frame: pixels.FrameLayout
    network: Network
    zoom_rule: ZoomRule
    everything_rule: EverythingRule = DEFAULT_RULE

    def predict(
        self,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        multimask: bool = True,
        zoom: str = "auto",
    ) -> Masks:
        """Masks for one prompt; see :class:`tinyseg.Prompt` for its parts.

        multimask: True gives three readings (for a click that may mean a part, an object or a group), False the one
        mask that answers an unambiguous prompt best. zoom: "auto" looks a second time, at a crop, when the object is
        small in the frame (``Masks.zoom`` tells whether it did), "off" never. Raises PromptError.
        """
        return self.answer((Prompt(points, labels, box, mask),), multimask, zoom)[0]

    def predict_batch(self, prompts: Sequence[Prompt], multimask: bool = False, zoom: str = "off") -> list[Masks]:
        """Masks for many prompts, decoded in one engine call (64 prompts a call at most).

        multimask and zoom as in :meth:`predict`; here the defaults are one mask each and no second look, which would
        cost an encoder run for every small object. Raises PromptError, naming the prompt.
        """
        return self.answer(prompts, multimask, zoom)

    def everything(
        self, rule: EverythingRule | None = None, crop_layers: int = 0, min_area: int = 0, search: Search | None = None
    ) -> Regions:
        """Everything in the frame, or in the encoded region of it, as regions without names: there is no class head.

        rule: grids and thresholds, None for the model's own. crop_layers: layers of crops that are encoded again for small
        objects (1: four crops, 2: sixteen more; each costs an encoder run and a grid). min_area: islands and holes of fewer
        frame pixels are taken out. search: all there is to say about where to look, instead of these two. Raises InputError.
        """
        from tinyseg.predict.everything import chosen_search, find_regions  # noqa: PLC0415 - most programs start without it

        return find_regions(
            self.network, self.features, self.frame, self.geometry, self.everything_rule if rule is None else rule,
            chosen_search(crop_layers, min_area, search),
        )  # fmt: skip

    def answer(
        self, prompts: Sequence[Prompt], multimask: bool, zoom: str, workspace: Workspace | None = None
    ) -> list[Masks]:
        """:meth:`predict_batch`, with a workspace's buffers if given: masks are then valid until it is used again."""
        _check_multimask(multimask)
        make = partial(plan_looks, prompts, self.geometry, self.zoom_rule, zoom)
        plan = make() if workspace is None else workspace.plan(prompts, self.geometry, zoom, make)
        buffers: Sequence[NDArray[np.bool_] | None] = [None] * len(plan.placed)
        if workspace is not None and not multimask:
            buffers = list(workspace.masks(len(plan.placed), self.geometry))
        answers: dict[int, Masks] = {}
        first_looks: dict[int, NDArray[np.float32]] = {}
        if plan.whole:
            logits, scores = self.network.decode(
                self.features, self.geometry, self.geometry, plan.whole_prompts, workspace
            )
            # They may lie in the engine's memory, which the next frame overwrites: what an answer keeps is a copy.
            for row, i in enumerate(plan.whole):
                chosen = choose_masks(logits[row], multimask)
                first_looks[i] = logits[row]
                answers[i] = self.to_masks(
                    self.geometry, plan.placed[i], logits[row][chosen], scores[row][chosen], buffers[i]
                )
        crops = dict(plan.crops)
        for i in plan.undecided:
            first = answers[i]
            if first.areas[first.best] > 0:
                crop = second_look(first.boxes[first.best].astype(np.float64), self.geometry, self.zoom_rule)
                if crop is not None:
                    crops[i] = crop
        for i, crop in crops.items():
            answers[i] = self._look_again(plan.placed[i], multimask, crop, first_looks.get(i), buffers[i])
        if workspace is not None:
            workspace.mark("masks")
        return [answers[i] for i in range(len(plan.placed))]

    def _look_again(
        self,
        prompt: Prompt,
        multimask: bool,
        crop: Letterbox,
        first: NDArray[np.float32] | None,
        buffer: NDArray[np.bool_] | None,
    ) -> Masks:
        """Masks from a crop; first (4, h, w): the logits of the look at the whole frame, None if there was none."""
        features = self.network.encode(self.frame, crop)
        logits, scores = self.network.decode(features, self.geometry, crop, [prompt])
        chosen = choose_masks(logits[0], multimask)
        answer = logits[0][chosen]
        if first is not None and prompt.mask is None:  # a hint has brought the first look along already
            for one, seen in zip(answer, resample_logits(first[chosen], self.geometry, crop)):
                core().add_first_look(seen, one)
        return self.to_masks(crop, prompt, answer, scores[0][chosen], buffer)

    def to_masks(
        self,
        view: Letterbox,
        prompt: Prompt,
        logits: NDArray[np.float32],
        scores: NDArray[np.float32],
        buffer: NDArray[np.bool_] | None = None,
    ) -> Masks:
        """Logits (K, h, w) of a view and scores (K,) -> Masks of the frame, in ``buffer`` (K, H, W) if given."""
        logits = without_specks(logits, prompt, view)
        shape = (len(logits), self.geometry.frame_height, self.geometry.frame_width)
        masks = np.empty(shape, np.bool_) if buffer is None else buffer
        stats = [pixels.threshold(one, view, mask) for one, mask in zip(logits, masks)]
        zoom = None
        if view != self.geometry:
            zoom = view.region
            logits = resample_logits(logits, view, self.geometry)
        # A workspace's answers are of a frame that its owner may overwrite: they do not hold it.
        kept = (self.frame, prompt) if buffer is None else (None, None)
        return Masks(
            masks, scores.astype(np.float32), logits, np.array([s.box for s in stats], np.int32),
            np.array([s.area for s in stats], np.int64), np.array([s.stability for s in stats], np.float32), zoom, *kept,
        )  # fmt: skip

    def logits_in_frame(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Low-resolution logits (K, h, w) of this frame -> (K, H, W) logits in the frame's pixels. Raises InputError."""
        if np.shape(logits)[1:] != self.geometry.grid:
            raise InputError(
                f"logits must have shape (K, {self.geometry.grid[0]}, {self.geometry.grid[1]}), as Masks.logits of this frame has, but "
                f"have {np.shape(logits)}"
            )
        return np.stack([pixels.upsample(one, self.geometry) for one in logits])


def _check_multimask(multimask: Any) -> None:
    if not isinstance(multimask, (bool, np.bool_)):
        raise InputError(f"multimask must be True or False, but is {shown(multimask)}")


def resample_logits(logits: NDArray[np.float32], view: Letterbox, other: Letterbox) -> NDArray[np.float32]:
    """Logits (K, h, w) of one view of a frame -> (K, h', w') on the grid of another."""
    return np.stack([pixels.resample_grid(one, view, other) for one in logits])


def choose_masks(logits: NDArray[np.float32], multimask: bool) -> list[int]:
    """Which of the decoder's masks, logits (4, h, w), a user sees: indices of one, or of three readings.

    Mask 0 answers an unambiguous prompt, masks 1 to 3 are three readings of an ambiguous one (SAM, appendix A).
    Mask 0 takes the place of the reading most alike it (native/answer.hpp says why).
    """
    return list(core().choose_readings(np.ascontiguousarray(logits))) if multimask else [0]
