"""Train the student: one loop, resumable, stopped by steps or by time.

A run folder holds ``config.json``, ``steps.csv`` (losses), ``validation.csv`` (figures), ``curves.png`` of both,
``samples-STEP.jpg`` (answers on validation photos), ``checkpoint.pt`` (all that is needed to go on: weights, moving average,
optimizer, step and seconds spent) and ``best.pt``, the checkpoint whose validation was best so far.
"""

from __future__ import annotations

import copy
import csv
import json
import math
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tinyseg.dataset import Photo, read_photos
from tinyseg.distill.answers import StoredAnswers, answers_key
from tinyseg.distill.checkpoint import load_checkpoint, save_checkpoint
from tinyseg.distill.data import Batch, Mixing, TrainingBatches, split_validation
from tinyseg.distill.device_data import DeviceBatch, DeviceBatches, device_gigabytes
from tinyseg.distill.losses import DistilWeights, FeatureAdapter, RoundLoss, distil_loss, round_loss
from tinyseg.distill.model import EMBED_DIM, POSITION_UNIT, SIZES, Student, StudentShape, load_backbone, normalise
from tinyseg.distill.parallel import Processes, join
from tinyseg.distill.prompts import PromptBatch, correct, first_prompts
from tinyseg.distill.run_folder import BEST_BY, draw_curves, draw_samples
from tinyseg.distill.teachers import Answer, Look, Teacher, load_teacher, match_readings
from tinyseg.distill.validation import validate
from tinyseg.distill.warm_start import start_from
from tinyseg.errors import InputError
from tinyseg.files import write_bytes

EMA_DECAY = 0.998
GRADIENT_NORM = 4.0
WARMUP_STEPS = 200  # of short trainings a tenth
POINT_SLOTS = 5  # two for the box, three clicks
LOG_EVERY, SAVE_EVERY = 50, 250  # steps
ROUND_SHARES = (0.35, 0.45, 0.2)  # of steps with 1, 2 and 3 rounds


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run; saved beside its checkpoint."""

    data: tuple[str, ...]
    out: str
    size: str = "base"  # of the student: a key of model.SIZES
    backbone: str | None = None
    start: str | None = None  # a checkpoint or a model folder
    freeze: int = 0  # blocks of the backbone that stay as they are
    freeze_norms: bool = False  # see Student.freeze_norms
    steps: int = 6000
    minutes: float | None = None
    batch_size: int = 8
    instances: int = 3
    learning_rate: float = 1e-3
    backbone_rate: float = 0.3  # the backbone's learning rate as a share of the rest's
    weight_decay: float = 0.03
    seed: int = 0
    device: str = "cpu"
    workers: int = 1
    validate_every: int = 1000
    validation_photos: int = 120
    oversample: dict[str, float] = field(default_factory=dict)
    mixing: Mixing = field(default_factory=Mixing)
    rounds: int = 3  # most rounds of correction that one step asks for, see ROUND_SHARES
    data_on_device: bool = False  # see device_data.py
    teacher: str | None = None  # asked at every step, see teachers.py
    answers: str | None = None  # a teacher's answers that are stored, see answers.py
    distil: DistilWeights = field(default_factory=DistilWeights)
    ground_truth: float = 1.0  # what it counts beside the teacher; 0: the teacher alone

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.instances < 1:
            raise InputError("--steps, --batch-size and --instances must be at least 1")
        if not 1 <= self.rounds <= len(ROUND_SHARES):
            raise InputError(f"--rounds takes 1 to {len(ROUND_SHARES)}, got {self.rounds}")
        if self.teacher and self.answers:
            raise InputError("--answers hold what a teacher said: give --teacher or --answers, not both")
        if self.ground_truth < 0:
            raise InputError(f"--ground-truth must be at least 0, got {self.ground_truth:g}")
        if not self.ground_truth and not (self.teacher or self.answers):
            raise InputError("--ground-truth 0 leaves the teacher alone: add --teacher or --answers")
        if not self.ground_truth and not self.distil.any:
            raise InputError("--ground-truth 0 leaves nothing to learn: give --distil-masks or another part a weight")
        if self.answers and self.distil.rounds:
            raise InputError(
                "--distil-rounds asks about the student's own mistakes: give --teacher instead of --answers"
            )
        if self.data_on_device and self.mixing.any:
            raise InputError("--data-on-device cuts plain samples; leave out --copy-paste and --mosaic, or it")
        if self.size not in SIZES:
            raise InputError(f"--size takes {' or '.join(SIZES)}, got {self.size!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: torch sees no GPU here; use --device cpu")
        if self.backbone and self.start:
            raise InputError("--start brings its own backbone: give --start or --backbone, not both")
        if self.freeze_norms and not self.start:
            raise InputError("--freeze-norms keeps the statistics of weights that are trained: give them with --start")
        for path in (*self.data, *(p for p in (self.backbone, self.start, self.answers) if p)):
            if not Path(path).exists():
                raise InputError(f"{path} does not exist")


class _Numbered(Dataset[Batch]):
    """Batches of given numbers in their order, for a DataLoader."""

    def __init__(self, batches: TrainingBatches, numbers: Sequence[int]) -> None:
        self.batches, self.numbers = batches, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Batch:
        return self.batches[self.numbers[index]]


def _single_threaded(_worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # The parent decides when to stop: terminals and job schedulers send their signals to all processes of a job.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _parameter_groups(student: Student, config: TrainConfig) -> list[dict[str, object]]:
    backbone = {id(p) for m in (student.encoder.stem, student.encoder.blocks) for p in m.parameters()}
    groups = []
    for in_backbone in (True, False):
        for decay in (True, False):
            params = [
                p for p in student.parameters()
                if p.requires_grad and (id(p) in backbone) == in_backbone and (p.ndim > 1) == decay
            ]  # fmt: skip
            rate = config.learning_rate * (config.backbone_rate if in_backbone else 1.0)
            groups.append({"params": params, "peak": rate, "weight_decay": config.weight_decay if decay else 0.0})
    return groups


@dataclass(frozen=True)
class Teaching:
    """Who says what the student learns beside the ground truth, and what learns the teacher's embedding and tokens."""

    source: Teacher | StoredAnswers
    adapter: FeatureAdapter | None

    def look(self, opening: Opening) -> Look:
        if isinstance(self.source, StoredAnswers):
            return self.source.look(opening.number, opening.target.device)
        return self.source.look(opening.pixels)

    def loss(
        self, said: tuple[Tensor, Tensor, Tensor], answer: Answer, target: Tensor, weights: DistilWeights
    ) -> Tensor:
        """How far the student's logits, predicted IoU and tokens are from the teacher's."""
        logits, iou, tokens = said
        # The student's readings come in no fixed order: what belongs to a mask learns from the teacher's mask most alike.
        order = match_readings(logits.detach(), answer.logits)
        total = distil_loss(logits, iou, answer.logits, answer.iou.gather(1, order), target, weights)
        if self.adapter is not None and weights.tokens:
            order = torch.cat((torch.zeros_like(order[:, :1]), order + 1), 1)[:, :, None].expand_as(answer.tokens)
            total = total + weights.tokens * self.adapter.token_loss(tokens, answer.tokens.gather(1, order))
        return total


