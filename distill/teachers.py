"""Teachers: larger promptable models whose answers a student learns from.

Every teacher encodings at square samples, as training cuts them, which gives its embedding; what it has looked at it is asked about
with K prompts in the sample's pixels, as often as wanted, which gives mask logits on the stride-4 grid, predicted IoU and the
decoder's output tokens.

    tinyseg:FOLDER        a model folder of tinyseg, or a packaged model's name, as in "tinyseg:base"
    sam:NAME_OR_FOLDER    SAM, SAM-HQ, SAM 2/2.1, SAM 3 or EdgeTAM through transformers, from the hub or a local folder
    flip:TEACHER          a teacher that also encodings at the mirrored image and answers with the mean of both
    several, with commas  an ensemble: the mean of the probabilities

Sources: TinySAM (arXiv 2312.13789, sections 3.1 and 3.2), EdgeSAM (arXiv 2312.06660, section 3.3).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from tinyseg.distill.model import EMBED_DIM, NUM_MASKS, Student, normalise
from tinyseg.distill.prompts import PromptBatch
from tinyseg.distill.warm_start import folder_shape, graphs_digest, load_folder
from tinyseg.errors import InputError, NotInstalled
from tinyseg.geometry import LOGIT_STRIDE, MEAN, STD
from tinyseg.graphs.model import DEFAULT_MODEL, model_place
from tinyseg.prompts.layout import LABEL_BOX_TOP_LEFT, LABEL_NEGATIVE, LABEL_PADDING, LABEL_POSITIVE

LOGIT_LIMIT = 12.0
# Mean and spread on [0, 255] that a model is fed with: ImageNet's, or plain [-1, 1].
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
PLAIN = ((MEAN,) * 3, (STD,) * 3)
# The model type in a configuration -> the class that answers prompts on images, and its statistics. Published SAM 2, SAM 3 and
# EdgeTAM name their video models there, whose weights hold the image model's.
SAM_KINDS = {
    "sam": ("SamModel", IMAGENET),
    "sam_hq": ("SamHQModel", IMAGENET),
    "sam2": ("Sam2Model", IMAGENET),
    "sam2_video": ("Sam2Model", IMAGENET),
    "sam3": ("Sam3TrackerModel", PLAIN),
    "sam3_video": ("Sam3TrackerModel", PLAIN),
    "sam3_tracker": ("Sam3TrackerModel", PLAIN),
    "sam3_tracker_video": ("Sam3TrackerModel", PLAIN),
    "edgetam": ("EdgeTamModel", IMAGENET),
    "edgetam_video": ("EdgeTamModel", IMAGENET),
}


@dataclass(frozen=True)
class Answer:
    """What a teacher says to n prompts.

    logits (n, 4, S/4, S/4): mask 0 for unambiguous prompts, three readings. iou (n, 4): predicted. tokens (n, 5, C): what the
    decoder read them from, the IoU's token and the four masks'.
    """

    logits: Tensor
    iou: Tensor
    tokens: Tensor


class Encoded(Protocol):
    """B samples that a teacher has looked at."""

    @property
    def embedding(self) -> Tensor:
        """(B, C, h, w)."""
        ...

    def answer(self, prompts: PromptBatch) -> Answer:
        """n = B * K prompts in sample pixels, those of one image together."""
        ...


class Teacher(Protocol):
    """Looks at samples and answers prompts; never trained."""

    name: str
    channels: int  # of its embedding and of its tokens

    def encode(self, image: Tensor) -> Encoded:
        """image (B, S, S, 3) uint8 RGB."""
        ...


def weights_of(teacher: Teacher) -> str:
    """What tells teachers of one name apart, models in folders that are called alike; "" where the name says it all."""
    return str(getattr(teacher, "weights", ""))


class StudentTeacher:
    """A model folder of tinyseg, run by torch."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.name = f"tinyseg:{folder.name}"
        self._student = Student(folder_shape(folder)).eval().requires_grad_(False)
        # Its batch norms measure themselves on a fixed noise image; the function does not depend on on what.
        load_folder(self._student, folder, run_on_noise)
        self.weights = graphs_digest(folder)
        # Depthwise convolutions of many prompts in another layout run on one core, several times slower.
        self._student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.channels = EMBED_DIM

    @torch.no_grad()
    def encode(self, image: Tensor) -> Encoded:
        return StudentEncoded.at(self._student, image)


