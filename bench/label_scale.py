"""``python -m tinyseg.bench.label_scale``: what labelling costs, from one process to a cluster, as docs/label.md adds it up.

Rates are those of the second half of a folder: half of it and all of it are labelled, and the difference counts, so that starting
processes and opening models is left out and told by itself; engines are built before, by a first pass that is not timed. Run it
while nothing else does.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import pickle
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from tinyseg.bench.rows import markdown_table
from tinyseg.engines.cpu import available_cores
from tinyseg.errors import InputError
from tinyseg.graphs.probes import PHOTOGRAPHS
from tinyseg.images import read_image
from tinyseg.label import BoxFile, Everything, LabelReport, label
from tinyseg.label.inputs import make_plan
from tinyseg.label.job import gather
from tinyseg.shard_rows import ROWS
from tinyseg.system.device import processor_name, resident_megabytes
from tinyseg.system.folders import ResultFolder

SIZE = (640, 480)
SHARD = 16  # where nothing is looked for: what a scheduler costs is spent once a shard
SMALL_SHARD = 2  # of photographs: enough shards that every worker is busy to the end
MEMORY_SHARD = 64
SAMPLE_SECONDS = 0.25


@dataclass(frozen=True)
class Rate:
    """How fast a folder was labelled; None where twice as many images took no longer, which says nothing.

    start_s: what the run took beside its images.
    """

    how: str
    workers: int
    threads: int
    images_per_s: float | None
    start_s: float | None
    masks_per_image: float
    bytes_per_image: float  # of the shards' rows


def photographs(folder: Path, count: int, size: tuple[int, int] = SIZE) -> Path:
    """Different parts of the packaged photographs as JPEG files of one size."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    known = [read_image(p) for p in sorted(PHOTOGRAPHS.glob("*.jpg"))]
    for number in range(count):
        photo = known[number % len(known)]
        height, width = photo.shape[:2]
        w = int(width * rng.uniform(0.6, 1.0))
        h = min(height, w * size[1] // size[0])
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        part = cv2.resize(photo[y : y + h, x : x + w], size, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), part)
    return folder


