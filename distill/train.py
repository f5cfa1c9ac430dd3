"""Train the student: one loop, resumable, stopped by steps or by time.

A run folder holds ``config.json``, ``steps.csv`` (losses), ``validation.csv`` (figures), ``curves.png`` of both,
``samples-STEP.jpg`` (answers on validation photos), ``checkpoint.pt`` (all that is needed to go on: weights, moving average,
optimizer, step and seconds spent) and ``best.pt``, the checkpoint whose validation was best so far.
"""

from __future__ import annotations

import copy
import math
import signal
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tinyseg.distill.answers import StoredAnswers
from tinyseg.distill.checkpoint import load_checkpoint, save_checkpoint
from tinyseg.distill.config import TrainConfig
from tinyseg.distill.data import Batch, TrainingBatches
from tinyseg.distill.device_data import DeviceBatch, DeviceBatches, device_gigabytes
from tinyseg.distill.model import Student, load_backbone, normalise
from tinyseg.distill.pace import Pace, follow, is_finite, not_finite, restore_optimizer, stop_on_signal
from tinyseg.distill.parallel import Processes, join
from tinyseg.distill.prompts import first_prompts
from tinyseg.distill.run_folder import (
    BEST_BY,
    append_row,
    begin_records,
    draw_curves,
    draw_samples,
    open_run_folder,
)
from tinyseg.distill.shape import SIZES, StudentShape
from tinyseg.distill.step import training_loss
from tinyseg.distill.step_inputs import POINT_SLOTS, open_batches
from tinyseg.distill.teaching import open_teaching
from tinyseg.distill.validation import validate
from tinyseg.distill.warm_start import load_whole, misfit, start_from
from tinyseg.errors import InputError, TinysegError

EMA_DECAY = 0.998
GRADIENT_NORM = 4.0
WARMUP_STEPS = 200
LEAST_RATE = 0.005  # of the peak
LOG_EVERY, SAVE_EVERY = 50, 250  # steps