@dataclass(frozen=True)
class StudentEncoded:
    """Samples that a student, or a StudentTeacher, has looked at."""

    student: Student
    features: tuple[Tensor, Tensor, Tensor]

    @classmethod
    def at(cls, student: Student, image: Tensor) -> StudentEncoded:
        """image (B, S, S, 3) uint8 RGB."""
        return cls(student, student.encoder(normalise(image)))

    @property
    def embedding(self) -> Tensor:
        return self.features[0].float()

    @torch.no_grad()
    def answer(self, prompts: PromptBatch) -> Answer:
        count = len(prompts.points) // len(self.features[0])
        embedding, skip8, skip4 = (f.repeat_interleave(count, 0) for f in self.features)
        logits, iou, tokens = self.student.decoder.decode(
            embedding, skip8, skip4, prompts.points, prompts.labels, prompts.mask, prompts.has_mask
        )  # fmt: skip
        return Answer(logits.float(), iou.float(), tokens.float())


def run_on_noise(student: Student) -> None:
    """Encoder and decoder once on fixed noise, for ``load_folder``: the function that it loads does not depend on on what."""
    generator = torch.Generator().manual_seed(0)
    features = student.encoder(torch.rand(2, 3, 256, 256, generator=generator) * 2 - 1)
    points = torch.rand(2, 4, 2, generator=generator) * 256
    labels = torch.tensor([[2.0, 3.0, 1.0, -1.0], [-1.0, -1.0, 1.0, 0.0]])
    student.decoder(*features, points, labels, torch.randn(2, 1, 64, 64, generator=generator), torch.ones(2))


