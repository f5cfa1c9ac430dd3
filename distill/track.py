"""Train the tracking decoder: the decoder of a model, taught to draw an object where a memory says it may be.

A step asks about the second and the third frame of some clips, as the tracker would: memory and read-out are the tracker's
own (tinyseg.track), the third frame's memory and last mask are mostly the decoder's own answer in the second, so that it
learns from its mistakes. The encoder is frozen, and what it sees is kept in files: a step is the decoder's alone.

A run folder holds ``config.json``, ``clips/`` (features), ``steps.csv``, ``validation.csv``, ``checkpoint.pt`` and
``best.pt``, as a training of the student does.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tinyseg.bench.sequences import Sequence as Video
from tinyseg.bench.sequences import read_sequences
from tinyseg.dataset import read_photos
from tinyseg.distill.checkpoint import load_checkpoint, save_checkpoint
from tinyseg.distill.clips import Clips
from tinyseg.distill.config import LEAST_PEAK, MOST_STEPS
from tinyseg.distill.data import split_validation
from tinyseg.distill.flags import MOST_SEED, check_numbers, flag
from tinyseg.distill.losses import mask_iou, mask_loss
from tinyseg.distill.pace import Pace, follow, is_finite, not_finite, restore_optimizer, stop_on_signal
from tinyseg.distill.run_folder import append_row, begin_records, open_run_folder
from tinyseg.distill.shape import StudentShape
from tinyseg.distill.track_data import SIDES, EncodedClips, EncodedCrop, as_logits, side_of, worn
from tinyseg.distill.track_model import (
    TrackDecoder,
    begin_track_decoder,
    new_track_decoder,
    packaged_track_decoder,
    student_without_scores,
)
from tinyseg.distill.warm_start import load_whole
from tinyseg.errors import DataError, InputError, TinysegError
from tinyseg.pixels import resample_grid
from tinyseg.predict.load import load
from tinyseg.track.hints import Hint, lay_out_hints, make_hint, with_box
from tinyseg.track.memory import Memory, coverage

TRACK = "track"  # the group of the flags of TrackConfig, and the kind of its checkpoints
EMA_DECAY = 0.99
GRADIENT_NORM = 2.0
WARMUP_STEPS = 100
LEAST_RATE = 0.01  # of the peak
BOX_SHARE = 0.1  # of the training's questions that come with the read-out's box
LOG_EVERY, SAVE_EVERY = 25, 100  # steps
HELD_OUT_SEED = 1_000_003  # clips of held-out photos and sequences never share a number with others
MOST_CLIPS = 1_000_000  # their numbers are listed
EVERY_HELD_OUT = 6  # sequence in the order of their names


@dataclass(frozen=True)
class TrackConfig:
    """Everything that decides a run; saved beside its checkpoint."""

    data: tuple[str, ...] = field(
        default=(),
        metadata=flag("photos with instances, made to move: tar files or folders, as for train", TRACK, "PATH"),
    )
    video: tuple[str, ...] = field(
        default=(), metadata=flag("sequences with masks, in DAVIS' layout: tar files or folders", TRACK, "PATH")
    )
    out: str = ""
    start: str = field(default="base", metadata=flag("model folder, or a packaged model's name", TRACK, "PLACE"))
    decoder: str | None = field(
        default=None,
        metadata=flag(
            "model whose tracking decoder to go on from (default: begin with the decoder of still images)",
            TRACK,
            "PLACE",
        ),
    )
    steps: int = field(
        default=3000, metadata=flag("length of the whole training", TRACK, "N", least=1, most=MOST_STEPS)
    )
    minutes: float | None = field(
        default=None,
        metadata=flag("time budget of the whole training; whichever ends first counts", TRACK, "M", least=0.001),
    )
    batch_size: int = field(
        default=6, metadata=flag("clips a step; two frames of each are asked about", TRACK, "N", least=1, most=1024)
    )
    clips: int = field(
        default=2400, metadata=flag("different clips; 2 MB each on disk", TRACK, "N", least=1, most=MOST_CLIPS)
    )
    video_share: float = field(default=0.3, metadata=flag("of the clips that are cut from --video", TRACK, "S", most=1))
    learning_rate: float = field(
        default=3e-4, metadata=flag("peak rate; what is new learns three times as fast", TRACK, "R", least=LEAST_PEAK)
    )
    weight_decay: float = 0.02
    seed: int = field(default=0, metadata=flag("of clips and their order", TRACK, "N", most=MOST_SEED))
    validate_every: int = field(default=250, metadata=flag("steps between validations", TRACK, "N", least=1))
    validation_clips: int = field(
        default=120, metadata=flag("held-out clips to validate on", TRACK, "N", most=MOST_CLIPS)
    )

    def __post_init__(self) -> None:
        check_numbers(self)
        if not self.data and not self.video:
            raise InputError("tracking is learned from photos (--data) or sequences (--video); give one of them")


def split_videos(videos: Sequence[Video]) -> tuple[list[Video], list[Video]]:
    """(training, held out): every sixth by its name."""
    ordered = sorted(videos, key=lambda v: v.name)
    held_out = ordered[EVERY_HELD_OUT - 1 :: EVERY_HELD_OUT]
    return [v for v in ordered if v not in held_out], held_out


class Followed:
    """An object on its way through a clip: its memory, and what was answered last."""

    def __init__(self, crops: Sequence[EncodedCrop], rng: np.random.Generator | None) -> None:
        """rng: of what is made worse in training; None for nothing."""
        self.crops, self.rng = crops, rng
        first = crops[0]
        cells = first.cells
        self.memory = Memory.of_first(cells)
        share = first.share if rng is None or rng.random() < 0.7 else worn(first.share, rng)
        self.memory.learn_prompted(0, self.memory.keys(cells), coverage(share, first.view), cells.inside)
        self.last: NDArray[np.float32] | None = as_logits(share)
        self.seen = first  # what ``last`` lies on

    def hint(self, t: int) -> Hint:
        """What the decoder is told about frame t."""
        crop = self.crops[t]
        cells = crop.cells
        self._keys = self.memory.keys(cells)
        matches = self.memory.read(self._keys)
        self._own, self._inside = matches.prompted, cells.inside
        before = None if self.last is None else resample_grid(self.last, self.seen.view, crop.view)
        if self.rng is not None:
            kind = self.rng.random()
            if kind < 0.2:
                before = None
            elif t == 1 and kind < 0.7:  # as of a frame just before: the first one may be long ago
                shift = self.rng.normal(0, 3, 2).round().astype(int)
                before = as_logits(np.roll(worn(crop.share, self.rng), tuple(shift), (0, 1)))
        hint = make_hint(matches, cells, before)
        # The tracker gives no box: what the read-out's box leaves out would be lost. It may help to find the way at first.
        return with_box(hint, crop.view) if self.rng is not None and self.rng.random() < BOX_SHARE else hint

    def answered(self, t: int, logits: NDArray[np.float32]) -> None:
        """Learn from an answer (h, w) about frame t, as the tracker does."""
        crop = self.crops[t]
        truth_instead = self.rng is not None and self.rng.random() < 0.2
        if truth_instead and self.rng is not None:
            logits = as_logits(worn(crop.share, self.rng))
        share = coverage(np.asarray(1 / (1 + np.exp(-logits)), np.float32), crop.view)
        if self.rng is None or self.rng.random() < 0.85:
            self.memory.learn(t, self._keys, share, self._inside, self._own)
        self.last, self.seen = logits, crop


def ask(decoder: TrackDecoder, followed: Sequence[Followed], t: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, 1, h, w), predicted IoU (B, 1) and the truth (B, 1, h, w) of frame t of clips with crops of one size."""
    feeds: dict[str, list[NDArray[np.float32]]] = {}
    for one in followed:
        crop = one.crops[t]
        inputs = lay_out_hints([one.hint(t)], crop.view, 1, 4)
        for name, array in {**crop.features, **inputs}.items():
            feeds.setdefault(name, []).append(array)
    tensors = {name: torch.from_numpy(np.concatenate(arrays)) for name, arrays in feeds.items()}
    for name in ("embedding", "skip8", "skip4", "mask", "last", "memory"):
        tensors[name] = tensors[name].contiguous(memory_format=torch.channels_last)
    logits, iou = decoder(**tensors)
    truth = torch.from_numpy(np.stack([one.crops[t].share for one in followed])).unsqueeze(1)
    return logits, iou, truth