@dataclass(frozen=True)
class Opening:
    """A step before the student has said anything: a pure function of the configuration and the batch's number."""

    number: int
    pixels: Tensor  # (B, S, S, 3) uint8 RGB
    target: Tensor  # (n, S/4, S/4) covered share of every cell, n = B * K
    origin: Tensor  # (2,) see Decoder.forward
    rounds: int
    prompts: PromptBatch
    generator: torch.Generator  # for what follows


def open_step(batch: Batch | DeviceBatch, config: TrainConfig, device: torch.device) -> Opening:
    """Place a batch on the device and draw its first prompts."""
    seed = config.seed * 1_000_003 + batch.number
    generator = torch.Generator(device).manual_seed(seed)
    pixels = torch.as_tensor(batch.image, device=device)
    target = torch.as_tensor(batch.coverage, device=device).flatten(0, 1).float() / 255.0
    boxes = torch.as_tensor(batch.boxes, device=device).flatten(0, 1)  # (n, 4)
    room = max(POSITION_UNIT - pixels.shape[1], 0.0)
    origin = torch.rand(2, generator=generator, device=device) * room
    of_rounds = torch.Generator().manual_seed(seed + 7 * batch.number)
    shares = torch.tensor(ROUND_SHARES[: config.rounds])
    rounds = 1 + int(torch.multinomial(shares, 1, generator=of_rounds))
    if not config.ground_truth and not config.distil.rounds:
        rounds = 1  # nobody says what is right in later ones
    prompts = first_prompts(target, boxes, POINT_SLOTS, generator)
    return Opening(batch.number, pixels, target, origin, rounds, prompts, generator)


