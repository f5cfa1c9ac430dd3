"""Every engine and precision of this device side by side: speed from one run, size, and the accuracy of the same engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tinyseg.bench.accuracy import AccuracyReport, measure
from tinyseg.bench.measure import alternate, ratio
from tinyseg.bench.rows import markdown_table
from tinyseg.bench.scenarios import boxes, scene
from tinyseg.dataset import Photo
from tinyseg.engines import ENGINES, is_installed, offered_precisions, why_not
from tinyseg.errors import EngineError, InputError
from tinyseg.graphs.model import Model, open_model
from tinyseg.predict.load import graphs_for, load
from tinyseg.predict.segmenter import Segmenter

ROUNDS = 40
KNOWN = 0.3  # standard error, in points, up to which a set's loss is a fact and not luck
REFERENCE = ("onnxruntime", "fp32")
REAL_ENGINES = tuple(n for n in ENGINES if n != "fake")


@dataclass(frozen=True)
class PrecisionRow:
    """One engine in one precision. Ratios are of the same run, with their 95% intervals."""

    engine: str
    version: str
    precision: str
    megabytes: float  # of the graphs that it is given
    predict_ms: float  # one 1280x720 frame and one box to a full-resolution mask, median
    against_fp32: float  # speed over the same engine's fp32
    against_fp32_low: float
    against_fp32_high: float
    lost_points: float | None  # largest sure loss of box or 1-click mIoU against fp32 on any set, in points
    accuracy: dict[str, dict[str, float]] | None  # box and click1 by set
    report: dict[str, list[dict[str, object]]] | None = None  # the whole tables of ``tinyseg eval``


def combinations(model: Model) -> list[tuple[str, str]]:
    """(engine, precision) of everything that is installed here and that the model has graphs for."""
    found = []
    for engine in REAL_ENGINES:
        if not is_installed(engine):
            continue
        for precision in offered_precisions(engine):
            try:
                graphs_for(model, precision)
            except EngineError:
                continue
            found.append((engine, precision))
    return sorted(found, key=lambda pair: (pair[0], pair[1] != "fp32", pair[1]))


def left_out(model: Model) -> list[str]:
    """What the model carries and an installed engine would run, but not on this device; one line for each, with the reason."""
    asked = [(e, p) for e in REAL_ENGINES if is_installed(e) for p in model.precisions]
    return [f"{e} {p} is left out: {why}" for e, p in asked if (why := why_not(e, p))]


def predict_once(seg: Segmenter, frame: NDArray[np.uint8]) -> None:
    """One frame and one box, without a second look: the same work for every precision."""
    seg.embed(frame).predict(box=boxes(1)[0], multimask=False, zoom="off")


def figures(report: AccuracyReport) -> dict[str, dict[str, float]]:
    return {row.set: {"box": row.box, "click1": row.click1} for row in report.by_set}


@dataclass(frozen=True)
class Loss:
    """How much lower a figure of a set is than the reference's, object by object, in points of IoU (0.01)."""

    group: str
    figure: str
    points: float
    error: float  # standard error of points: where a few objects decide, it is large


def losses(reference: AccuracyReport, other: AccuracyReport) -> list[Loss]:
    """Box and 1-click losses of every set and of all sets together; both reports are of the same photos."""
    pairs = list(zip(reference.instances, other.instances, strict=True))
    found = []
    for row in reference.by_set:
        for name in ("box", "click1"):
            lost = [100 * (getattr(a, name) - getattr(b, name)) for a, b in pairs if row.set in (a.group, "all")]
            error = float(np.std(lost, ddof=1)) / len(lost) ** 0.5 if len(lost) > 1 else float("inf")
            found.append(Loss(row.set, name, float(np.mean(lost)), error))
    return found


def most_lost_points(found: Sequence[Loss]) -> float:
    """The largest of the losses that are known to within ``KNOWN``; negative if all rose.

    After one click, two nearly equal scores may change places by rounding, and one object in sixty then moves a set's mean by a
    point in either direction: such a set tells nothing about a precision. Where no set is large enough, the surest one counts.
    """
    known = [x for x in found if x.error <= KNOWN] or [min(found, key=lambda x: x.error)]
    return max(x.points for x in known)


