"""Label, correct, train, measure: one turn of the loop that made SAM, on twenty photographs and a CPU.

    python examples/close_the_loop.py photos/ --measure labelled.tar --out runs/loop
    python examples/close_the_loop.py photos/ --boxes boxes.json --corrected corrected.json --measure labelled.tar --out runs/loop

Labels photos/ with the packaged model (everything, or the boxes of a COCO file), takes corrections if there are any, goes on
training from the same weights for a few steps, and prints the accuracy of both models on labelled photographs that are not among
photos/, with an answer: better, or not. Twenty photographs show the way; they do not make a better model by themselves.
Needs 'tinyseg[train]'. Run it again to go on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import tinyseg
from tinyseg.bench.accuracy import measure
from tinyseg.bench.rows import markdown_table
from tinyseg.dataset import read_photos
from tinyseg.label import BoxFile, label, merge

START = "base"


def accuracy(model: str | Path, data: Path, engine: str) -> tuple[float, float, float]:
    """Mean IoU of boxes, of one click, and of three, over all objects of a data set."""
    report = measure(tinyseg.load(model, engine, "fp32"), read_photos(data))
    row = report.by_set[-1]
    return row.box, row.click1, row.click3


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="a folder of photographs")
    parser.add_argument(
        "--measure", required=True, type=Path, metavar="DATA", help="labelled photographs to measure on"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="labels, run and model go here")
    parser.add_argument("--boxes", metavar="FILE", help="a COCO file of boxes (default: label everything)")
    parser.add_argument("--corrected", metavar="FILE", help="a COCO file that people corrected")
    parser.add_argument("--steps", type=int, default=100, help="of training (default: 100)")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--engine", default="onnxruntime")
    args = parser.parse_args(arguments)
    try:
        from tinyseg.distill.__main__ import main as distill  # noqa: PLC0415 - needs torch
        from tinyseg.distill.export import export  # noqa: PLC0415
    except ImportError as exc:
        print(f"training needs torch ({exc}); run: pip install 'tinyseg[train]'", file=sys.stderr)
        return 3

    labels, run = args.out / "labels", args.out / "run"
    found = label([args.photos], labels, BoxFile(args.boxes) if args.boxes else None, model=START, engine=args.engine)
    print(f"{found.images} photographs, {found.annotations} masks")
    if args.corrected:
        back = merge(args.corrected, labels)
        print(f"{back.images} of them corrected: {back.before} masks before, {back.after} now")
    training = ["train", "--data", str(labels), "--start", START, "--freeze-norms", "--steps", str(args.steps)]
    training += [
        "--learning-rate",
        str(args.learning_rate),
        "--batch-size",
        str(args.batch_size),
        "--precision",
        "fp32",
    ]
    if code := distill([*training, "--workers", "0", "--validate-every", str(args.steps), "--out", str(run)]):
        return code
    model = export(run / "checkpoint.pt", args.out / "model", name="loop")
    before, after = (accuracy(m, args.measure, args.engine) for m in (START, model))
    rows = [[name, *(f"{v:.4f}" for v in values)] for name, values in (("before", before), ("after", after))]
    print("\n".join(markdown_table([["mean IoU", "box", "1 click", "3 clicks"], *rows])))
    change = sum(after) / 3 - sum(before) / 3
    print(f"{'better' if change > 0 else 'not better'}: {change:+.4f} on average, on {args.measure.name}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except tinyseg.TinysegError as exc:
        sys.exit(str(exc))
