"""A teacher's answers, computed once and stored, so that many trainings can learn from them.

Batches and their first prompts are pure functions of the configuration and the batch's number: what a teacher says to
batch n is the same for every training with that configuration, whatever its student and losses are. A store holds the
answers to batches 0, 1, ... in shards (``answers-00000.npz``), and ``answers.json`` says what they answer. Making a store can
be stopped and gone on with; a shard is written when it is whole.

Logits are kept as int8 (LOGIT_RANGE on either side), predicted IoU, tokens and embeddings as fp16, all deflated.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyseg.distill.config import TrainConfig
from tinyseg.distill.data import TrainingBatches
from tinyseg.distill.device_data import DeviceBatches
from tinyseg.distill.losses import LOGIT_RANGE
from tinyseg.distill.parallel import checked_device
from tinyseg.distill.prompts import PromptBatch
from tinyseg.distill.step_inputs import open_batches, step_inputs
from tinyseg.distill.teachers import Answer, Teacher, load_teacher, weights_of
from tinyseg.errors import DataError, InputError
from tinyseg.files import write_bytes
from tinyseg.system.progress import progress

SHARD = 16  # batches
INDEX = "answers.json"


def answers_key(config: TrainConfig, batches: TrainingBatches, device: torch.device) -> dict[str, Any]:
    """Everything that decides what a teacher is asked; two configurations with the same key share a store."""
    names = "\n".join(f"{p.name} {p.source} {len(p.instances)}" for p in batches.photos)
    return {
        "photos": len(batches.photos),
        "photos_sha256": hashlib.sha256(names.encode()).hexdigest()[:16],
        "batch_size": config.batch_size,
        "instances": config.instances,
        "seed": config.seed,
        "oversample": dict(sorted(config.oversample.items())),
        "mixing": asdict(config.mixing),
        "sizes": [list(s) for s in batches.SIZES],
        # Each kind of device draws random numbers of its own.
        "device": device.type,
        "data_on_device": config.data_on_device,
    }


def read_index(folder: Path) -> dict[str, Any]:
    """answers.json. Raises InputError."""
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text())
        index["teacher"], index["key"].items(), int(index["count"]), int(index["channels"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise InputError(
            f"{folder} holds no stored answers; make them with: python -m tinyseg.distill answers ... --out {folder}"
        ) from exc
    return index


def require_key(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise InputError where stored answers belong to another configuration."""
    for name, value in wanted.items():
        if found.get(name) != value:
            raise InputError(
                f"{folder} holds answers to other questions: {name} is {found.get(name)!r} there and {value!r} here; "
                "train with the options that the answers were made with, or store others"
            )


@dataclass(frozen=True)
class StoredEncoded:
    """A batch that a teacher looked at once; it holds the answer to the batch's first prompts and knows no other."""

    embedding: Tensor  # (B, C, h, w), of no size where none is stored
    first: Answer

    def answer(self, prompts: PromptBatch) -> Answer:
        """Whoever asks must ask the first prompts: they are given by the batch's number."""
        if len(prompts.points) != len(self.first.logits):
            raise DataError("stored answers are of another number of prompts")
        return self.first


class StoredAnswers:
    """Answers of a store, by the number of the batch."""

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        index = read_index(folder)
        require_key(folder, index["key"], key)
        self.folder = folder
        self.name = f"stored answers of {index['teacher']}"
        self.count = int(index["count"])
        self.channels = int(index["channels"])  # of embeddings and tokens, 0 where none are stored
        if self.count < 1:
            raise InputError(f"{folder} holds no answer yet")
        self._shard: tuple[int, dict[str, np.ndarray]] = (-1, {})

    def encode(self, number: int, device: torch.device) -> StoredEncoded:
        """What is stored of batch ``number`` (below ``count``). Raises DataError where its shard is damaged."""
        shard = number // SHARD
        if self._shard[0] != shard:
            path = shard_path(self.folder, shard)
            try:
                with np.load(path) as arrays:
                    self._shard = (shard, {name: arrays[name] for name in arrays.files})
            except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as exc:
                raise DataError(f"{path} cannot be read ({exc}); delete it and run the answers command again") from exc
        arrays = self._shard[1]
        try:
            logits, iou = arrays[f"logits{number}"], arrays[f"iou{number}"]
            embedding = arrays[f"embedding{number}"] if self.channels else np.zeros((0, 0, 1, 1), np.float16)
            tokens = arrays[f"tokens{number}"] if self.channels else np.zeros((0, 0, 0), np.float16)
        except KeyError as exc:
            raise DataError(f"{self.folder} lacks the answer to batch {number} ({exc})") from exc
        return StoredEncoded(
            torch.from_numpy(embedding).to(device).float(),
            Answer(
                torch.from_numpy(logits).to(device).float() * (LOGIT_RANGE / 127),
                torch.from_numpy(iou).to(device).float(),
                torch.from_numpy(tokens).to(device).float(),
            ),
        )


