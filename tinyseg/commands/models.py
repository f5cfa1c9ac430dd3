"""``tinyseg models``: which models ship, and what each costs and gives."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from tinyseg.errors import InputError
from tinyseg.graphs.model import DEFAULT_MODEL, Model, open_model, packaged_models
from tinyseg.predict.load import load

ROUNDS = 20
ALL_SETS = "all"


@dataclass(frozen=True)
class ModelRow:
    """One packaged model; accuracy as its model.json states it, speed only if it was timed here."""

    name: str
    long_side: int  # of a whole frame's input, pixels
    megabytes: dict[str, float]  # of the graphs, by precision
    box: float | None  # mean IoU of the true box, one and three clicks, over all evaluation sets
    click1: float | None
    click3: float | None
    predict_ms: float | None = None  # one 1280x720 frame and one box, median
    against_default: float | None = None  # speed over the default model's, of the same rounds
    chosen: str | None = None  # engine and precision that were timed


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "models", help="the models that ship, their size, accuracy and speed",
        description="List the packaged models. Choose one with --model NAME or tinyseg.load(NAME).",
    )  # fmt: skip
    parser.add_argument("--time", action="store_true", help="also time each one on this device")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--engine", default="auto", metavar="NAME", help="with --time: the engine (default: auto)")
    parser.add_argument("--precision", default="auto", metavar="P", help="with --time: the precision (default: auto)")
    parser.set_defaults(run=run)


def describe(name: str, model: Model) -> ModelRow:
    """What model.json says."""
    sets = {str(r["set"]): r for r in model.card.get("accuracy", {}).get("by_set", [])}
    row = sets.get(ALL_SETS, {})
    sizes = {p: sum(len(g.data) for g in model.variant(p).values()) / 1e6 for p in model.precisions}
    return ModelRow(name, model.long_side, sizes, *(row.get(k) for k in ("box", "click1", "click3")))


def time_models(rows: Sequence[ModelRow], engine: str, precision: str) -> list[ModelRow]:
    """Time ``predict`` of all models in turn, in one run."""
    from tinyseg.bench.measure import alternate, ratio  # noqa: PLC0415 - the runtime does not know the bench
    from tinyseg.bench.precisions import predict_once  # noqa: PLC0415
    from tinyseg.bench.scenarios import scene  # noqa: PLC0415

    segmenters = {row.name: load(row.name, engine, precision) for row in rows}
    timed = alternate({name: partial(predict_once, seg, scene()) for name, seg in segmenters.items()}, ROUNDS)
    return [
        replace(
            row,
            predict_ms=timed[row.name].p50_ms,
            against_default=ratio(timed[DEFAULT_MODEL], timed[row.name]).value,
            chosen=f"{segmenters[row.name].info.engine} {segmenters[row.name].info.precision}",
        )
        for row in rows
    ]


def run(args: argparse.Namespace) -> int:
    from tinyseg.bench.rows import markdown_table  # noqa: PLC0415 - the runtime does not know the bench

    rows = [describe(name, open_model(name)) for name in packaged_models()]
    if args.time:
        rows = time_models(rows, args.engine, args.precision)
    elif (args.engine, args.precision) != ("auto", "auto"):
        raise InputError("--engine and --precision say what --time measures; add --time")
    if args.json:
        print(json.dumps([asdict(r) for r in rows], indent=1))
        return 0
    headings = ["model", "input", "MB fp32", "MB int8", "box", "1 click", "3 clicks"]
    if args.time:
        headings += ["predict", "speed", "on"]
    table = [headings]
    for row in rows:
        cells = [row.name, f"{row.long_side} px", *(_number(row.megabytes.get(p), 1) for p in ("fp32", "int8"))]
        cells += [_number(v, 3) for v in (row.box, row.click1, row.click3)]
        if args.time:
            cells += [f"{_number(row.predict_ms, 1)} ms", f"{_number(row.against_default, 2)}x", row.chosen or "-"]
        table.append(cells)
    print("\n".join(markdown_table(table)))
    print(
        "\nMean IoU over all evaluation sets, as model.json states it. Choose with --model NAME or tinyseg.load(NAME)."
    )
    return 0


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
