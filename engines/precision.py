"""Which precision "auto" means: the fastest one that keeps the masks, by the figures measured for the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tinyseg.engines.cpu import int8_instruction

# Points of mean IoU that a precision may lose on any evaluation set before "auto" leaves it out.
MOST_LOST_POINTS = 0.5
# Speeds closer than this share of the fastest count as equal: they were measured on one processor, and others differ by more.
# Of equals the first one here is taken: the exact one, then what depends least on the newest instructions. fp16 was as fast as
# int8 on a Sapphire Rapids, and takes twice the time on another Xeon that offers it too.
NEARLY = 0.05
EQUALS = ("fp32", "int8", "bf16", "fp16")
NATIVE = ("fp32", "bf16", "fp16")  # engines lower a float graph to these themselves


@dataclass(frozen=True)
class PrecisionFacts:
    """What a model's model.json says of its precisions.

    carried: precisions with graphs of their own. lost_points: by precision, the largest loss of mean IoU in points on
    any set, prompt and engine; lost_on: the same by engine and precision, where it was measured. speed: by engine and
    precision, frames a second over those of fp32 in the same run, on a processor with the instructions that the
    precision wants.
    """

    carried: tuple[str, ...] = ("fp32",)
    lost_points: Mapping[str, float] = field(default_factory=dict)
    speed: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    lost_on: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def loss(self, engine: str, precision: str) -> float | None:
        """Points that a precision loses on an engine; what it loses on any where this one was not measured; None: unknown."""
        return self.lost_on.get(engine, {}).get(precision, self.lost_points.get(precision))


def choose_precision(engine: str, offered: Sequence[str], facts: PrecisionFacts) -> tuple[str, str]:
    """(precision, reason) for an engine that offers these precisions on this device, its own favourite first."""
    usable = [p for p in offered if p in NATIVE or p in facts.carried]
    measured = facts.speed.get(engine, {})
    # What was measured and carried, but is not offered here: the processor lacks what it was measured with.
    left_out = [f"{p} is not offered here" for p in measured if p not in offered and p in facts.carried]
    candidates = {}
    for precision in usable:
        # The parity gate vouches for what an engine lowers itself; int8 has to have been measured.
        lost = facts.loss(engine, precision)
        if lost is None and precision in NATIVE:
            lost = 0.0
        if precision not in measured or lost is None:
            continue
        if lost > MOST_LOST_POINTS:
            left_out.append(f"{precision} loses {lost:.1f} points")
        elif precision == "int8" and int8_instruction() is None:
            left_out.append("int8 was measured with instructions that this processor lacks")
        else:
            candidates[precision] = measured[precision]
    if not candidates:
        native = next(p for p in usable if p in NATIVE)
        return native, f"{native}: the engine's own choice, nothing was measured for this model on {engine}"
    fastest = max(candidates.values())
    best = min((p for p in candidates if candidates[p] >= (1 - NEARLY) * fastest), key=EQUALS.index)
    if best == "fp32":
        return best, "; ".join([f"fp32: the fastest that was measured for this model on {engine}", *left_out])
    reason = f"{best}: measured {candidates[best]:.2f} times as fast as fp32 on {engine}"
    lost = facts.loss(engine, best)
    if lost is not None:
        reason += f", loses {max(lost, 0.0):.2f} points of IoU at most"
    return best, "; ".join([reason, *left_out])
