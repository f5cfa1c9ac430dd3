"""``tinyseg segment``: masks of photographs from clicks, boxes or masks."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.commands.coco import CocoWriter
from tinyseg.commands.inputs import find_inputs, read_input
from tinyseg.commands.options import add_engine_options, add_zoom_option, load_segmenter
from tinyseg.commands.prompts import add_mask_option, add_prompt_options, parse_prompts
from tinyseg.commands.results import FORMATS, Target, describe, tell_failure, unique_names, write_results
from tinyseg.commands.words import add_word_options, open_words
from tinyseg.detect import BoxSource, name_boxes
from tinyseg.errors import DataError, FrameError, InputError, PromptError
from tinyseg.predict.segmenter import Segmenter
from tinyseg.prompts import Prompt
from tinyseg.prompts.text import phrases
from tinyseg.system.progress import progress

EXAMPLES = """examples:
  tinyseg segment photo.jpg --point 320,240
  tinyseg segment photo.jpg --point 320,240 --all-readings --out result.png
  tinyseg segment https://example.org/photo.jpg --box 40,60,400,380 --out - > result.png
  tinyseg segment photo.jpg --box 40,60,400,380 --point 200,300,0 --out results
  tinyseg segment street.jpg --text "dog. red cup" --detector grounding-dino
  tinyseg segment photos/ --box 0,0,320,320 --box 320,0,640,320 --format coco --json

exit codes: 0 all done, 1 some images failed, 2 bad input, 3 model or engine not usable, 130 interrupted"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "segment", help="masks of photographs from clicks, boxes or masks", epilog=EXAMPLES,
        description="Segment photographs. All points make one prompt; every box is an object of its own; one box and "
        "points together mean the same object.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image files, folders, quoted globs, http(s) addresses, or - for standard input",
    )
    add_prompt_options(parser)
    add_mask_option(parser)
    add_word_options(parser)
    parser.add_argument(
        "--out", default=".", metavar="PLACE",
        help="a folder for results (default: here), a file such as result.png for the result of one image, or - for "
        "standard output",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=FORMATS, default="png",
        help="png: masks drawn over the photo; mask: black and white; cutout: transparent background; coco: one "
        "coco.json with RLE; polygons: outlines as JSON (default: png)",
    )  # fmt: skip
    parser.add_argument(
        "--all-readings",
        "--all-masks",
        action="store_true",
        dest="all_readings",
        help="keep all three readings of a click, not only the best; png shows them side by side",
    )
    add_zoom_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON line for every image")
    add_engine_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    source = open_words(args)
    prompts = parse_prompts(args.point, args.box, args.mask) if source is None else []
    images = find_inputs(args.images)
    target = Target(args.out, args.format, images)
    several = source is not None or len(prompts) > 1 or (args.all_readings and prompts[0].ambiguous)
    if target.single and several and args.format in ("mask", "cutout"):
        raise InputError(f"--format {args.format} writes a file for each mask; give --out a folder")
    if target.stream and args.json:
        raise InputError("--json and --out - both write to standard output; give --out a file or folder")
    told = sys.stderr if target.stream else sys.stdout
    seg = load_segmenter(args)
    target.open()
    images = target.without_own(images, args.images)
    names = unique_names(images)
    coco = CocoWriter()
    failed = 0
    for there in read_ahead(seg, progress(images, "segment") if len(images) > 1 else images, source is None):
        image = there.image
        try:
            row = segment_one(seg, there, names[image], prompts, args, target, coco, source)
        except (DataError, FrameError, PromptError, MemoryError) as exc:
            failed += 1
            tell_failure(image, exc, args.json)
            continue
        if args.json:
            print(json.dumps(row), flush=True)
        elif len(images) == 1:
            found = ", ".join(f"IoU {o['score']:.2f}, {o['area']} px" for o in row["objects"])
            print(f"{image}: {len(row['objects'])} mask(s) ({found}) -> {', '.join(row['files'])}", file=told)
            waited = f", getting the engine ready for its shape {row['compile_ms']:.0f} ms" if row["compile_ms"] else ""
            print(
                f"embedding {row['embed_ms']:.1f} ms, prompting {row['predict_ms']:.1f} ms on this machine{waited}; {seg.info}",
                file=told,
            )
    if args.format == "coco" and failed < len(images):
        target.write("coco.json", coco.content())
    if not args.json and len(images) > 1:
        print(f"{len(images) - failed} of {len(images)} images -> {args.out}", file=told)
    return 1 if failed else 0


