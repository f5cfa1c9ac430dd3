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
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tinyseg.dataset import Photo, read_photos
from tinyseg.distill.data import Batch, TrainingBatches, split_validation
from tinyseg.distill.device_data import DeviceBatch, DeviceBatches, device_gigabytes
from tinyseg.distill.losses import DistilWeights, EmbeddingAdapter, RoundLoss, distil_loss, round_loss
from tinyseg.distill.model import EMBED_DIM, POSITION_UNIT, Student, load_backbone
from tinyseg.distill.prompts import correct, first_prompts
from tinyseg.distill.run_folder import BEST_BY, draw_curves, draw_samples
from tinyseg.distill.teachers import Teacher, load_teacher
from tinyseg.distill.validation import normalise, validate
from tinyseg.distill.warm_start import load_folder
from tinyseg.errors import InputError

EMA_DECAY = 0.998
GRADIENT_NORM = 4.0
WARMUP_STEPS = 200
POINT_SLOTS = 5  # two for the box, three clicks
ROUND_SHARES = (0.35, 0.45, 0.2)  # of steps with 1, 2 and 3 rounds


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run; saved beside its checkpoint."""

    data: tuple[str, ...]
    out: str
    backbone: str | None = None
    start: str | None = None
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
    data_on_device: bool = False  # see device_data.py
    teacher: str | None = None  # see teachers.py
    distil: DistilWeights = field(default_factory=DistilWeights)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.instances < 1:
            raise InputError("--steps, --batch-size and --instances must be at least 1")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: torch sees no GPU here; use --device cpu")
        if self.backbone and self.start:
            raise InputError("--start brings its own backbone: give --start or --backbone, not both")
        for path in (*self.data, *(p for p in (self.backbone, self.start) if p)):
            if not Path(path).exists():
                raise InputError(f"{path} does not exist")


class _Steps(Dataset[Batch]):
    """Batches from a given step on, for a DataLoader."""

    def __init__(self, batches: TrainingBatches, first: int, end: int) -> None:
        self.batches, self.first, self.end = batches, first, end

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, index: int) -> Batch:
        return self.batches[self.first + index]


def _single_threaded(_worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop


def _parameter_groups(student: Student, config: TrainConfig) -> list[dict[str, object]]:
    backbone = {id(p) for m in (student.encoder.stem, student.encoder.blocks) for p in m.parameters()}
    groups = []
    for in_backbone in (True, False):
        for decay in (True, False):
            params = [
                p for p in student.parameters() if (id(p) in backbone) == in_backbone and (p.ndim > 1) == decay
            ]  # fmt: skip
            rate = config.learning_rate * (config.backbone_rate if in_backbone else 1.0)
            groups.append({"params": params, "peak": rate, "weight_decay": config.weight_decay if decay else 0.0})
    return groups


@dataclass(frozen=True)
class Teaching:
    """A teacher, and what learns its embedding."""

    teacher: Teacher
    adapter: EmbeddingAdapter


def training_loss(
    student: Student,
    batch: Batch | DeviceBatch,
    config: TrainConfig,
    step: int,
    teaching: Teaching | None = None,
) -> tuple[Tensor, list[RoundLoss]]:
    """Mean loss over the rounds of one step; prompts are a pure function of (seed, step).

    A teacher is asked the first round's prompts: the later ones depend on the student's own mistakes.
    """
    device = torch.device(config.device)
    generator = torch.Generator(device).manual_seed(config.seed * 1_000_003 + step)
    pixels = torch.as_tensor(batch.image, device=device)
    image = normalise(pixels)
    n = batch.coverage.shape[0] * batch.coverage.shape[1]
    target = torch.as_tensor(batch.coverage, device=device).flatten(0, 1).float() / 255.0  # (n, h, w)
    boxes = torch.as_tensor(batch.boxes, device=device).flatten(0, 1)  # (n, 4)
    room = max(POSITION_UNIT - batch.image.shape[1], 0.0)
    origin = torch.rand(2, generator=generator, device=device) * room
    rounds = 1 + int(torch.multinomial(torch.tensor(ROUND_SHARES), 1, generator=_cpu(generator, step)))
    with torch.autocast(device.type, torch.bfloat16):
        encoded = student.encoder(image)
        features = [f.repeat_interleave(config.instances, 0) for f in encoded]
        prompts = first_prompts(target, boxes, POINT_SLOTS, generator)
        answer = None if teaching is None else teaching.teacher.answer(pixels, prompts)
        taught = torch.zeros((), device=device)
        results: list[RoundLoss] = []
        for i in range(rounds):
            logits, iou = student.decoder(
                *features, prompts.points, prompts.labels, prompts.mask, prompts.has_mask, origin
            )  # fmt: skip
            logits, iou = logits.float(), iou.float()
            with torch.autocast(device.type, enabled=False):
                results.append(round_loss(logits, iou, target))
                if i == 0 and teaching is not None and answer is not None:
                    taught = distil_loss(logits, iou, answer.logits, answer.iou, target, config.distil)
                    if config.distil.embedding:
                        near = teaching.adapter(encoded[0].float(), answer.embedding)
                        taught = taught + config.distil.embedding * near
            if i + 1 < rounds:
                # Users correct what they were shown: mask 0, or after a first click the best scored reading.
                shown = torch.where(
                    torch.rand(n, generator=generator, device=device) < 0.5, 0, iou[:, 1:].argmax(1) + 1
                )  # fmt: skip
                shown_logits = logits.detach()[torch.arange(n, device=device), shown]
                prompts = correct(prompts, min(3 + i, POINT_SLOTS - 1), shown_logits, target, generator)
    return torch.stack([r.total for r in results]).mean() + taught, results


def _cpu(generator: torch.Generator, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(generator.initial_seed() + 7 * step)


def _append(path: Path, row: dict[str, object]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def _save(path: Path, state: dict[str, object]) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """A checkpoint as train() writes it. Raises InputError."""
    if not path.is_file():
        raise InputError(f"there is no checkpoint at {path}")
    try:
        saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        missing = {"student", "average", "optimizer", "step", "spent", "config"} - set(saved)
    except Exception as exc:  # torch.load raises whatever the bytes lead it to
        raise InputError(f"{path} is not a checkpoint of tinyseg.distill ({exc})") from exc
    if missing:
        raise InputError(f"{path} is not a checkpoint of tinyseg.distill: it lacks {', '.join(sorted(missing))}")
    return saved


def train(config: TrainConfig) -> Path:
    """Run or resume a training; returns the checkpoint's path."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(asdict(config), indent=1))
    checkpoint = out / "checkpoint.pt"
    device = torch.device(config.device)
    torch.manual_seed(config.seed)

    photos: list[Photo] = [p for path in config.data for p in read_photos(Path(path))]
    training, validation = split_validation(photos)
    validation = [p for p in validation if p.instances][: config.validation_photos]
    batches = TrainingBatches(training, config.batch_size, config.instances, config.seed, config.oversample)
    told = "" if validation else ": too few photos to hold any back, so no figures will be shown"
    print(f"{len(training)} photos to train on, {len(validation)} to validate on{told}", flush=True)

    student = Student()
    saved = load_checkpoint(checkpoint, device) if checkpoint.exists() else None
    if saved is None and config.backbone is not None:
        some = calibration_images(batches)
        load_backbone(student.encoder, Path(config.backbone), some)
    if saved is None and config.start is not None:
        load_folder(student, Path(config.start), lambda s: run_once(s, batches))
        print(f"starting from the weights in {config.start}", flush=True)
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    teaching = None
    groups = _parameter_groups(student, config)
    if config.teacher is not None:
        teacher = load_teacher(config.teacher, device)
        teaching = Teaching(teacher, EmbeddingAdapter(EMBED_DIM, teacher.channels).to(device))
        adapter_parameters = list(teaching.adapter.parameters())
        groups.append({"params": adapter_parameters, "peak": config.learning_rate, "weight_decay": 0.0})
        print(f"teacher: {teacher.name}", flush=True)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)
    average = copy.deepcopy(student).eval().requires_grad_(False)
    step, spent, best = 0, 0.0, -math.inf
    if saved is not None:
        student.load_state_dict(saved["student"])
        if teaching is not None and saved.get("adapter"):
            teaching.adapter.load_state_dict(saved["adapter"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        step, spent, best = int(saved["step"]), float(saved["spent"]), float(saved.get("best", best))
        print(f"going on at step {step}, {spent / 60:.1f} minutes spent", flush=True)

    stop = {"asked": False}

    def on_signal(_number: int, _frame: object) -> None:
        stop["asked"] = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)

    def save(path: Path) -> None:
        _save(
            path,
            {
                "student": student.state_dict(), "average": average.state_dict(),
                "adapter": teaching.adapter.state_dict() if teaching else {},
                "optimizer": optimizer.state_dict(), "step": step, "spent": spent, "best": best, "config": asdict(config),
            },
        )  # fmt: skip

    budget = math.inf if config.minutes is None else config.minutes * 60
    loader: Iterable[Batch | DeviceBatch]
    if config.data_on_device:
        print(
            f"{device_gigabytes(batches.photos):.1f} GB of photos and masks go into the memory of {device}", flush=True
        )
        resident = DeviceBatches(batches, device)
        loader = (resident[i] for i in range(step, config.steps))
    else:
        loader = DataLoader(
            _Steps(batches, step, config.steps), batch_size=None, num_workers=config.workers,
            worker_init_fn=_single_threaded, prefetch_factor=4 if config.workers else None,
        )  # fmt: skip
    student.train()
    recent: list[tuple[float, float, float]] = []
    durations: list[float] = []
    last = time.monotonic()
    for batch in loader:
        # Whichever of steps and time ends first anneals the learning rate.
        done = max(step / config.steps, spent / budget)
        rate = min(1.0, (step + 1) / WARMUP_STEPS) * (0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * max(rate, 0.005)
        optimizer.zero_grad(set_to_none=True)
        loss, rounds = training_loss(student, batch, config, step, teaching)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(student.parameters(), GRADIENT_NORM)
        if torch.isfinite(norm):
            optimizer.step()
        else:
            print(f"step {step}: gradient is not finite, skipped", flush=True)
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        with torch.no_grad():
            for a, b in zip(average.state_dict().values(), student.state_dict().values()):
                if a.dtype.is_floating_point:
                    a.lerp_(b, 1 - decay)
                else:
                    a.copy_(b)
        step += 1
        now = time.monotonic()
        # A pause of the process is not time spent on training.
        durations = [*durations[-99:], now - last]
        spent += min(now - last, 5 * float(np.median(durations)))
        last = now
        recent.append((float(loss.detach()), float(rounds[0].iou_single.mean()), float(rounds[0].iou_best.mean())))
        if step % 50 == 0:
            mean = np.mean(recent, 0)
            recent.clear()
            seconds = float(np.mean(durations[-50:]))
            left = min((config.steps - step) * seconds, budget - spent)
            print(
                f"step {step}/{config.steps}  loss {mean[0]:.4f}  first-round IoU {mean[1]:.3f} (best of 3 {mean[2]:.3f})"
                f"  {seconds:.2f} s/step  {left / 60:.0f} min left",
                flush=True,
            )
            _append(
                out / "steps.csv",
                {"step": step, "loss": mean[0], "iou": mean[1], "iou_best": mean[2], "rate": rate, "spent": spent},
            )
        ending = stop["asked"] or spent >= budget or step >= config.steps
        if validation and ((ending and not stop["asked"]) or step % config.validate_every == 0):
            figures = validate(average, validation, device)
            _append(out / "validation.csv", {"step": step, "spent": spent, **figures})
            quality = float(np.mean([figures[name] for name in BEST_BY]))
            if quality > best:
                best = quality
                save(out / "best.pt")
            draw_samples(average, validation, device, out / f"samples-{step}.jpg")
            draw_curves(out)
            print("validation " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)
            last = time.monotonic()
        if ending or step % 250 == 0:
            save(checkpoint)
        if ending:
            break
    print(f"stopped at step {step} after {spent / 60:.1f} minutes: {checkpoint}", flush=True)
    sys.stdout.flush()
    return checkpoint


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
