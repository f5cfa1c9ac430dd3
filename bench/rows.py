"""The schema of a measurement: one frozen dataclass, from which every format is derived."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tinyseg.errors import DataError

# SAM 2's published speed (arXiv 2408.00714, table "Segment Anything task" and the appendix on speed).
SAM2_A100_FPS = 130.1
SAM2_PROTOCOL = (
    "SAM 2 published: 130.1 images/s on one A100 (image task, Hiera-B+, 1024 px, bf16, image encoder compiled, batches of "
    "10 images: throughput, not 1/latency; the paper does not say whether pre- and post-processing are timed)"
)


@dataclass(frozen=True)
class BenchRow:
    """One configuration, measured. Times are wall clock, in milliseconds; None where the system does not tell."""

    scenario: str
    kind: str  # "latency": one after the other; "throughput": several at the same time, or a batch
    fps: float  # frames a second; prompts a second for the scenario "prompt"
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    std_ms: float
    count: int
    warm_up: int
    stable: bool  # the 95% interval of the median is within 2% of it
    median_low_ms: float
    median_high_ms: float
    stages: str  # what lies inside the timed interval
    model: str
    model_sha256: str
    engine: str
    engine_version: str
    precision: str
    threads: int
    streams: int
    frame_size: str
    input_size: str
    batch: int
    prompts: int
    reference_iou: float  # mean mask IoU with the fp32 reference on the parity gate's photographs, lowest of the graphs
    accuracy_box_miou: float | None
    accuracy_data: str | None
    first_result_ms: float | None  # load to first mask in this process, compiling included
    peak_rss_mb: float | None
    device: str
    cores: int
    clock_mhz: float | None
    governor: str | None
    power_mode: str | None
    temperature_c: float | None
    notes: str  # what disturbed the measurement
    engine_fps: float | None  # loop: the bare engine on the same graphs and inputs, in the same run
    loop_efficiency: float | None  # loop: fps / engine_fps, median of alternating rounds
    memory_slope_mb: float | None  # memory: growth for 1000 frames
    utc: str
    tinyseg_version: str
    commit: str | None
    samples_ms: tuple[float, ...]


def to_json(rows: Sequence[BenchRow]) -> str:
    """A list of objects with the keys of BenchRow."""
    return json.dumps([asdict(r) for r in rows], indent=1)


def to_csv(rows: Sequence[BenchRow]) -> str:
    """One line a row; samples stay in the JSON."""
    names = [f.name for f in fields(BenchRow) if f.name != "samples_ms"]
    out = io.StringIO()
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(r) for r in rows)
    return out.getvalue()


def read_json(path: Path) -> list[BenchRow]:
    """Rows that to_json wrote. Raises DataError."""
    try:
        content = json.loads(path.read_text())
        known = {f.name for f in fields(BenchRow)}  # rows of other versions may say more
        given = [{name: value for name, value in row.items() if name in known} for row in content]
        found = [BenchRow(**{**row, "samples_ms": tuple(row["samples_ms"])}) for row in given]
        for row in found:
            if not all(0 < float(v) < float("inf") for v in (row.p50_ms, row.median_low_ms, row.median_high_ms)):
                raise ValueError(f"{row.scenario}: its times are no positive numbers")
        return found
    except OSError as exc:
        raise DataError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise DataError(
            f"{path} holds no benchmark rows of this version ({exc}); write it with tinyseg bench --json"
        ) from exc


COLUMNS = {
    "scenario": "scenario", "kind": "kind", "engine": "engine", "precision": "precision", "prompts": "prompts",
    "fps": "per second", "p50_ms": "p50 ms", "p90_ms": "p90 ms", "p99_ms": "p99 ms", "loop_efficiency": "loop/engine",
    "reference_iou": "IoU with fp32", "accuracy_box_miou": "box mIoU",
}  # fmt: skip


def markdown_table(lines: Sequence[Sequence[str]]) -> list[str]:
    """Cells, the first line being headings -> an aligned Markdown table."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    table = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths)) + " |" for line in lines]
    table.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 1
        else f"{value:.2f}"
        if isinstance(value, float)
        else str(value)
    )


