"""``tinyseg bench``: how fast it is on this device, and beside a rival in the same run."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tinyseg.arguments import parse_size
from tinyseg.commands.options import add_engine_options, load_for_everything, load_segmenter
from tinyseg.commands.results import file_for_results
from tinyseg.dataset import read_photos
from tinyseg.errors import InputError
from tinyseg.files import write_bytes
from tinyseg.graphs.model import open_model
from tinyseg.images import read_image
from tinyseg.pixels import MAX_SIDE
from tinyseg.system import device

EXAMPLES = """scenarios (1280x720 frames, or --size):
  encode      embed one frame                          prompt      one more prompt on an embedding
  predict     frame to full-resolution mask, one box   prompts-N   the same with N prompts
  batch       a pile of frames, offline throughput     loop        source to sink, beside the bare engine
  startup     start of a process to its first mask     loop-latency  the loop with one frame in flight
  memory      20,000 frames through the loop           track-memory  the same through a tracker of three objects
              (track-memory-N: of N objects; Ctrl-C reports what was measured until then)
  track       a tracker's step with one object         track-N     with N objects
  everything  all regions of a frame

examples:
  tinyseg bench --all --report results/here
  tinyseg bench --scenario loop --engine openvino
  tinyseg bench --precisions --data eval.tar
  tinyseg bench --peer mobilesam
  tinyseg bench --baseline base-plus --random-weights --rounds 5
  tinyseg bench --compare before.json after.json"""
MIN_ROUNDS = 3
DEFAULT_SIZE = "1280x720"
ALL = ("startup", "encode", "prompt", "predict", "prompts-8", "batch", "loop", "loop-latency")


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "bench", help="speed on this device, beside a rival in the same run", epilog=EXAMPLES,
        description="Measure speed. A run first checks that the engine computes the masks of the fp32 reference, and "
        "measures until the median is known within 2%, or says that it is not.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--scenario", action="append", metavar="NAME", help="what to time (repeatable; default: predict)"
    )
    parser.add_argument("--all", action="store_true", help=f"time {', '.join(ALL)}")
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="at most so long a scenario (default: 10)"
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=20_000,
        metavar="N",
        help="frames of the scenarios memory and track-memory (default: 20000)",
    )
    parser.add_argument(
        "--peer",
        metavar="NAME",
        help="beside a rival's architecture with random weights: mobilesam, edgesam or nanosam (needs the peers extra)",
    )
    parser.add_argument("--peer-onnx", nargs=2, metavar=("ENCODER", "DECODER"), help="beside a rival's real ONNX files")
    parser.add_argument(
        "--baseline", metavar="MODEL",
        help="beside SAM 2 itself: a folder or hub name with weights, or with --random-weights a size: tiny, small, "
        "base-plus or large (needs the baseline extra)",
    )  # fmt: skip
    parser.add_argument("--random-weights", action="store_true", help="with --baseline SIZE: speed alone")
    parser.add_argument(
        "--everything", metavar="IMAGE",
        help="with --peer or --peer-onnx: everything in this image at 1280x720 beside the rival's one prompt",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=25, metavar="N", help="rounds beside a rival (default: 25)")
    parser.add_argument(
        "--precisions", action="store_true",
        help="every engine and precision of this device in one run; with --data also what each loses in mean IoU",
    )  # fmt: skip
    parser.add_argument("--profile", action="store_true", help="where the time of a frame goes, by stage")
    parser.add_argument(
        "--compare", nargs=2, metavar=("A.json", "B.json"), help="what changed between two files beyond the noise"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="also write the rows, with all samples, to a file ('-': print JSON instead)"
    )
    parser.add_argument(
        "--report", metavar="DIR", help="with --all: also time all rivals, and write report, rows and plot"
    )
    parser.add_argument("--data", metavar="DATA", help="also measure box mIoU of the same engine on this labelled data")
    parser.add_argument(
        "--size", default=DEFAULT_SIZE, metavar="WxH", help="frame size of scenarios (default: 1280x720)"
    )
    parser.add_argument(
        "--streams",
        type=int,
        metavar="N",
        help="frames in flight of batch, loop and memory (default: one on every core), calls in flight of everything",
    )
    parser.add_argument(
        "--sam2", action="store_true", help="also say how this stands to the frame rate that SAM 2's paper states"
    )
    parser.add_argument("--csv", metavar="FILE", help="also write the rows as CSV")
    add_engine_options(parser)
    parser.set_defaults(run=run, default_of=parser.get_default)


def run(args: argparse.Namespace) -> int:
    if args.rounds < MIN_ROUNDS:
        raise InputError(f"--rounds must be at least {MIN_ROUNDS}, but is {args.rounds}")
    given = [name for name in RUNS if getattr(args, name)]
    shown = [f"--{name.replace('_', '-')}" for name in given]
    if len(given) > 1:
        raise InputError(f"{', '.join(shown)} are runs of their own; give one of them")
    if given and (args.all or args.scenario or args.csv):
        raise InputError(f"{shown[0]} is a run of its own; leave --scenario, --all and --csv out")
    if given and (args.size != DEFAULT_SIZE or args.streams is not None):
        raise InputError(f"--size and --streams belong to scenarios; leave them out beside {shown[0]}")
    if args.everything and not (args.peer or args.peer_onnx or args.baseline):
        raise InputError("--everything goes with --peer or --peer-onnx; alone it is --scenario everything")
    if args.report and not args.all:
        raise InputError("--report goes with --all")
    chosen = given[0] if given else REPORT if args.report else SCENARIOS
    for name, runs in ACTS_IN.items():
        if chosen not in runs and getattr(args, name) != args.default_of(name):
            beside = (
                "beside --all and --scenario without --report"
                if chosen == SCENARIOS
                else f"beside --{chosen.replace('_', '-')}"
            )
            raise InputError(f"--{name.replace('_', '-')} does nothing {beside}; leave it out")
    for option, file in (("--json", args.json), ("--csv", args.csv)):
        if file and file != "-":
            file_for_results(option, file)
    return RUNS[given[0]](args) if given else run_scenarios(args)


def run_compare(args: argparse.Namespace) -> int:
    """Two files of rows."""
    from tinyseg.bench import rows  # noqa: PLC0415 - the runtime does not know the bench

    before, after = (rows.read_json(Path(p)) for p in args.compare)
    print(rows.compare(before, after))
    return 0


def run_precisions(args: argparse.Namespace) -> int:
    """Every engine and precision of this device."""
    from tinyseg.bench import precisions  # noqa: PLC0415

    photos = read_photos(Path(args.data)) if args.data else None
    compared = precisions.compare_precisions(args.model, photos, threads=args.threads, rounds=args.rounds)
    card = precisions.to_card(compared, device.processor_name(), Path(args.data).name if args.data else None)
    absent = "".join(f"\n\n{line}" for line in precisions.left_out(open_model(args.model)))
    text = f"{device.processor_name()}\n\n{precisions.table(compared)}{absent}"
    return emit(json.dumps(card, indent=1), text, args.json)


def run_profile(args: argparse.Namespace) -> int:
    """The stages of a frame."""
    from tinyseg.bench.profile import profile  # noqa: PLC0415

    seg = load_segmenter(args)
    stages = profile(seg)
    content = json.dumps({"segmenter": asdict(seg.info), **asdict(stages)}, indent=1)
    return emit(content, f"{seg.info}\n\n{stages.to_text()}", args.json)


def run_rival(args: argparse.Namespace) -> int:
    """A rival or SAM 2 in alternating rounds."""
    from tinyseg.bench import rows  # noqa: PLC0415
    from tinyseg.bench.baseline import load_baseline  # noqa: PLC0415
    from tinyseg.bench.everything import compare_everything, scale_to_bench  # noqa: PLC0415
    from tinyseg.bench.rivals import compare_predict, load_peer, read_peer, run_peer  # noqa: PLC0415

    seg = load_for_everything(args) if args.everything else load_segmenter(args)
    if args.baseline:
        rival = load_baseline(args.baseline, args.random_weights)
    else:
        graphs = load_peer(args.peer) if args.peer else read_peer(*(Path(p) for p in args.peer_onnx))
        rival = run_peer(graphs, seg.info.threads)
    if args.everything:
        speed = compare_everything(seg, rival, scale_to_bench(read_image(args.everything)), args.rounds)
        return emit(json.dumps(speed.to_json(), indent=1), speed.to_text(), args.json)
    report = compare_predict(seg, rival, args.rounds)
    text = report.to_text() if not args.baseline else f"{report.to_text()}\n\n{rows.SAM2_PROTOCOL}"
    return emit(json.dumps(report.to_json(), indent=1), text, args.json)


def run_scenarios(args: argparse.Namespace) -> int:
    """Scenarios, and a report of them."""
    from tinyseg.bench import rows, scenarios  # noqa: PLC0415
    from tinyseg.bench.report import open_report, write_report  # noqa: PLC0415

    if not args.seconds > 0 or args.frames < 100:
        raise InputError("--seconds must be positive and --frames at least 100")
    size = parse_size("--size", args.size, MAX_SIDE)
    if args.streams is not None and args.streams < 1:
        raise InputError(f"--streams must be at least 1, but is {args.streams}")
    names = [*(args.scenario or []), *(ALL if args.all else ())] or ["predict"]
    for name in names:
        scenarios.prompts_of(name)  # a wrong name is told before anything is timed
    request = scenarios.Request("", args.model, args.engine, args.precision, args.threads, args.seconds, args.frames)
    request = replace(request, size=size, streams=args.streams)
    report_folder = open_report(Path(args.report)) if args.report else None
    if args.data:
        request = replace(request, accuracy=scenarios.measure_accuracy(request, Path(args.data)))
    measured = [scenarios.run(replace(request, scenario=name)) for name in dict.fromkeys(names)]
    if args.csv:
        write_bytes(Path(args.csv), rows.to_csv(measured).encode())
    if report_folder is not None:
        command = shlex.join(["tinyseg", *(sys.argv[1:] or ["bench"])])
        text = write_report(load_segmenter(args), measured, report_folder, command, args.rounds)
        return emit(rows.to_json(measured), text, args.json)
    text = rows.to_markdown(measured)
    if args.sam2:
        text = "\n".join([text, "", *rows.against_sam2(measured)])
    return emit(rows.to_json(measured), text, args.json)


# What is a run of its own, by the option that asks for it.
RUNS = {
    "compare": run_compare, "precisions": run_precisions, "profile": run_profile, "peer": run_rival,
    "peer_onnx": run_rival, "baseline": run_rival,
}  # fmt: skip

SCENARIOS, REPORT = "scenarios", "report"
RIVALS = ("peer", "peer_onnx", "baseline")
# Options that act in some runs alone, and these: what is accepted and not heeded would be taken for measured.
ACTS_IN = {
    "seconds": (SCENARIOS, REPORT), "frames": (SCENARIOS, REPORT), "sam2": (SCENARIOS, REPORT),
    "data": (SCENARIOS, REPORT, "precisions"), "random_weights": ("baseline",), "rounds": (REPORT, "precisions", *RIVALS),
    "json": (SCENARIOS, REPORT, "precisions", "profile", *RIVALS),
    "model": (SCENARIOS, REPORT, "precisions", "profile", *RIVALS),
    "threads": (SCENARIOS, REPORT, "precisions", "profile", *RIVALS),
    "engine": (SCENARIOS, REPORT, "profile", *RIVALS), "precision": (SCENARIOS, REPORT, "profile", *RIVALS),
}  # fmt: skip


def emit(content: str, text: str, json_file: str | None) -> int:
    """Print the text, or JSON for '-'; write JSON to any other file. Returns the exit code."""
    if json_file and json_file != "-":
        write_bytes(Path(json_file), content.encode())
    print(content if json_file == "-" else text)
    return 0
