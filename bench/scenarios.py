"""The scenarios of ``tinyseg bench``: what is timed, and the row that says so."""

from __future__ import annotations

import datetime
import itertools
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from tinyseg.bench.accuracy import measure
from tinyseg.bench.measure import MIN_SAMPLES, WARM_UP, Timing, disturbances, is_stable, median_interval, until_stable
from tinyseg.bench.rows import BenchRow
from tinyseg.dataset import read_photos
from tinyseg.engines.cpu import available_cores
from tinyseg.errors import DataError, InputError, TinysegError
from tinyseg.geometry import letterbox
from tinyseg.graphs.parity import Reference
from tinyseg.graphs.parity import measure as compare_graphs
from tinyseg.graphs.shapes import PROMPT_SLOTS, prompt_dimensions
from tinyseg.loop import Loop
from tinyseg.pixels import check_frame, prepare
from tinyseg.predict.everything import everything_streams
from tinyseg.predict.load import load
from tinyseg.predict.segmenter import Segmenter
from tinyseg.predict.workspace import Workspace
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import decoder_inputs
from tinyseg.sinks import CallbackSink, FrameResult
from tinyseg.sources import SyntheticSource
from tinyseg.system import device
from tinyseg.system.progress import progress
from tinyseg.version import __version__

NAMES = (
    "encode", "prompt", "predict", "everything", "batch", "prompts-N", "track", "track-N", "loop", "loop-latency", "startup",
    "memory", "track-memory", "track-memory-N",
)  # fmt: skip
FRAME_WIDTH, FRAME_HEIGHT = FRAME_SIZE = 1280, 720
BATCH_FRAMES = 16
LOOP_ROUNDS = 9
STARTUP_RUNS = 7
MEMORY_FRAMES = 20_000
MEMORY_OBJECTS = 3  # of track-memory without a number
MEMORY_MARKS = 100  # readings of memory and time in such a run


@dataclass(frozen=True)
class Request:
    """What to measure, and how."""

    scenario: str
    model: str | None = None
    engine: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    seconds: float = 10.0
    frames: int = MEMORY_FRAMES  # of the scenario "memory"
    size: tuple[int, int] = FRAME_SIZE  # (width, height) of the frames
    streams: int | None = None  # frames in flight of the throughput scenarios; None: one on every core
    accuracy: Accuracy | None = None  # of this engine and precision, if it was measured


@dataclass(frozen=True)
class Accuracy:
    """Box mIoU of an engine and precision on a data set."""

    engine: str
    precision: str
    data: str
    box_miou: float


def measure_accuracy(request: Request, data: Path) -> Accuracy:
    """Box mIoU of what the request would run, on a labelled data set. Raises DataError."""
    seg = load(request.model, request.engine, request.precision, threads=request.threads)
    report = measure(seg, read_photos(data))
    if not report.by_set:
        raise DataError(f"{data} holds no instance to measure on")
    return Accuracy(seg.info.engine, seg.info.precision, data.name, report.by_set[-1].box)


def stated_accuracy(seg: Segmenter) -> Accuracy | None:
    """What the model's card says of this engine and precision; another artefact's figure is not borrowed."""
    card = seg.model.card.get("accuracy", {})
    overall = next((r["box"] for r in card.get("by_set", []) if r["set"] == "all"), None)
    if overall is None or (card.get("engine"), card.get("precision")) != (seg.info.engine, seg.info.precision):
        return None
    return Accuracy(seg.info.engine, seg.info.precision, str(card.get("data")), float(overall))


def scene(index: int = 0, size: tuple[int, int] = FRAME_SIZE) -> np.ndarray:
    """A BGR frame of (width, height) with a disk; the same for everybody."""
    return SyntheticSource.draw(*size, index / 8)


