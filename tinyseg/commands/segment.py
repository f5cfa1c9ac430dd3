"""``tinyseg segment``: masks of photographs from clicks, boxes or masks."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.commands.options import add_engine_options, load_segmenter
from tinyseg.draw import overlay
from tinyseg.errors import DataError, PromptError
from tinyseg.files import write_bytes
from tinyseg.images import find_images, read_image, read_mask, write_image
from tinyseg.masks import Masks
from tinyseg.predict.second_look import ZOOM_CHOICES
from tinyseg.predict.segmenter import Segmenter
from tinyseg.prompts import Prompt
from tinyseg.system.progress import progress

FORMATS = ("png", "mask", "cutout", "coco", "polygons")

EXAMPLES = """examples:
  tinyseg segment photo.jpg --point 320,240
  tinyseg segment photo.jpg --box 40,60,400,380 --point 200,300,0 --out results
  tinyseg segment photos/ --box 0,0,320,320 --box 320,0,640,320 --format coco --json

exit codes: 0 all done, 1 some images failed, 2 bad input, 3 model or engine not usable, 130 interrupted"""


def numbers(text: str, counts: Sequence[int], what: str) -> list[float]:
    """Parse "1,2,3"; PromptError unless there are as many numbers as one of ``counts``."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts:
        raise PromptError(f"{what}, but got {text!r}")
    return values


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "segment", help="masks of photographs from clicks, boxes or masks", epilog=EXAMPLES,
        description="Segment photographs. All points make one prompt; every box is an object of its own; one box and "
        "points together mean the same object.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders or quoted globs")
    parser.add_argument(
        "--point",
        action="append",
        default=[],
        metavar="X,Y[,0|1]",
        help="a click in pixels; 1 (default) on the object, 0 off it",
    )
    parser.add_argument("--box", action="append", default=[], metavar="X0,Y0,X1,Y1", help="a box in pixels")
    parser.add_argument(
        "--mask", metavar="FILE", help="image of the frame's size, not black where the object roughly is"
    )
    parser.add_argument("--out", default=".", metavar="DIR", help="where results go (default: here)")
    parser.add_argument(
        "--format", choices=FORMATS, default="png",
        help="png: masks drawn over the photo; mask: black and white; cutout: transparent background; coco: one "
        "coco.json with RLE; polygons: outlines as JSON (default: png)",
    )  # fmt: skip
    parser.add_argument(
        "--all-masks", action="store_true", help="keep all three readings of a click, not only the best"
    )
    parser.add_argument(
        "--zoom", choices=ZOOM_CHOICES, default="auto", help="second look at small objects (default: auto)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON line for every image")
    add_engine_options(parser)
    parser.set_defaults(run=run)


def parse_prompts(args: argparse.Namespace) -> list[Prompt]:
    """The prompts that the options describe. Raises PromptError."""
    points, labels = [], []
    for text in args.point:
        x, y, *label = numbers(text, (2, 3), "--point takes X,Y or X,Y,LABEL")
        points.append((x, y))
        labels.append(label[0] if label else 1.0)
    boxes = [numbers(text, (4,), "--box takes X0,Y0,X1,Y1") for text in args.box]
    hint = read_mask(args.mask) if args.mask else None
    if len(boxes) > 1 and (points or hint is not None):
        raise PromptError("points or a mask can be combined with one --box only; run the command once for each object")
    if not boxes and not points and hint is None:
        raise PromptError("say what to segment: --point X,Y, --box X0,Y0,X1,Y1 or --mask FILE")
    shared = {"points": points or None, "labels": labels or None, "mask": hint}
    return [Prompt(box=box, **shared) for box in boxes] or [Prompt(**shared)]


def run(args: argparse.Namespace) -> int:
    prompts = parse_prompts(args)
    images = find_images(args.images)
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out} is a file; give a folder")
    seg = load_segmenter(args)
    names = unique_names(images)
    coco = CocoWriter()
    failed = 0
    for path in progress(images, "segment") if len(images) > 1 else images:
        try:
            row = segment_one(seg, path, names[path], prompts, args, out, coco)
        except (DataError, PromptError) as exc:
            failed += 1
            print(f"tinyseg: {path}: {exc}", file=sys.stderr)
            if args.json:
                print(json.dumps({"image": str(path), "error": str(exc)}), flush=True)
            continue
        if args.json:
            print(json.dumps(row), flush=True)
        elif len(images) == 1:
            found = ", ".join(f"IoU {o['score']:.2f}, {o['area']} px" for o in row["objects"])
            print(f"{path}: {len(row['objects'])} mask(s) ({found}) -> {', '.join(row['files'])}")
            print(
                f"embedding {row['embed_ms']:.1f} ms, prompting {row['predict_ms']:.1f} ms "
                f"on this machine, first call: compiling included; {seg.info}"
            )
    if args.format == "coco" and failed < len(images):
        coco.write(out / "coco.json")
    if not args.json and len(images) > 1:
        print(f"{len(images) - failed} of {len(images)} images -> {out}")
    return 1 if failed else 0