def shard_path(folder: Path, shard: int) -> Path:
    return folder / f"answers-{shard:05d}.npz"


def require_folder(folder: Path) -> None:
    """Make the folder of a store. Raises DataError, before the teacher is loaded."""
    if folder.is_file():
        raise DataError(f"--out {folder} is a file, and answers are stored in a folder; name another place")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DataError(f"--out {folder} cannot be made a folder ({exc.strerror or exc}); name another place") from exc


def write_index(folder: Path, teacher: Teacher, count: int, channels: int, key: Mapping[str, Any]) -> None:
    """Say what a store holds: whose answers to how many batches, and the options that decide these. Raises DataError."""
    whose = {"teacher": teacher.name, "weights": weights_of(teacher)}
    content = {**whose, "count": count, "channels": channels, "key": dict(key)}
    write_bytes(folder / INDEX, json.dumps(content, indent=1).encode())


def store_answers(config: TrainConfig, teacher_name: str, count: int, folder: Path, *, embeddings: bool) -> int:
    """Ask a teacher the first prompts of batches 0 to ``count`` - 1; returns the bytes of the store.

    Shards that are there already are kept. Raises InputError where the folder holds answers to other questions.
    """
    if count < 1:
        raise InputError("--steps must be at least 1")
    device = checked_device(config.device)
    require_folder(folder)
    batches, _ = open_batches(config)
    source: TrainingBatches | DeviceBatches = DeviceBatches(batches, device) if config.data_on_device else batches
    teacher = load_teacher(teacher_name, device)
    channels = teacher.channels if embeddings else 0
    key = answers_key(config, batches, device)
    if (folder / INDEX).exists():
        index = read_index(folder)
        whose = {"teacher": teacher.name, "weights": weights_of(teacher)}
        told = {name: index.get(name, value) for name, value in whose.items()}  # older stores do not tell the weights
        require_key(folder, {**index["key"], **told}, {**key, **whose})
        if int(index["channels"]) != channels:
            raise InputError(f"{folder} was begun with{'out' if embeddings else ''} --embeddings; go on likewise")
    elif any(folder.glob("answers-*.npz")):
        raise DataError(f"{folder} holds answers, and no {INDEX} says to what; give another --out, or delete them")
    else:
        # Before the first shard: one that is there already is kept, and must not be of other questions.
        write_index(folder, teacher, 0, channels, key)
    shards = -(-count // SHARD)
    start, asked = time.monotonic(), 0
    for shard in progress(range(shards), f"shards of {SHARD} batches"):
        path = shard_path(folder, shard)
        if not path.exists():
            arrays: dict[str, np.ndarray] = {}
            for number in range(shard * SHARD, (shard + 1) * SHARD):
                inputs = step_inputs(source[number], config, device)
                encoded = teacher.encode(inputs.pixels)
                answer = encoded.answer(inputs.prompts)
                scaled = (answer.logits.clamp(-LOGIT_RANGE, LOGIT_RANGE) * (127 / LOGIT_RANGE)).round()
                arrays[f"logits{number}"] = scaled.to(torch.int8).cpu().numpy()
                arrays[f"iou{number}"] = answer.iou.half().cpu().numpy()
                if embeddings:
                    arrays[f"embedding{number}"] = encoded.embedding.half().cpu().numpy()
                    arrays[f"tokens{number}"] = answer.tokens.half().cpu().numpy()
            packed = io.BytesIO()
            np.savez_compressed(packed, allow_pickle=False, **arrays)
            write_bytes(path, packed.getvalue())
            asked += SHARD
        if read_index(folder)["count"] < (shard + 1) * SHARD:
            write_index(folder, teacher, (shard + 1) * SHARD, channels, key)
    size = sum(p.stat().st_size for p in folder.glob("answers-*.npz"))
    rate = asked / max(time.monotonic() - start, 1e-9)
    print(
        f"{read_index(folder)['count']} batches in {folder}: {size / 1e6:.1f} MB"
        + (f", {rate:.2f} batches/s" if asked else ", all were there already")
    )
    return size
