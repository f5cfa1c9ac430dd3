"""Which objects deserve a second look, and how close: the rule of model.json chosen by measurement.

Every instance is asked for once without and once with each kind of second look (side of the crop's input, crop over
object). What a rule would give follows for every limit without asking again: an object below the limit gets its second
look, any other keeps its first. Choose on photos that the evaluation does not use.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.bench.accuracy import MIN_PIXELS, NO_OBJECT, SIZE_LIMITS, iou
from tinyseg.bench.rows import markdown_table
from tinyseg.dataset import Photo
from tinyseg.errors import DataError
from tinyseg.graphs.model import ZoomRule
from tinyseg.masks import Masks, most_interior
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.segmenter import Segmenter
from tinyseg.system.progress import progress

FACTORS = (1.6, 2.0, 2.5)  # crop over object, at the model's own side
SIDES = (192, 320)  # of the crop's input beside the model's own, at the model's own factor
LIMITS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # longer side of the object over the frame's; 0: never a second look
ALWAYS = 10.0  # a limit that every object is below
PROMPTS = ("box", "click")


@dataclass(frozen=True)
class Trial:
    """One instance and one prompt, first without and then with every kind of second look."""

    prompt: str
    size: str  # of the instance: small, middle or large
    share: float  # what the rule sees: longer side of the box, or of the first answer to a click, over the frame's
    first: float  # IoU
    first_ms: float
    looks: tuple[float, ...]  # IoU with each look; the first one's where a look would show no more detail
    looked: tuple[bool, ...]
    look_ms: tuple[float, ...]


@dataclass(frozen=True)
class RuleRow:
    """What a rule gives: mean IoU, how many prompts get a second look, and what a prompt costs on this device."""

    side: int
    factor: float
    below: float
    box: float
    click: float
    box_looks: float
    click_looks: float
    box_ms: float
    click_ms: float
    is_models: bool  # the rule that model.json states


@dataclass(frozen=True)
class SizeRow:
    """The model's own rule against none, by size of the object."""

    prompt: str
    size: str
    instances: int
    off: float
    rule: float
    looks: float
    off_ms: float
    rule_ms: float


@dataclass(frozen=True)
class ZoomReport:
    rules: list[RuleRow]
    by_size: list[SizeRow]

    def to_json(self) -> dict[str, list[dict[str, object]]]:
        return {"rules": [asdict(r) for r in self.rules], "by_size": [asdict(r) for r in self.by_size]}

    def to_markdown(self) -> str:
        rules = [
            ["crop", "of object", "below", "box", "1 click", "boxes looked at", "clicks", "box ms", "click ms", ""]
        ]
        rules += [
            [
                f"{r.side} px", f"{r.factor:g} x", f"{r.below:g}", f"{r.box:.3f}", f"{r.click:.3f}", f"{r.box_looks:.0%}",
                f"{r.click_looks:.0%}", f"{r.box_ms:.1f}", f"{r.click_ms:.1f}", "the model's rule" if r.is_models else "",
            ]
            for r in self.rules
        ]  # fmt: skip
        sizes = [
            ["prompt", "size", "objects", "one look", "with the rule", "looked at again", "one look ms", "rule ms"]
        ]
        sizes += [
            [
                r.prompt, r.size, str(r.instances), f"{r.off:.3f}", f"{r.rule:.3f}", f"{r.looks:.0%}", f"{r.off_ms:.1f}",
                f"{r.rule_ms:.1f}",
            ]
            for r in self.by_size
        ]  # fmt: skip
        return "\n".join([*markdown_table(rules), "", *markdown_table(sizes)])


def looks_of(rule: ZoomRule) -> list[ZoomRule]:
    """The kinds of second look that are tried, the model's own first."""
    tried = [(rule.side, rule.factor), *((rule.side, f) for f in FACTORS), *((s, rule.factor) for s in SIDES)]
    return [ZoomRule(side, factor, ALWAYS) for side, factor in dict.fromkeys(tried)]