def compare_precisions(
    model_path: str | None,
    photos: Sequence[Photo] | None = None,
    *,
    threads: int | None = None,
    rounds: int = ROUNDS,
    only: Sequence[tuple[str, str]] | None = None,
) -> list[PrecisionRow]:
    """Measure every combination (or ``only`` these), fp32 of every engine first. Raises InputError if there is none."""
    model = open_model(model_path)
    pairs = [p for p in combinations(model) if only is None or p in only]
    if not pairs:
        raise InputError("no engine of this device runs any of the precisions asked for")
    segs = {pair: load(model_path, *pair, threads=threads) for pair in pairs}
    frame = scene()
    calls: dict[str, Callable[[], object]] = {" ".join(p): partial(predict_once, s, frame) for p, s in segs.items()}
    timings = alternate(calls, rounds)
    # fp32 is the same arithmetic everywhere (the parity gate finds no difference), so one engine's accuracy is enough.
    examined = [p for p in pairs if p == REFERENCE or p[1] != "fp32" or REFERENCE not in pairs] if photos else []
    reports = {p: measure(segs[p], photos) for p in examined} if photos else {}
    rows = []
    for engine, precision in pairs:
        seg = segs[engine, precision]
        own, base = timings[f"{engine} {precision}"], timings.get(f"{engine} fp32")
        speed = ratio(base, own) if base is not None else None
        # Sets are compared with the reference engine's fp32, or with what there is of fp32.
        reference, found = reports.get(REFERENCE) or reports.get((engine, "fp32")), reports.get((engine, precision))
        rows.append(
            PrecisionRow(
                engine=engine, version=seg.info.engine_version, precision=precision,
                megabytes=sum(len(g.data) for g in graphs_for(model, precision).values()) / 1e6,
                predict_ms=own.p50_ms, against_fp32=speed.value if speed else float("nan"),
                against_fp32_low=speed.low if speed else float("nan"),
                against_fp32_high=speed.high if speed else float("nan"),
                lost_points=most_lost_points(losses(reference, found)) if reference and found else None,
                accuracy=figures(found) if found else None, report=found.to_json() if found else None,
            )
        )  # fmt: skip
    return rows


def table(rows: Sequence[PrecisionRow]) -> str:
    """Markdown: accuracy beside speed."""
    sets = list(next((r.accuracy for r in rows if r.accuracy), {}))
    cells = [
        [
            "engine",
            "precision",
            "MB",
            "predict ms",
            "against fp32 (95%)",
            "points lost",
            *(f"{s} box / click" for s in sets),
        ]
    ]
    for row in rows:
        low, high = row.against_fp32_low, row.against_fp32_high
        cells.append(
            [
                f"{row.engine} {row.version}", row.precision, f"{row.megabytes:.1f}", f"{row.predict_ms:.2f}",
                f"{row.against_fp32:.2f} ({low:.2f} to {high:.2f})",
                "not measured" if row.lost_points is None else f"{row.lost_points:+.2f}",
                *(f"{row.accuracy[n]['box']:.3f} / {row.accuracy[n]['click1']:.3f}" if row.accuracy else "-" for n in sets),
            ]
        )  # fmt: skip
    return "\n".join(markdown_table(cells))


def to_card(rows: Sequence[PrecisionRow], device: str, data: str | None) -> dict[str, object]:
    """The "measured" part of a model.json, by which "auto" chooses a precision."""
    speed: dict[str, dict[str, float]] = {}
    lost: dict[str, float] = {}
    for row in rows:
        speed.setdefault(row.engine, {})[row.precision] = round(row.against_fp32, 3)
        if row.lost_points is not None:
            lost[row.precision] = round(max(lost.get(row.precision, -100.0), row.lost_points), 2)
    shown = [{k: v for k, v in asdict(r).items() if k != "report"} for r in rows]
    return {
        "device": device, "data": data, "speed": speed, "lost_points": lost, "rows": shown,
    }  # fmt: skip
