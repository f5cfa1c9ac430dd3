"""``python -m tinyseg.distill COMMAND``: from photographs and a teacher to a model with int8 graphs.

Everything that needs torch is imported when its command runs, so that ``--help`` needs none of it. train, ablate and
answers take their flags from the dataclass that they fill, so their parser needs it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyseg.arguments import check_whole, parse_size, shown
from tinyseg.detect.card import MOST_SIDE
from tinyseg.errors import DataError, InputError, NotInstalled, TinysegError
from tinyseg.geometry import INPUT_MULTIPLE
from tinyseg.graphs.card import LARGEST_SIDE
from tinyseg.graphs.model import model_place

if TYPE_CHECKING:
    from tinyseg.dataset import Photo
    from tinyseg.distill.config import TrainConfig
    from tinyseg.distill.teachers import Encoded

TRAIN_EXAMPLE = """example:
  python -m tinyseg.distill train --data photos.tar --backbone mobilenet_v2.npz --minutes 60 --out runs/first
  python -m tinyseg.distill export runs/first/checkpoint.pt --out my-model
  tinyseg segment photo.jpg --point 100,100 --model my-model

Run the same train command again to go on where it stopped (Ctrl-C, --minutes, or a crash)."""

TRACK_EXAMPLE = """example:
  python -m tinyseg.distill track --data photos.tar --video sequences.tar --out runs/track
  python -m tinyseg.distill export-track runs/track/best.pt --model base --data photos.tar --out my-model
  tinyseg eval --video davis.tar --model my-model

Run the same track command again to go on where it stopped (Ctrl-C, --minutes, or a crash)."""

QUANTIZE_EXAMPLE = """example:
  python -m tinyseg.distill quantize base --data train.tar --eval eval.tar --out my-int8-model
  tinyseg segment photo.jpg --point 100,100 --model my-int8-model --precision int8"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands. Raises NotInstalled without torch."""
    parser = argparse.ArgumentParser(prog="python -m tinyseg.distill", description="Train and export a student.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        add_train, add_ablate, add_answers, add_average, add_rank, add_validate, add_export, add_export_detector, add_label, add_quantize,
        add_calibrate_everything, add_track, add_export_track,
    ):  # fmt: skip
        add(commands)
    return parser


