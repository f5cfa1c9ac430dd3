"""``tinyseg find``: the same thing in other pictures, in the frames of a stream, or again in the same picture."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tinyseg.commands.coco import CocoWriter
from tinyseg.commands.inputs import is_stream
from tinyseg.commands.like import add_like_options, read_reference
from tinyseg.commands.options import add_engine_options, add_zoom_option, load_segmenter
from tinyseg.commands.results import (
    FORMATS,
    Target,
    describe,
    file_for_results,
    tell_failure,
    unique_names,
    write_results,
)
from tinyseg.commands.stream import check_sink_apart, exit_code
from tinyseg.errors import DataError, InputError
from tinyseg.images import find_images, read_image
from tinyseg.predict.exemplar import MAX_FOUND, THRESHOLD, Reference
from tinyseg.predict.segmenter import Segmenter
from tinyseg.sinks import SINK_HELP, FrameResult, open_sink
from tinyseg.sources import open_source
from tinyseg.system.console import heed_interrupts, tell
from tinyseg.system.progress import progress

EXAMPLES = """examples:
  tinyseg find photos/ --like mug.jpg --like-box 40,60,200,240 --out found
  tinyseg find shelf.jpg --like shelf.jpg --like-point 320,240          # how many more like it: counting
  tinyseg find --like a.jpg --like-mask a.png --like b.jpg --like-mask b.png --save mug.npz
  tinyseg find photos/ --like mug.npz --most 1
  tinyseg find film.mp4 --like mug.npz --sink video:found.mp4

It finds the same thing or the same look, not a category. Each --like picture takes the --like-mask, --like-box or
--like-point of the same place in the line of them; pictures with none of these are .npz files that --save wrote.

exit codes: 0 all done, 1 some images failed or frames were damaged, 2 bad input, 3 model or engine not usable, 130 interrupted"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "find", help="the same thing in other pictures, or again in the same one", epilog=EXAMPLES,
        description="Find what looks like an example: the same instance or look, one or all of them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "images",
        nargs="*",
        metavar="SOURCE",
        help="image files, folders or quoted globs; or one video, camera or stream",
    )
    add_like_options(parser)
    parser.add_argument("--save", metavar="FILE", help="keep what is looked for in a .npz file, for --like")
    parser.add_argument(
        "--most", type=int, default=MAX_FOUND, metavar="N", help=f"of the most alike ones (default: {MAX_FOUND})"
    )
    parser.add_argument(
        "--threshold", type=float, default=THRESHOLD, metavar="T",
        help=f"least likeness, 0 to 1 (default: {THRESHOLD})",
    )  # fmt: skip
    parser.add_argument(
        "--out",
        default=".",
        metavar="PLACE",
        help="where results of images go: a folder (default: here), "
        "a file for the result of one image, or - for standard output",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="png", help="of images' results, as of tinyseg segment (default: png)"
    )
    parser.add_argument("--sink", default="null", metavar="SINK", help=f"for a stream: {SINK_HELP} (default: null)")
    add_zoom_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON line for every image or frame")
    add_engine_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not args.images and not args.save:
        raise InputError("name images or a stream to find it in, or --save FILE to keep it")
    if not args.images and (args.out != "." or args.format != "png" or args.json or args.sink != "null"):
        raise InputError(
            "--out, --format, --json and --sink are for what is found; name images or a stream, or leave them out"
        )
    if "-" in args.images:
        raise InputError("find reads files, cameras and streams, not standard input; give a file")
    in_stream = len(args.images) == 1 and is_stream(args.images[0])
    if in_stream and (args.out != "." or args.format != "png"):
        raise InputError("--out and --format are for images; a stream's results go to a --sink")
    if not in_stream and args.sink != "null":
        raise InputError("--sink is for a video, camera or stream; images' results go to --out, in a --format")
    if args.save:
        file_for_results("--save", args.save)
    seg = load_segmenter(args)
    reference = read_reference(args, seg)
    if args.save:
        reference.save(args.save)
    seg.check_find(reference, args.most, args.threshold)
    if in_stream:
        return find_in_stream(seg, reference, args)
    return find_in_images(seg, reference, args) if args.images else 0


def find_in_images(seg: Segmenter, reference: Reference, args: argparse.Namespace) -> int:
    images = find_images(args.images)
    target = Target(args.out, args.format, [str(path) for path in images])
    if target.single and args.most > 1 and args.format in ("mask", "cutout"):
        raise InputError(f"--format {args.format} writes a file for each mask; give --out a folder, or --most 1")
    if target.stream and args.json:
        raise InputError("--json and --out - both write to standard output; give --out a file or folder")
    told = sys.stderr if target.stream else sys.stdout
    target.open()
    images = [Path(image) for image in target.without_own([str(path) for path in images], args.images)]
    names = unique_names([str(path) for path in images])
    coco = CocoWriter()
    failed = total = 0
    for path in progress(images, "find") if len(images) > 1 else images:
        try:
            frame = read_image(path)
            found = seg.find(frame, reference, most=args.most, threshold=args.threshold, zoom=args.zoom)
            kept = [(found, i) for i in range(len(found))]
            if args.format == "coco":
                coco.add(str(path), frame, kept)
            else:
                write_results(frame, kept, [], args.format, target, names[str(path)])
        except (InputError, MemoryError) as exc:
            failed += 1
            tell_failure(path, exc, args.json)
            continue
        total += len(found)
        if args.json:
            objects = [describe(found, i) for i in range(len(found))]
            print(json.dumps({"image": str(path), "count": len(found), "objects": objects}), flush=True)
        elif len(images) <= 20:
            likeness = ", ".join(f"{s:.2f}" for s in found.scores[:8])
            print(f"{path}: {len(found)} found" + (f" (likeness {likeness})" if len(found) else ""), file=told)
    if args.format == "coco" and failed < len(images):
        target.write("coco.json", coco.content())
    if not args.json and len(images) > 1:
        print(f"{total} found in {len(images) - failed} of {len(images)} images -> {args.out}; {seg.info}", file=told)
    return 1 if failed else 0


def find_in_stream(seg: Segmenter, reference: Reference, args: argparse.Namespace) -> int:
    """Look for it in every frame; each frame's answers go to the sink, none where it is not there."""
    name = args.images[0]
    check_sink_apart(args.sink, name)
    source = open_source(name, getattr(sys.stdin, "buffer", None))
    frames = seen = 0
    interrupted = False
    try:
        sink = open_sink(args.sink, source.frame_rate, getattr(sys.stdout, "buffer", None))
        try:
            heed_interrupts()
            for frame in progress(iter(source.next_frame, None), "find"):
                found = seg.find(frame.pixels, reference, frame.color, args.most, args.threshold, args.zoom)
                answers = [found.only(i) for i in range(len(found))]
                frames, seen = frames + 1, seen + bool(answers)
                if args.json and args.sink != "raw":
                    print(json.dumps({"frame": frame.index, "count": len(found)}), flush=True)
                if sink.write(FrameResult(frame, (), answers, 0.0)) is False:
                    break
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sink.close()
    finally:
        source.close()
    if frames == 0 and not interrupted:
        raise DataError(f"{name} gave no frame")
    if not args.json:
        damaged = f", {source.damaged} damaged" if source.damaged else ""
        (tell if args.sink == "raw" else print)(f"found in {seen} of {frames} frames{damaged}; {seg.info}")
    return exit_code(source.damaged, interrupted)
