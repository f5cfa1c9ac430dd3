"""Everything that decides a training, and the flags that fill it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tinyseg.distill.data import Mixing
from tinyseg.distill.flags import MOST_SEED, check_numbers, flag, nested
from tinyseg.distill.shape import SIZES
from tinyseg.errors import InputError

ROUND_SHARES = (0.35, 0.45, 0.2)  # of steps with 1, 2 and 3 rounds
PRECISIONS = ("bf16", "fp32")  # bf16 wants a processor that computes in it: on others a step takes ten times as long
LEAST_PEAK = 1e-9  # learning rate: less teaches nothing
MOST_STEPS = 10_000_000  # their numbers are listed
MOST_INSTANCES = 64  # prompts a photo: memory grows with them, and no photo has so many to ask about
MOST_WORKERS = 1024
# Groups of flags. What is in DATA decides the batches and their prompts: train and answers must be given the same.
DATA, STUDENT, RUN = "data", "student", "run"
TEACHING = "what the teacher says counts beside the ground truth (0: not at all)"


@dataclass(frozen=True)
class DistilWeights:
    """How much each part of what a teacher says counts beside the ground truth; 0 leaves it out.

    masks: bce + dice with the teacher's probabilities (EdgeSAM, section 3.3). logits: l1 of the logits, in tens. iou: squared
    error of all four predicted IoU. embedding, tokens: l1 after a projection to the teacher's channels (TinySAM, section 3.1). hard:
    weigh every prompt's masks by sigmoid(IoU of the teacher / IoU of the student - 1), both against the truth (TinySAM,
    section 3.2). rounds: ask the teacher in the correcting rounds too, and click there where it and the student disagree
    instead of where the student is wrong (EdgeSAM, section 3.3).
    """

    masks: float = field(default=0.5, metadata=flag("its masks", "distil", "W"))
    logits: float = field(default=0.0, metadata=flag("its logits, by l1", "distil", "W"))
    iou: float = field(default=0.0, metadata=flag("its predicted IoU", "distil", "W"))
    embedding: float = field(default=0.0, metadata=flag("its embedding", "distil", "W"))
    tokens: float = field(default=0.0, metadata=flag("its output tokens", "distil", "W"))
    hard: bool = field(
        default=False, metadata=flag("weigh prompts by how much better the teacher is on them", "distil")
    )
    rounds: bool = field(
        default=False,
        metadata=flag("ask it in the correcting rounds too, and click where it and the student disagree", "distil"),
    )

    def __post_init__(self) -> None:
        check_numbers(self, "distil-")

    @property
    def any(self) -> bool:
        """Whether anything of the teacher counts."""
        return bool(self.masks or self.logits or self.iou or self.of_features)

    @property
    def of_features(self) -> bool:
        """Whether anything but answers is learned, which takes a FeatureAdapter."""
        return bool(self.embedding or self.tokens)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run; saved beside its checkpoint."""

    data: tuple[str, ...] = field(metadata=flag("tar files or folders with annotations.jsonl.gz", DATA, "PATH"))
    out: str = ""
    size: str = field(default="base", metadata=flag("of the student", STUDENT, choices=tuple(SIZES)))
    backbone: str | None = field(
        default=None, metadata=flag("npz with MobileNetV2 weights to start from (default: random)", STUDENT, "FILE")
    )
    start: str | None = field(
        default=None,
        metadata=flag(
            "weights to start from: a model folder, a packaged model's name, or a checkpoint", STUDENT, "PLACE"
        ),
    )
    freeze: int = field(
        default=0,
        metadata=flag(
            "keep the stem and the first N blocks of the backbone as they are: faster steps for a finetune",
            STUDENT,
            "N",
        ),
    )
    freeze_norms: bool = field(
        default=False,
        metadata=flag(
            "keep the statistics of all batch norms as --start has them, as the exported model will (for a finetune)",
            STUDENT,
        ),
    )
    steps: int = field(
        default=6000, metadata=flag("length of the whole training", STUDENT, "N", least=1, most=MOST_STEPS)
    )
    minutes: float | None = field(
        default=None,
        metadata=flag("time budget of the whole training; whichever ends first counts", RUN, "M", least=0.001),
    )
    batch_size: int = field(
        default=8,
        metadata=flag(
            "photos a step at 320 pixels; fewer where they are larger, more where smaller",
            DATA,
            "N",
            least=1,
            most=1024,
        ),
    )
    instances: int = field(default=3, metadata=flag("prompts a photo", DATA, "N", least=1, most=MOST_INSTANCES))
    learning_rate: float = field(default=1e-3, metadata=flag("peak rate", STUDENT, "R", least=LEAST_PEAK))
    backbone_rate: float = 0.3  # the backbone's learning rate as a share of the rest's
    weight_decay: float = 0.03
    seed: int = field(default=0, metadata=flag("of samples and prompts", DATA, "N", most=MOST_SEED))
    device: str = field(default="cpu", metadata=flag("where to train", DATA, choices=("cpu", "cuda")))
    precision: str = field(
        default="bf16",
        metadata=flag(
            "arithmetic of a step; fp32 on processors that do not compute in bf16", STUDENT, choices=PRECISIONS
        ),
    )
    workers: int = field(
        default=1,
        metadata=flag("processes that cut samples; 0: none but the one that trains", STUDENT, "N", most=MOST_WORKERS),
    )
    validate_every: int = field(default=1000, metadata=flag("steps between validations", RUN, "N", least=1))
    validation_photos: int = field(default=120, metadata=flag("photos to validate on", STUDENT, "N"))
    oversample: dict[str, float] = field(
        default_factory=dict, metadata=flag("draw photos of a source more often (repeatable)", DATA, "SOURCE=FACTOR")
    )
    mixing: Mixing = field(default_factory=Mixing, metadata=nested(DATA))
    rounds: int = field(default=3, metadata=flag("most rounds of clicks where the answer was wrong", RUN, "N"))
    data_on_device: bool = field(
        default=False,
        metadata=flag(
            "decode every photo once into the device's memory and cut samples there (for GPUs with memory to spare: 1 GB "
            "for 500 photos)",
            DATA,
        ),
    )
    teacher: str | None = field(
        default=None,
        metadata=flag(
            "learn from a larger model too: tinyseg:FOLDER, sam:NAME_OR_FOLDER, flip:TEACHER, several with commas",
            STUDENT,
            "NAME",
        ),
    )
    answers: str | None = field(
        default=None,
        metadata=flag("learn from answers of a teacher that were stored (see the answers command)", RUN, "DIR"),
    )
    distil: DistilWeights = field(default_factory=DistilWeights, metadata=nested(TEACHING, "distil-"))
    ground_truth: float = field(
        default=1.0,
        metadata=flag(
            "the labels themselves; 0 leaves the teacher alone, for labels that only say where to ask", TEACHING, "W"
        ),
    )

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 1 <= self.rounds <= len(ROUND_SHARES):
            raise InputError(f"--rounds takes 1 to {len(ROUND_SHARES)}, got {self.rounds}")
        if self.teacher and self.answers:
            raise InputError("--answers hold what a teacher said: give --teacher or --answers, not both")
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
        if self.precision not in PRECISIONS:
            raise InputError(f"--precision takes {' or '.join(PRECISIONS)}, got {self.precision!r}")
        if self.size not in SIZES:
            raise InputError(f"--size takes {' or '.join(SIZES)}, got {self.size!r}")
        if self.backbone and self.start:
            raise InputError("--start brings its own backbone: give --start or --backbone, not both")
        if self.freeze_norms and not self.start:
            raise InputError("--freeze-norms keeps the statistics of weights that are trained: give them with --start")
        for path in (*self.data, *(p for p in (self.backbone, self.start, self.answers) if p)):
            if not Path(path).exists():
                raise InputError(f"{path} does not exist")
