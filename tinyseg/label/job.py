"""A labelling job: one folder of results, one lock, shards that are done or not, and what is gathered from them at the end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tinyseg.arguments import check_choice, check_path, check_whole, clipped, path_kind, shown
from tinyseg.errors import DataError, InputError
from tinyseg.files import write_bytes
from tinyseg.graphs.model import model_place
from tinyseg.label.cluster import import_ray, label_on_ray
from tinyseg.label.coco import read_coco
from tinyseg.label.finding import BoxFile, Everything, Like, Wanted, Words, check_facts
from tinyseg.label.gather import Totals, gather_coco, gather_errors, gather_yolo
from tinyseg.label.inputs import FILES, TAR, VIDEO, Plan, Shard, input_list, make_plan, plain_path, require_apart
from tinyseg.label.processes import label_in_processes
from tinyseg.label.shard import SHARDS, STATS, TEMPORARY, Journal, ShardStats, read_stats, shards_done, stats_path
from tinyseg.label.worker import AUTO, COPY, NONE, PICTURES, Setup, Worker
from tinyseg.predict.load import MOST_THREADS, load
from tinyseg.predict.segmenter import Segmenter
from tinyseg.shard_rows import ROWS
from tinyseg.shard_rows import TAR as TAR_ROWS
from tinyseg.system.folders import ResultFolder
from tinyseg.system.progress import progress

COCO, YOLO, WEBDATASET = "coco", "yolo", "webdataset"
FORMATS = (COCO, YOLO, WEBDATASET)
IMAGES = (AUTO, COPY, NONE)
JOB, LOCK = "label.json", ".lock"
JOB_FORMAT = 1
MOST_PROCESSES = 1024


@dataclass(frozen=True)
class LabelReport:
    """What a job did, and what its folder holds now.

    images, annotations, failed, copies: of the whole folder; copies are images whose bytes equal an earlier one's. labelled: images
    of this run alone, in ``seconds``. shards_before: how many were there already.
    """

    out: Path
    images: int
    annotations: int
    failed: int
    copies: int
    shards: int
    shards_before: int
    labelled: int
    seconds: float
    engine: str
    precision: str

    @property
    def rate(self) -> float:
        """Images a second of this run, opening the model included."""
        return self.labelled / self.seconds if self.labelled else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out), "images_per_second": round(self.rate, 3)}


def label(
    inputs: Sequence[str | Path],
    out: str | Path,
    wanted: Wanted | None = None,
    *,
    format: str = COCO,
    images: str = AUTO,
    shard: int = 64,
    every: int = 1,
    tracks: int = 0,
    processes: int = 1,
    devices: Sequence[str] = (),
    ray: str | None = None,
    model: str | None = None,
    engine: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    watch: bool = False,
) -> LabelReport:
    """Label images, videos and tars into a folder; run again with the same arguments to go on where it stopped.

    inputs: folders (with the folders in them), image files, videos, WebDataset tars, globs. out: the folder. wanted: what is looked
    for, an :class:`Everything` (None), :class:`Words`, :class:`BoxFile` or :class:`Like`. format: "coco" (annotations.json), "yolo"
    (outlines in labels/, with the images) or "webdataset" (images and masks in shards/NNNNN.tar). images: which pictures are kept in
    ``out``: "auto" frames of videos and members of tars, for yolo and webdataset all; "copy" all; "none". shard: pictures a shard,
    which is what a kill loses. every: of a video, every so many frames. tracks: follow up to so many objects through each video,
    under ids; 0: every frame by itself. processes: workers, each on its share of the cores; 1 with ray for all that the cluster has
    room for. devices: CUDA devices for them, in turn (with ray any of them give each worker one GPU, which Ray chooses); with one
    process there is nothing to deal out. ray: the address of a Ray cluster, or "local". model, engine, precision,
    threads (of each worker) as of :func:`tinyseg.load`. watch: show progress on a terminal.

    A script that asks for processes begins with the usual ``if __name__ == "__main__":``, as each of them imports it.

    A picture that cannot be labelled is noted in errors.jsonl. Raises DataError where the folder cannot be written, is locked by
    another job, or holds labels of another one; InputError, NotInstalled, and what :func:`tinyseg.load` raises.
    """
    wanted = Everything() if wanted is None else wanted
    if not (hasattr(wanted, "open") and hasattr(wanted, "facts")):
        raise InputError(f"wanted must be an Everything, Words, BoxFile or Like, but is {shown(wanted)}")
    inputs = input_list(inputs)
    check_choice("format", format, FORMATS)
    check_choice("images", images, IMAGES)
    check_whole("processes", processes, 1, MOST_PROCESSES)
    check_whole("tracks", tracks, 0, 256)
    if threads is not None:
        check_whole("threads", threads, 1, MOST_THREADS)
    if devices and processes == 1 and ray is None:
        raise InputError(
            "devices are dealt out to several workers, and there is one; ask for more processes or for ray, or set "
            "CUDA_VISIBLE_DEVICES"
        )
    if ray is not None:
        import_ray()
    start = time.monotonic()
    place = plain_path(check_path("out", out))
    kept = [place / name for name in (PICTURES, SHARDS, "labels")]
    named = [check_path("an input", given) for given in inputs]
    avoid = kept if any(path_kind(i) == "folder" and plain_path(i) == place for i in named) else [place]
    plan = make_plan(inputs, shard, every, tracks > 0, avoid)
    if not any(s.kind == VIDEO for s in plan.shards):
        if tracks:
            raise InputError("tracks follow objects through videos, and there is none among the inputs")
        if every != 1:
            raise InputError("every is of a video's frames, and there is no video among the inputs; leave it out")
    if format == YOLO:
        require_apart(plan)
    if isinstance(wanted, BoxFile):
        wanted = replace(wanted, whole=require_one_picture_each(wanted, plan))
    kind = TAR_ROWS if format == WEBDATASET else ROWS
    with opened(place, format) as folder:
        segmenter = load(model, engine, precision, threads=threads)
        info = segmenter.info
        images = COPY if images == AUTO and format == YOLO else images
        facts = {
            "format": JOB_FORMAT, "model": info.model_sha256, "engine": info.engine, "precision": info.precision,
            "wanted": wanted.facts(), "inputs": plan.digest, "output": format, "images": images, "tracks": tracks,
        }  # fmt: skip
        write_job(folder, facts, {"root": str(plan.root), "shards": len(plan.shards), "categories": wanted.categories})
        setup = Setup(
            _same_files(wanted), place, plan.root, kind, images, every, tracks, _same_model(model),
            _same_engine(engine, segmenter), info.precision, threads, journal=ray is not None or processes > 1,
        )  # fmt: skip
        done = shards_done(place, kind)
        pending = [n for n in range(len(plan.shards)) if n not in done]
        clear(place, [plan.shards[n] for n in pending])
        forget(place, [plan.shards[n] for n in pending])
        if ray is not None:
            found = label_on_ray(setup, plan.groups(pending), ray, processes if processes > 1 else None, bool(devices))
        elif processes > 1:
            del segmenter  # its memory belongs to the processes now
            found = label_in_processes(setup, plan.groups(pending), processes, devices)
        else:
            found = _in_here(setup, segmenter, [plan.shards[n] for n in pending])
        labelled = run(found if pending else iter(()), plan, len(done), watch)
        clear(place, [plan.shards[n] for n in pending])  # of workers that died
        missing = set(range(len(plan.shards))) - shards_done(place, kind)
        if missing:
            raise DataError(f"{len(missing)} of {len(plan.shards)} shards are missing; run again to go on")
        totals = gather(folder, format, kind, len(plan.shards), wanted.categories)
    return LabelReport(
        place, totals.images, totals.annotations, totals.failed, totals.copies, len(plan.shards), len(done), labelled,
        round(time.monotonic() - start, 3), info.engine, info.precision,
    )  # fmt: skip


def _same_engine(asked: str, segmenter: Segmenter) -> str:
    """What workers are to open: the engine that "auto" chose here, so that all machines take the same."""
    return segmenter.info.engine if asked == "auto" else asked


def _same_files(wanted: Wanted) -> Wanted:
    """What is looked for with whole paths: workers on a cluster run in folders of their own."""
    if isinstance(wanted, Words):
        return replace(wanted, detector=str(plain_path(Path(wanted.detector))))
    if isinstance(wanted, BoxFile):
        return replace(wanted, path=str(plain_path(Path(wanted.path))))
    return replace(wanted, reference=str(plain_path(Path(wanted.reference)))) if isinstance(wanted, Like) else wanted


def _same_model(model: str | None) -> str | None:
    """The same of a model; a packaged one goes by its name, as machines may keep it in different places."""
    return model if model is None or model_place(model) != Path(model) else str(plain_path(Path(model)))


def run(found: Iterator[ShardStats], plan: Plan, done: int, watch: bool) -> int:
    """Take what workers give, and show how far they are; returns how many images were labelled or failed.

    The time left is that of the images still to come, as far as their number is known.
    """
    seen: dict[int, int] = {}

    def steps() -> Iterator[None]:
        for stats in found:
            now = stats.images + len(stats.errors)
            for _ in range(now - seen.get(stats.shard, 0)):
                yield None
            seen[stats.shard] = max(now, seen.get(stats.shard, 0))

    left = None
    if plan.images is not None:
        left = round(plan.images * (len(plan.shards) - done) / len(plan.shards))
    for _ in progress(steps(), "label", left) if watch else steps():
        pass
    return sum(seen.values())


def _in_here(setup: Setup, segmenter: Segmenter, shards: Sequence[Shard]) -> Iterator[ShardStats]:
    worker = Worker(setup, segmenter)
    for shard in shards:
        yield from worker.label(shard)


def gather(
    folder: ResultFolder, format: str, kind: str, shards: int, names: Sequence[str], merged: Path | None = None
) -> Totals:
    """Write what stands for the whole folder. Raises DataError."""
    totals = Totals()
    if format == YOLO:
        gather_yolo(folder, shards, kind, names, totals)
    elif format == COCO:
        gather_coco(folder, shards, kind, names, {"description": "labelled by tinyseg"}, totals, merged)
    else:
        for number in range(shards):
            stats = read_stats(folder.folder, number)
            totals.images += stats.images
            totals.annotations += stats.annotations
    gather_errors(folder, shards, totals)
    return totals


@contextmanager
def opened(place: Path, format: str | None) -> Iterator[ResultFolder]:
    """The folder of a job, locked, all its names taken, before any work is done. format: None for one that is there already.

    Raises DataError where it cannot be written, holds somebody's files of these names, or is locked.
    """
    folder = ResultFolder(place)
    names = [JOB, LOCK, SHARDS, "errors.jsonl", ".written.json", PICTURES]
    names += {COCO: ["annotations.json"], YOLO: ["data.yaml", "labels"]}.get(format or "", [])
    if format is not None:
        for name in names:
            folder.place(name)
    lock = FileLock(place / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as exc:
        raise DataError(
            f"another job is writing into {clipped(place)}; wait for its end, or name another --out"
        ) from exc
    except (OSError, NotImplementedError) as exc:  # the latter of file systems that know no locks
        raise DataError(f"{clipped(place)} cannot be locked: {getattr(exc, 'strerror', None) or exc}") from exc
    try:
        with suppress(FileExistsError):
            (place / SHARDS).mkdir()
        yield folder
    except OSError as exc:
        raise DataError(f"{clipped(place)} cannot be written: {exc.strerror or exc}") from exc
    finally:
        lock.release()


def write_job(folder: ResultFolder, facts: dict[str, Any], others: dict[str, Any]) -> None:
    """label.json: what the job is. Raises DataError where the folder holds labels of another job."""
    path = folder.place(JOB)
    # One that ended before its first shard, at an engine that is not there, say, left nothing that could be mixed with others.
    if path.exists() and any(name.endswith((ROWS, TAR_ROWS, STATS)) for name in os.listdir(folder.folder / SHARDS)):
        check_facts(read_job(folder.folder)["job"], json.loads(json.dumps(facts)), folder.folder)
    write_bytes(path, json.dumps({"job": facts, **others}, indent=1).encode())


def read_job(out: Path) -> dict[str, Any]:
    """label.json of a folder. Raises DataError where it is no folder of labels."""
    path = out / JOB
    try:
        content = json.loads(path.read_bytes())
        content["job"]["output"], content["root"], int(content["shards"]), list(content["categories"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as exc:
        raise DataError(f"{clipped(out)} is no folder that tinyseg label wrote: {JOB} is missing or damaged") from exc
    found: dict[str, Any] = content
    return found


def clear(out: Path, pending: Sequence[Shard]) -> None:
    """Take away what a killed job left half-done: temporary files where it was writing, and notes of what it was at."""
    folders = {out, out / SHARDS}
    for shard in pending:
        if shard.kind == FILES:
            folders |= {(out / PICTURES / name).parent for name in shard.files}
        elif shard.kind == TAR:
            folders |= {p for p in (out / PICTURES / shard.place).rglob("*") if p.is_dir()}
            folders.add(out / PICTURES / shard.place)
        else:
            folders.add(out / PICTURES / shard.place)
    for folder in folders:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            if TEMPORARY.fullmatch(name) or (folder.name == SHARDS and name.endswith(Journal.SUFFIX)):
                with suppress(OSError):
                    (folder / name).unlink()


def forget(out: Path, pending: Sequence[Shard]) -> None:
    """Take away stats without rows: somebody deleted these."""
    for shard in pending:
        with suppress(OSError):
            stats_path(out, shard.number).unlink()


def require_one_picture_each(boxes: BoxFile, plan: Plan) -> frozenset[str]:
    """Names in the boxes' file that are a picture's whole name, as far as another picture's ends like them.

    Raises DataError where one picture of the boxes' file could be several of the inputs.
    """
    content = read_coco(Path(boxes.path))
    names = [f for shard in plan.shards for f in shard.files]
    whole = content.images.keys() & names
    # They travel to every worker: all of them only where there are pictures whose names are not known yet.
    told = set() if all(s.kind == FILES for s in plan.shards) else set(whole)
    taken: dict[str, str] = {}
    for name in names:
        known = content.name_of(name, whole)
        if known != name:
            told |= whole.intersection(content.alike(name))
        if known is None:
            continue
        if known in taken:
            raise DataError(
                f"{clipped(boxes.path)} has boxes for {known}, which could be {taken[known]} or {name}; give it longer names"
            )
        taken[known] = name
    if plan.shards and all(s.kind == FILES for s in plan.shards) and not taken:
        raise DataError(
            f"{clipped(boxes.path)} names none of the inputs' pictures; its file names must end like theirs"
        )
    return frozenset(told)