def clip_loss(decoder: TrackDecoder, followed: Sequence[Followed]) -> tuple[Tensor, list[float]]:
    """Loss of a batch of clips, and the mean IoU of the second and the third frame."""
    total, ious = torch.zeros(()), []
    for t in (1, 2):
        logits, iou, truth = ask(decoder, followed, t)
        actual = mask_iou(logits, truth)
        total = total + mask_loss(logits, truth).mean() + F.mse_loss(iou, actual)
        ious.append(float(actual.mean()))
        for one, answer in zip(followed, logits.detach().numpy()):
            one.answered(t, answer[0])
    return total, ious


@torch.no_grad()
def score(decoder: TrackDecoder, clips: Sequence[Sequence[EncodedCrop]]) -> dict[str, float]:
    """Means over held-out clips: IoU in the second and third frame, the predicted IoU's error, and of absent objects."""
    second: list[float] = []
    third: list[float] = []
    error: list[float] = []
    ghosts: list[float] = []
    for crops in clips:
        one = Followed(crops, None)
        for t, found in ((1, second), (2, third)):
            logits, iou, truth = ask(decoder, [one], t)
            one.answered(t, logits.numpy()[0, 0])
            actual = float(mask_iou(logits, truth))
            if crops[t].share.max() > 0.5:
                found.append(actual)
            else:
                ghosts.append(float(iou))
            error.append(abs(float(iou) - actual))
    return {
        name: float(np.mean(values)) if values else 0.0
        for name, values in (("second", second), ("third", third), ("iou_error", error), ("absent_iou", ghosts))
    }