class _Numbered(Dataset["Batch | TinysegError"]):
    """Batches of given numbers in their order, for a DataLoader; an error in the place of one that cannot be made.

    An exception of a worker would come as several lines of traceback.
    """

    def __init__(self, batches: TrainingBatches, numbers: Sequence[int]) -> None:
        self.batches, self.numbers = batches, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Batch | TinysegError:
        try:
            return self.batches[self.numbers[index]]
        except TinysegError as exc:
            return exc
        except Exception as exc:
            first = (str(exc).splitlines() or ["no reason is given"])[0]
            return TinysegError(f"batch {self.numbers[index]} cannot be made: {type(exc).__name__}: {first}")


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
        if saved is not None and "kind" in saved:
            raise InputError(f"{self.checkpoint} is of a tracking decoder; give another --out")
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
        self.pace, self.best = Pace(config.steps, config.minutes), -math.inf
        if saved is not None:
            load_whole(self.student, saved["student"], self.checkpoint)
            if self.teaching is not None and self.teaching.adapter is not None and saved.get("adapter"):
                wrong = misfit(saved["adapter"], self.teaching.adapter.state_dict())
                if wrong:
                    raise InputError(
                        f"{self.checkpoint} learned from a teacher with other features; give that one, or another --out"
                    )
                self.teaching.adapter.load_state_dict(saved["adapter"])
            load_whole(self.average, saved["average"], self.checkpoint)
            restore_optimizer(self.optimizer, saved["optimizer"])
            self.pace.step, self.pace.spent = int(saved["step"]), float(saved["spent"])
            self.best = float(saved.get("best", self.best))
            self.say(f"going on at step {self.pace.step}, {self.pace.spent / 60:.1f} minutes spent")
        self.recent: list[tuple[float, float, float]] = []

    def say(self, text: str) -> None:
        """Only one process of several talks."""
        if self.processes.is_first:
            print(text, flush=True)

    def taken(self) -> Generator[Batch | DeviceBatch, None, None]:
        """What the loader gives; its workers end when this generator is closed. Raises TinysegError."""
        for batch in self.loader():
            if isinstance(batch, TinysegError):
                raise batch
            yield batch

    def loader(self) -> Iterable[Batch | DeviceBatch | TinysegError]:
        """This process's batches from the current step on."""
        config, processes = self.config, self.processes
        # Stored answers are of so many batches; they are gone through again and again.
        source = None if self.teaching is None else self.teaching.source
        period = source.count if isinstance(source, StoredAnswers) else sys.maxsize
        numbers = [(s * processes.count + processes.rank) % period for s in range(self.pace.step, config.steps)]
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
        self.rate = self.pace.rate(WARMUP_STEPS, LEAST_RATE)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self.rate
        self.optimizer.zero_grad(set_to_none=True)
        loss, rounds = training_loss(self.student, batch, self.config, self.device, self.teaching)
        value = float(loss.detach())
        if self.processes.any(not math.isfinite(value), self.device):
            raise self.spoiled("the loss")
        loss.backward()
        learned = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.processes.average(p.grad for p in learned)
        self.processes.average(b for b in self.student.buffers() if b.is_floating_point())
        norm = torch.nn.utils.clip_grad_norm_(learned, GRADIENT_NORM)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            self.say(f"step {self.pace.step}: gradient is not finite, skipped")
        follow(self.average, self.student, self.pace.step, EMA_DECAY)
        self.pace.step += 1
        self.recent.append((value, float(rounds[0].iou_single.mean()), float(rounds[0].iou_best.mean())))

    def spoiled(self, what: str) -> TinysegError:
        return not_finite(what, self.pace.step, self.config.learning_rate, self.checkpoint)

    def log(self) -> None:
        """A line, and a row of steps.csv, for the steps since the last one."""
        loss, iou, iou_best = np.mean(self.recent, 0)
        self.recent.clear()
        step = self.pace.step
        self.say(
            f"step {step}/{self.config.steps}  loss {loss:.4f}  first-round IoU {iou:.3f} (best of 3 {iou_best:.3f})"
            f"  {self.pace.told(LOG_EVERY)}"
        )
        row = {
            "step": step, "loss": loss, "iou": iou, "iou_best": iou_best, "rate": self.rate, "spent": self.pace.spent,
        }  # fmt: skip
        append_row(self.out / "steps.csv", row)

    def validate(self) -> None:
        """Figures, samples and curves of the moving average; the best one so far is kept."""
        figures = validate(self.average, self.validation, self.device)
        append_row(self.out / "validation.csv", {"step": self.pace.step, "spent": self.pace.spent, **figures})
        quality = float(np.mean([figures[name] for name in BEST_BY]))
        if quality > self.best:
            self.best = quality
            self.save(self.out / "best.pt")
        draw_samples(self.average, self.validation, self.device, self.out / f"samples-{self.pace.step}.jpg")
        draw_curves(self.out)
        self.say("validation " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()))

    def save(self, path: Path) -> None:
        """Raises TinysegError where a weight is not finite: whatever lies there is better."""
        if not (is_finite(self.student) and is_finite(self.average)):
            raise self.spoiled("a weight")
        adapter = None if self.teaching is None else self.teaching.adapter
        state = {
            "student": self.student.state_dict(), "average": self.average.state_dict(), "shape": asdict(self.shape),
            "adapter": {} if adapter is None else adapter.state_dict(), "optimizer": self.optimizer.state_dict(),
            "step": self.pace.step, "spent": self.pace.spent, "best": self.best, "config": asdict(self.config),
        }  # fmt: skip
        save_checkpoint(path, state)

    def run(self) -> None:
        """Until the steps or the time are spent, or a signal asks to stop."""
        processes = self.processes
        self.student.train()
        # Workers heed no signal, so the interpreter would wait for them for ever if an error left them running.
        with stop_on_signal() as asked, closing(self.taken()) as batches:
            last = time.monotonic()
            for batch in batches:
                self.take_step(batch)
                self.pace.spend(time.monotonic() - last)
                stopping = processes.any(asked.made, self.device)
                ending = processes.any(self.pace.is_over, self.device) or stopping
                if processes.is_first:
                    self.look_after(ending, stopping)
                processes.wait()
                last = time.monotonic()  # looking at figures and saving are not training
                if ending:
                    break
        self.say(f"stopped at step {self.pace.step} after {self.pace.spent / 60:.1f} minutes: {self.checkpoint}")

    def look_after(self, ending: bool, stopping: bool) -> None:
        """What is due after a step: figures and files. stopping: somebody asked to, and waits."""
        step = self.pace.step
        if step % LOG_EVERY == 0:
            self.log()
        if self.validation and ((ending and not stopping) or step % self.config.validate_every == 0):
            self.validate()
        if ending or step % SAVE_EVERY == 0:
            self.save(self.checkpoint)


def train(config: TrainConfig) -> Path:
    """Run or resume a training; returns the checkpoint's path. Under ``torchrun`` every process calls it."""
    processes, device = join(config.device)
    try:
        with open_run_folder(Path(config.out)) if processes.is_first else nullcontext():
            training = Training(config, processes, device)
            processes.wait()  # nobody writes a checkpoint that another still reads
            if training.pace.is_over:
                training.say(training.pace.ended(training.checkpoint))
            else:
                if processes.is_first:  # not before: what was refused must not change what the folder says of its run
                    begin_records(training.out, config, training.pace.step or None)
                _run(training)
    finally:
        processes.leave()
    return training.checkpoint


def _run(training: Training) -> None:
    try:
        training.run()
    except RuntimeError as exc:
        if "DataLoader worker" not in str(exc):  # as torch tells it, wherever the process is at that moment
            raise
        first = str(exc).splitlines()[0]
        raise TinysegError(
            f"a process that cuts samples was ended from outside, mostly for want of memory ({first}); give fewer "
            "--workers, and run again to go on"
        ) from exc


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
