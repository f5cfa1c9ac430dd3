"""``python -m tinyseg.distill COMMAND``: from photographs and a teacher to a model with int8 graphs."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyseg.errors import InputError, NotInstalled, TinysegError
from tinyseg.graphs.model import PACKAGED, model_place

if TYPE_CHECKING:
    from tinyseg.distill.teachers import Look

TRAIN_EXAMPLE = """example:
  python -m tinyseg.distill train --data photos.tar --backbone mobilenet_v2.npz --minutes 60 --out runs/first
  python -m tinyseg.distill export runs/first/checkpoint.pt --out my-model
  tinyseg segment photo.jpg --point 100,100 --model my-model

Run the same train command again to go on where it stopped (Ctrl-C, --minutes, or a crash)."""


QUANTIZE_EXAMPLE = """example:
  python -m tinyseg.distill quantize packaged --data train.tar --eval eval.tar --out my-int8-model
  tinyseg segment photo.jpg --point 100,100 --model my-int8-model --precision int8"""


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    """What decides the batches and their prompts; train and answers must be given the same."""
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", nargs="+", required=True, metavar="PATH", help="tar files or folders with annotations.jsonl.gz"
    )
    data.add_argument(
        "--batch-size", type=int, default=8, metavar="N",
        help="photos a step at 320 pixels; fewer where they are larger, more where smaller (default: 8)",
    )  # fmt: skip
    data.add_argument("--instances", type=int, default=3, metavar="N", help="prompts a photo (default: 3)")
    data.add_argument("--seed", type=int, default=0, metavar="N")
    data.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    data.add_argument(
        "--data-on-device", action="store_true",
        help="decode every photo once into the device's memory and cut samples there (for GPUs with room: 1 GB for 500 photos)",
    )  # fmt: skip
    data.add_argument(
        "--oversample", action="append", default=[], metavar="SOURCE=FACTOR",
        help="draw photos of a source more often (repeatable)",
    )  # fmt: skip
    data.add_argument(
        "--copy-paste", type=float, default=0.0, metavar="S",
        help="share of samples with an object pasted from another photo (default: 0)",
    )  # fmt: skip
    data.add_argument(
        "--mosaic", type=float, default=0.0, metavar="S", help="share of samples made of four photos (default: 0)"
    )


def _add_student_options(parser: argparse.ArgumentParser, steps: int) -> None:
    """What is trained, from where, for how long, and who teaches."""
    parser.add_argument(
        "--backbone", metavar="FILE", help="npz with MobileNetV2 weights to start from (default: random)"
    )
    parser.add_argument(
        "--start", metavar="PLACE",
        help="weights to start from: a model folder, a packaged model's name, or a checkpoint",
    )  # fmt: skip
    parser.add_argument(
        "--size", default="base", choices=("base", "small", "large"), help="of the student (default: base)"
    )
    parser.add_argument(
        "--freeze", type=int, default=0, metavar="N",
        help="keep the stem and the first N blocks of the backbone as they are: faster steps for a finetune (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--freeze-norms", action="store_true",
        help="keep the statistics of all batch norms as --start has them, as the exported model will (for a finetune)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int, default=steps, metavar="N", help=f"length of the whole training (default: {steps})"
    )
    parser.add_argument("--learning-rate", type=float, default=1e-3, metavar="R", help="peak rate (default: 0.001)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that cut samples (default: 1)")
    parser.add_argument(
        "--validation-photos", type=int, default=120, metavar="N", help="photos to validate on (default: 120)"
    )
    parser.add_argument(
        "--teacher", metavar="NAME",
        help="learn from a larger model too: tinyseg:FOLDER, sam:NAME_OR_FOLDER, flip:TEACHER, several with commas",
    )  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tinyseg.distill", description="Train and export a student.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser(
        "train", help="train a student, or go on training", epilog=TRAIN_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _add_data_options(train)
    _add_student_options(train, steps=6000)
    train.add_argument("--out", required=True, metavar="DIR", help="run folder: checkpoint, curves, configuration")
    train.add_argument(
        "--minutes", type=float, metavar="M", help="time budget of the whole training; whichever ends first counts"
    )
    train.add_argument(
        "--validate-every", type=int, default=1000, metavar="N", help="steps between validations (default: 1000)"
    )
    train.add_argument(
        "--rounds",
        type=int,
        default=3,
        metavar="N",
        help="most rounds of clicks where the answer was wrong (default: 3)",
    )
    train.add_argument(
        "--answers", metavar="DIR", help="learn from answers of a teacher that were stored (see the answers command)"
    )
    parts = train.add_argument_group("what the teacher says counts beside the ground truth (0: not at all)")
    parts.add_argument(
        "--ground-truth", type=float, default=1.0, metavar="W",
        help="the labels themselves; 0 leaves the teacher alone, for labels that only say where to ask (default: 1)",
    )  # fmt: skip
    parts.add_argument("--distil-masks", type=float, default=0.5, metavar="W", help="its masks (default: 0.5)")
    parts.add_argument("--distil-logits", type=float, default=0.0, metavar="W", help="its logits, by l1 (default: 0)")
    parts.add_argument("--distil-iou", type=float, default=0.0, metavar="W", help="its predicted IoU (default: 0)")
    parts.add_argument("--distil-embedding", type=float, default=0.0, metavar="W", help="its embedding (default: 0)")
    parts.add_argument("--distil-tokens", type=float, default=0.0, metavar="W", help="its output tokens (default: 0)")
    parts.add_argument(
        "--distil-rounds", action="store_true",
        help="ask it in the correcting rounds too, and click where it and the student disagree",
    )  # fmt: skip
    parts.add_argument(
        "--distil-hard", action="store_true", help="weigh prompts by how much better the teacher is on them"
    )
    ablate = commands.add_parser(
        "ablate", help="what every part of the recipe is worth: short paired trainings, one table",
        description="Train the same student for a few steps in variants that differ in one thing each, and print their "
        "validation figures side by side. Run again to go on where it stopped.",
    )  # fmt: skip
    _add_data_options(ablate)
    _add_student_options(ablate, steps=300)
    ablate.add_argument("--out", required=True, metavar="DIR", help="folder of the runs, and ablation.json")
    ablate.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="VARIANT",
        help="only this variant (repeatable; a wrong name lists all)",
    )
    answers = commands.add_parser(
        "answers", help="store a teacher's answers, for trainings to learn from",
        description="Ask a teacher about the batches that a training with the same options will see, once for many "
        "trainings: other students, other losses, several rounds through the data. Run again to go on where it stopped.",
    )  # fmt: skip
    _add_data_options(answers)
    answers.add_argument("--teacher", required=True, metavar="NAME", help="as for train")
    answers.add_argument("--steps", type=int, required=True, metavar="N", help="batches to ask about")
    answers.add_argument(
        "--embeddings",
        action="store_true",
        help="store embeddings and tokens too, for --distil-embedding and --distil-tokens",
    )
    answers.add_argument("--out", required=True, metavar="DIR", help="store: a folder of shards")
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
    quantize = commands.add_parser(
        "quantize", help="add int8 graphs to a model", epilog=QUANTIZE_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    quantize.add_argument("model", metavar="MODEL", help="model folder or zip, a checkpoint.pt, or 'packaged'")
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
    return parser


def run_label(args: argparse.Namespace) -> None:
    """Label images with a teacher."""
    import torch  # noqa: PLC0415

    from tinyseg.distill.label import LabelRule, label  # noqa: PLC0415
    from tinyseg.distill.teachers import load_teacher  # noqa: PLC0415
    from tinyseg.images import find_images  # noqa: PLC0415

    if args.grid < 1 or not 0 <= args.least_iou <= 1:
        raise InputError("--grid must be at least 1, and --least-iou between 0 and 1")
    teacher = load_teacher(args.teacher, torch.device(args.device))
    label(teacher, find_images(args.images), Path(args.out), LabelRule(grid=args.grid, least_iou=args.least_iou))


def run_quantize(args: argparse.Namespace) -> None:
    """Calibrate, quantize, write, and measure before and after on this device."""
    from tinyseg.bench.precisions import compare_precisions, table, to_card  # noqa: PLC0415
    from tinyseg.dataset import read_photos  # noqa: PLC0415
    from tinyseg.distill import quantize as room  # noqa: PLC0415
    from tinyseg.distill.calibration import pick_photos, record_feeds  # noqa: PLC0415
    from tinyseg.distill.data import split_validation  # noqa: PLC0415
    from tinyseg.distill.export import export as export_folder  # noqa: PLC0415
    from tinyseg.graphs.model import open_model  # noqa: PLC0415
    from tinyseg.system import device  # noqa: PLC0415 - like all of torch and onnx, only when it runs
    from tinyseg.system.folders import new_folder, require_replaceable  # noqa: PLC0415

    if args.photos < 1 or args.rounds < 1:
        raise InputError("--photos and --rounds must be at least 1")
    require_replaceable(Path(args.out))  # told before hours of work, not after
    with tempfile.TemporaryDirectory() as folder:
        place = named_place(args.model)
        if place.suffix == ".pt":
            place = export_folder(place, Path(folder) / "exported")
        model = open_model(place)
        training, _ = split_validation(p for path in args.data for p in read_photos(Path(path)))
        photos = pick_photos(training, args.photos, args.seed)
        graphs, reports = room.quantize_model(model, record_feeds(model, photos, args.seed), keep=args.keep)
        facts = {"data": [Path(p).name for p in args.data], "photos": len(photos), "seed": args.seed}
        print(room.to_text(reports), flush=True)
        # Measured before it takes its place: graphs that the parity gate refuses never get there.
        made = Path(folder) / "quantized"
        room.write_folder(model, graphs, reports, facts, made)
        rows = compare_precisions(str(made), read_photos(Path(args.eval)) if args.eval else None, rounds=args.rounds)
        data = Path(args.eval).name if args.eval else None
        full = next((r for r in rows if r.precision == "fp32" and r.report), None)
        accuracy = {"data": data, "engine": full.engine, "precision": "fp32", **(full.report or {})} if full else None
        room.record_measured(made, to_card(rows, device.processor_name(), data), accuracy)
        with new_folder(Path(args.out)) as out:
            shutil.copytree(made, out, dirs_exist_ok=True)
    print(f"\n{device.processor_name()}\n\n{table(rows)}\n\nwrote {args.out}")


def data_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of _add_data_options as arguments of TrainConfig. Raises InputError."""
    from tinyseg.distill.data import Mixing  # noqa: PLC0415

    return {
        "data": tuple(args.data),
        "batch_size": args.batch_size,
        "instances": args.instances,
        "seed": args.seed,
        "device": args.device,
        "data_on_device": args.data_on_device,
        "oversample": oversampling(args.oversample),
        "mixing": Mixing(args.copy_paste, args.mosaic),
    }


