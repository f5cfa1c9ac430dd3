"""``tinyseg everything``: all regions of photographs, without a prompt."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.commands.coco import CocoWriter
from tinyseg.commands.options import add_engine_options, add_region_options, load_for_everything
from tinyseg.commands.results import folder_for_results, tell_failure, unique_names
from tinyseg.draw import paint_labels
from tinyseg.errors import DataError, InputError
from tinyseg.files import write_bytes
from tinyseg.graphs.everything_rule import EverythingRule
from tinyseg.images import find_images, read_image, write_image
from tinyseg.predict.everything import Search
from tinyseg.predict.segmenter import Segmenter
from tinyseg.regions import Regions
from tinyseg.system.folders import ResultFolder
from tinyseg.system.progress import progress

FORMATS = ("overlay", "labels", "coco", "json")
MOST_LABELS = 65535  # of a 16-bit picture

EXAMPLES = """examples:
  tinyseg everything photo.jpg
  tinyseg everything photos/ --format coco --out results
  tinyseg everything aerial.jpg --crop-layers 1 --min-area 200 --format labels

exit codes: 0 all done, 1 some images failed, 2 bad input, 3 model or engine not usable, 130 interrupted"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "everything", help="all regions of photographs, without a prompt", epilog=EXAMPLES,
        description="Find what is there that nobody asked for: regions with a score, without names (tinyseg has no class "
        "head). A coarse grid of clicks comes first, finer ones, in closer views, where no sure region was found.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders or quoted globs")
    parser.add_argument("--out", default=".", metavar="DIR", help="folder for results (default: here)")
    parser.add_argument(
        "--format", choices=FORMATS, default="overlay",
        help="overlay: regions painted over the photo; labels: 16-bit PNG, 0 where nothing is, else the region's number; "
        "coco: one coco.json; json: one file an image, as SA-1B's (default: overlay)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON line for every image")
    group = parser.add_argument_group("what is looked for (defaults: the model's own, see tinyseg info --json)")
    add_region_options(group)
    group.add_argument("--full-grid", action="store_true", help="ask the whole finest grid and no other: slower")
    add_engine_options(parser)
    parser.set_defaults(run=run)


def chosen_rule(args: argparse.Namespace, rule: EverythingRule) -> EverythingRule:
    """The model's rule with what the options say. Raises InputError."""
    given = {name: getattr(args, name) for name in ("points_per_side", "score", "stability")}
    changes = {name: value for name, value in given.items() if value is not None}
    if args.full_grid:
        changes["coarse_per_side"] = 0
    return replace(rule, **changes)


def run(args: argparse.Namespace) -> int:
    images = find_images(args.images)
    place = folder_for_results(args.out)
    search = Search(crop_layers=args.crop_layers, min_area=args.min_area)
    seg = load_for_everything(args)
    rule = chosen_rule(args, seg.everything_rule)
    out = ResultFolder(place)
    images = [Path(image) for image in out.without_own([str(path) for path in images], args.images)]
    names = unique_names([str(path) for path in images])
    coco = CocoWriter()
    failed = 0
    for path in progress(images, "everything") if len(images) > 1 else images:
        try:
            row = one_image(seg, path, names[str(path)], rule, search, args.format, out, coco)
        except (InputError, MemoryError) as exc:
            failed += 1
            tell_failure(path, exc, args.json)
            continue
        if args.json:
            print(json.dumps(row), flush=True)
        elif len(images) == 1:
            print(
                f"{path}: {row['regions']} regions in {row['everything_ms']:.0f} ms on this machine, first call: "
                f"compiling included; {seg.info} -> {row['file']}"
            )
    if args.format == "coco" and failed < len(images):
        write_bytes(out.place("coco.json"), coco.content())
    if not args.json and len(images) > 1:
        print(f"{len(images) - failed} of {len(images)} images -> {out.folder}")
    return 1 if failed else 0


def one_image(
    seg: Segmenter, path: Path, name: str, rule: EverythingRule, search: Search, kind: str, out: ResultFolder,
    coco: CocoWriter,
) -> dict[str, Any]:  # fmt: skip
    """Everything in one file, written; returns the row that ``--json`` prints. Raises DataError, FrameError."""
    frame = read_image(path)
    start = time.perf_counter()
    regions = seg.everything(frame, rule=rule, search=search)
    spent = time.perf_counter() - start
    file = write_regions(frame, path, regions, name, kind, out, coco)
    height, width = frame.shape[:2]
    return {
        "image": str(path), "width": width, "height": height, "file": str(file), "regions": len(regions),
        "covered": round(float(np.count_nonzero(regions.label_map())) / (height * width), 4),
        "everything_ms": round(1e3 * spent, 3), "engine": seg.info.engine, "precision": seg.info.precision,
    }  # fmt: skip


def write_regions(
    frame: NDArray[np.uint8],
    path: Path,
    regions: Regions,
    name: str,
    kind: str,
    out: ResultFolder,
    coco: CocoWriter,
) -> Path:
    """Write the file of one image, or add it to the COCO file that comes last; returns the file's name."""
    height, width = frame.shape[:2]
    if kind == "overlay":
        file = out.place(f"{name}.everything.png")
        write_image(file, paint_labels(frame, regions.label_map()))
        return file
    if kind == "labels":
        file = out.place(f"{name}.labels.png")
        if len(regions) > MOST_LABELS:
            raise DataError(
                f"a 16-bit picture holds {MOST_LABELS} regions, but {len(regions)} were found; use --format coco"
            )
        done, data = cv2.imencode(".png", regions.label_map().astype(np.uint16))
        if not done:
            raise DataError(f"{file}: OpenCV cannot write this picture")
        write_bytes(file, data.tobytes())
        return file
    if kind == "json":
        file = out.place(f"{name}.json")
        image = {"image_id": 1, "width": width, "height": height, "file_name": path.name}
        write_bytes(file, json.dumps({"image": image, "annotations": regions.to_annotations()}).encode())
        return file
    coco.add_regions(str(path), frame, regions)
    return out.folder / "coco.json"
