"""Scores that rank: a head that sees the masks it judges, learned when everything else is done.

While masks are learned, the predicted IoU chases a moving target with one token; after one click the best scored of three
readings was no better than mask 0. Here everything but ``ScoreHead`` stays as it is: the student answers clicks, boxes and
corrections on labelled photos once, as the runtime would ask it, and what describes every mask is kept beside its true IoU. The
head then learns in seconds: the squared error keeps its scores what callers take them for, a predicted IoU; the expected loss of
a choice by softmax among the three readings that a user is shown makes their order right (a listwise loss: what is compared is
the whole list, not pairs of it).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tinyseg import pixels
from tinyseg.bench.accuracy import MIN_PIXELS, iou, next_click
from tinyseg.bench.rows import markdown_table
from tinyseg.dataset import Photo
from tinyseg.distill.checkpoint import save_checkpoint
from tinyseg.distill.flags import MOST_SEED, check_numbers, flag
from tinyseg.distill.model import NUM_MASKS, ScoreHead, Student
from tinyseg.distill.teachers import run_on_noise
from tinyseg.distill.warm_start import folder_shape, load_folder
from tinyseg.errors import DataError, InputError
from tinyseg.geometry import Letterbox, letterbox
from tinyseg.graphs.model import ZoomRule, open_model
from tinyseg.masks import most_interior
from tinyseg.predict.embedding import choose_masks
from tinyseg.predict.second_look import second_look
from tinyseg.predict.specks import without_specks
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import decoder_inputs, place_prompts, point_count
from tinyseg.system.progress import progress

HEAD = "head"  # the group of the flags of RankConfig
INSTANCES = 5  # of one photo, drawn at random
# What is asked about each of them: a click where it is deepest, one anywhere in it, its box, a second click where the answer to
# the first was wrong. Clicks on small things are looked at twice, as the runtime does.
CLICK, ANYWHERE, CLICK_AGAIN, ANYWHERE_AGAIN, BOX, CORRECTED = range(6)
KINDS = {
    CLICK: "1 click, whole frame",
    CLICK_AGAIN: "1 click, second look",
    ANYWHERE: "1 click anywhere, whole frame",
    ANYWHERE_AGAIN: "1 click anywhere, second look",
    BOX: "box, whole frame",
    CORRECTED: "2 clicks, whole frame",
}
CHOSEN_FROM = (CLICK, ANYWHERE, CLICK_AGAIN, ANYWHERE_AGAIN)  # where a user sees the best scored of three readings
CALIBRATION_PULL = 2.0  # against the sum of squares over the answers


@dataclass(frozen=True)
class RankConfig:
    """How the head learns. temperature: of the softmax choice; ranking: what its loss counts beside the squared error."""

    width: int = field(default=64, metadata=flag("hidden units of the head", HEAD, "N", least=1, most=4096))
    epochs: int = field(default=12, metadata=flag("rounds through all answers", HEAD, "N", least=1))
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    dropout: float = 0.1
    temperature: float = 0.05
    ranking: float = field(
        default=3.0,
        metadata=flag("expected loss of a choice beside the squared error; 0: the error alone", HEAD, "W"),
    )
    seed: int = field(default=0, metadata=flag("of the weights and of the order of answers", HEAD, "N", most=MOST_SEED))

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.batch_size < 1:
            raise InputError("the batch size of a ranking must be at least 1")


@dataclass(frozen=True)
class Judged:
    """n answers: what describes their masks (n, 4, ScoreHead.FEATURES), their true IoU (n, 4), the older scores (n, 4), the
    three masks that a user would be shown (n, 3), and what was asked (n,), see KINDS."""

    described: Tensor
    truth: Tensor
    scores: Tensor
    shown: Tensor
    kind: Tensor

    def __len__(self) -> int:
        return len(self.kind)


class _Recorder:
    """Asks a student as the runtime asks a model, and keeps what its head would see."""

    def __init__(self, student: Student, long_side: int, rule: ZoomRule) -> None:
        assert student.decoder.score_head is not None
        self.student, self.long_side, self.rule = student, long_side, rule
        self.rows: list[tuple[Tensor, Tensor, Tensor, Tensor, int]] = []
        self._described: list[Tensor] = []
        student.decoder.score_head.register_forward_pre_hook(lambda _m, inputs: self._described.append(inputs[0]))

    def _encode(self, frame: pixels.FrameLayout, view: Letterbox) -> tuple[Tensor, Tensor, Tensor]:
        image = torch.from_numpy(pixels.prepare(frame, view)).contiguous(memory_format=torch.channels_last)
        features: tuple[Tensor, Tensor, Tensor] = self.student.encoder(image)
        return features

    def _ask(
        self, features: tuple[Tensor, Tensor, Tensor], frame: Letterbox, view: Letterbox, asked: Sequence[_Question]
    ) -> list[_Said]:
        """Answers of a view to questions about it, each kept as a row."""
        prompts = place_prompts([q.prompt for q in asked], frame)
        laid = decoder_inputs(prompts, frame, view, len(prompts), max(point_count(p) for p in prompts))
        inputs = (torch.from_numpy(a) for a in (laid.points, laid.labels, laid.mask, laid.has_mask))
        self._described.clear()
        # The head is not trained yet: what the scores were before it comes among what it sees.
        logits, _, _ = self.student.decoder.decode(*features, *inputs)
        described = self._described[0]
        old = described[..., ScoreHead.OLDER].sigmoid()
        answers = []
        for question, prompt, own, scores, row in zip(asked, prompts, logits.numpy(), old, described):
            drawn = without_specks(own, prompt, view)
            masks = np.empty((NUM_MASKS, view.frame_height, view.frame_width), np.bool_)
            boxes = [pixels.threshold(one, view, mask).box for one, mask in zip(drawn, masks)]
            truth = torch.tensor([iou(mask, question.truth) for mask in masks])
            shown = torch.tensor(choose_masks(own, multimask=True))
            best = int(shown[scores[shown].argmax()])
            self.rows.append((row.half(), truth, scores, shown, question.kind))
            answers.append(_Said(masks[best], drawn[best], np.asarray(boxes[best], np.float64)))
        return answers

    @torch.no_grad()
    def photo(self, photo: Photo) -> None:
        """Everything that is asked about one photo."""
        rng = np.random.default_rng(zlib.crc32(photo.name.encode()))
        truths = [m for m in photo.masks() if m.sum() >= MIN_PIXELS]
        if not truths:
            return
        image = photo.read()
        frame = pixels.check_frame(image, "bgr")
        height, width = image.shape[:2]
        view = letterbox(width, height, self.long_side)
        features = self._encode(frame, view)
        asked = []
        for index in rng.permutation(len(truths))[:INSTANCES]:
            truth = truths[index]
            x, y, w, h = cv2.boundingRect(truth.astype(np.uint8))
            inside = np.argwhere(truth)
            anywhere = inside[rng.integers(len(inside)), ::-1]
            asked.append(_Question(CLICK, truth, Prompt([most_interior(truth)], [1])))
            asked.append(_Question(ANYWHERE, truth, Prompt([anywhere], [1])))
            asked.append(_Question(BOX, truth, Prompt(box=(x, y, x + w, y + h))))
        corrections = []
        for question, said in zip(asked, self._ask(features, view, view, asked)):
            if question.kind == BOX:
                continue
            crop = second_look(said.box, view, self.rule) if said.mask.any() else None
            if crop is not None:
                again = CLICK_AGAIN if question.kind == CLICK else ANYWHERE_AGAIN
                self._ask(self._encode(frame, crop), view, crop, [replace(question, kind=again)])
            click = next_click(question.truth, said.mask)
            if question.kind == CLICK and click is not None:
                points, labels = [most_interior(question.truth), click[0]], [1, click[1]]
                corrections.append(_Question(CORRECTED, question.truth, Prompt(points, labels, mask=said.logits)))
        if corrections:
            self._ask(features, view, view, corrections)


@dataclass(frozen=True)
class _Question:
    kind: int
    truth: NDArray[np.bool_]
    prompt: Prompt


@dataclass(frozen=True)
class _Said:
    """The best scored reading: its mask (H, W), logits (h, w) and box."""

    mask: NDArray[np.bool_]
    logits: NDArray[np.float32]
    box: NDArray[np.float64]


def record(student: Student, photos: Sequence[Photo], long_side: int, rule: ZoomRule) -> Judged:
    """Ask a student with a score head about photos. Raises DataError where there is nothing to ask about."""
    recorder = _Recorder(student.eval(), long_side, rule)
    for photo in progress(photos, "photos asked about"):
        recorder.photo(photo)
    if not recorder.rows:
        raise DataError("a ranking is learned on labelled photos, and these hold no instance")
    described, truth, scores, shown, kinds = zip(*recorder.rows)
    return Judged(
        torch.stack(described), torch.stack(truth), torch.stack(scores), torch.stack(shown), torch.tensor(kinds)
    )


def ranking_loss(scores: Tensor, truth: Tensor, shown: Tensor, temperature: float) -> Tensor:
    """IoU that a choice by softmax among the readings shown is expected to lose, (n,).

    scores and truth (n, 4), shown (n, 3) indices.
    """
    found = truth.gather(1, shown)
    shares = (scores.gather(1, shown) / temperature).softmax(1)
    return found.amax(1) - (shares * found).sum(1)


def learn(head: ScoreHead, judged: Judged, config: RankConfig) -> None:
    """Train a score head in place; seconds for ten thousand answers."""
    generator = torch.Generator().manual_seed(config.seed)
    described = judged.described.float()
    mean, spread = described.mean((0, 1)), described.std((0, 1)).clamp(min=1e-3)
    for module in (head.inner, head.together, head.outer, head.score):
        bound = module.in_features**-0.5
        for parameter in module.parameters():
            torch.nn.init.uniform_(parameter, -bound, bound, generator=generator)
    torch.nn.init.zeros_(head.mask_bias)
    asks_for_choice = torch.isin(judged.kind, torch.tensor(CHOSEN_FROM)).float()
    size = min(config.batch_size, len(judged))
    steps = config.epochs * (len(judged) // size)
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=steps + 1, pct_start=0.1
    )
    for step in range(steps):
        place = step % (len(judged) // size)
        if place == 0:
            order = torch.randperm(len(judged), generator=generator)
        rows = order[place * size : (place + 1) * size]
        x = (described[rows] - mean) / spread
        keep = (torch.rand(x.shape, generator=generator) >= config.dropout).to(x)
        scores = head(x * keep / (1.0 - config.dropout)).sigmoid()
        truth = judged.truth[rows]
        lost = ranking_loss(scores, truth, judged.shown[rows], config.temperature) * asks_for_choice[rows]
        loss = (F.mse_loss(scores, truth, reduction="none").sum(1) + config.ranking * lost).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():  # what the head is fed is not centred: its first layer does that
        head.inner.weight.div_(spread)
        head.inner.bias.sub_(head.inner.weight @ mean)


def calibrate(student: Student, unseen: Judged) -> None:
    """Scale and shift the scores' logits so that they fit held-out photos (Platt scaling, with IoU in place of labels).

    Masks of photos that were trained on are a little better than others, and the best scored of three is scored too well. What
    is fitted is what users are shown: of a click the chosen reading, of other prompts mask 0. The order of scores stays as it is.
    """
    assert student.decoder.score_head is not None
    scores = judge(student, unseen)
    chosen = choose(unseen, scores)
    x = torch.logit(scores.gather(1, chosen)[:, 0].clamp(1e-4, 1 - 1e-4)).double()
    truth = unseen.truth.gather(1, chosen)[:, 0].double()
    fit = torch.tensor([1.0, 0.0], dtype=torch.double)  # scale and shift
    for _ in range(20):  # Newton's method on the cross entropy, which is convex
        p = (fit[0] * x + fit[1]).sigmoid()
        slope = torch.stack((((p - truth) * x).sum(), (p - truth).sum()))
        weight = p * (1 - p)
        curve = torch.stack((weight * x * x, weight * x, weight * x, weight)).sum(1).view(2, 2)
        # Few answers say little: a weak pull keeps the fit at what it was.
        slope = slope + CALIBRATION_PULL * (fit - fit.new_tensor((1.0, 0.0)))
        fit = fit - torch.linalg.solve(curve + CALIBRATION_PULL * torch.eye(2, dtype=torch.double), slope)
    if not bool(torch.isfinite(fit).all()) or fit[0] <= 0:
        raise DataError("the held-out photos are too few or too strange to calibrate scores on; give more --data")
    last = student.decoder.score_head.score
    with torch.no_grad():
        last.weight.mul_(fit[0])
        last.bias.mul_(fit[0]).add_(fit[1])


def choose(judged: Judged, scores: Tensor) -> Tensor:
    """Index of the mask that scores (n, 4) choose for a user, (n, 1): one of three readings for a click, else mask 0."""
    best = judged.shown.gather(1, scores.gather(1, judged.shown).argmax(1, keepdim=True))
    return best * torch.isin(judged.kind, torch.tensor(CHOSEN_FROM)).unsqueeze(1)


@torch.no_grad()
def judge(student: Student, judged: Judged) -> Tensor:
    """Scores (n, 4) of a student's head."""
    assert student.decoder.score_head is not None
    scores: Tensor = student.decoder.score_head(judged.described.float()).sigmoid()
    return scores