def boxes(count: int, size: tuple[int, int] = FRAME_SIZE) -> list[tuple[int, int, int, int]]:
    """Boxes of different sizes and places in the frame, the first one around the disk of scene(0) in 1280 x 720.

    Frames of other sizes have the same boxes in proportion.
    """
    found = [(740, 200, 1060, 520)]
    rng = np.random.default_rng(0)
    while len(found) < count:
        x, y = int(rng.integers(0, FRAME_WIDTH - 200)), int(rng.integers(0, FRAME_HEIGHT - 150))
        found.append((x, y, x + int(rng.integers(100, 200)), y + int(rng.integers(80, 150))))
    if size == FRAME_SIZE:
        return found
    scale_x, scale_y = size[0] / FRAME_WIDTH, size[1] / FRAME_HEIGHT
    scaled = [(int(x0 * scale_x), int(y0 * scale_y), int(x1 * scale_x), int(y1 * scale_y)) for x0, y0, x1, y1 in found]
    return [(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)) for x0, y0, x1, y1 in scaled]


def check_against_reference(seg: Segmenter, size: tuple[int, int] = FRAME_SIZE) -> float:
    """Mean mask IoU with fp32 on ONNX Runtime of the graphs that such frames run on, the lowest of them.

    It is the gate of compiled graphs (``tinyseg/graphs/parity.py``), here for every engine and precision. Raises
    ParityError where a graph does not pass, because its speed means nothing then.
    """
    reference, view = Reference(seg.model), seg.view(*size)
    overlaps = []
    for role in seg.network.graphs:
        candidate = seg.network.compiled(role, view)
        parity = compare_graphs(reference, role, candidate, prompt_dimensions(view, 1), seg.info.precision)
        parity.require(f"on {seg.info.engine} {seg.info.engine_version}")
        overlaps.append(parity.mask_iou)
    return min(overlaps)


@dataclass
class Measurement:
    """What a scenario measured; the rest of the row is filled in by run()."""

    timing: Timing
    kind: str
    stages: str
    fps: float | None = None
    batch: int = 1
    prompts: int = 1
    extra: dict[str, float] = field(default_factory=dict)
    warm_up: int = WARM_UP


def run(request: Request) -> BenchRow:
    """Measure one scenario. Raises InputError, and ParityError where the engine computes the wrong masks."""
    prompts = prompts_of(request.scenario)
    threads = available_cores() if request.threads is None else request.threads
    streams = request.streams or (everything_streams(threads) if request.scenario == "everything" else threads)
    several = request.scenario in ("batch", "loop", "memory", "everything")
    busy_before = device.busy_share()
    start = time.perf_counter()
    seg = load(
        request.model, request.engine, request.precision, threads=request.threads, streams=streams if several else 1
    )
    seg.embed(scene(0, request.size)).predict(box=boxes(1, request.size)[0], multimask=False, zoom="off")
    first_ms = 1e3 * (time.perf_counter() - start)
    reference_iou = check_against_reference(seg, request.size)
    kind = re.sub(r"-\d+$", "", request.scenario)
    measured = SCENARIOS[kind](seg, request, prompts)
    return make_row(request, seg, measured, reference_iou, first_ms, busy_before)


def prompts_of(scenario: str) -> int:
    """The N of prompts-N, track-N and track-memory-N, 1 for other known scenarios. Raises InputError."""
    many = re.fullmatch(r"(?:prompts|track|track-memory)-(\d+)", scenario)
    if many and 1 <= int(many[1]) <= 256:
        return int(many[1])
    if scenario not in NAMES or scenario.endswith("-N"):
        raise InputError(f"there is no scenario {scenario!r}; known are {', '.join(NAMES)} (N from 1 to 256)")
    return MEMORY_OBJECTS if scenario == "track-memory" else 1


def encode(seg: Segmenter, request: Request, _prompts: int) -> Measurement:
    frame = scene(0, request.size)
    timing = until_stable(lambda: seg.embed(frame), "encode", request.seconds)
    return Measurement(timing, "latency", "resize, encoder, copy of the frame", prompts=0)


def prompt(seg: Segmenter, request: Request, _prompts: int) -> Measurement:
    emb, box = seg.embed(scene(0, request.size)), boxes(1, request.size)[0]
    timing = until_stable(lambda: emb.predict(box=box, multimask=False, zoom="off"), "prompt", request.seconds)
    return Measurement(timing, "latency", "decoder, full-resolution mask")


