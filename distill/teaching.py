"""Who says what the student learns beside the ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tinyseg.distill.answers import StoredAnswers, answers_key
from tinyseg.distill.config import DistilWeights, TrainConfig
from tinyseg.distill.data import TrainingBatches
from tinyseg.distill.losses import FeatureAdapter, distil_loss
from tinyseg.distill.model import EMBED_DIM
from tinyseg.distill.step_inputs import StepInputs
from tinyseg.distill.teachers import Answer, Encoded, Teacher, load_teacher, match_readings
from tinyseg.errors import InputError


@dataclass(frozen=True)
class Teaching:
    """Who says what the student learns beside the ground truth, and what learns the teacher's embedding and tokens."""

    source: Teacher | StoredAnswers
    adapter: FeatureAdapter | None

    def encode(self, inputs: StepInputs) -> Encoded:
        if isinstance(self.source, StoredAnswers):
            return self.source.encode(inputs.number, inputs.target.device)
        return self.source.encode(inputs.pixels)

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