def segment_one(
    seg: Segmenter, path: Path, name: str, prompts: list[Prompt], args: argparse.Namespace, out: Path, coco: CocoWriter
) -> dict[str, Any]:
    """Segment one file, write its results, and return the row that ``--json`` prints."""
    frame = read_image(path)
    start = time.perf_counter()
    emb = seg.embed(frame, color="bgr")
    embedded = time.perf_counter()
    answers = []
    for prompt in prompts:
        multimask = prompt.ambiguous
        answer = emb.predict(prompt.points, prompt.labels, prompt.box, prompt.mask, multimask, args.zoom)
        answers.append(answer)
    done = time.perf_counter()
    kept = [(a, i) for a in answers for i in (range(len(a)) if args.all_masks else [a.best])]
    files = write_results(frame, kept, prompts, args.format, out, name)
    if args.format == "coco":
        coco.add(path, frame, kept)
        files = [str(out / "coco.json")]
    return {
        "image": str(path),
        "width": frame.shape[1],
        "height": frame.shape[0],
        "files": files,
        "objects": [describe(a, i) for a, i in kept],
        "embed_ms": round(1e3 * (embedded - start), 3),
        "predict_ms": round(1e3 * (done - embedded), 3),
        "engine": seg.info.engine,
        "precision": seg.info.precision,
    }


def describe(answer: Masks, index: int) -> dict[str, Any]:
    return {
        "score": round(float(answer.scores[index]), 4),
        "stability": round(float(answer.stability[index]), 4),
        "area": int(answer.areas[index]),
        "box": answer.boxes[index].tolist(),
        "zoom": answer.zoom,
    }


def write_results(
    frame: NDArray[np.uint8], kept: list[tuple[Masks, int]], prompts: list[Prompt], kind: str, out: Path, name: str
) -> list[str]:
    """Write the files of one image; returns their names."""
    files = []
    if kind == "png":
        path = out / f"{name}.overlay.png"
        write_image(path, overlay(frame, [a.masks[i] for a, i in kept], prompts))
        files.append(str(path))
    elif kind == "polygons":
        path = out / f"{name}.polygons.json"
        rows = [{**describe(a, i), "polygons": [p.tolist() for p in a.to_polygons()[i]]} for a, i in kept]
        write_bytes(path, json.dumps(rows).encode())
        files.append(str(path))
    elif kind in ("mask", "cutout"):
        for number, (answer, index) in enumerate(kept):
            path = out / f"{name}.{kind}{number}.png"
            if kind == "mask":
                write_image(path, answer.masks[index].astype(np.uint8) * 255)
            else:  # OpenCV writes BGRA
                write_image(path, answer.cutout(frame, "bgr", index)[..., [2, 1, 0, 3]])
            files.append(str(path))
    return files


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for the results of every file: its stem, numbered where two files share one."""
    seen: Counter[str] = Counter()
    names = {}
    for path in paths:
        seen[path.stem] += 1
        names[path] = path.stem if seen[path.stem] == 1 else f"{path.stem}-{seen[path.stem]}"
    return names


class CocoWriter:
    """Collects a COCO results file: images, and annotations with RLE, box, area and score."""

    def __init__(self) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, path: Path, frame: NDArray[np.uint8], kept: list[tuple[Masks, int]]) -> None:
        image_id = len(self._images) + 1
        height, width = frame.shape[:2]
        self._images.append({"id": image_id, "file_name": str(path), "width": width, "height": height})
        for answer, index in kept:
            x0, y0, x1, y1 = (int(v) for v in answer.boxes[index])
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1, "image_id": image_id, "category_id": 1, "iscrowd": 0,
                    "segmentation": answer.to_coco()[index], "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(answer.areas[index]), "score": round(float(answer.scores[index]), 4),
                }
            )  # fmt: skip

    def write(self, path: Path) -> None:
        content = {
            "images": self._images, "annotations": self._annotations, "categories": [{"id": 1, "name": "object"}]
        }  # fmt: skip
        write_bytes(path, json.dumps(content).encode())
