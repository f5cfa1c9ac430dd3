"""The loss of one training step: a first prompt, and corrections where the answer was wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyseg.distill.config import TrainConfig
from tinyseg.distill.data import Batch
from tinyseg.distill.device_data import DeviceBatch
from tinyseg.distill.losses import RoundLoss, round_loss
from tinyseg.distill.model import Student, normalise
from tinyseg.distill.prompts import correct
from tinyseg.distill.step_inputs import POINT_SLOTS, step_inputs
from tinyseg.distill.teaching import Teaching


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
    inputs = step_inputs(batch, config, device)
    target, prompts, generator = inputs.target, inputs.prompts, inputs.generator
    n = len(target)
    image = normalise(inputs.pixels)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        features = student.encoder(image)
        embedding, skip8, skip4 = (f.repeat_interleave(config.instances, 0) for f in features)
        teacher = None if teaching is None else teaching.encode(inputs)
        taught: list[Tensor] = []
        results: list[RoundLoss] = []
        for i in range(inputs.rounds):
            said = student.decoder.decode(
                embedding, skip8, skip4, prompts.points, prompts.labels, prompts.mask, prompts.has_mask, inputs.origin
            )  # fmt: skip
            logits, iou, tokens = (out.float() for out in said)
            answer = teacher.answer(prompts) if teacher is not None and (i == 0 or config.distil.rounds) else None
            with torch.autocast(device.type, enabled=False):
                results.append(round_loss(logits, iou, target))
                if teaching is not None and answer is not None:
                    taught.append(teaching.loss((logits, iou, tokens), answer, target, config.distil))
            if i + 1 < inputs.rounds:
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
    if teaching is not None and teaching.adapter is not None and teacher is not None and config.distil.embedding:
        near = teaching.adapter.embedding_loss(features[0].float(), teacher.embedding)
        total = total + config.distil.embedding * near
    return total, results
