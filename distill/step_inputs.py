"""What a step begins with: batches of samples, and the first prompts about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tinyseg.dataset import Photo, read_photos
from tinyseg.distill.config import ROUND_SHARES, TrainConfig
from tinyseg.distill.data import Batch, TrainingBatches, split_validation
from tinyseg.distill.device_data import DeviceBatch
from tinyseg.distill.model import POSITION_UNIT
from tinyseg.distill.prompts import PromptBatch, first_prompts
from tinyseg.errors import InputError

POINT_SLOTS = 5  # two for the box, three clicks


def open_batches(config: TrainConfig) -> tuple[TrainingBatches, list[Photo]]:
    """What a configuration trains on, and the photos that it validates on."""
    photos: list[Photo] = [p for path in config.data for p in read_photos(Path(path))]
    training, validation = split_validation(photos)
    validation = [p for p in validation if p.instances][: config.validation_photos]
    batches = TrainingBatches(
        training, config.batch_size, config.instances, config.seed, config.oversample, config.mixing
    )  # fmt: skip
    sources = sorted({p.source for p in batches.photos})
    unknown = sorted(config.oversample.keys() - sources)
    if unknown:
        raise InputError(f"--oversample {unknown[0]}: no photo is of that source; the data's are {', '.join(sources)}")
    return batches, validation


@dataclass(frozen=True)
class StepInputs:
    """A step before the student has said anything: a pure function of the configuration and the batch's number."""

    number: int
    pixels: Tensor  # (B, S, S, 3) uint8 RGB
    target: Tensor  # (n, S/4, S/4) covered share of every cell, n = B * K
    origin: Tensor  # (2,) see Decoder.forward
    rounds: int
    prompts: PromptBatch
    generator: torch.Generator  # for what follows


def step_inputs(batch: Batch | DeviceBatch, config: TrainConfig, device: torch.device) -> StepInputs:
    """Place a batch on the device and draw its first prompts."""
    seed = config.seed * 1_000_003 + batch.number
    generator = torch.Generator(device).manual_seed(seed)
    pixels = torch.as_tensor(batch.image, device=device)
    target = torch.as_tensor(batch.coverage, device=device).flatten(0, 1).float() / 255.0
    boxes = torch.as_tensor(batch.boxes, device=device).flatten(0, 1)  # (n, 4)
    spare = max(POSITION_UNIT - pixels.shape[1], 0.0)
    origin = torch.rand(2, generator=generator, device=device) * spare
    of_rounds = torch.Generator().manual_seed(seed + 7 * batch.number)
    shares = torch.tensor(ROUND_SHARES[: config.rounds])
    rounds = 1 + int(torch.multinomial(shares, 1, generator=of_rounds))
    if not config.ground_truth and not config.distil.rounds:
        rounds = 1  # nobody says what is right in later ones
    prompts = first_prompts(target, boxes, POINT_SLOTS, generator)
    return StepInputs(batch.number, pixels, target, origin, rounds, prompts, generator)
