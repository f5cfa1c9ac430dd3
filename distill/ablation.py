"""Short paired trainings that differ in one thing each: what every part of the recipe is worth.

All runs share data, start and number of steps, so their batches are the same wherever the varied part allows it. Short runs
rank what helps early on; the same recipe with another seed tells which differences mean nothing.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tinyseg.bench.rows import markdown_table
from tinyseg.distill.config import DistilWeights, TrainConfig
from tinyseg.distill.data import Mixing
from tinyseg.distill.run_folder import CONFIG
from tinyseg.distill.train import train
from tinyseg.errors import InputError
from tinyseg.files import write_bytes

FIGURES = ("box_frame", "box_zoom", "click_frame", "oracle_frame", "click3_frame")
HEADINGS = ("box", "box, closer look", "1 click", "best of 3", "3 clicks")
FREE = ("out", "workers")  # options that change no figure
NO_TEACHER = DistilWeights(masks=0.0)


def _alone(config: TrainConfig) -> TrainConfig:
    return replace(config, teacher=None, distil=NO_TEACHER)


def _taught(config: TrainConfig, distil: DistilWeights) -> TrainConfig:
    return replace(config, distil=distil)


# Name -> (needs a teacher, what it makes of the given configuration).
VARIANTS: dict[str, tuple[bool, Callable[[TrainConfig], TrainConfig]]] = {
    "ground truth alone": (False, _alone),
    "the same, other seed": (False, lambda c: replace(_alone(c), seed=c.seed + 1)),
    "no correcting rounds": (False, lambda c: replace(_alone(c), rounds=1)),
    "copy-paste 0.25": (False, lambda c: replace(_alone(c), mixing=Mixing(copy_paste=0.25))),
    "mosaic 0.25": (False, lambda c: replace(_alone(c), mixing=Mixing(mosaic=0.25))),
    "teacher's masks": (True, lambda c: _taught(c, DistilWeights(masks=0.5))),
    "masks, l1 of logits": (True, lambda c: _taught(c, DistilWeights(masks=0.5, logits=0.5))),
    "masks, in every round": (True, lambda c: _taught(c, DistilWeights(masks=0.5, rounds=True))),
    "masks, hard prompts": (True, lambda c: _taught(c, DistilWeights(masks=0.5, hard=True))),
    "masks, predicted IoU": (True, lambda c: _taught(c, DistilWeights(masks=0.5, iou=1.0))),
    "masks, embedding": (True, lambda c: _taught(c, DistilWeights(masks=0.5, embedding=0.5))),
    "masks, output tokens": (True, lambda c: _taught(c, DistilWeights(masks=0.5, tokens=0.5))),
    # All that can stand in for the ground truth: every round is taught, and so are the scores.
    "teacher alone": (
        True,
        lambda c: replace(_taught(c, DistilWeights(masks=1.0, iou=1.0, rounds=True)), ground_truth=0.0),
    ),
}


@dataclass(frozen=True)
class AblationRow:
    """One variant's figures on the validation photos at the end of its run."""

    variant: str
    steps: int
    box_frame: float
    box_zoom: float
    click_frame: float
    oracle_frame: float
    click3_frame: float


def chosen_variants(config: TrainConfig, only: Sequence[str]) -> list[str]:
    """The variants to run. Raises InputError for unknown ones, and for a teacher's where none is given."""
    unknown = [name for name in only if name not in VARIANTS]
    if unknown:
        raise InputError(f"there is no variant {unknown[0]!r}; known are {', '.join(VARIANTS)}")
    names = list(only) or [n for n, (taught, _) in VARIANTS.items() if config.teacher or not taught]
    for name in names:
        if VARIANTS[name][0] and not config.teacher:
            raise InputError(f"variant {name!r} needs --teacher")
    return names


def last_figures(run: Path) -> dict[str, str]:
    """The last row of a run's validation.csv. Raises InputError where there is none."""
    try:
        with (run / "validation.csv").open(newline="") as file:
            return list(csv.DictReader(file))[-1]
    except (OSError, IndexError) as exc:
        raise InputError(
            f"{run} has no validation figures: too few photos to hold any back, or it was stopped"
        ) from exc


def require_same_run(run: Path, config: TrainConfig) -> None:
    """Raises InputError where a run's folder is of other options: its figures would be shown as of these."""
    path = run / CONFIG
    if not path.exists():
        return
    try:
        found = json.loads(path.read_bytes())
        asked = json.loads(json.dumps(asdict(config)))
        other = next((n for n, v in asked.items() if n not in FREE and n in found and found[n] != v), None)
    except (OSError, ValueError, TypeError, RecursionError) as exc:
        raise InputError(f"{path} cannot be read ({exc!s:.100}); name another --out") from exc
    if other is not None:
        raise InputError(
            f"{run} is a run of other options: {other} is {found[other]!r:.80} there and {asked[other]!r:.80} now; name another --out"
        )


def ablate(config: TrainConfig, only: Sequence[str] = ()) -> list[AblationRow]:
    """Run every variant in a folder of its own below ``config.out``; those that are done are read, not run again."""
    rows = []
    for name in chosen_variants(config, only):
        out = Path(config.out) / name.replace(" ", "-").replace(",", "").replace("'", "")
        print(f"--- {name}", flush=True)
        variant = replace(VARIANTS[name][1](config), out=str(out))
        require_same_run(out, variant)
        train(variant)
        found = last_figures(out)
        if int(found["step"]) < config.steps:
            raise InputError(f"{name!r} was stopped at step {found['step']}; run the same command to go on")
        rows.append(AblationRow(name, int(found["step"]), *(float(found[f]) for f in FIGURES)))
        write_bytes(Path(config.out) / "ablation.json", json.dumps([asdict(r) for r in rows], indent=1).encode())
    return rows


def to_text(rows: Sequence[AblationRow]) -> str:
    """A table; figures beside the first row's."""
    lines = [["variant", *HEADINGS]]
    for row in rows:
        cells = []
        for figure in FIGURES:
            value, first = getattr(row, figure), getattr(rows[0], figure)
            cells.append(f"{value:.3f}" if row is rows[0] else f"{value:.3f} ({100 * (value - first):+.1f})")
        lines.append([row.variant, *cells])
    return "\n".join(markdown_table(lines))