class SamTeacher:
    """SAM or one of its successors, of the transformers library."""

    def __init__(self, name: str, device: torch.device) -> None:
        try:
            import transformers  # noqa: PLC0415 - heavy, and an extra
        except ModuleNotFoundError as exc:
            raise NotInstalled(f"{exc.name} is not installed; run: pip install 'tinyseg[baseline]'") from exc
        try:
            kind = transformers.AutoConfig.from_pretrained(name).model_type
        except (OSError, ValueError) as exc:
            raise InputError(f"teacher {name!r} cannot be loaded ({_first_line(exc)})") from exc
        if kind not in SAM_KINDS:
            raise InputError(f"teacher {name!r} is a {kind} model; {', '.join(SAM_KINDS)} can teach")
        if kind.startswith("edgetam") and importlib.util.find_spec("timm") is None:
            raise NotInstalled(f"teacher {name!r} needs timm for its backbone; run: pip install timm")
        try:
            model, found = getattr(transformers, SAM_KINDS[kind][0]).from_pretrained(name, output_loading_info=True)
        except AttributeError as exc:
            raise NotInstalled(
                f"transformers {transformers.__version__} has no {SAM_KINDS[kind][0]}; run: pip install -U transformers"
            ) from exc
        except (OSError, ValueError, RuntimeError) as exc:
            raise InputError(f"teacher {name!r} cannot be loaded ({_first_line(exc)})") from exc
        if missing := sorted(found["missing_keys"]):  # the library fills them at random and only warns
            raise InputError(
                f"teacher {name!r} lacks {len(missing)} of its weights ({missing[0]}, ...); use a checkpoint of {SAM_KINDS[kind][0]}"
            )
        self._set(f"sam:{name}", kind, model, device)

    @classmethod
    def of(cls, name: str, model: Any, device: torch.device) -> SamTeacher:
        """A model that is loaded already."""
        teacher = cls.__new__(cls)
        teacher._set(name, model.config.model_type, model, device)
        return teacher

    def _set(self, name: str, kind: str, model: Any, device: torch.device) -> None:
        self.name = name
        self._model = model.to(device).eval().requires_grad_(False)
        self._mean, self._std = (torch.tensor(v, device=device)[:, None, None] for v in SAM_KINDS[kind][1])
        self._side = int(model.config.prompt_encoder_config.image_size)
        self.channels = int(model.config.mask_decoder_config.hidden_size)
        # The library does not return the output tokens; they are what its decoder's transformer says first. Where there is a
        # token for whether the object is there at all, it comes before the IoU's.
        self._tokens = torch.empty(0)
        self._first_token = int(hasattr(model.mask_decoder, "obj_score_token"))
        model.mask_decoder.transformer.register_forward_hook(self._keep_tokens)

    def _keep_tokens(self, _module: object, _inputs: object, output: Sequence[Tensor]) -> None:
        self._tokens = output[0][:, 0, self._first_token : self._first_token + 1 + NUM_MASKS]

    @torch.no_grad()
    def encode(self, image: Tensor) -> Encoded:
        pixels = F.interpolate(
            image.permute(0, 3, 1, 2).float(), (self._side, self._side), mode="bilinear", antialias=True
        )  # fmt: skip
        seen = SamFeatures(self._model.get_image_embeddings((pixels - self._mean) / self._std))
        return SamEncoded(self, seen, len(image), image.shape[1])

    @torch.no_grad()
    def ask(self, seen: SamFeatures, prompts: PromptBatch, images: int, side: int) -> Answer:
        """What ``SamEncoded.answer`` returns, for samples (images, side, side, 3)."""
        count = len(prompts.points) // images
        rows = [
            self._ask_one(seen.of_image(i // count), prompts, i, self._side / side) for i in range(images * count)
        ]  # fmt: skip
        logits, iou, tokens = (torch.cat(parts).float() for parts in zip(*rows))
        logits = F.interpolate(logits, (side // LOGIT_STRIDE,) * 2, mode="bilinear", align_corners=False)
        return Answer(logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT), iou, tokens)

    def _ask_one(
        self, seen: dict[str, Any], prompts: PromptBatch, index: int, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(1, 4, h, w) logits, (1, 4) IoU, (1, 5, C) tokens. Prompts differ in their parts, so they are asked one by one."""
        labels, points = prompts.labels[index], prompts.points[index] * scale
        clicks = (labels == LABEL_POSITIVE) | (labels == LABEL_NEGATIVE)
        asked: dict[str, Any] = {}
        if clicks.any():
            asked["input_points"] = points[clicks][None, None]
            asked["input_labels"] = labels[clicks].long()[None, None]
        if (labels == LABEL_BOX_TOP_LEFT).any():
            asked["input_boxes"] = points[:2].reshape(1, 1, 4)
        if not asked:  # a mask alone: its best point stands for it
            asked["input_points"] = _inside(prompts.mask[index, 0], scale)[None, None, None]
            asked["input_labels"] = torch.ones(1, 1, 1, dtype=torch.long, device=points.device)
        single = self._model(**seen, **asked, multimask_output=False)
        several = self._model(**seen, **asked, multimask_output=True)
        masks = torch.cat([single.pred_masks[:, 0, :1], several.pred_masks[:, 0, -3:]], 1)
        scores = torch.cat([single.iou_scores[:, 0, :1], several.iou_scores[:, 0, -3:]], 1)
        return masks, scores, self._tokens


class SamFeatures:
    """What the image encoders of the library return, under one face: a map, several maps, or a map and what led to it."""

    def __init__(self, found: Any) -> None:
        self._map: Any = found
        self._intermediate: list[Tensor] | None = None
        if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], (list, tuple)):  # SAM-HQ
            self._map, self._intermediate = found[0], list(found[1])

    @property
    def embedding(self) -> Tensor:
        """(B, C, h, w), the coarsest map."""
        found: Tensor = self._map[-1] if isinstance(self._map, (list, tuple)) else self._map
        return found

    def of_image(self, index: int) -> dict[str, Any]:
        """Arguments of the model for one image of the batch."""
        part = slice(index, index + 1)
        several = isinstance(self._map, (list, tuple))
        row: dict[str, Any] = {"image_embeddings": [m[part] for m in self._map] if several else self._map[part]}
        if self._intermediate is not None:
            row["intermediate_embeddings"] = [m[part] for m in self._intermediate]
        return row


@dataclass(frozen=True)
class SamEncoded:
    """Samples that a SamTeacher has looked at."""

    teacher: SamTeacher
    seen: SamFeatures
    images: int
    side: int

    @property
    def embedding(self) -> Tensor:
        return self.seen.embedding.float()

    def answer(self, prompts: PromptBatch) -> Answer:
        return self.teacher.ask(self.seen, prompts, self.images, self.side)


def _first_line(exc: Exception) -> str:
    return next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)


def _inside(mask: Tensor, scale: float) -> Tensor:
    """The position of a mask's highest logit, (2,) in the teacher's pixels."""
    y, x = divmod(int(mask.flatten().argmax()), mask.shape[-1])
    return (torch.tensor([x, y], device=mask.device).float() + 0.5) * LOGIT_STRIDE * scale


class Flipped:
    """A teacher that encodings at the image and at its mirror image; embedding and tokens are those of the image."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.name, self.channels = f"flip:{teacher.name}", teacher.channels
        self.weights = weights_of(teacher)

    def encode(self, image: Tensor) -> Encoded:
        return FlippedEncoded(self.teacher.encode(image), self.teacher.encode(image.flip(2)), image.shape[2])


@dataclass(frozen=True)
class FlippedEncoded:
    """Samples that a Flipped teacher has looked at."""

    straight: Encoded
    mirrored: Encoded
    width: int

    @property
    def embedding(self) -> Tensor:
        return self.straight.embedding

    def answer(self, prompts: PromptBatch) -> Answer:
        width = self.width
        straight = self.straight.answer(prompts)
        points = prompts.points.clone()
        real = prompts.labels != LABEL_PADDING
        points[..., 0] = torch.where(real, width - points[..., 0], points[..., 0])
        box = prompts.labels[:, 0] == LABEL_BOX_TOP_LEFT  # left and right change places
        left, right = points[:, 0, 0].clone(), points[:, 1, 0].clone()
        points[:, 0, 0] = torch.where(box, right, left)
        points[:, 1, 0] = torch.where(box, left, right)
        mirrored = self.mirrored.answer(PromptBatch(points, prompts.labels, prompts.mask.flip(-1), prompts.has_mask))
        logits = mean_logits([straight.logits, mirrored.logits.flip(-1)])
        return Answer(logits, (straight.iou + mirrored.iou) / 2, straight.tokens)


class Ensemble:
    """Several teachers as one: the mean of their probabilities; embedding and tokens are the first one's.

    Readings of an ambiguous prompt come in no fixed order, so they are matched to the first teacher's by their overlap.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        self.teachers = list(teachers)
        self.name, self.channels = ",".join(t.name for t in teachers), teachers[0].channels
        self.weights = ",".join(map(weights_of, teachers))

    def encode(self, image: Tensor) -> Encoded:
        return EnsembleEncoded([t.encode(image) for t in self.teachers])


@dataclass(frozen=True)
class EnsembleEncoded:
    """Samples that all of an Ensemble have looked at."""

    encodings: Sequence[Encoded]

    @property
    def embedding(self) -> Tensor:
        return self.encodings[0].embedding

    def answer(self, prompts: PromptBatch) -> Answer:
        first, *others = (encoded.answer(prompts) for encoded in self.encodings)
        logits, scores = [first.logits], [first.iou]
        for other in others:
            order = match_readings(first.logits, other.logits)
            logits.append(other.logits.gather(1, order[:, :, None, None].expand_as(other.logits)))
            scores.append(other.iou.gather(1, order))
        return Answer(mean_logits(logits), torch.stack(scores).mean(0), first.tokens)


def match_readings(reference: Tensor, other: Tensor) -> Tensor:
    """(n, 4) order of the other's masks (n, 4, h, w): mask 0 stays, each reading takes the reference's most alike."""
    a, b = (x[:, 1:].sigmoid().flatten(2) for x in (reference, other))
    overlap = a @ b.transpose(1, 2)
    iou = overlap / (a.sum(2)[:, :, None] + b.sum(2)[:, None, :] - overlap).clamp(min=1e-6)  # (n, 3, 3)
    order = torch.zeros(len(a), 3, dtype=torch.long, device=a.device)
    for _ in range(3):  # greedy: the best pair first
        best = iou.flatten(1).argmax(1)
        row, column = best // 3, best % 3
        index = torch.arange(len(a), device=a.device)
        order[index, row] = column
        iou[index, row, :] = -1
        iou[index, :, column] = -1
    return torch.cat((torch.zeros_like(order[:, :1]), order + 1), 1)


def mean_logits(logits: Sequence[Tensor]) -> Tensor:
    """Logits of the mean probability."""
    p = torch.stack([x.sigmoid() for x in logits]).mean(0)
    return torch.logit(p.clamp(1e-5, 1 - 1e-5)).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)


def load_teacher(text: str, device: torch.device) -> Teacher:
    """A teacher by its name, see above. Raises InputError or NotInstalled."""
    parts = [p.strip() for p in text.split(",") if p.strip()]
    if len(parts) != 1:
        if not parts:
            raise InputError(f"--teacher needs a name, such as tinyseg:{DEFAULT_MODEL} or sam:facebook/sam-vit-base")
        return Ensemble([load_teacher(p, device) for p in parts])
    kind, _, rest = parts[0].partition(":")
    if kind == "flip" and rest:
        return Flipped(load_teacher(rest, device))
    if kind == "tinyseg" and rest:
        return StudentTeacher(model_place(rest), device)
    if kind == "sam" and rest:
        return SamTeacher(rest, device)
    raise InputError(
        f"teacher {text!r} is not known; give tinyseg:FOLDER, sam:NAME, flip:TEACHER, or several with commas"
    )
