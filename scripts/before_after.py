"""Two checkouts measured in turn, by their own commands, with the same weights: accuracy, speed, loop and start side by side.

git worktree add --detach /tmp/before COMMIT      # and build its extension into /tmp/before/tinyseg
python scripts/before_after.py /tmp/before --model FOLDER --data eval.tar --set coco-train2017 --limit 100

Every scenario runs in a process of its own, once a round on each side, so that a change of the machine's speed meets both;
what is printed are medians over the rounds, and the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent.parent
# What is read of which scenario of `tinyseg bench`: its name in the table, the row's key, and digits.
FIGURES = (
    ("predict", "predict, ms", "p50_ms", 2), ("loop", "loop, frames/s", "fps", 1),
    ("loop", "loop / bare engine", "loop_efficiency", 3), ("startup", "start to first mask, ms", "p50_ms", 0),
)  # fmt: skip
ACCURACY = (("box", "box mIoU"), ("click1", "1 click mIoU"), ("click3", "3 clicks mIoU"))


@dataclass(frozen=True)
class Side:
    """A checkout, and where its engines are kept."""

    checkout: Path
    cache: Path

    def run(self, *arguments: str) -> Any:
        """``python -m tinyseg ...`` with ``--json``; returns what it wrote."""
        out = self.cache / "figures.json"
        environment = {**os.environ, "PYTHONPATH": str(self.checkout), "TINYSEG_CACHE": str(self.cache / "engines")}
        command = [sys.executable, "-m", "tinyseg", *arguments, "--json", str(out)]
        done = subprocess.run(command, env=environment, cwd=self.cache, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{self.checkout}: tinyseg {' '.join(arguments)} failed: {done.stderr.strip()[-500:]}")
        return json.loads(out.read_text())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", metavar="BEFORE", help="the older checkout, its extension built")
    parser.add_argument(
        "after", metavar="AFTER", nargs="?", default=str(HERE), help="the newer one (default: this one)"
    )
    parser.add_argument("--model", required=True, metavar="FOLDER", help="weights that both can load")
    parser.add_argument("--engine", action="append", metavar="NAME", help="default: onnxruntime and openvino")
    parser.add_argument("--precision", default="auto", metavar="P")
    parser.add_argument("--data", metavar="DATA", help="labelled photographs; without them no accuracy is measured")
    parser.add_argument("--set", default=None, metavar="NAME")
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="photographs (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--seconds", type=float, default=4, metavar="S", help="a scenario, at most (default: 4)")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for name, place in (("before", args.before), ("after", args.after)):
            cache = Path(folder) / name
            cache.mkdir()
            sides.append(Side(Path(place).resolve(), cache))
        print("| engine | what | before | after | after / before |\n|---|---|---|---|---|")
        for engine in args.engine or ("onnxruntime", "openvino"):
            options = ["--model", str(Path(args.model).resolve()), "--engine", engine, "--precision", args.precision]
            if args.data:
                compare_accuracy(sides, engine, options, args)
            compare_speed(sides, engine, options, args)
    return 0


def compare_accuracy(sides: Sequence[Side], engine: str, options: list[str], args: argparse.Namespace) -> None:
    chosen = ["--limit", str(args.limit), *(("--set", args.set) if args.set else ())]
    reports = [side.run("eval", str(Path(args.data).resolve()), *chosen, *options) for side in sides]
    figures = [report["by_set"][-1] for report in reports]
    for key, what in ACCURACY:
        before, after = (float(f[key]) for f in figures)
        print(f"| {engine} | {what} | {before:.4f} | {after:.4f} | {after - before:+.4f} |", flush=True)


def compare_speed(sides: Sequence[Side], engine: str, options: list[str], args: argparse.Namespace) -> None:
    for scenario in dict.fromkeys(row[0] for row in FIGURES):
        rounds: list[list[dict[str, Any]]] = [[], []]
        for _ in range(args.rounds):
            for side, rows in zip(sides, rounds):
                rows += side.run("bench", "--scenario", scenario, "--seconds", str(args.seconds), *options)
        for _, what, key, digits in (row for row in FIGURES if row[0] == scenario):
            before, after = (np.array([row[key] for row in rows], np.float64) for rows in rounds)
            ratio = float(np.median(after / before))
            print(
                f"| {engine} {rounds[1][0]['precision']} | {what} | {np.median(before):.{digits}f} | "
                f"{np.median(after):.{digits}f} | {ratio:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