def predict(seg: Segmenter, request: Request, _prompts: int) -> Measurement:
    frame, box = scene(0, request.size), boxes(1, request.size)[0]
    timing = until_stable(
        lambda: seg.embed(frame).predict(box=box, multimask=False, zoom="off"), "predict", request.seconds
    )
    return Measurement(timing, "latency", "resize, encoder, decoder, full-resolution mask")


def prompts(seg: Segmenter, request: Request, count: int) -> Measurement:
    frame, asked = scene(0, request.size), [Prompt(box=b) for b in boxes(count, request.size)]
    timing = until_stable(lambda: seg.embed(frame).predict_batch(asked), request.scenario, request.seconds)
    return Measurement(
        timing, "latency", "resize, encoder, decoder for all prompts, full-resolution masks", prompts=count
    )


def everything(seg: Segmenter, request: Request, _prompts: int) -> Measurement:
    """A whole frame searched. Without a full-size mask: regions draw theirs when somebody looks."""
    frame = scene()
    timing = until_stable(lambda: seg.everything(frame), "everything", request.seconds)
    return Measurement(
        timing, "latency", "resize, encoder, grids of clicks, filtering, boxes and areas of all regions", prompts=0
    )


def batch(seg: Segmenter, request: Request, _prompts: int) -> Measurement:
    """Offline throughput: a pile of frames, as many at a time as there are streams."""
    pictures, asked = [scene(i, request.size) for i in range(8)], [Prompt(box=boxes(1, request.size)[0])]

    def pile() -> None:
        left = iter(range(BATCH_FRAMES))
        lock = threading.Lock()

        def work() -> None:
            workspace = workspaces.pop()
            while True:
                with lock:
                    i = next(left, None)
                if i is None:
                    workspaces.append(workspace)
                    return
                seg.run(pictures[i % 8], asked, workspace)

        threads = [threading.Thread(target=work) for _ in range(seg.info.streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    workspaces = [Workspace() for _ in range(seg.info.streams)]
    timing = until_stable(pile, "batch", request.seconds)
    fps = BATCH_FRAMES * 1e3 / timing.p50_ms
    return Measurement(timing, "throughput", "resize, encoder, decoder, full-resolution mask", fps, batch=BATCH_FRAMES)


class BareEngine:
    """Encoder and decoder on fixed inputs and nothing else, asked from several threads."""

    def __init__(self, seg: Segmenter, size: tuple[int, int] = FRAME_SIZE) -> None:
        frame = scene(0, size)
        view = letterbox(*size, seg.model.long_side)
        self._image = prepare(check_frame(frame, "bgr"), view)
        self._encoder, self._decoder = seg.network.compiled("encoder", view), seg.network.compiled("decoder", view)
        self._streams = seg.info.streams
        prompt = decoder_inputs([Prompt(box=boxes(1, size)[0])], view, view, 1, PROMPT_SLOTS)
        self._prompt = {
            "points": prompt.points, "labels": prompt.labels, "mask": prompt.mask, "has_mask": prompt.has_mask
        }  # fmt: skip

    def best_rate(self, count: int) -> float:
        """Frames/s with as many requests in flight as streams, or one more: whichever is faster, to be fair to it."""
        return max(self.frames_per_second(count, self._streams), self.frames_per_second(count, self._streams + 1))

    def frames_per_second(self, count: int, requests: int) -> float:
        """Run so many frames with so many requests in flight."""
        left = iter(range(count))
        lock = threading.Lock()
        barrier = threading.Barrier(requests + 1)

        def work() -> None:
            encoder, decoder = self._encoder.runner(), self._decoder.runner()
            decoder.run({**encoder.run({"image": self._image}), **self._prompt})
            barrier.wait()
            while True:
                with lock:
                    if next(left, None) is None:
                        return
                decoder.run({**encoder.run({"image": self._image}), **self._prompt})

        threads = [threading.Thread(target=work) for _ in range(requests)]
        for thread in threads:
            thread.start()
        barrier.wait()
        start = time.perf_counter()
        for thread in threads:
            thread.join()
        return count / (time.perf_counter() - start)


def loop(seg: Segmenter, request: Request, _prompts: int) -> Measurement:
    """Source to sink, in alternating rounds with the bare engine."""
    bare = BareEngine(seg, request.size)
    asked = [Prompt(box=boxes(1, request.size)[0])]
    count = max(40, int(bare.best_rate(20) * request.seconds / (2 * LOOP_ROUNDS)))
    rates, engine_rates, times = [], [], []
    stamps: list[float] = []
    sink = CallbackSink(lambda _result: stamps.append(time.perf_counter()))
    for _ in range(LOOP_ROUNDS):
        engine_rates.append(bare.best_rate(count))
        stamps.clear()
        source = SyntheticSource(*request.size, count + WARM_UP)
        with Loop(seg, source, sink, asked) as running:
            running.run()
        steady = stamps[WARM_UP - 1 :]
        rates.append((len(steady) - 1) / (steady[-1] - steady[0]))
        # Streams that finish together deliver together: only rounds of all streams are evenly spaced.
        spaced = steady[:: seg.info.streams]
        times += [1e3 * (b - a) / seg.info.streams for a, b in itertools.pairwise(spaced)]
    efficiency = float(np.median(np.array(rates) / np.array(engine_rates)))
    extra = {"engine_fps": float(np.median(engine_rates)), "loop_efficiency": efficiency}
    stages = "source, resize, encoder, decoder, full-resolution mask, sink; times are a frame's share of a round of all streams"
    return Measurement(Timing("loop", tuple(times)), "throughput", stages, float(np.median(rates)), extra=extra)


def loop_latency(seg: Segmenter, request: Request, _prompts: int) -> Measurement:
    """The loop with one frame in flight: from a frame being there to its masks being there.

    The source gives frames at half the rate that predict() reaches, so that none of them waits for the one before.
    """
    frame, box = scene(0, request.size), boxes(1, request.size)[0]
    alone = until_stable(lambda: seg.embed(frame).predict(box=box, multimask=False, zoom="off"), "alone", 1.0)
    rate = 500.0 / alone.p50_ms
    latencies: list[float] = []
    sink = CallbackSink(lambda result: latencies.append(result.latency_ms))
    count = max(MIN_SAMPLES, int(rate * request.seconds)) + WARM_UP
    with Loop(seg, SyntheticSource(*request.size, count, frame_rate=rate), sink, [Prompt(box=box)]) as running:
        running.run()
    stages = (
        "wait for a worker, resize, encoder, decoder, full-resolution mask; frames come at half the possible rate, and the rate "
        "stated is what one frame after the other would give"
    )
    return Measurement(Timing("loop-latency", tuple(latencies[WARM_UP:])), "latency", stages)


STARTUP_CODE = """
import numpy, tinyseg
seg = tinyseg.load({model!r}, {engine!r}, {precision!r}, threads={threads!r})
out = seg.embed(numpy.zeros(({height}, {width}, 3), numpy.uint8)).predict(box={box!r}, multimask=False, zoom="off")
assert out.masks.shape == (1, {height}, {width})
"""


def startup(seg: Segmenter, request: Request, _prompts: int) -> Measurement:
    """Start of a process to its first mask and its end; files are warm, nothing else is."""
    code = STARTUP_CODE.format(
        model=request.model, engine=seg.info.engine, precision=seg.info.precision, threads=request.threads,
        width=request.size[0], height=request.size[1], box=boxes(1, request.size)[0],
    )  # fmt: skip
    samples = []
    for i in range(STARTUP_RUNS + 1):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise TinysegError(f"a fresh process did not get to its first mask: {done.stderr.strip().splitlines()[-1]}")
        if i > 0:  # the first one warms the files
            samples.append(1e3 * (time.perf_counter() - start))
    stages = "interpreter, imports, load, compile, embed, one prompt, exit"
    return Measurement(Timing("startup", tuple(samples)), "latency", stages, warm_up=1)


def memory(seg: Segmenter, request: Request, _prompts: int) -> Measurement:
    """Many frames through the loop; the slope of memory use over the second half."""
    marks: list[tuple[int, float]] = []
    stamps: list[float] = []

    def mark(result: FrameResult) -> None:
        if result.frame.index % max(1, request.frames // 100) == 0:
            stamps.append(time.perf_counter())
            marks.append((result.frame.index, device.resident_megabytes() or float("nan")))

    source = SyntheticSource(*request.size, request.frames)
    with Loop(seg, source, CallbackSink(mark), [Prompt(box=boxes(1, request.size)[0])]) as running:
        stats = running.run()
    late = np.array(marks[len(marks) // 2 :])
    slope = float(np.polyfit(late[:, 0], late[:, 1], 1)[0]) * 1000 if len(late) > 2 else float("nan")
    step = max(1, request.frames // 100)
    times = tuple(1e3 * (b - a) / step for a, b in itertools.pairwise(stamps))
    stages = f"loop over {request.frames} frames; times are means of {step} frames"
    return Measurement(
        Timing("memory", times), "throughput", stages, stats.fps, extra={"memory_slope_mb": slope}, warm_up=0
    )


def moving_scene(
    index: int, count: int, size: tuple[int, int] = FRAME_SIZE
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """A BGR frame of (width, height) with so many patterned disks, each on a small circle of its own, and their boxes."""
    width, height = size
    frame = np.full((height, width, 3), (90, 100, 80), np.uint8)
    columns = max(1, int(np.ceil(np.sqrt(count * width / height))))
    step_x, step_y = width / columns, height / int(np.ceil(count / columns))
    radius = int(min(step_x, step_y, 320) * 0.32)
    found = []
    for number in range(count):
        turn = 2 * np.pi * (index / 32 + number / count)
        x = int((number % columns + 0.5) * step_x + 0.12 * radius * np.cos(turn))
        y = int((number // columns + 0.5) * step_y + 0.12 * radius * np.sin(turn))
        hue = cv2.cvtColor(np.array([[[number * 180 // count, 200, 230]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0].tolist()
        cv2.circle(frame, (x, y), radius, hue, -1, cv2.LINE_AA)
        cv2.circle(frame, (x, y), radius // 2, (40, 40, 40), -1, cv2.LINE_AA)
        found.append((x - radius, y - radius, x + radius + 1, y + radius + 1))
    return frame, found


MOVING_FRAMES = 32  # after which the moving scene repeats itself


def track(seg: Segmenter, request: Request, count: int) -> Measurement:
    """A tracker's step with so many objects, all of them in the frame."""
    frames = [moving_scene(i, count, request.size) for i in range(MOVING_FRAMES)]
    tracker = seg.tracker()
    for id, box in enumerate(frames[0][1]):
        tracker.add(id, box=box, frame=frames[0][0])
    timing = until_stable(
        lambda: tracker.step(frames[(tracker.frames + 1) % MOVING_FRAMES][0]), request.scenario, request.seconds
    )
    seen = sum(r.visible for r in tracker.step(frames[(tracker.frames + 1) % MOVING_FRAMES][0]).values())
    stages = (
        f"resize, encoder, memory, decoder, full-resolution masks for all objects; {seen} of {count} visible at the end"
    )
    return Measurement(timing, "latency", stages, prompts=count)


def track_memory(seg: Segmenter, request: Request, count: int) -> Measurement:
    """Many frames through a tracker of so many objects; the slope of memory use over the second half, and any slowdown.

    The slowdown is one of processor time, which other programs on the machine hardly change. Interrupted, it reports the
    frames until then.
    """
    frames = [moving_scene(i, count, request.size) for i in range(MOVING_FRAMES)]
    tracker = seg.tracker()
    for id, box in enumerate(frames[0][1]):
        tracker.add(id, box=box, frame=frames[0][0])
    step = max(1, request.frames // MEMORY_MARKS)
    marks: list[tuple[int, float]] = []
    stamps = [time.perf_counter()]
    spent = [time.process_time()]
    try:
        for number in progress(range(1, request.frames + 1), "frames"):
            tracker.step(frames[number % MOVING_FRAMES][0])
            if number % step == 0:
                stamps.append(time.perf_counter())
                spent.append(time.process_time())
                marks.append((number, device.resident_megabytes() or float("nan")))
    except KeyboardInterrupt:
        if len(marks) < MEMORY_MARKS // 10:
            raise
    late = np.array(marks[len(marks) // 2 :])
    slope = float(np.polyfit(late[:, 0], late[:, 1], 1)[0]) * 1000 if len(late) > 2 else float("nan")
    times = tuple(1e3 * (b - a) / step for a, b in itertools.pairwise(stamps))
    until = marks[-1][0]
    stopped = f", interrupted before {request.frames}" if until + step <= request.frames else ""
    stages = (
        f"tracker of {count} object{'s' if count > 1 else ''} over {until} frames{stopped}; times are means of {step} frames; "
        f"{marks[0][1]:.1f} MB resident after the first of these, {marks[-1][1]:.1f} MB after the last; "
        f"processor time {slowdown(spent):.3f} times in the last fifth what it was in the first"
    )
    return Measurement(
        Timing("track-memory", times), "latency", stages, prompts=count, extra={"memory_slope_mb": slope}, warm_up=0
    )


def slowdown(spent: Sequence[float]) -> float:
    """Median of the last fifth of the gaps between ascending stamps, over that of the first fifth."""
    gaps = np.diff(spent)
    fifth = max(1, len(gaps) // 5)
    return float(np.median(gaps[-fifth:]) / max(np.median(gaps[:fifth]), 1e-9))


SCENARIOS: dict[str, Callable[[Segmenter, Request, int], Measurement]] = {
    "encode": encode, "prompt": prompt, "predict": predict, "everything": everything, "prompts": prompts, "batch": batch,
    "loop": loop, "loop-latency": loop_latency, "startup": startup, "memory": memory, "track": track,
    "track-memory": track_memory,
}  # fmt: skip


def make_row(
    request: Request,
    seg: Segmenter,
    measured: Measurement,
    reference_iou: float,
    first_ms: float,
    busy_before: float | None,
) -> BenchRow:
    samples = measured.timing.samples_ms
    low, high = median_interval(samples)
    p50, p90, p99 = (float(v) for v in np.percentile(samples, (50, 90, 99)))
    view = letterbox(*request.size, seg.model.long_side)
    accuracy = request.accuracy or stated_accuracy(seg)
    extra = measured.extra
    return BenchRow(
        scenario=request.scenario, kind=measured.kind, fps=measured.fps or 1e3 / p50, p50_ms=p50, p90_ms=p90, p99_ms=p99,
        mean_ms=float(np.mean(samples)), std_ms=float(np.std(samples)), count=len(samples), warm_up=measured.warm_up,
        stable=is_stable(samples), median_low_ms=low, median_high_ms=high, stages=measured.stages, model=seg.model.name,
        model_sha256=seg.info.model_sha256, engine=seg.info.engine, engine_version=seg.info.engine_version,
        precision=seg.info.precision, threads=seg.info.threads, streams=seg.info.streams,
        frame_size=f"{request.size[0]}x{request.size[1]}", input_size=f"{view.input[0]}x{view.input[1]}", batch=measured.batch,
        prompts=measured.prompts, reference_iou=reference_iou,
        accuracy_box_miou=accuracy.box_miou if accuracy else None, accuracy_data=accuracy.data if accuracy else None,
        first_result_ms=first_ms, peak_rss_mb=device.peak_megabytes(),
        device=device.processor_name(), cores=available_cores(), clock_mhz=device.clock_mhz(),
        governor=device.governor(), power_mode=device.power_mode(), temperature_c=device.temperature_celsius(),
        notes=disturbances(samples, busy_before), engine_fps=extra.get("engine_fps"),
        loop_efficiency=extra.get("loop_efficiency"), memory_slope_mb=extra.get("memory_slope_mb"),
        utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), tinyseg_version=__version__,
        commit=source_commit(), samples_ms=samples,
    )  # fmt: skip


def source_commit() -> str | None:
    """The commit of the checkout that runs, None for an installed wheel."""
    top = Path(__file__).resolve().parent.parent
    if not (top / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(top), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
