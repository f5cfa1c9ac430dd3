"""``tinyseg eval``: how good the masks are on labelled photos."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyseg.commands.options import add_engine_options, load_segmenter
from tinyseg.dataset import read_photos
from tinyseg.errors import DataError, InputError
from tinyseg.files import write_bytes
from tinyseg.predict.segmenter import SegmenterInfo

if TYPE_CHECKING:
    from tinyseg.bench.finding import FindReport


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "eval", help="mean IoU of boxes and clicks on labelled photos",
        description="Measure the installed model on labelled photos: mean IoU of the true box, of one and of three "
        "simulated clicks, with and without the second look, by set and by object size, beside a baseline that "
        "just fills the box.",
    )  # fmt: skip
    parser.add_argument("data", metavar="DATA", help="tar file or folder with annotations.jsonl.gz and images/")
    parser.add_argument("--set", action="append", metavar="NAME", help="only photos of this set (repeatable)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N photos")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to a file ('-': print JSON instead)")
    parser.add_argument(
        "--detail", action="store_true",
        help="also edges (boundary IoU and F), noisy boxes and clicks, clicks to 0.85 and 0.90 IoU, trust in the scores",
    )  # fmt: skip
    parser.add_argument(
        "--pictures", metavar="DIR", help="with --detail: draw the best and the worst cases into a folder"
    )
    parser.add_argument(
        "--zoom-rules", action="store_true",
        help="instead: what other rules for the second look would give and cost (for photos that are not for evaluation)",
    )  # fmt: skip
    parser.add_argument(
        "--find", action="store_true",
        help="instead: how well the like of an instance is found in photos of one kind, or, where DATA holds videos "
        "(NAME/frames, NAME/masks), the first frame's object in every tenth one",
    )  # fmt: skip
    parser.add_argument(
        "--cutout", action="store_true",
        help="instead: the salient object of each photo, as tinyseg cutout --auto takes it (for photos that label only that)",
    )  # fmt: skip
    add_engine_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    # The runtime does not know the bench.
    from tinyseg.bench.accuracy import measure  # noqa: PLC0415
    from tinyseg.bench.detail import measure_detail  # noqa: PLC0415
    from tinyseg.bench.finding import is_videos, measure_photos, measure_videos  # noqa: PLC0415
    from tinyseg.bench.saliency import measure_salient  # noqa: PLC0415
    from tinyseg.bench.zoom_rules import measure_zoom_rules  # noqa: PLC0415

    if args.pictures and not args.detail:
        raise InputError("--pictures goes with --detail")
    if args.zoom_rules + args.cutout + args.find + args.detail > 1:
        raise InputError("--zoom-rules, --cutout, --find and --detail are runs of their own; give one of them")
    if args.find and is_videos(Path(args.data)):
        seg = load_segmenter(args)
        _tell_found(args, seg.info, measure_videos(seg, Path(args.data)))
        return 0
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
    seg = load_segmenter(args)
    if args.zoom_rules:
        rules = measure_zoom_rules(seg, photos)
        facts = {"data": Path(args.data).name, "segmenter": asdict(seg.info), **rules.to_json()}
        _tell(args, facts, f"second looks on {Path(args.data).name}; {seg.info}\n\n{rules.to_markdown()}")
        return 0
    if args.find:
        _tell_found(args, seg.info, measure_photos(seg, photos))
        return 0
    if args.cutout:
        salient = measure_salient(seg, photos)
        facts = {"data": Path(args.data).name, "segmenter": asdict(seg.info), **salient.to_json()}
        _tell(args, facts, f"salient objects on {Path(args.data).name}; {seg.info}\n\n{salient.to_markdown()}")
        return 0
    report = measure(seg, photos)
    detail = measure_detail(seg, photos, Path(args.pictures) if args.pictures else None) if args.detail else None
    facts = {"data": Path(args.data).name, "segmenter": asdict(seg.info), **report.to_json()}
    if detail is not None:
        facts["detail"] = detail.to_json()
    parts = [f"mean IoU on {Path(args.data).name}; {seg.info}", report.to_markdown()]
    if detail is not None:
        parts.append(detail.to_markdown())
    _tell(args, facts, "\n\n".join(parts))
    return 0


def _tell_found(args: argparse.Namespace, info: SegmenterInfo, report: FindReport) -> None:
    facts = {"data": Path(args.data).name, "segmenter": asdict(info), **report.to_json()}
    _tell(args, facts, f"the same thing found again on {Path(args.data).name}; {info}\n\n{report.to_markdown()}")


def _tell(args: argparse.Namespace, facts: dict[str, Any], text: str) -> None:
    """As text, as JSON in a file beside the text, or as JSON alone."""
    content = json.dumps(facts, indent=1)
    if args.json and args.json != "-":
        write_bytes(Path(args.json), content.encode())
    print(content if args.json == "-" else text)