def to_markdown(rows: Sequence[BenchRow]) -> str:
    """A table, what the device is, and what disturbed."""
    cells = [[_cell(getattr(r, name)) for name in COLUMNS] for r in rows]
    lines = markdown_table([list(COLUMNS.values()), *cells])
    first = rows[0]
    lines += [
        "",
        f"{first.device}, {first.cores} cores, {first.threads} threads; {first.frame_size} frames, input {first.input_size}; "
        f"model {first.model} ({first.model_sha256[:12]}), {first.engine} {first.engine_version}; "
        f"tinyseg {first.tinyseg_version}{f' at {first.commit}' if first.commit else ''}, {first.utc}",
    ]
    for row in rows:
        if row.memory_slope_mb is not None:
            lines.append(
                f"memory, {row.scenario}: {row.memory_slope_mb:+.3f} MB for 1000 frames in the second half; {row.stages}"
            )
    lines += [f"note, {r.scenario}: {r.notes}" for r in rows if r.notes]
    lines += [f"note, {r.scenario}: not stable within 2% when time was up" for r in rows if not r.stable]
    return "\n".join(lines)


def against_sam2(rows: Sequence[BenchRow]) -> list[str]:
    """The published figure with its protocol, and ours against it: throughput and single stream apart."""
    lines = [SAM2_PROTOCOL]
    for kind, scenarios in (("throughput", ("loop", "batch")), ("latency", ("predict",))):
        for row in (r for r in rows if r.kind == kind and r.scenario in scenarios):
            word = "throughput" if kind == "throughput" else "single stream"
            lines.append(
                f"ours, {word} ({row.scenario}, {row.engine} {row.precision}, {row.device}): {row.fps:.1f} frames/s, "
                f"{row.fps / SAM2_A100_FPS:.2f} of that figure; another model, input size and device, so read it as a frame rate only"
            )
    return lines


def compare(old: Sequence[BenchRow], new: Sequence[BenchRow]) -> str:
    """What changed beyond the noise: medians whose 95% intervals do not touch."""
    before = {(r.scenario, r.kind, r.engine, r.precision, r.prompts): r for r in old}
    lines = [["scenario", "engine", "precision", "before ms", "after ms", "change", "verdict"]]
    for row in new:
        was = before.get((row.scenario, row.kind, row.engine, row.precision, row.prompts))
        if was is None:
            continue
        apart = row.median_low_ms > was.median_high_ms or row.median_high_ms < was.median_low_ms
        change = row.p50_ms / was.p50_ms - 1
        verdict = ("slower" if change > 0 else "faster") if apart else "within the noise"
        other = " (another device)" if row.device != was.device else ""
        lines.append(
            [
                row.scenario,
                row.engine,
                row.precision,
                f"{was.p50_ms:.2f}",
                f"{row.p50_ms:.2f}",
                f"{100 * change:+.1f}%",
                verdict + other,
            ]
        )
    if len(lines) == 1:
        raise DataError("the two files have no scenario with the same engine and precision in common")
    return "\n".join([*markdown_table(lines), *caveats(old, new)])


def caveats(old: Sequence[BenchRow], new: Sequence[BenchRow]) -> list[str]:
    """What else differs between two runs, so that a difference in speed may not be the program's."""
    told = []
    for what, name in (
        ("two machines", "device"), ("two numbers of cores", "cores"), ("two numbers of threads", "threads"),
        ("other weights", "model_sha256"), ("two versions of the engine", "engine_version"),
        ("two frame sizes", "frame_size"),
    ):  # fmt: skip
        then, now = ({str(getattr(r, name))[:60] for r in rows} for rows in (old, new))
        if then != now:
            told.append(f"{what}: {', '.join(sorted(then))} before, {', '.join(sorted(now))} after")
    for when, rows in (("before", old), ("after", new)):
        told += [f"disturbed {when}, {r.scenario}: {r.notes}" for r in rows if r.notes]
        told += [f"not stable {when}: {r.scenario}" for r in rows if not r.stable]
    return ["", "Not like with like:", *(f"- {t}" for t in told)] if told else []