def ask(embeddings: Sequence[Embedding], truth: NDArray[np.bool_]) -> list[Trial]:
    """A box and a click for one instance; ``embeddings``: of the same frame, one for each kind of look."""
    x, y, w, h = cv2.boundingRect(truth.astype(np.uint8))
    share = max(w, h) / max(truth.shape)
    size = "small" if share < SIZE_LIMITS[0] else "middle" if share < SIZE_LIMITS[1] else "large"
    trials = []
    for prompt in PROMPTS:

        def answer(emb: Embedding, zoom: str, prompt: str = prompt) -> tuple[Masks, float]:
            start = time.perf_counter()
            if prompt == "box":
                out = emb.predict(box=(x, y, x + w, y + h), multimask=False, zoom=zoom)
            else:
                out = emb.predict(points=[most_interior(truth)], labels=[1], zoom=zoom)
            return out, 1e3 * (time.perf_counter() - start)

        first, first_ms = answer(embeddings[0], "off")
        if prompt == "click":
            x0, y0, x1, y1 = (int(v) for v in first.boxes[first.best])
            share = max(x1 - x0, y1 - y0) / max(truth.shape)
        again = [answer(emb, "auto") for emb in embeddings]
        trials.append(
            Trial(
                prompt, size, share, iou(first.masks[first.best], truth), first_ms,
                tuple(iou(out.masks[out.best], truth) for out, _ in again),
                tuple(out.zoom is not None for out, _ in again), tuple(ms for _, ms in again),
            )
        )  # fmt: skip
    return trials


def _given(rows: Sequence[Trial], look: int, below: float) -> tuple[float, float, float]:
    """(mean IoU, share of prompts that are looked at again, ms a prompt) of a kind of look and a limit."""
    zoomed = np.array([r.share < below and r.looked[look] for r in rows])
    ious = np.where(zoomed, [r.looks[look] for r in rows], [r.first for r in rows])
    # Medians: now and then a prompt meets a busy machine.
    once = float(np.median([r.first_ms for r in rows]))
    again = [r.look_ms[look] for r in rows if r.looked[look]]
    extra = float(np.median(again)) - once if again else 0.0
    share = float(zoomed.mean())
    return float(ious.mean()), share, once + share * extra


def measure_zoom_rules(seg: Segmenter, photos: Sequence[Photo]) -> ZoomReport:
    """Ask for every instance of every photo and tabulate the rules. Raises DataError where there is no instance."""
    own = seg.model.zoom
    looks = looks_of(own)
    rows: list[Trial] = []
    met: set[tuple[int, ...]] = set()
    for photo in progress(photos, "photos"):
        image = photo.read()
        encoded = seg.embed(image)  # the first look is the same for all
        embeddings = [replace(encoded, zoom_rule=rule) for rule in looks]
        for truth in photo.masks():
            if truth.sum() >= MIN_PIXELS:
                if image.shape not in met:  # what is compiled now must not be timed
                    met.add(image.shape)
                    ask(embeddings, truth)
                rows += ask(embeddings, truth)
    if not rows:
        raise DataError(NO_OBJECT)
    by_prompt = {p: [r for r in rows if r.prompt == p] for p in PROMPTS}
    rules = []
    limits = sorted({*LIMITS, own.below})
    for i, look in enumerate(looks):
        for below in limits if i == 0 else [limit for limit in limits if limit > 0]:
            box, click = (_given(by_prompt[p], i, below) for p in PROMPTS)
            is_own = i == 0 and below == own.below
            rules.append(
                RuleRow(look.side, look.factor, below, box[0], click[0], box[1], click[1], box[2], click[2], is_own)
            )
    by_size = []
    for prompt in PROMPTS:
        for size in ("small", "middle", "large"):
            some = [r for r in by_prompt[prompt] if r.size == size]
            if some:
                off, rule = _given(some, 0, 0.0), _given(some, 0, own.below)
                by_size.append(SizeRow(prompt, size, len(some), off[0], rule[0], rule[1], off[2], rule[2]))
    return ZoomReport(rules, by_size)
