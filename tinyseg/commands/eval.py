"""``tinyseg eval``: how good the masks are on labelled photos."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinyseg.arguments import check_choice, check_path, check_whole
from tinyseg.commands.options import add_engine_options, load_segmenter
from tinyseg.commands.results import file_for_results
from tinyseg.dataset import Photo, read_photos
from tinyseg.errors import DataError, InputError
from tinyseg.files import write_bytes
from tinyseg.geometry import INPUT_MULTIPLE
from tinyseg.predict.segmenter import Segmenter

CHOICES = ("detail", "video", "everything", "cutout", "find", "zoom_rules")


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "eval", help="mean IoU of boxes and clicks on labelled photos, J&F on labelled videos",
        description="Measure the installed model on labelled photos: mean IoU of the true box, of one and of three "
        "simulated clicks, with and without the second look, by set and by object size, beside a baseline that "
        "just fills the box. With --video on sequences in DAVIS' layout: J, F and J&F of the tracker, started by the first "
        "frame's mask, by its box, by one click and by the middle frame's mask, beside two baselines.",
    )  # fmt: skip
    parser.add_argument(
        "data",
        metavar="DATA",
        help="tar file or folder with annotations.jsonl.gz and images/; with --video "
        "of <sequence>/frames and <sequence>/masks",
    )
    parser.add_argument(
        "--set", action="append", metavar="NAME", help="only photos of this set, or this sequence (repeatable)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N photos or sequences")
    parser.add_argument(
        "--way", action="append", metavar="WAY",
        help="with --video: only mask, box, click, middle, copy or flow (repeatable; default: all of them)",
    )  # fmt: skip
    parser.add_argument(
        "--crop", type=int, metavar="PIXELS",
        help="with --video: side of the tracker's crops (with several objects it chooses smaller ones by itself)",
    )  # fmt: skip
    parser.add_argument(
        "--objects", type=int, action="append", metavar="N",
        help="with --video: instead, accuracy beside cost of so many objects (repeatable): J&F in the crops that each of them "
        "gets, and the time of a step",
    )  # fmt: skip
    parser.add_argument("--every", type=int, default=1, metavar="N", help="with --video: only every Nth frame")
    parser.add_argument(
        "--long-side", type=int, metavar="PIXELS",
        help="of mean IoU: longer side of the encoder's input for the whole frame (default: the model's own)",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="also write the figures to a file ('-': print JSON instead)")
    parser.add_argument(
        "--pictures", metavar="DIR",
        help="with --detail: draw the best and the worst cases into a folder; with --video: a sheet of frames of every "
        "sequence, with what was found and, as a green outline, the truth",
    )  # fmt: skip
    choice = parser.add_argument_group("what is measured, beside boxes and clicks or instead of them: one of")
    choice.add_argument(
        "--detail", action="store_true",
        help="also edges (boundary IoU and F), noisy boxes and clicks, clicks to 0.85 and 0.90 IoU, trust in the scores",
    )  # fmt: skip
    choice.add_argument("--video", action="store_true", help="instead: follow objects through sequences")
    choice.add_argument(
        "--cutout", action="store_true",
        help="instead: the salient object of each photo, as tinyseg cutout --auto takes it (for photos that label only that)",
    )  # fmt: skip
    choice.add_argument(
        "--find", action="store_true",
        help="instead: how well the like of an instance is found in photos of one kind, or, where DATA holds videos "
        "(NAME/frames, NAME/masks), the first frame's object in every tenth one",
    )  # fmt: skip
    choice.add_argument(
        "--zoom-rules", action="store_true",
        help="instead: what other rules for the second look would give and cost (for photos that are not for evaluation)",
    )  # fmt: skip
    choice.add_argument(
        "--everything", action="store_true",
        help="instead: what finding everything recalls of the labelled objects (AR@10, 100, 1000), and its time, beside the "
        "full grid of clicks",
    )  # fmt: skip
    parser.add_argument("--no-full-grid", action="store_true", help="with --everything: leave the slow full grid out")
    parser.add_argument(
        "--points-per-side", type=int, action="append", default=[], metavar="N",
        help="with --everything: also what the model's rule gives with so many clicks a side of its finest grid; may be repeated",
    )  # fmt: skip
    add_engine_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    given = [name for name in CHOICES if getattr(args, name)]
    if len(given) > 1:
        shown = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{shown}: each is a run of its own; give one of them")
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit must be at least 1, but is {args.limit}")
    if args.pictures and not (args.detail or args.video):
        raise InputError("--pictures goes with --detail or --video")
    if (args.way or args.crop or args.objects or args.every != 1) and not args.video:
        raise InputError("--way, --crop, --objects and --every go with --video")
    if args.objects and (args.way or args.crop or args.pictures):
        raise InputError(
            "--objects chooses crops by itself, begins with the first mask and draws nothing; leave --way, --crop and "
            "--pictures out"
        )
    if args.no_full_grid and not args.everything:
        raise InputError("--no-full-grid goes with --everything")
    if args.points_per_side and not args.everything:
        raise InputError("--points-per-side goes with --everything")
    if args.long_side is not None and (given or args.pictures):
        raise InputError(
            f"--long-side is of mean IoU alone; leave it out, or --{(given or ['pictures'])[0].replace('_', '-')}"
        )
    if args.json and args.json != "-":
        file_for_results("--json", args.json)
    if args.video:
        return run_video(args)
    if args.find:
        return run_find(args)
    photos = chosen_photos(args)
    seg = load_segmenter(args)
    if args.zoom_rules:
        return run_zoom_rules(args, seg, photos)
    if args.everything:
        return run_everything(args, seg, photos)
    return run_cutout(args, seg, photos) if args.cutout else run_prompts(args, seg, photos)


def chosen_photos(args: argparse.Namespace) -> list[Photo]:
    """The photos of DATA that --set and --limit leave. Raises DataError."""
    photos = read_photos(Path(args.data))
    if args.set:
        known = sorted({p.group for p in photos})
        unknown = sorted(set(args.set) - set(known))
        if unknown:
            raise DataError(f"{args.data} has no set {', '.join(unknown)}; its sets are {', '.join(known)}")
        photos = [p for p in photos if p.group in args.set]
    photos = photos[: args.limit]
    if not photos:
        raise DataError(f"{args.data} holds no photo to measure on")
    return photos


def run_everything(args: argparse.Namespace, seg: Segmenter, photos: Sequence[Photo]) -> int:
    from tinyseg.bench.everything import measure_everything  # noqa: PLC0415 - the runtime does not know the bench

    report = measure_everything(seg, photos, full_grid=not args.no_full_grid, sides=args.points_per_side)
    rule = seg.everything_rule.to_card()
    text = f"rule: {json.dumps(rule)}\n\n{report.to_markdown()}"
    return _tell(args, seg, "everything", {"rule": rule, **report.to_json()}, text)


def run_prompts(args: argparse.Namespace, seg: Segmenter, photos: Sequence[Photo]) -> int:
    # The runtime does not know the bench.
    from tinyseg.bench.accuracy import measure  # noqa: PLC0415
    from tinyseg.bench.detail import measure_detail  # noqa: PLC0415

    report = measure(seg, photos, args.long_side)
    detail = measure_detail(seg, photos, Path(args.pictures) if args.pictures else None) if args.detail else None
    facts: dict[str, Any] = {**report.to_json()}
    parts = [report.to_markdown()]
    if detail is not None:
        facts["detail"] = detail.to_json()
        parts.append(detail.to_markdown())
    return _tell(args, seg, "mean IoU", facts, "\n\n".join(parts))


def run_zoom_rules(args: argparse.Namespace, seg: Segmenter, photos: Sequence[Photo]) -> int:
    from tinyseg.bench.zoom_rules import measure_zoom_rules  # noqa: PLC0415

    rules = measure_zoom_rules(seg, photos)
    return _tell(args, seg, "second looks", rules.to_json(), rules.to_markdown())


def run_cutout(args: argparse.Namespace, seg: Segmenter, photos: Sequence[Photo]) -> int:
    from tinyseg.bench.saliency import measure_salient  # noqa: PLC0415

    salient = measure_salient(seg, photos)
    return _tell(args, seg, "salient objects", salient.to_json(), salient.to_markdown())


def run_find(args: argparse.Namespace) -> int:
    from tinyseg.bench.finding import is_videos, measure_photos, measure_videos  # noqa: PLC0415

    data = check_path("DATA", args.data)
    videos = is_videos(data)
    photos = [] if videos else chosen_photos(args)
    seg = load_segmenter(args)
    report = measure_videos(seg, data, args.set or (), args.limit) if videos else measure_photos(seg, photos)
    return _tell(args, seg, "the same thing found", report.to_json(), report.to_markdown())


def run_video(args: argparse.Namespace) -> int:
    from tinyseg.bench.sequences import read_sequences  # noqa: PLC0415
    from tinyseg.bench.video import WAYS, measure_shared, measure_video  # noqa: PLC0415

    for way in args.way or ():
        check_choice("--way", way, WAYS)
    check_whole("--every", args.every, 1, 1000)
    if args.crop is not None and (args.crop % INPUT_MULTIPLE or not 64 <= args.crop <= 1024):
        raise InputError(f"--crop must be a multiple of {INPUT_MULTIPLE} from 64 to 1024, but is {args.crop}")
    data = check_path("DATA", args.data)
    sequences = read_sequences(data)
    unknown = sorted(set(args.set or ()) - {s.name for s in sequences})
    if unknown:
        raise DataError(f"{data} has no sequence {', '.join(unknown)}; it has {', '.join(s.name for s in sequences)}")
    sequences = [s for s in sequences if not args.set or s.name in args.set][: args.limit]
    seg = load_segmenter(args)
    if args.objects:
        shared = measure_shared(seg, sequences, args.objects, args.every)
        return _tell(args, seg, "accuracy beside cost", {"every": args.every, **shared.to_json()}, shared.to_markdown())
    pictures = Path(args.pictures) if args.pictures else None
    report = measure_video(seg, sequences, args.way or WAYS, args.every, args.crop, pictures)
    return _tell(args, seg, "J&F", {"every": args.every, **report.to_json()}, report.to_markdown())


def _tell(args: argparse.Namespace, seg: Segmenter, what: str, figures: dict[str, Any], text: str) -> int:
    """As text, as JSON in a file beside the text, or as JSON alone."""
    name = Path(args.data).name
    content = json.dumps({"data": name, "segmenter": asdict(seg.info), **figures}, indent=1)
    if args.json and args.json != "-":
        write_bytes(Path(args.json), content.encode())
    print(content if args.json == "-" else f"{what} on {name}; {seg.info}\n\n{text}")
    return 0
