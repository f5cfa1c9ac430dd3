"""``tinyseg label``: folders, videos and tars of pictures into a labelled data set, in one process, several, or on a cluster."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tinyseg.arguments import check_path, clipped
from tinyseg.commands.like import add_like_options, read_reference
from tinyseg.commands.options import add_engine_options, add_region_options, add_zoom_option, load_segmenter
from tinyseg.commands.words import add_word_options
from tinyseg.errors import InputError, PromptError
from tinyseg.label import BoxFile, Everything, Like, Wanted, Words, label, merge
from tinyseg.label.finding import reference_digest
from tinyseg.label.job import FORMATS, IMAGES
from tinyseg.predict.exemplar import MAX_FOUND, THRESHOLD
from tinyseg.system.folders import ResultFolder

OF_MERGE = ("inputs", "out", "merge", "json", "run", "default_of", "command", "verbose", "quiet")

EXAMPLES = """examples:
  tinyseg label photos/ --out labels                                          # everything in every picture
  tinyseg label photos/ --text "dog. red cup" --detector grounding-dino --out labels --processes 2
  tinyseg label film.mp4 --every 10 --tracks 5 --out labels                   # followed through the video, with ids
  tinyseg label photos/ --boxes detections.json --format yolo --out labels
  tinyseg label 'tars/*.tar' --format webdataset --shard 1000 --out labels --ray auto
  tinyseg label --merge corrected.json --out labels                           # what people corrected comes back

Run the same command again to go on where it stopped. Pictures that cannot be labelled are listed in errors.jsonl.

exit codes: 0 all done, 1 some images failed, 2 bad input, 3 model or engine not usable, 130 interrupted"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "label", help="folders, videos and tars into a labelled data set, at any scale", epilog=EXAMPLES,
        description="Label pictures into a folder that annotation tools and training read. Without another prompt everything "
        "that is found in a picture is labelled.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "inputs", nargs="*", metavar="INPUT",
        help="folders (with the folders in them), images, videos, WebDataset tars, quoted globs",
    )  # fmt: skip
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the labels")
    parser.add_argument(
        "--format", choices=FORMATS, default="coco",
        help="coco: annotations.json; yolo: outlines in labels/ beside images/; webdataset: images and masks in "
        "shards/NNNNN.tar (default: coco)",
    )  # fmt: skip
    parser.add_argument(
        "--images", choices=IMAGES, default="auto",
        help="pictures kept in DIR: auto: those that are no file of their own (frames, members of tars), for yolo and "
        "webdataset all; copy: all; none (default: auto)",
    )  # fmt: skip
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of a video, every Nth frame (default: 1)")
    parser.add_argument(
        "--tracks", type=int, default=0, metavar="N",
        help="find up to N objects in a video's first frame and follow them, with ids (default: every frame by itself)",
    )  # fmt: skip
    parser.add_argument(
        "--merge", metavar="FILE",
        help="put what a corrected COCO file says in the place of its pictures' labels; goes with --out and --json alone",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the final figures as JSON")
    add_region_options(parser.add_argument_group("everything (defaults: the model's own)"))
    add_word_options(parser)
    group = parser.add_argument_group("boxes")
    group.add_argument(
        "--boxes", metavar="FILE", help="a COCO file: every box of a picture becomes a mask, but for those with iscrowd"
    )
    add_like_options(parser)
    group = parser.add_argument_group("likeness")
    group.add_argument("--most", type=int, metavar="N", help=f"of the most alike, with --like (default: {MAX_FOUND})")
    group.add_argument(
        "--threshold", type=float, metavar="T", help=f"least likeness, with --like (default: {THRESHOLD})"
    )
    add_zoom_option(parser)
    parser.set_defaults(zoom=None)  # to tell what was given; its default is that of Words, BoxFile and Like
    group = parser.add_argument_group("scale")
    group.add_argument(
        "--processes", type=int, default=1, metavar="N",
        help="workers, each on its share of the cores (default: 1; with --ray as many as there is room for)",
    )  # fmt: skip
    group.add_argument(
        "--devices",
        default="",
        metavar="N,N",
        help="CUDA devices that --processes take in turn, such as 0,1; with --ray each worker gets one GPU, which Ray chooses",
    )
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="label on a Ray cluster; local starts one on this machine, auto joins the running one",
    )
    group.add_argument(
        "--shard", type=int, default=64, metavar="N", help="pictures a shard, which is what a kill loses (default: 64)"
    )
    add_engine_options(parser)
    parser.set_defaults(run=run, default_of=parser.get_default)