def figures(judged: Judged, scores: Tensor) -> dict[str, dict[str, float]]:
    """By what was asked: the IoU of the mask that scores choose, of mask 0, of the best one shown, the scores' root mean
    square error over all four masks, and how much too high the chosen one's is on the mean."""
    rows = {}
    for kind, name in KINDS.items():
        mine = judged.kind == kind
        if not mine.any():
            continue
        truth, given = judged.truth[mine], scores[mine]
        readings = judged.shown[mine] if kind in CHOSEN_FROM else torch.zeros_like(judged.shown[mine])
        best = choose(judged, scores)[mine]
        rows[name] = {
            "answers": float(mine.sum()),
            "chosen": float(truth.gather(1, best).mean()),
            "mask0": float(truth[:, 0].mean()),
            "best": float(truth.gather(1, readings).amax(1).mean()),
            "bias": float((given.gather(1, best) - truth.gather(1, best)).mean()),
            "error": float((given - truth).square().mean().sqrt()),
        }
    return rows


def to_text(before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: what the older scores and the new ones choose, how far both are from the truth, and how much too high."""
    cells = [
        [
            "asked",
            "answers",
            "best shown",
            "mask 0",
            "chosen before",
            "chosen now",
            "error before",
            "error now",
            "bias before",
            "bias now",
        ]
    ]
    for name, old in before.items():
        new = after[name]
        values = (old["best"], old["mask0"], old["chosen"], new["chosen"], old["error"], new["error"])
        cells.append(
            [name, f"{old['answers']:.0f}", *(f"{v:.3f}" for v in values), f"{old['bias']:+.3f}", f"{new['bias']:+.3f}"]
        )
    return "\n".join(markdown_table(cells))


@dataclass(frozen=True)
class Ranked:
    """A student whose scores are learned, facts for its card, and a table of what they choose ("" without held-out photos)."""

    student: Student
    facts: dict[str, Any]
    table: str


def rank(start: Path, photos: Sequence[Photo], held_out: Sequence[Photo], config: RankConfig) -> Ranked:
    """Learn the scores of a model folder's masks on photos and calibrate them on held-out ones. Raises InputError, DataError."""
    model = open_model(start)
    student = with_head(start, config.width)
    judged = record(student, photos, model.long_side, model.zoom)
    assert student.decoder.score_head is not None
    learn(student.decoder.score_head, judged, config)
    facts = {"photos": len(photos), "answers": len(judged), "calibrated_on": len(held_out)}
    if not held_out:
        return Ranked(student, facts, "")
    unseen = record(student, held_out, model.long_side, model.zoom)
    calibrate(student, unseen)
    return Ranked(student, facts, to_text(figures(unseen, unseen.scores), figures(unseen, judge(student, unseen))))


def with_head(folder: Path, width: int) -> Student:
    """The student of a model folder with a fresh score head of a width. Raises InputError."""
    shape = folder_shape(folder)
    plain = Student(replace(shape, score_width=0))
    load_folder(plain, folder, run_on_noise)
    student = Student(replace(shape, score_width=width))
    student.load_state_dict(plain.state_dict(), strict=False)
    student.eval().requires_grad_(False)
    assert student.decoder.score_head is not None
    student.decoder.score_head.requires_grad_(True)
    # Depthwise convolutions of many prompts in another layout run on one core, several times slower.
    return student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def save(student: Student, config: Mapping[str, Any], out: Path) -> Path:
    """A checkpoint that ``export`` takes."""
    state = student.state_dict()
    save_checkpoint(
        out,
        {
            "student": state, "average": state, "shape": asdict(student.shape), "optimizer": {}, "step": 0, "spent": 0.0,
            "config": dict(config),
        },
    )  # fmt: skip
    return out