def add_train(commands: Any) -> None:
    from tinyseg.distill import config  # noqa: PLC0415
    from tinyseg.distill.flags import add_flags  # noqa: PLC0415

    train = commands.add_parser(
        "train", help="train a student, or go on training", epilog=TRAIN_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_flags(train, config.TrainConfig, (config.DATA, config.STUDENT, config.RUN, config.TEACHING))
    train.add_argument("--out", required=True, metavar="DIR", help="run folder: checkpoint, curves, configuration")
    train.set_defaults(run=run_train)


def run_train(args: argparse.Namespace) -> None:
    """Train, or go on training."""
    from tinyseg.distill import config  # noqa: PLC0415
    from tinyseg.distill.train import train  # noqa: PLC0415

    made = read_config(args, (config.DATA, config.STUDENT, config.RUN, config.TEACHING))
    if made.distil != config.DistilWeights() and not (made.teacher or made.answers):
        raise InputError("--distil-... options need somebody to learn from: add --teacher or --answers")
    train(made)


def read_config(args: argparse.Namespace, groups: Sequence[str], **others: Any) -> TrainConfig:
    """The configuration that a command's flags fill. Raises InputError."""
    from tinyseg.distill.config import TrainConfig  # noqa: PLC0415
    from tinyseg.distill.flags import read_flags  # noqa: PLC0415

    if getattr(args, "start", None):
        args.start = str(model_place(args.start))
    return read_flags(TrainConfig, args, groups, out=args.out, **others)


def add_ablate(commands: Any) -> None:
    from tinyseg.distill import config  # noqa: PLC0415
    from tinyseg.distill.flags import add_flags  # noqa: PLC0415

    ablate = commands.add_parser(
        "ablate", help="what every part of the recipe is worth: short paired trainings, one table",
        description="Train the same student for a few steps in variants that differ in one thing each, and print their "
        "validation figures side by side. Run again to go on where it stopped.",
    )  # fmt: skip
    add_flags(ablate, config.TrainConfig, (config.DATA, config.STUDENT), {"steps": 300})
    ablate.add_argument("--out", required=True, metavar="DIR", help="folder of the runs, and ablation.json")
    ablate.add_argument(
        "--only", action="append", default=[], metavar="VARIANT",
        help="only this variant (repeatable; a wrong name lists all)",
    )  # fmt: skip
    ablate.set_defaults(run=run_ablate)


def run_ablate(args: argparse.Namespace) -> None:
    """Every variant, and their table."""
    from tinyseg.distill import ablation, config  # noqa: PLC0415

    made = read_config(args, (config.DATA, config.STUDENT), validate_every=sys.maxsize)
    print(ablation.to_text(ablation.ablate(made, args.only)))


def add_answers(commands: Any) -> None:
    from tinyseg.distill import config  # noqa: PLC0415
    from tinyseg.distill.flags import add_flags  # noqa: PLC0415

    answers = commands.add_parser(
        "answers", help="store a teacher's answers, for trainings to learn from",
        description="Ask a teacher about the batches that a training with the same options will see, once for many "
        "trainings: other students, other losses, several rounds through the data. Run again to go on where it stopped.",
    )  # fmt: skip
    add_flags(answers, config.TrainConfig, (config.DATA,))
    answers.add_argument("--teacher", required=True, metavar="NAME", help="as for train")
    answers.add_argument("--steps", type=int, required=True, metavar="N", help="batches to ask about")
    answers.add_argument(
        "--embeddings", action="store_true",
        help="store embeddings and tokens too, for --distil-embedding and --distil-tokens",
    )  # fmt: skip
    answers.add_argument("--out", required=True, metavar="DIR", help="store: a folder of shards")
    answers.set_defaults(run=run_answers)


def run_answers(args: argparse.Namespace) -> None:
    """Ask a teacher about the batches of a training."""
    from tinyseg.distill import config  # noqa: PLC0415
    from tinyseg.distill.answers import store_answers  # noqa: PLC0415

    made = read_config(args, (config.DATA,))
    store_answers(made, args.teacher, args.steps, Path(args.out), embeddings=args.embeddings)


def add_average(commands: Any) -> None:
    average = commands.add_parser(
        "average", help="one checkpoint from several trainings: the mean of their weights, norms measured again",
        description="Average checkpoints of trainings that share their start, and measure the batch norms of the result on "
        "training samples. One checkpoint alone has its norms measured again.",
    )  # fmt: skip
    average.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT")
    average.add_argument("--data", nargs="+", required=True, metavar="PATH", help="photos to measure the norms on")
    average.add_argument("--batches", type=int, default=100, metavar="N", help="batches of 8 photos (default: 100)")
    average.add_argument(
        "--rounds", type=int, default=3, metavar="N",
        help="most rounds of clicks that the norms meet; 1 is for a training with --freeze-norms (default: 3)",
    )  # fmt: skip
    average.add_argument("--out", required=True, metavar="FILE", help="checkpoint to write")
    average.set_defaults(run=run_average)


def run_average(args: argparse.Namespace) -> None:
    """The mean of several trainings."""
    from tinyseg.distill import average  # noqa: PLC0415
    from tinyseg.distill.data import TrainingBatches  # noqa: PLC0415

    training, _ = split_photos(args.data)
    batches = TrainingBatches(training, 8, 3, average.SEED, {})
    paths = [Path(p) for p in args.checkpoints]
    print(f"wrote {average.average_checkpoints(paths, batches, args.batches, Path(args.out), args.rounds)}")


def add_rank(commands: Any) -> None:
    from tinyseg.distill.flags import add_flags  # noqa: PLC0415
    from tinyseg.distill.rank import HEAD, RankConfig  # noqa: PLC0415

    rank = commands.add_parser(
        "rank", help="learn scores that see the masks they judge; masks stay as they are",
        description="Ask a model clicks, boxes and corrections on labelled photos, as the runtime would, and learn a head that "
        "predicts the IoU of its masks from the masks themselves and puts the readings of a click in order. Everything else stays "
        "as it is, so this comes last. Prints what the older and the new scores choose on held-out photos.",
    )  # fmt: skip
    rank.add_argument("--start", required=True, metavar="PLACE", help="model folder, or a packaged model's name")
    rank.add_argument("--data", nargs="+", required=True, metavar="PATH", help="tar files or folders, as for train")
    rank.add_argument("--out", required=True, metavar="FILE", help="checkpoint to write, for the export command")
    rank.add_argument(
        "--photos", type=int, default=1200, metavar="N", help="photos to learn on, drawn by their names (default: 1200)"
    )
    rank.add_argument(
        "--held-out", type=int, default=200, metavar="N", help="held-out photos to print figures of (default: 200)"
    )
    add_flags(rank, RankConfig, (HEAD,))
    rank.set_defaults(run=run_rank)


def run_rank(args: argparse.Namespace) -> None:
    """Record answers, learn a head, print what it chooses on held-out photos, write a checkpoint."""
    from tinyseg.distill import rank  # noqa: PLC0415
    from tinyseg.distill.checkpoint import require_place  # noqa: PLC0415
    from tinyseg.distill.flags import read_flags  # noqa: PLC0415

    config = read_flags(rank.RankConfig, args, (rank.HEAD,))
    if args.photos < 1 or args.held_out < 0:
        raise InputError("--photos must be at least 1, and --held-out at least 0")
    require_place(Path(args.out))  # told before the photos are asked about, not after
    training, held_out = split_photos(args.data)
    ranked = rank.rank(
        model_place(args.start), by_name(training)[: args.photos], by_name(held_out)[: args.held_out], config
    )  # fmt: skip
    facts = {"data": list(args.data), "start": args.start, "rank": {**asdict(config), **ranked.facts}}
    if ranked.table:
        print(ranked.table)
    print(f"wrote {rank.save(ranked.student, facts, Path(args.out))}")


def split_photos(paths: Iterable[str]) -> tuple[list[Photo], list[Photo]]:
    """Photos of tar files and folders: to train on, and held out."""
    from tinyseg.dataset import read_photos  # noqa: PLC0415
    from tinyseg.distill.data import split_validation  # noqa: PLC0415

    return split_validation(p for path in paths for p in read_photos(Path(path)))


def add_track(commands: Any) -> None:
    from tinyseg.distill.flags import add_flags  # noqa: PLC0415
    from tinyseg.distill.track import TRACK, TrackConfig  # noqa: PLC0415

    track = commands.add_parser(
        "track", help="train a tracking decoder for a model; its encoder and its masks of still images stay as they are",
        epilog=TRACK_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_flags(track, TrackConfig, (TRACK,))
    track.add_argument(
        "--out", required=True, metavar="DIR", help="run folder: checkpoint, curves, features of the clips"
    )
    track.set_defaults(run=run_track)


def run_track(args: argparse.Namespace) -> None:
    """Train a tracking decoder, or go on training."""
    from tinyseg.distill.flags import read_flags  # noqa: PLC0415
    from tinyseg.distill.track import TRACK, TrackConfig, train_track  # noqa: PLC0415

    args.start = str(model_place(args.start))
    if args.decoder:
        args.decoder = str(model_place(args.decoder))
    train_track(read_flags(TrackConfig, args, (TRACK,), out=args.out))


def add_export_track(commands: Any) -> None:
    export = commands.add_parser(
        "export-track", help="put a tracking decoder into a model folder", epilog=TRACK_EXAMPLE,
        description="Write a copy of a model with a tracking decoder. Its other graphs keep their bytes; where it carries int8 "
        "graphs, the tracking decoder gets one too, calibrated on photos.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    export.add_argument("checkpoint", metavar="CHECKPOINT", help="best.pt or checkpoint.pt of the track command")
    export.add_argument(
        "--model", default="base", metavar="PLACE", help="model folder, or a packaged model's name (default: base)"
    )
    export.add_argument(
        "--data", nargs="+", default=[], metavar="PATH", help="photos to calibrate int8 on, as for track"
    )
    export.add_argument("--photos", type=int, default=48, metavar="N", help="so many of them (default: 48)")
    export.add_argument("--out", required=True, metavar="DIR", help="model folder; replaced if it exists")
    export.set_defaults(run=run_export_track)


def run_export_track(args: argparse.Namespace) -> None:
    """A model folder with a tracking decoder."""
    from tinyseg.distill.calibration import pick_photos  # noqa: PLC0415
    from tinyseg.distill.track_export import export_track  # noqa: PLC0415
    from tinyseg.system.folders import require_replaceable  # noqa: PLC0415

    if args.photos < 1:
        raise InputError("--photos must be at least 1")
    require_replaceable(Path(args.out))
    training, _ = split_photos(args.data)
    photos = pick_photos(training, args.photos) if training else []
    print(f"wrote {export_track(Path(args.checkpoint), model_place(args.model), photos, Path(args.out))}")


def by_name(photos: Iterable[Photo]) -> list[Photo]:
    """Labelled photos in an order that depends on nothing but their names, as which ones are held out does."""
    return sorted((p for p in photos if p.instances), key=lambda p: zlib.crc32(p.name.encode()[::-1]))


def add_export_detector(commands: Any) -> None:
    detector = commands.add_parser(
        "export-detector", help="turn a Grounding DINO of transformers into a folder for tinyseg segment --text",
        description="Export Grounding DINO or MM Grounding DINO from transformers to ONNX, compare it with transformers, and "
        "write it with its tokenizer. Frames are stretched to the one size that is exported.",
    )  # fmt: skip
    detector.add_argument(
        "source", metavar="HUB_OR_FOLDER", help="such as IDEA-Research/grounding-dino-tiny, or a folder"
    )
    detector.add_argument("--out", required=True, metavar="DIR")
    detector.add_argument(
        "--size", default="800x800", metavar="WxH", help="of the input, multiples of 32 (default: 800x800)"
    )
    detector.add_argument(
        "--text-length", type=int, default=64, metavar="N", help="most tokens of a text (default: 64)"
    )
    detector.set_defaults(run=run_export_detector)


def run_export_detector(args: argparse.Namespace) -> None:
    from tinyseg.distill.detector import export_detector  # noqa: PLC0415

    width, height = parse_size("--size", args.size, MOST_SIDE)
    done = export_detector(args.source, Path(args.out), width, height, args.text_length)
    print(
        f"{args.source} -> {done.folder} ({done.megabytes:.1f} MB); largest difference from transformers: scores "
        f"{done.scores_off:.1e}, boxes {done.boxes_off:.1e}"
    )


def add_validate(commands: Any) -> None:
    check = commands.add_parser(
        "validate", help="figures of students and teachers on photos that were held out, and on photos that were trained on",
        description="Mean IoU as training prints it. If photos that were trained on score no better than held-out ones, more "
        "data of the kind would not help, but a larger student or a longer training may. A teacher should be clearly better "
        "than the student that is to learn from it.",
    )  # fmt: skip
    check.add_argument("models", nargs="+", metavar="MODEL", help="checkpoint.pt, or a teacher's name as for train")
    check.add_argument("--data", nargs="+", required=True, metavar="PATH", help="tar files or folders, as for train")
    check.add_argument(
        "--photos", type=int, default=200, metavar="N", help="photos, drawn by their names (default: 200)"
    )
    check.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    check.set_defaults(run=run_validate)


def run_validate(args: argparse.Namespace) -> None:
    """Held-out and training photos side by side, of students and teachers."""
    if args.photos < 1:
        raise InputError("--photos must be at least 1")
    import torch  # noqa: PLC0415

    from tinyseg.distill.parallel import checked_device  # noqa: PLC0415
    from tinyseg.distill.teachers import StudentEncoded, load_teacher  # noqa: PLC0415
    from tinyseg.distill.validation import score_encoders  # noqa: PLC0415
    from tinyseg.distill.warm_start import student_of  # noqa: PLC0415

    device = checked_device(args.device)
    encodings: dict[str, Callable[[torch.Tensor], Encoded]] = {}
    for name in args.models:
        if name.endswith(".pt"):
            student = student_of(Path(name)).to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
            encodings[name] = partial(StudentEncoded.at, student)
        else:
            encodings[name] = load_teacher(name, device).encode
    training, held_out = split_photos(args.data)
    for kind, photos in (("held out", held_out), ("trained on", training)):
        some = by_name(photos)[: args.photos]
        for name, encode in encodings.items():
            figures = "  ".join(f"{k} {v:.3f}" for k, v in score_encoders(encode, some, device).items())
            print(f"{name}, {kind}, {len(some)} photos: {figures}", flush=True)


def add_export(commands: Any) -> None:
    export = commands.add_parser("export", help="turn a checkpoint into a model folder for the runtime")
    export.add_argument("checkpoint", metavar="CHECKPOINT")
    export.add_argument("--out", required=True, metavar="DIR", help="model folder; replaced if it exists")
    export.add_argument("--name", default="tinyseg", help="name in model.json (default: tinyseg)")
    export.add_argument(
        "--long-side", type=int, default=512, metavar="PX", help="longer side of a frame's input (default: 512)"
    )
    export.add_argument(
        "--zoom-factor", type=float, default=2.0, metavar="F", help="second look: crop over object (default: 2.0)"
    )
    export.add_argument(
        "--zoom-below",
        type=float,
        default=0.3,
        metavar="S",
        help="second look: largest share of the frame (default: 0.3)",
    )
    export.add_argument(
        "--card", metavar="FILE", help="JSON whose keys (licence, provenance, accuracy) go into model.json"
    )
    export.set_defaults(run=run_export)


def read_card(path: Path) -> dict[str, Any]:
    """What --card adds to a model.json. Raises DataError."""
    try:
        card = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as exc:
        raise DataError(f"--card {path} cannot be read as JSON ({getattr(exc, 'strerror', None) or exc})") from exc
    if not isinstance(card, dict):
        raise DataError(f"--card {path} must hold a JSON object, but holds {shown(card)}")
    return card


def run_export(args: argparse.Namespace) -> None:
    """A checkpoint as a model folder."""
    from tinyseg.distill.export import export  # noqa: PLC0415

    check_whole("--long-side", args.long_side, INPUT_MULTIPLE, LARGEST_SIDE)
    for name, value, least, most in (
        ("--zoom-factor", args.zoom_factor, 1.0, 100.0), ("--zoom-below", args.zoom_below, 0.0, 1.0)
    ):  # fmt: skip
        if not least <= value <= most:
            raise InputError(f"{name} must be a number from {least:g} to {most:g}, but is {value:g}")
    card = read_card(Path(args.card)) if args.card else None
    zoom = {"side": 256, "factor": args.zoom_factor, "below": args.zoom_below}
    out = export(
        Path(args.checkpoint), Path(args.out), name=args.name, long_side=args.long_side, zoom=zoom, card=card
    )  # fmt: skip
    print(f"wrote {out}")


def add_label(commands: Any) -> None:
    label = commands.add_parser(
        "label", help="let a teacher label photographs, into a data set to train on",
        description="Ask a teacher at a grid of clicks, keep what it is sure of. Run again to go on where it stopped.",
    )  # fmt: skip
    label.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders or globs")
    label.add_argument("--teacher", required=True, metavar="NAME", help="as for train: tinyseg:FOLDER, sam:NAME, ...")
    label.add_argument("--out", required=True, metavar="DIR", help="data set folder")
    label.add_argument("--grid", type=int, default=12, metavar="N", help="clicks along the longer side (default: 12)")
    label.add_argument("--least-iou", type=float, default=0.6, metavar="I", help="predicted IoU to keep (default: 0.6)")
    label.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    label.set_defaults(run=run_label)


def run_label(args: argparse.Namespace) -> None:
    """Label images with a teacher."""
    from tinyseg.distill.label import LabelRule, label  # noqa: PLC0415
    from tinyseg.distill.parallel import checked_device  # noqa: PLC0415
    from tinyseg.distill.teachers import load_teacher  # noqa: PLC0415
    from tinyseg.images import find_images  # noqa: PLC0415

    if args.grid < 1 or not 0 <= args.least_iou <= 1:
        raise InputError("--grid must be at least 1, and --least-iou between 0 and 1")
    teacher = load_teacher(args.teacher, checked_device(args.device))
    label(teacher, find_images(args.images), Path(args.out), LabelRule(grid=args.grid, least_iou=args.least_iou))


def add_quantize(commands: Any) -> None:
    quantize = commands.add_parser(
        "quantize", help="add int8 graphs to a model", epilog=QUANTIZE_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    quantize.add_argument(
        "model", metavar="MODEL", help="model folder or zip, a packaged model's name, or a checkpoint.pt"
    )
    quantize.add_argument(
        "--data", nargs="+", required=True, metavar="PATH", help="photos with instances to calibrate on (tar or folder)"
    )
    quantize.add_argument("--out", required=True, metavar="DIR", help="model folder; replaced if it exists")
    quantize.add_argument(
        "--photos", type=int, default=48, metavar="N", help="calibrate on so many of them (default: 48)"
    )
    quantize.add_argument("--seed", type=int, default=0, metavar="N", help="which photos are taken (default: 0)")
    quantize.add_argument(
        "--keep", action="append", default=[], metavar="GRAPH:NODE", help="leave a convolution in float (repeatable)"
    )
    quantize.add_argument(
        "--eval", metavar="DATA", help="labelled photos: accuracy of every engine and precision before and after"
    )
    quantize.add_argument(
        "--rounds", type=int, default=40, metavar="N", help="rounds of timing before and after (default: 40)"
    )
    quantize.set_defaults(run=run_quantize)


def run_quantize(args: argparse.Namespace) -> None:
    """Calibrate, quantize, write, and measure before and after on this device."""
    from tinyseg.bench.precisions import compare_precisions, table, to_card  # noqa: PLC0415
    from tinyseg.dataset import read_photos  # noqa: PLC0415
    from tinyseg.distill import quantize as quantization  # noqa: PLC0415
    from tinyseg.distill.calibration import pick_photos, record_feeds  # noqa: PLC0415
    from tinyseg.distill.export import export as export_folder  # noqa: PLC0415
    from tinyseg.distill.flags import MOST_SEED  # noqa: PLC0415
    from tinyseg.graphs.model import open_model  # noqa: PLC0415
    from tinyseg.system import device  # noqa: PLC0415 - like all of torch and onnx, only when it runs
    from tinyseg.system.folders import new_folder, require_replaceable  # noqa: PLC0415

    if args.photos < 1 or args.rounds < 1:
        raise InputError("--photos and --rounds must be at least 1")
    check_whole("--seed", args.seed, 0, MOST_SEED)
    require_replaceable(Path(args.out))  # told before hours of work, not after
    with tempfile.TemporaryDirectory() as folder:
        place = model_place(args.model)
        if place.suffix == ".pt":
            place = export_folder(place, Path(folder) / "exported")
        model = open_model(place)
        quantization.kept_nodes(model, args.keep)  # told before hours of work, not after
        measured_on = read_photos(Path(args.eval)) if args.eval else None  # the same
        training, _ = split_photos(args.data)
        photos = pick_photos(training, args.photos, args.seed)
        graphs, reports = quantization.quantize_model(model, record_feeds(model, photos, args.seed), keep=args.keep)
        facts = {"data": [Path(p).name for p in args.data], "photos": len(photos), "seed": args.seed}
        print(quantization.to_text(reports), flush=True)
        # Measured before it takes its place: graphs that the parity gate refuses never get there.
        made = Path(folder) / "quantized"
        quantization.write_folder(model, graphs, reports, facts, made)
        rows = compare_precisions(str(made), measured_on, rounds=args.rounds)
        data = Path(args.eval).name if args.eval else None
        full = next((r for r in rows if r.precision == "fp32" and r.report), None)
        accuracy = {"data": data, "engine": full.engine, "precision": "fp32", **(full.report or {})} if full else None
        quantization.record_measured(made, to_card(rows, device.processor_name(), data), accuracy)
        with new_folder(Path(args.out)) as out:
            shutil.copytree(made, out, dirs_exist_ok=True)
    print(f"\n{device.processor_name()}\n\n{table(rows)}\n\nwrote {args.out}")


def add_calibrate_everything(commands: Any) -> None:
    calibrate = commands.add_parser(
        "calibrate-everything", help="choose a model's thresholds for finding everything, on held-out photos",
        description="Ask grids of clicks about the photos of DATA that training holds out, choose the least predicted IoU and "
        "stability, the overlap of masks and the logit that is sure, and print what the alternatives give. A minute of one "
        "core for about ten photos.",
    )  # fmt: skip
    calibrate.add_argument("model", metavar="MODEL", help="model folder or zip, or a packaged model's name")
    calibrate.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="PATH",
        help="the data that was trained on; only its held-out part is used",
    )
    calibrate.add_argument("--photos", type=int, default=100, metavar="N", help="so many of them (default: 100)")
    calibrate.add_argument(
        "--points-per-side", type=int, metavar="N",
        help="clicks a side of the finest grid to choose by; the model's own, which is the default, stays as it is",
    )  # fmt: skip
    calibrate.add_argument(
        "--close-views", type=int, metavar="N",
        help="ask grids after the second in N x N close views (default: as the model's own; 0: in the whole frame)",
    )  # fmt: skip
    calibrate.add_argument(
        "--close-side",
        type=int,
        metavar="PIXELS",
        help="longer side of a close view's input (default: as the model's own)",
    )
    calibrate.add_argument(
        "--whole-side", type=int, metavar="PIXELS",
        help="the same of the whole frame's input for several grids (default: as the model's own; 0: the model's input)",
    )  # fmt: skip
    calibrate.add_argument(
        "--sure-margin", type=int, metavar="CELLS",
        help="cells around a click in which a mask must be sure for it to be left out (default: as the model's own)",
    )  # fmt: skip
    calibrate.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    calibrate.add_argument(
        "--searches", action="store_true",
        help="choose nothing: print what other grids keep of the full grid's recall, with the model's thresholds",
    )  # fmt: skip
    calibrate.add_argument(
        "--objects", type=int, default=1, metavar="N", help="only photos with so many labelled objects (default: 1)"
    )
    calibrate.add_argument(
        "--write", action="store_true", help='put the choice into MODEL\'s model.json, under "everything"'
    )
    calibrate.set_defaults(run=run_calibrate_everything)


def run_calibrate_everything(args: argparse.Namespace) -> None:
    """Thresholds of a model folder, chosen and written."""
    from tinyseg.distill.everything_searches import alternatives, compare_searches  # noqa: PLC0415
    from tinyseg.distill.everything_thresholds import calibrate, pick_held_out, write_rule  # noqa: PLC0415
    from tinyseg.predict.load import load  # noqa: PLC0415

    place = model_place(args.model)
    if args.photos < 1:
        raise InputError(f"--photos must be at least 1, but is {args.photos}")
    stated = {name: getattr(args, name) for name in ("close_views", "close_side", "whole_side", "sure_margin")}
    stated = {name: value for name, value in stated.items() if value is not None}
    if args.searches and (args.write or args.points_per_side is not None or stated):
        raise InputError(
            "--searches chooses nothing; leave out --write, --points-per-side, --close-views, --close-side, --whole-side and "
            "--sure-margin"
        )
    if args.write and not (place / "model.json").is_file():  # told before an hour of work, not after
        raise InputError(
            f"--write changes the model.json of a model folder, and {place} is none; unpack the model into one"
        )
    if args.objects < 1:
        raise InputError(f"--objects must be at least 1, but is {args.objects}")
    _, held_out = split_photos(args.data)
    photos = pick_held_out(held_out, args.photos, args.objects)
    seg = load(place, "onnxruntime", "fp32", threads=args.threads)
    if args.searches:
        print(compare_searches(seg, photos, alternatives(seg.everything_rule)).to_markdown())
        return
    own = replace(seg.everything_rule, **stated)
    tried = own if args.points_per_side is None else replace(own, points_per_side=args.points_per_side)
    found = calibrate(seg, photos, tried)
    print(found.to_markdown())
    if args.write:
        write_rule(place, replace(found.rule, points_per_side=own.points_per_side))
        print(f"wrote {place / 'model.json'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    try:
        try:
            args = build_parser().parse_args(arguments)
            args.run(args)
        except ModuleNotFoundError as exc:
            raise NotInstalled(f"{exc.name} is not installed; run: pip install 'tinyseg[train]'") from exc
    except TinysegError as exc:
        return _failed(str(exc), 2)
    except KeyboardInterrupt:
        return _failed("interrupted; most commands go on where they stopped when they are run again", 130)
    except MemoryError:
        return _failed("not enough memory", 1)
    except OSError as exc:  # a full disk, a file that went away
        return _failed(f"{exc.filename or 'a file'} cannot be written or read: {exc.strerror or exc}", 1)
    return 0


def _failed(what: str, code: int) -> int:
    """Tell in one line why a command ended; returns the exit code."""
    print(f"tinyseg.distill: {what}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