@dataclass(frozen=True)
class ReadImage:
    """An image that was read ahead: (H, W, 3) BGR, or why it cannot be read; and how long its shape took to compile."""

    image: str
    frame: NDArray[np.uint8] | DataError
    compile_seconds: float = 0.0


def read_ahead(seg: Segmenter, images: Iterable[str], one_by_one: bool) -> Iterator[ReadImage]:
    """Images in order. The next one is read, and its shape compiled, while the caller works on the one before.

    one_by_one: whether prompts are asked singly, and their decoder is to be compiled, too.
    """

    def read(image: str) -> ReadImage:
        try:
            frame = read_input(image)
        except DataError as exc:
            return ReadImage(image, exc)
        before = seg.network.waited_seconds
        view = seg.view(frame.shape[1], frame.shape[0])
        if one_by_one:
            seg.network.open_ahead("decoder", view)
        seg.network.compiled("encoder", view)
        return ReadImage(image, frame, seg.network.waited_seconds - before)

    with ThreadPoolExecutor(1, "tinyseg-ahead") as pool:
        ahead: Future[ReadImage] | None = None
        for image in images:
            following = pool.submit(read, image)
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()


def segment_one(
    seg: Segmenter,
    there: ReadImage,
    name: str,
    prompts: list[Prompt],
    args: argparse.Namespace,
    target: Target,
    coco: CocoWriter,
    source: BoxSource | None = None,
) -> dict[str, Any]:
    """Segment one image, write its results, and return the row that ``--json`` prints."""
    image, frame = there.image, there.frame
    if isinstance(frame, DataError):
        raise frame
    waited = seg.network.waited_seconds
    start = time.perf_counter()
    emb = seg.embed(frame, color="bgr")
    embedded = time.perf_counter()
    waited_to_embed = seg.network.waited_seconds - waited
    labels: tuple[str, ...] = ()
    if source is not None:
        named = name_boxes(emb, source.find(frame, phrases(args.text) if args.text is not None else ()), args.zoom)
        answers, labels = list(named.answers), named.boxes.labels
        prompts = [Prompt(box=box) for box in named.boxes.xyxy.astype(np.float64)]
    else:
        answers = [emb.predict(p.points, p.labels, p.box, p.mask, p.ambiguous, args.zoom) for p in prompts]
    done = time.perf_counter()
    waited_to_predict = seg.network.waited_seconds - waited - waited_to_embed
    kept = [(a, i) for a in answers for i in (range(len(a)) if args.all_readings else [a.best])]
    if args.format == "coco":
        coco.add(image, frame, kept, labels)
        files = [target.name("coco.json")]
    else:
        files = write_results(frame, kept, prompts, args.format, target, name)
    objects = [describe(a, i) for a, i in kept]
    for row, label in zip(objects, labels):
        row["label"] = label
    return {
        "image": image,
        "width": frame.shape[1],
        "height": frame.shape[0],
        "files": files,
        "objects": objects,
        # Without waiting for compilers, which only the first image of a shape does.
        "embed_ms": round(1e3 * (embedded - start - waited_to_embed), 3),
        "predict_ms": round(1e3 * (done - embedded - waited_to_predict), 3),
        "compile_ms": round(1e3 * (there.compile_seconds + waited_to_embed + waited_to_predict), 3),
        "engine": seg.info.engine,
        "precision": seg.info.precision,
    }