def student_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of _add_student_options, and where the run lies, as arguments of TrainConfig."""
    return {
        "out": args.out,
        "start": str(named_place(args.start)) if args.start else None,
        "backbone": args.backbone,
        "size": args.size,
        "freeze": args.freeze,
        "freeze_norms": args.freeze_norms,
        "steps": args.steps,
        "learning_rate": args.learning_rate,
        "workers": args.workers,
        "validation_photos": args.validation_photos,
        "teacher": args.teacher,
    }


def named_place(text: str) -> Path:
    """Where a model that is named on the command line lies: "packaged", the name of a packaged model, or a path."""
    return PACKAGED if text == "packaged" else model_place(text)


def run_validate(args: argparse.Namespace) -> None:
    """Held-out and training photos side by side, of students and teachers."""
    import torch  # noqa: PLC0415

    from tinyseg.dataset import read_photos  # noqa: PLC0415
    from tinyseg.distill.data import split_validation  # noqa: PLC0415
    from tinyseg.distill.teachers import StudentLook, load_teacher  # noqa: PLC0415
    from tinyseg.distill.validation import score_looks  # noqa: PLC0415
    from tinyseg.distill.warm_start import student_of  # noqa: PLC0415

    device = torch.device(args.device)
    looks: dict[str, Callable[[torch.Tensor], Look]] = {}
    for name in args.models:
        if name.endswith(".pt"):
            student = student_of(Path(name)).to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
            looks[name] = partial(StudentLook.at, student)
        else:
            looks[name] = load_teacher(name, device).look
    training, held_out = split_validation(p for path in args.data for p in read_photos(Path(path)))
    for kind, photos in (("held out", held_out), ("trained on", training)):
        # In an order that depends on nothing but their names, as which ones are held out does.
        some = sorted((p for p in photos if p.instances), key=lambda p: zlib.crc32(p.name.encode()[::-1]))[
            : args.photos
        ]
        for name, look_at in looks.items():
            figures = "  ".join(f"{k} {v:.3f}" for k, v in score_looks(look_at, some, device).items())
            print(f"{name}, {kind}, {len(some)} photos: {figures}", flush=True)


def oversampling(texts: Sequence[str]) -> dict[str, float]:
    """["SOURCE=FACTOR", ...] -> {SOURCE: FACTOR}. Raises InputError."""
    factors = {}
    for text in texts:
        source, _, factor = text.rpartition("=")
        try:
            factors[source] = float(factor)
        except ValueError:
            source = ""
        if not source or factors[source] <= 0:
            raise InputError(f"--oversample takes SOURCE=FACTOR with a positive factor, but got {text!r}")
    return factors


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(arguments)
    try:
        try:
            from tinyseg.distill import export as export_room  # noqa: PLC0415 - needs torch, which --help does not
            from tinyseg.distill import train as train_room  # noqa: PLC0415
            from tinyseg.distill.losses import DistilWeights  # noqa: PLC0415
        except ModuleNotFoundError as exc:
            raise NotInstalled(f"{exc.name} is not installed; run: pip install 'tinyseg[train]'") from exc
        if args.command == "train":
            asked = (
                args.distil_logits, args.distil_iou, args.distil_embedding, args.distil_tokens, args.distil_hard,
                args.distil_rounds,
            )  # fmt: skip
            if any(asked) and not (args.teacher or args.answers):
                raise InputError("--distil-... options need somebody to learn from: add --teacher or --answers")
            config = train_room.TrainConfig(
                **data_options(args), **student_options(args), minutes=args.minutes, validate_every=args.validate_every,
                rounds=args.rounds, answers=args.answers, ground_truth=args.ground_truth,
                distil=DistilWeights(
                    masks=args.distil_masks, logits=args.distil_logits, iou=args.distil_iou,
                    embedding=args.distil_embedding, tokens=args.distil_tokens, hard=args.distil_hard,
                    rounds=args.distil_rounds,
                ),
            )  # fmt: skip
            train_room.train(config)
        elif args.command == "ablate":
            from tinyseg.distill import ablation  # noqa: PLC0415

            config = train_room.TrainConfig(**data_options(args), **student_options(args), validate_every=sys.maxsize)
            print(ablation.to_text(ablation.ablate(config, args.only)))
        elif args.command == "average":
            from tinyseg.dataset import read_photos  # noqa: PLC0415
            from tinyseg.distill import average  # noqa: PLC0415
            from tinyseg.distill.data import TrainingBatches, split_validation  # noqa: PLC0415

            training, _ = split_validation(p for path in args.data for p in read_photos(Path(path)))
            batches = TrainingBatches(training, 8, 3, average.SEED, {})
            paths = [Path(p) for p in args.checkpoints]
            print(f"wrote {average.average_checkpoints(paths, batches, args.batches, Path(args.out), args.rounds)}")
        elif args.command == "validate":
            run_validate(args)
        elif args.command == "answers":
            from tinyseg.distill.answers import store_answers  # noqa: PLC0415

            config = train_room.TrainConfig(**data_options(args), out=args.out)
            store_answers(config, args.teacher, args.steps, Path(args.out), embeddings=args.embeddings)
        elif args.command == "quantize":
            run_quantize(args)
        elif args.command == "label":
            run_label(args)
        else:
            card = json.loads(Path(args.card).read_text()) if args.card else None
            zoom = {"side": 256, "factor": args.zoom_factor, "below": args.zoom_below}
            out = export_room.export(
                Path(args.checkpoint), Path(args.out), name=args.name, long_side=args.long_side, zoom=zoom, card=card
            )  # fmt: skip
            print(f"wrote {out}")
    except TinysegError as exc:
        print(f"tinyseg.distill: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