def training_loss(
    student: Student,
    batch: Batch | DeviceBatch,
    config: TrainConfig,
    device: torch.device,
    teaching: Teaching | None = None,
) -> tuple[Tensor, list[RoundLoss]]:
    """Mean loss over the rounds of one step.

    A teacher is asked the first round's prompts; the later ones depend on the student's own mistakes, so what it says to them
    cannot be stored, and it is asked them only with ``distil.rounds``. With no weight on the ground truth the prompts still
    begin at the objects that are labelled, but only the teacher says what their masks are.
    """
    opening = open_step(batch, config, device)
    target, prompts, generator = opening.target, opening.prompts, opening.generator
    n = len(target)
    image = normalise(opening.pixels)
    with torch.autocast(device.type, torch.bfloat16):
        encoded = student.encoder(image)
        embedding, skip8, skip4 = (f.repeat_interleave(config.instances, 0) for f in encoded)
        look = None if teaching is None else teaching.look(opening)
        taught: list[Tensor] = []
        results: list[RoundLoss] = []
        for i in range(opening.rounds):
            said = student.decoder.decode(
                embedding, skip8, skip4, prompts.points, prompts.labels, prompts.mask, prompts.has_mask, opening.origin
            )  # fmt: skip
            logits, iou, tokens = (out.float() for out in said)
            answer = look.answer(prompts) if look is not None and (i == 0 or config.distil.rounds) else None
            with torch.autocast(device.type, enabled=False):
                results.append(round_loss(logits, iou, target))
                if teaching is not None and answer is not None:
                    taught.append(teaching.loss((logits, iou, tokens), answer, target, config.distil))
            if i + 1 < opening.rounds:
                # Users correct what they were shown: mask 0, or after a first click the best scored reading.
                shown = torch.where(
                    torch.rand(n, generator=generator, device=device) < 0.5, 0, iou[:, 1:].argmax(1) + 1
                )  # fmt: skip
                shown_logits = logits.detach()[torch.arange(n, device=device), shown]
                wanted = target
                if config.distil.rounds and answer is not None:
                    wanted = (answer.logits[:, 0] > 0).float()
                prompts = correct(prompts, min(3 + i, POINT_SLOTS - 1), shown_logits, wanted, generator)
    total = config.ground_truth * torch.stack([r.total for r in results]).mean()
    if taught:
        total = total + torch.stack(taught).mean()
    if teaching is not None and teaching.adapter is not None and look is not None and config.distil.embedding:
        near = teaching.adapter.embedding_loss(encoded[0].float(), look.embedding)
        total = total + config.distil.embedding * near
    return total, results


