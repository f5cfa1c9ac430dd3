"""The sizes of the student: what differs between them, and the table of MobileNetV2 that they are cut from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyseg.errors import InputError

# (expansion, output channels, repeats, stride) of every stage: MobileNetV2, table 2, width 1.0.
MOBILENET_V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


# What the other fields may be: least and most.
_NUMBERS = {"decoder_layers": (1, 16), "width": (1, 8), "score_width": (0, 4096)}


@dataclass(frozen=True)
class StudentShape:
    """What differs between the sizes of the student; kept in model.json as ``architecture``."""

    repeats: tuple[int, ...] = tuple(stage[2] for stage in MOBILENET_V2_STAGES)  # of the backbone's stages
    decoder_layers: int = 2
    width: int = 1  # multiplies the backbone's channels
    score_width: int = 0  # hidden units of the scores' head that sees the masks, see rank.py; 0: there is none

    def __post_init__(self) -> None:
        most = [stage[2] for stage in MOBILENET_V2_STAGES]
        if len(self.repeats) != len(most) or any(not 1 <= a <= b for a, b in zip(self.repeats, most)):
            raise InputError(f"a student's stages repeat between 1 and {most} times, got {list(self.repeats)}")
        # A model.json may be a stranger's: without a limit its figures would ask for any amount of memory.
        for name, (least, limit) in _NUMBERS.items():
            value = getattr(self, name)
            if not least <= value <= limit:
                told = name.replace("_", " ")
                raise InputError(f"a student's {told} is a whole number from {least} to {limit}, got {value}")

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> StudentShape:
        """From ``dataclasses.asdict`` or model.json. Raises InputError."""
        try:
            return cls(
                tuple(row["repeats"]), int(row["decoder_layers"]), int(row.get("width", 1)),
                int(row.get("score_width", 0)),
            )  # fmt: skip
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as exc:
            raise InputError(f"not the architecture of a student: {row!r:.200} ({exc})") from exc

    @property
    def kept_blocks(self) -> tuple[int, ...]:
        """For every block of the backbone, its index in the whole MobileNetV2: the first ones of every stage are kept."""
        most = [stage[2] for stage in MOBILENET_V2_STAGES]
        return tuple(sum(most[:s]) + i for s, repeats in enumerate(self.repeats) for i in range(repeats))


SIZES = {
    "base": StudentShape(),
    "small": StudentShape(repeats=(1, 2, 2, 2, 2, 2, 1), decoder_layers=1),
    "large": StudentShape(width=2),
}