def tiny_pictures(folder: Path, count: int, boxed: int) -> Path:
    """Noise of 24 x 16; boxes.json beside the folder has a box for the first ones."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:06d}.png"), rng.integers(0, 255, (16, 24, 3), np.uint8))
    images = [{"id": i, "file_name": f"{i:06d}.png", "width": 24, "height": 16} for i in range(boxed)]
    rows = [{"id": i, "image_id": i, "category_id": 1, "bbox": [4, 4, 12, 8]} for i in range(boxed)]
    content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "object"}]}
    (folder.parent / "boxes.json").write_text(json.dumps(content))
    return folder


def timed(
    folder: Path, out: Path, engine: str, workers: int, threads: int, shard: int, ray: str | None = None
) -> tuple[LabelReport, float]:
    """Label a folder anew; what it gave, and the seconds it took."""
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    boxes = folder.parent / "boxes.json"
    wanted = BoxFile(str(boxes)) if boxes.exists() else Everything()
    report = label([folder], out, wanted, processes=workers, ray=ray, engine=engine, threads=threads, shard=shard)
    return report, time.perf_counter() - start


def measure(root: Path, how: str, engine: str, workers: int, threads: int, shard: int, ray: str | None = None) -> Rate:
    """The rate on root/whole, of which root/half holds the half."""
    half, first = timed(root / "half", root / "out", engine, workers, threads, shard, ray)
    whole, second = timed(root / "whole", root / "out", engine, workers, threads, shard, ray)
    rate = (whole.images - half.images) / (second - first) if second > first else None
    size = sum(p.stat().st_size for p in (root / "out" / "shards").glob("*.jsonl.gz"))
    return Rate(
        how, workers, threads, None if rate is None else round(rate, 3),
        None if rate is None else round(first - half.images / rate, 1), round(whole.annotations / whole.images, 1),
        round(size / whole.images, 1),
    )  # fmt: skip


def shown(value: float | None, digits: int) -> str:
    """A figure, or that there is none."""
    return "give more images" if value is None else f"{value:.{digits}f}"


def ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def rates(root: Path, engine: str, workers: int, shard: int, with_ray: bool) -> list[Rate]:
    """One process, several, and Ray with as many workers, on the same folders."""
    timed(root / "whole", root / "out", engine, 1, 1, shard)  # builds all engines that these images ask for
    found = [measure(root, "one process", engine, 1, 1, shard), measure(root, "processes", engine, workers, 1, shard)]
    if with_ray:
        found.append(measure(root, "Ray", engine, workers, 1, shard, "local"))
    return found


def memory(root: Path, count: int) -> list[tuple[float, float]]:
    """(share of the run, resident MB) while tiny pictures are labelled in this process and gathered, the engine being fake."""
    folder = tiny_pictures(root / "tiny", count, count)
    samples: list[tuple[float, float]] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            samples.append((time.perf_counter(), resident_megabytes() or 0.0))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    start = time.perf_counter()
    label([folder], root / "out", BoxFile(str(root / "boxes.json")), engine="fake", shard=MEMORY_SHARD)
    end = time.perf_counter()
    stop.set()
    thread.join()
    return [((at - start) / (end - start), size) for at, size in samples if at <= end]


def tenths(samples: Sequence[tuple[float, float]]) -> list[float]:
    """The most memory in each tenth of a run."""
    return [round(max((m for s, m in samples if i <= s * 10 < i + 1), default=0.0), 1) for i in range(10)]


@dataclass(frozen=True)
class Costs:
    """What one image costs where work is not shared out: on the machine that runs the command.

    plan_us: finding it and cutting shards. gather_us: its place in annotations.json. plan_bytes: of memory. sent_bytes: through Ray.
    """

    plan_us: float
    gather_us: float
    plan_bytes: float
    sent_bytes: float
    annotations_bytes: float


def costs(root: Path) -> Costs:
    """Measured on the folder of photographs and its labels."""
    start = time.perf_counter()
    plan = make_plan([root / "whole"], SHARD)
    planned = time.perf_counter() - start
    images = plan.images or 1
    packed = sum(len(pickle.dumps(shard)) for shard in plan.shards)
    held = sum(sys.getsizeof(name) + 8 for shard in plan.shards for name in shard.files)
    stats = sum(p.stat().st_size for p in (root / "out" / "shards").glob("*_stats.json"))
    start = time.perf_counter()
    gather(ResultFolder(root / "out"), "coco", ROWS, len(plan.shards), ("object",))
    gathered = time.perf_counter() - start
    size = (root / "out" / "annotations.json").stat().st_size
    return Costs(
        round(1e6 * planned / images, 1), round(1e6 * gathered / images, 1), round(held / images, 1),
        round((packed + stats) / images, 1), round(size / images, 1),
    )  # fmt: skip


def added_up(total: int, shard: int, one: Rate, ray_ms: float | None, each: Costs) -> list[list[str]]:
    """What so many images come to, line by line: what, how it is reckoned, how much."""
    seconds = ratio(1.0, one.images_per_s)
    shards = -(-total // shard)
    days = None if seconds is None else total * seconds / 86400
    extra = None if ray_ms is None else total * ray_ms / 1e3 / 86400
    return [
        ["work, core-days", "images x s/image", shown(days, 0)],
        ["days on 1000 cores", "the same / 1000", shown(ratio(days, 1000.0), 2)],
        ["Ray beside processes, worker-days", "images x ms/image", shown(extra, 1)],
        [f"shards of {shard}", "images / shard", f"{shards:,}"],
        ["files in shards/", "2 a shard", f"{2 * shards:,}"],
        ["rows, GB", "images x bytes/image", f"{total * one.bytes_per_image / 1e9:,.0f}"],
        [
            "the same as one annotations.json, GB",
            "images x bytes/image",
            f"{total * each.annotations_bytes / 1e9:,.0f}",
        ],
        ["gathering that, hours on one core", "images x us/image", f"{total * each.gather_us / 3.6e9:,.1f}"],
        ["planning, minutes (one file an image)", "images x us/image", f"{total * each.plan_us / 6e7:,.1f}"],
        ["plan in memory, GB (one file an image)", "images x bytes/image", f"{total * each.plan_bytes / 1e9:,.1f}"],
        ["sent through Ray, GB", "images x bytes/image", f"{total * each.sent_bytes / 1e9:,.1f}"],
        [
            "lost by a kill, s a worker at most",
            "shard x s/image",
            shown(None if seconds is None else shard * seconds, 0),
        ],
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tinyseg.bench.label_scale", description="What labelling costs.")
    parser.add_argument("--images", type=int, default=64, metavar="N", help="photographs of 640 x 480 (default: 64)")
    parser.add_argument("--workers", type=int, default=available_cores(), metavar="N", help="(default: one a core)")
    parser.add_argument("--engine", default="auto", metavar="NAME")
    parser.add_argument(
        "--overhead-images", type=int, default=1024, metavar="N", help="for what a scheduler adds to an image"
    )
    parser.add_argument("--memory-images", type=int, default=20_000, metavar="N", help="0: leave memory out")
    parser.add_argument(
        "--add-up", type=int, default=100_000_000, metavar="N", help="images to reckon for (default: 100 million)"
    )
    parser.add_argument(
        "--add-up-shard", type=int, default=1000, metavar="N", help="images a shard in that (default: 1000)"
    )
    parser.add_argument("--no-ray", action="store_true", help="leave Ray out")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    if args.images < 4 or args.overhead_images < 4 or args.workers < 1:
        raise InputError("--images and --overhead-images must be at least 4, --workers at least 1")
    with_ray = not args.no_ray and importlib.util.find_spec("ray") is not None
    with tempfile.TemporaryDirectory(prefix="tinyseg-label-") as folder:
        root = Path(folder)
        for part, share in (("whole", 1), ("half", 2)):
            photographs(root / "real" / part, args.images // share)
            tiny_pictures(root / "tiny" / part, args.overhead_images // share, 1)
        real = rates(root / "real", args.engine, args.workers, SMALL_SHARD, with_ray)
        fake = rates(root / "tiny", "fake", args.workers, SHARD, with_ray)
        each = costs(root / "real")
        (root / "memory").mkdir()
        used = tenths(memory(root / "memory", args.memory_images)) if args.memory_images else []
    if args.json:
        facts = {
            "processor": processor_name(),
            "rates": [asdict(r) for r in real],
            "without_network": [asdict(r) for r in fake],
        }
        print(json.dumps({**facts, "each": asdict(each), "memory_mb": used}))
        return 0
    print(
        f"{processor_name()}, {available_cores()} cores; photographs of {SIZE[0]} x {SIZE[1]}, everything, {SMALL_SHARD} a shard"
    )
    one, *_ = real
    headings = ["how", "workers of one thread", "images/s", "scaling", "start, s"]
    table = [
        [
            r.how, str(r.workers), shown(r.images_per_s, 2), shown(ratio(r.images_per_s, one.images_per_s), 2),
            shown(r.start_s, 1),
        ]
        for r in real
    ]  # fmt: skip
    print("\n".join(markdown_table([headings, *table])))
    print(
        f"\n{shown(ratio(1e3, one.images_per_s), 1)} ms an image and core; {one.masks_per_image:.1f} masks and "
        f"{one.bytes_per_image / 1e3:.2f} kB of rows an image"
    )
    per_image = [ratio(1e3, r.images_per_s) for r in fake]
    print("\nTiny pictures in which nothing is looked for: reading, writing and handing out shards")
    told = [[r.how, str(r.workers), shown(ms, 3)] for r, ms in zip(fake, per_image)]
    print("\n".join(markdown_table([["how", "workers", "ms an image"], *told])))
    more = None
    if with_ray:
        more = None if per_image[2] is None or per_image[1] is None else per_image[2] - per_image[1]
        print(f"\nRay adds {shown(more, 2)} ms to an image beside processes ({SHARD} a shard)")
    else:
        print("\nRay: left out" if args.no_ray else "\nRay: not installed (pip install 'tinyseg[ray]')")
    if used:
        print(f"\nMost resident memory in each tenth of {args.memory_images} images, MB: {', '.join(map(str, used))}")
    print(f"\n{args.add_up:,} images like these:")
    rows = added_up(args.add_up, args.add_up_shard, one, more, each)
    print("\n".join(markdown_table([["what", "how", "how much"], *rows])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