def _append(path: Path, row: dict[str, object]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def open_batches(config: TrainConfig) -> tuple[TrainingBatches, list[Photo]]:
    """What a configuration trains on, and the photos that it validates on."""
    photos: list[Photo] = [p for path in config.data for p in read_photos(Path(path))]
    training, validation = split_validation(photos)
    validation = [p for p in validation if p.instances][: config.validation_photos]
    batches = TrainingBatches(
        training, config.batch_size, config.instances, config.seed, config.oversample, config.mixing
    )  # fmt: skip
    return batches, validation


def open_teaching(config: TrainConfig, batches: TrainingBatches, device: torch.device) -> Teaching | None:
    """The teacher or the stored answers that a configuration names, if any."""
    source: Teacher | StoredAnswers
    if config.answers is not None:
        source = StoredAnswers(Path(config.answers), answers_key(config, batches, device))
        if config.distil.of_features and not source.channels:
            raise InputError(
                f"{config.answers} holds no embeddings and tokens; store them with --embeddings, or leave them out"
            )
    elif config.teacher is not None:
        source = load_teacher(config.teacher, device)
    else:
        return None
    adapter = FeatureAdapter(EMBED_DIM, source.channels).to(device) if config.distil.of_features else None
    return Teaching(source, adapter)


class Training:
    """A run: everything that changes while it goes on."""

    def __init__(self, config: TrainConfig, processes: Processes, device: torch.device) -> None:
        self.config, self.processes, self.device = config, processes, device
        self.out = Path(config.out)
        self.checkpoint = self.out / "checkpoint.pt"
        torch.manual_seed(config.seed)
        self.batches, self.validation = open_batches(config)
        told = "" if self.validation else ": too few photos to hold any back, so no figures will be shown"
        self.say(f"{len(self.batches.photos)} photos to train on, {len(self.validation)} to validate on{told}")

        saved = load_checkpoint(self.checkpoint, device) if self.checkpoint.exists() else None
        self.shape = SIZES[config.size]
        if saved is not None and StudentShape.of(saved["shape"]) != self.shape:
            raise InputError(f"{self.checkpoint} is of a student of another size; give its --size, or another --out")
        self.student = Student(self.shape)
        self.student.encoder.freeze(config.freeze)
        if saved is None and config.backbone is not None:
            load_backbone(self.student.encoder, Path(config.backbone), calibration_images(self.batches))
        if saved is None and config.start is not None:
            start_from(self.student, Path(config.start), lambda s: run_once(s, self.batches))
            self.say(f"starting from the weights in {config.start}")
        if config.freeze_norms:
            self.student.freeze_norms()
        self.student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teaching = open_teaching(config, self.batches, device)
        groups = _parameter_groups(self.student, config)
        if self.teaching is not None:
            self.say(f"teacher: {self.teaching.source.name}")
            if self.teaching.adapter is not None:
                adapter = list(self.teaching.adapter.parameters())
                groups.append({"params": adapter, "peak": config.learning_rate, "weight_decay": 0.0})
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)
        self.average = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.step, self.spent, self.best = 0, 0.0, -math.inf
        if saved is not None:
            self.student.load_state_dict(saved["student"])
            if self.teaching is not None and self.teaching.adapter is not None and saved.get("adapter"):
                self.teaching.adapter.load_state_dict(saved["adapter"])
            self.average.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.spent = int(saved["step"]), float(saved["spent"])
            self.best = float(saved.get("best", self.best))
            self.say(f"going on at step {self.step}, {self.spent / 60:.1f} minutes spent")
        self.budget = math.inf if config.minutes is None else config.minutes * 60
        self.recent: list[tuple[float, float, float]] = []
        self.durations: list[float] = []

    def say(self, text: str) -> None:
        """Only one process of several talks."""
        if self.processes.is_first:
            print(text, flush=True)

    def loader(self) -> Iterable[Batch | DeviceBatch]:
        """This process's batches from the current step on."""
        config, processes = self.config, self.processes
        # Stored answers are of so many batches; they are gone through again and again.
        source = None if self.teaching is None else self.teaching.source
        period = source.count if isinstance(source, StoredAnswers) else sys.maxsize
        numbers = [(s * processes.count + processes.rank) % period for s in range(self.step, config.steps)]
        if config.data_on_device:
            need = device_gigabytes(self.batches.photos)
            self.say(f"{need:.1f} GB of photos and masks go into the memory of {self.device}")
            resident = DeviceBatches(self.batches, self.device)
            return (resident[n] for n in numbers)
        return DataLoader(
            _Numbered(self.batches, numbers), batch_size=None, num_workers=config.workers,
            worker_init_fn=_single_threaded, prefetch_factor=4 if config.workers else None,
        )  # fmt: skip

    def take_step(self, batch: Batch | DeviceBatch) -> None:
        """One step of the optimizer and of the moving average."""
        # Whichever of steps and time ends first anneals the learning rate.
        done = min(max(self.step / self.config.steps, self.spent / self.budget), 1.0)
        warm_up = min(1.0, (self.step + 1) / min(WARMUP_STEPS, 1 + self.config.steps // 10))
        self.rate = max(warm_up * (0.5 + 0.5 * math.cos(math.pi * done)), 0.005)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self.rate
        self.optimizer.zero_grad(set_to_none=True)
        loss, rounds = training_loss(self.student, batch, self.config, self.device, self.teaching)
        loss.backward()
        learned = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.processes.average(p.grad for p in learned)
        self.processes.average(b for b in self.student.buffers() if b.is_floating_point())
        norm = torch.nn.utils.clip_grad_norm_(learned, GRADIENT_NORM)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            self.say(f"step {self.step}: gradient is not finite, skipped")
        decay = min(EMA_DECAY, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for a, b in zip(self.average.state_dict().values(), self.student.state_dict().values()):
                if a.dtype.is_floating_point:
                    a.lerp_(b, 1 - decay)
                else:
                    a.copy_(b)
        self.step += 1
        self.recent.append((float(loss.detach()), float(rounds[0].iou_single.mean()), float(rounds[0].iou_best.mean())))

    def spend(self, seconds: float) -> None:
        """Count the time of a step; a pause of the process is not time spent on training."""
        self.durations = [*self.durations[-99:], seconds]
        self.spent += min(seconds, 5 * float(np.median(self.durations)))

    def log(self) -> None:
        """A line, and a row of steps.csv, for the steps since the last one."""
        loss, iou, iou_best = np.mean(self.recent, 0)
        self.recent.clear()
        seconds = float(np.mean(self.durations[-LOG_EVERY:]))
        left = min((self.config.steps - self.step) * seconds, self.budget - self.spent)
        self.say(
            f"step {self.step}/{self.config.steps}  loss {loss:.4f}  first-round IoU {iou:.3f} (best of 3 {iou_best:.3f})"
            f"  {seconds:.2f} s/step  {left / 60:.0f} min left"
        )
        row = {
            "step": self.step,
            "loss": loss,
            "iou": iou,
            "iou_best": iou_best,
            "rate": self.rate,
            "spent": self.spent,
        }
        _append(self.out / "steps.csv", row)

    def validate(self) -> None:
        """Figures, samples and curves of the moving average; the best one so far is kept."""
        figures = validate(self.average, self.validation, self.device)
        _append(self.out / "validation.csv", {"step": self.step, "spent": self.spent, **figures})
        quality = float(np.mean([figures[name] for name in BEST_BY]))
        if quality > self.best:
            self.best = quality
            self.save(self.out / "best.pt")
        draw_samples(self.average, self.validation, self.device, self.out / f"samples-{self.step}.jpg")
        draw_curves(self.out)
        self.say("validation " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()))

    def save(self, path: Path) -> None:
        adapter = None if self.teaching is None else self.teaching.adapter
        state = {
            "student": self.student.state_dict(), "average": self.average.state_dict(), "shape": asdict(self.shape),
            "adapter": {} if adapter is None else adapter.state_dict(), "optimizer": self.optimizer.state_dict(),
            "step": self.step, "spent": self.spent, "best": self.best, "config": asdict(self.config),
        }  # fmt: skip
        save_checkpoint(path, state)

    def run(self) -> None:
        """Until the steps or the time are spent, or a signal asks to stop."""
        config, processes = self.config, self.processes
        asked = False

        def on_signal(_number: int, _frame: object) -> None:
            nonlocal asked
            asked = True

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        self.student.train()
        last = time.monotonic()
        for batch in self.loader():
            self.take_step(batch)
            self.spend(time.monotonic() - last)
            stopping = processes.any(asked, self.device)
            spent = processes.any(self.spent >= self.budget, self.device)
            ending = stopping or spent or self.step >= config.steps
            if processes.is_first:
                if self.step % LOG_EVERY == 0:
                    self.log()
                if self.validation and ((ending and not stopping) or self.step % config.validate_every == 0):
                    self.validate()
                if ending or self.step % SAVE_EVERY == 0:
                    self.save(self.checkpoint)
            processes.wait()
            last = time.monotonic()  # looking at figures and saving are not training
            if ending:
                break
        for number, handler in before.items():
            signal.signal(number, handler)
        self.say(f"stopped at step {self.step} after {self.spent / 60:.1f} minutes: {self.checkpoint}")


def train(config: TrainConfig) -> Path:
    """Run or resume a training; returns the checkpoint's path. Under ``torchrun`` every process calls it."""
    out = Path(config.out)
    processes, device = join(config.device)
    try:
        if processes.is_first:
            out.mkdir(parents=True, exist_ok=True)
            write_bytes(out / "config.json", json.dumps(asdict(config), indent=1).encode())
        training = Training(config, processes, device)
        processes.wait()  # nobody writes a checkpoint that another still reads
        if training.step < config.steps:
            training.run()
        else:
            training.say(f"all of its {config.steps} steps are done: {training.checkpoint}")
    finally:
        processes.leave()
    return training.checkpoint


def calibration_images(batches: TrainingBatches) -> Tensor:
    """(32, 3, 256, 256) photos for the statistics of the backbone's batch norms."""
    images: list[np.ndarray] = []
    step = 10**6
    while len(images) < 4:
        batch = batches[step]
        step += 1
        if batch.image.shape[1] >= 320:
            images.append(batch.image[:, :320, :320])
    return normalise(torch.from_numpy(np.concatenate(images)))


def run_once(student: Student, batches: TrainingBatches) -> None:
    """Encoder and decoder on one batch of samples that no step of the training uses."""
    batch = batches[10**6]
    target = torch.from_numpy(batch.coverage).flatten(0, 1).float() / 255.0
    boxes = torch.from_numpy(batch.boxes).flatten(0, 1)
    prompts = first_prompts(target, boxes, POINT_SLOTS, torch.Generator().manual_seed(0))
    features = student.encoder(normalise(torch.from_numpy(batch.image)))
    instances = len(target) // len(batch.image)
    student.decoder(
        *(f.repeat_interleave(instances, 0) for f in features),
        prompts.points, prompts.labels, prompts.mask, prompts.has_mask,
    )  # fmt: skip