def wanted_of(args: argparse.Namespace) -> Wanted:
    """What the options ask for. Raises PromptError, and what making a reference raises."""
    given = [name for name in ("text", "boxes", "like") if getattr(args, name)]
    if args.detector is not None and "text" not in given:
        given.append("detector")
    if len(given) > 1:
        raise PromptError(
            f"give one of --text or --detector, --boxes and --like, not {' and '.join('--' + g for g in given)}"
        )
    everything = [n for n in ("points_per_side", "score", "stability") if getattr(args, n) is not None]
    everything += [n for n in ("crop_layers", "min_area") if getattr(args, n)]
    if given and everything:
        raise PromptError(f"--{everything[0].replace('_', '-')} is of everything; leave it out, or --{given[0]}")
    if args.text is not None and args.detector is None:
        raise PromptError("--text needs a --detector to find boxes: a folder of export-detector, or a detector.json")
    if args.text_threshold is not None and args.detector is None:
        raise PromptError("--text-threshold needs a --detector, whose boxes it is for")
    alike = [f"like-{kind}" for kind, _ in args.like_parts or []]
    alike += [n for n in ("most", "threshold") if getattr(args, n) is not None]
    if alike and not args.like:
        raise PromptError(f"--{alike[0]} needs a --like, which says what to find")
    if args.zoom is not None and not given:
        raise PromptError("--zoom needs a --detector, --boxes or --like, whose masks it is for; leave it out")
    zoom = args.zoom or "auto"
    if args.detector is not None:
        return Words(args.text, args.detector, args.text_threshold, zoom)
    if args.boxes:
        return BoxFile(args.boxes, zoom)
    if args.like:
        reference = read_reference(args, load_segmenter(args))
        # In the folder, where all workers see it, under a name of its own: another job must not change it.
        place = ResultFolder(check_path("--out", args.out)).place(f"reference-{reference_digest(reference)[:12]}.npz")
        if not place.exists():
            reference.save(place)
        return Like(str(place), *_likeness(args), zoom)
    return Everything(args.points_per_side, args.score, args.stability, args.crop_layers, args.min_area)


def _likeness(args: argparse.Namespace) -> tuple[int, float]:
    return MAX_FOUND if args.most is None else args.most, THRESHOLD if args.threshold is None else args.threshold


def run(args: argparse.Namespace) -> int:
    if args.merge:
        if args.inputs:
            raise InputError("--merge takes no inputs: it changes the labels that are in --out")
        for name, value in vars(args).items():
            if name not in OF_MERGE and value != args.default_of(name):
                option = f"like-{value[0][0]}" if name == "like_parts" else name.replace("_", "-")
                raise InputError(f"--{option} does nothing beside --merge, which labels no picture; leave it out")
        return run_merge(args)
    if not args.inputs:
        raise InputError("name what to label: folders, images, videos, tars or globs")
    devices = [d for d in args.devices.split(",") if d]
    if not all(d.isascii() and d.isdigit() for d in devices) or (args.devices and not devices):
        raise InputError(f"--devices takes numbers with commas, such as 0,1, but got {args.devices!r}")
    report = label(
        args.inputs, args.out, wanted_of(args), format=args.format, images=args.images, shard=args.shard, every=args.every,
        tracks=args.tracks, processes=args.processes, devices=devices, ray=args.ray, model=args.model, engine=args.engine,
        precision=args.precision, threads=args.threads, watch=True,
    )  # fmt: skip
    if args.json:
        print(json.dumps(report.to_json()))
    else:
        before = f", {report.shards_before} of {report.shards} shards were there" if report.shards_before else ""
        copies = f", {report.copies} are copies of others" if report.copies else ""
        failed = f"; {report.failed} failed, see {clipped(report.out / 'errors.jsonl')}" if report.failed else ""
        print(
            f"{report.images} images, {report.annotations} masks -> {clipped(report.out)} ({report.labelled} now in "
            f"{report.seconds:.1f} s, {report.rate:.2f}/s{before}{copies}{failed}); {report.engine}, {report.precision}"
        )
    return 1 if report.failed else 0


def run_merge(args: argparse.Namespace) -> int:
    report = merge(Path(args.merge), args.out)
    if args.json:
        print(json.dumps(report.__dict__))
    else:
        unknown = f"; {report.unknown} of its images are not in the folder" if report.unknown else ""
        print(
            f"{report.images} images corrected: {report.before} masks before, {report.after} now -> {args.out}{unknown}"
        )
    return 1 if report.unknown else 0