class TrackTraining:
    """A run: everything that changes while it goes on."""

    def __init__(self, config: TrackConfig) -> None:
        self.config, self.out = config, Path(config.out)
        self.checkpoint = self.out / "checkpoint.pt"
        saved = load_checkpoint(self.checkpoint, torch.device("cpu")) if self.checkpoint.exists() else None
        if saved is not None and saved.get("kind") != TRACK:
            raise InputError(f"{self.checkpoint} is no checkpoint of a tracking decoder; give another --out")
        place = Path(config.start)
        photos, unseen = split_validation(p for path in config.data for p in read_photos(Path(path)))
        videos, unseen_videos = split_videos([v for path in config.video for v in read_sequences(Path(path))])
        network = load(place, "onnxruntime", "fp32", threads=torch.get_num_threads()).network
        self.clips = EncodedClips(
            Clips(photos, videos, config.seed, config.video_share), network, self.out / "clips", config.seed
        )  # fmt: skip
        self.clips.require_same()
        self.held_out: list[list[EncodedCrop]] = []
        if config.validation_clips and (unseen or unseen_videos):
            seed = config.seed + HELD_OUT_SEED
            try:
                held = EncodedClips(Clips(unseen, unseen_videos, seed, 0.5), network, self.out / "held-out", seed)
                held.require_same()
                self.held_out = [held[n] for n in range(config.validation_clips)]
            except DataError:  # what is held out shows nothing to follow
                print("too little is held out to validate on, so no figures will be shown", flush=True)
        self.by_side = {side: [n for n in range(config.clips) if side_of(n, config.seed) == side] for side, _ in SIDES}
        if saved is None:
            student = student_without_scores(place)
            self.shape = student.shape
            self.decoder = (
                packaged_track_decoder(Path(config.decoder), self.shape)
                if config.decoder
                else begin_track_decoder(student)
            )
        else:
            self.shape = StudentShape.of(saved["shape"])
            self.decoder = new_track_decoder(self.shape)
        # Batch norms keep the statistics that they have: what is exported has one set for all.
        self.decoder = self.decoder.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.decoder).requires_grad_(False)
        new = {id(p) for part in self.decoder.new_parts for p in part.parameters()}
        groups = []
        for is_new in (True, False):
            for decay in (True, False):
                params = [p for p in self.decoder.parameters() if (id(p) in new) == is_new and (p.ndim > 1) == decay]
                groups.append(
                    {
                        "params": params, "peak": config.learning_rate * (3 if is_new else 1),
                        "weight_decay": config.weight_decay if decay else 0.0,
                    }
                )  # fmt: skip
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)
        self.pace, self.best = Pace(config.steps, config.minutes), -math.inf
        if saved is not None:
            load_whole(self.decoder, saved["student"], self.checkpoint)
            load_whole(self.average, saved["average"], self.checkpoint)
            restore_optimizer(self.optimizer, saved["optimizer"])
            self.pace.step, self.pace.spent, self.best = int(saved["step"]), float(saved["spent"]), float(saved["best"])
            print(f"going on at step {self.pace.step}, {self.pace.spent / 60:.1f} minutes spent", flush=True)
        self.recent: list[list[float]] = []

    def batch(self, number: int) -> list[Followed]:
        """Clips of step ``number``, a pure function of it: resuming goes on in the same order."""
        rng = np.random.default_rng((self.config.seed, number, 3))
        sides = [s for s in self.by_side if self.by_side[s]]
        shares = np.array([dict(SIDES)[s] for s in sides])
        side = int(rng.choice(sides, p=shares / shares.sum()))
        count = max(1, round(self.config.batch_size * (SIDES[0][0] / side) ** 1.5))
        numbers = rng.choice(self.by_side[side], count)
        return [Followed(self.clips[int(n)], np.random.default_rng((number, i, 4))) for i, n in enumerate(numbers)]

    def take_step(self) -> None:
        """One step of the optimizer and of the moving average."""
        rate = self.pace.rate(WARMUP_STEPS, LEAST_RATE)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        self.optimizer.zero_grad(set_to_none=True)
        loss, ious = clip_loss(self.decoder, self.batch(self.pace.step))
        if not math.isfinite(float(loss.detach())):
            raise self.spoiled("the loss")
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), GRADIENT_NORM)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            print(f"step {self.pace.step}: gradient is not finite, skipped", flush=True)
        follow(self.average, self.decoder, self.pace.step, EMA_DECAY)
        self.pace.step += 1
        self.recent.append([float(loss.detach()), *ious])

    def spoiled(self, what: str) -> TinysegError:
        return not_finite(what, self.pace.step, self.config.learning_rate, self.checkpoint)

    def log(self) -> None:
        """A line, and a row of steps.csv, for the steps since the last one."""
        loss, second, third = np.mean(self.recent, 0)
        self.recent.clear()
        step = self.pace.step
        print(
            f"step {step}/{self.config.steps}  loss {loss:.4f}  IoU second {second:.3f} third {third:.3f}"
            f"  {self.pace.told(LOG_EVERY)}",
            flush=True,
        )
        append_row(
            self.out / "steps.csv",
            {"step": step, "loss": loss, "second": second, "third": third, "spent": self.pace.spent},
        )

    def validate(self) -> None:
        """Figures of the moving average; the best one so far is kept."""
        figures = score(self.average, self.held_out)
        append_row(self.out / "validation.csv", {"step": self.pace.step, "spent": self.pace.spent, **figures})
        quality = (figures["second"] + figures["third"]) / 2
        if quality > self.best:
            self.best = quality
            self.save(self.out / "best.pt")
        print(f"held out, step {self.pace.step}: " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)

    def save(self, path: Path) -> None:
        """Everything that is needed to go on. Raises TinysegError where a weight is not finite."""
        if not (is_finite(self.decoder) and is_finite(self.average)):
            raise self.spoiled("a weight")
        state = {
            "kind": TRACK, "student": self.decoder.state_dict(), "average": self.average.state_dict(),
            "shape": asdict(self.shape), "optimizer": self.optimizer.state_dict(), "step": self.pace.step,
            "spent": self.pace.spent, "best": self.best, "config": asdict(self.config),
        }  # fmt: skip
        save_checkpoint(path, state)

    def run(self) -> None:
        """Until the steps or the time are spent, or a signal asks to stop."""
        pace = self.pace
        with stop_on_signal() as asked:
            if self.held_out and pace.step == 0:
                self.validate()  # what the decoder of still images does with the same hints
            ending = False
            while not ending:
                begun = time.monotonic()
                self.take_step()
                pace.spend(time.monotonic() - begun)
                ending = asked.made or pace.is_over
                if pace.step % LOG_EVERY == 0:
                    self.log()
                if self.held_out and ((ending and not asked.made) or pace.step % self.config.validate_every == 0):
                    self.validate()
                if ending or pace.step % SAVE_EVERY == 0:
                    self.save(self.checkpoint)
        print(f"stopped at step {pace.step} after {pace.spent / 60:.1f} minutes: {self.checkpoint}", flush=True)


def train_track(config: TrackConfig) -> Path:
    """Run or resume a training; returns the checkpoint's path. Raises InputError, DataError, ModelError."""
    with open_run_folder(Path(config.out)):
        training = TrackTraining(config)
        if training.pace.is_over:
            print(training.pace.ended(training.checkpoint), flush=True)
        else:
            begin_records(training.out, config, training.pace.step or None)
            training.run()
    return training.checkpoint
