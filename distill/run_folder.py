"""A run folder: who may write there, its tables, its curves, and what the moving average answers on a few validation photos."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from tinyseg.dataset import Photo
from tinyseg.distill.data import cut_image
from tinyseg.distill.model import Student, normalise
from tinyseg.distill.validation import VIEW_SIZES, view
from tinyseg.draw import overlay
from tinyseg.errors import DataError
from tinyseg.files import write_bytes
from tinyseg.geometry import HALF_PIXEL, LOGIT_STRIDE
from tinyseg.images import write_image
from tinyseg.masks import most_interior
from tinyseg.prompts import Prompt
from tinyseg.prompts.layout import LABEL_BOX_BOTTOM_RIGHT, LABEL_BOX_TOP_LEFT, LABEL_PADDING, LABEL_POSITIVE

CONFIG, LOCK = "config.json", ".lock"
LOCK_SECONDS = 10.0  # the workers of a training that was killed hold its lock a little longer
SAMPLES = 6  # photos in a picture
SIDE = 320  # pixels of each
# Chosen by: what a user meets first, and what corrections make of it.
BEST_BY = ("box_frame", "click_frame", "click3_frame", "box_zoom")


@contextmanager
def open_run_folder(out: Path) -> Iterator[None]:
    """Make a run folder, or go on in it, and keep other trainings out of it. Raises DataError, also for somebody's config.json."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError as exc:
        raise DataError(f"--out {out} is a file, and a run is a folder; name another place") from exc
    except OSError as exc:
        raise DataError(f"--out {out} cannot be made a folder ({exc.strerror or exc}); name another place") from exc
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as exc:
        raise DataError(f"another training is writing into {out}; wait for its end, or name another --out") from exc
    except (OSError, NotImplementedError) as exc:  # some file systems of clusters know no locks
        print(f"{out} cannot be locked ({exc}): see to it that no other training writes there", flush=True)
    try:
        _require_own_config(out / CONFIG)
        yield
    finally:
        lock.release()


def _require_own_config(path: Path) -> None:
    if not path.exists():
        return
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not {"out", "steps", "seed"} <= found.keys():
        raise DataError(f"{path} was not written by a training; name another --out, or move it away")


def begin_records(out: Path, config: Any, step: int | None) -> None:
    """Put the configuration (a dataclass) of a run that goes on after a step (None: that begins) into its folder, and take out
    what the tables say of later steps: a run that was killed makes these again. Raises DataError."""
    write_bytes(out / CONFIG, json.dumps(asdict(config), indent=1).encode())
    for name in ("steps.csv", "validation.csv"):
        drop_rows_after(out / name, -1 if step is None else step)


def drop_rows_after(path: Path, step: int) -> None:
    """Take the rows of later steps, and one that was cut short, out of a CSV. Raises DataError."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if header[:1] != ["step"]:
        return
    kept = [r for r in rows if len(r) == len(header) and r[0].isdecimal() and int(r[0]) <= step]
    if len(kept) < len(rows):
        text = io.StringIO(newline="")
        csv.writer(text).writerows([header, *kept])
        write_bytes(path, text.getvalue().encode())


def append_row(path: Path, row: dict[str, object]) -> None:
    """Add a row to a CSV, which is begun with the row's names."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def read_column(path: Path, name: str) -> tuple[list[float], list[float]]:
    """(steps, values) of a CSV; empty where it does not exist."""
    if not path.exists():
        return [], []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [float(r["step"]) for r in rows], [float(r[name]) for r in rows]


def draw_curves(out: Path) -> Path | None:
    """steps.csv and validation.csv as curves.png; None where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        return None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(*read_column(out / "steps.csv", "loss"))
    left.set(title="loss (mean of 50 steps)", xlabel="step")
    names = ("box_frame", "box_zoom", "click_frame", "oracle_frame", "click3_frame")
    for name in names:
        right.plot(*read_column(out / "validation.csv", name), marker="o", label=name)
    right.set(title="validation, moving average: mean IoU", xlabel="step")
    right.legend()
    path = out / "curves.png"
    temporary = out / "curves.part.png"
    figure.savefig(temporary, dpi=110)
    plt.close(figure)
    temporary.replace(path)
    return path


@torch.inference_mode()
def draw_samples(student: Student, photos: Sequence[Photo], device: torch.device, path: Path) -> None:
    """The first instance of the first photos: answered from its box (above) and from one click (below)."""
    was_training = student.training
    student.eval()
    size = VIEW_SIZES["frame"]
    rows: tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]] = ([], [])
    for photo in photos[:SAMPLES]:
        crop = view(photo, size, None)
        image = cut_image(photo.read(), crop)
        mask = np.zeros((photo.height, photo.width), np.uint8)
        cv2.fillPoly(mask, [np.round(p).astype(np.int32) for p in photo.instances[0]], 1)
        scale = size / max(photo.width, photo.height)
        x, y, w, h = (v * scale for v in cv2.boundingRect(mask))
        cx, cy = ((v + HALF_PIXEL) * scale for v in most_interior(mask > 0))
        features = student.encoder(normalise(torch.from_numpy(image[None, ..., ::-1].copy()).to(device)))
        points = torch.tensor([[[x, y], [x + w, y + h]], [[cx, cy], [0.0, 0.0]]], device=device)
        labels = torch.tensor(
            [[LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT], [LABEL_POSITIVE, LABEL_PADDING]], device=device
        ).float()
        empty = torch.zeros(2, 1, size // LOGIT_STRIDE, size // LOGIT_STRIDE, device=device)
        logits, _ = student.decoder(*features, points.float(), labels, empty, torch.zeros(2, device=device))
        full = torch.nn.functional.interpolate(logits[:, :1].float(), size=(size, size), mode="bilinear")[:, 0] > 0
        prompts = (Prompt(box=[x, y, x + w, y + h]), Prompt(points=[[cx - HALF_PIXEL, cy - HALF_PIXEL]], labels=[1]))
        for row, answer, prompt in zip(rows, full.cpu().numpy(), prompts):
            picture = cv2.resize(overlay(image, [answer], [prompt]), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            row.append(np.asarray(picture, np.uint8))
    student.train(was_training)
    write_image(path, np.concatenate([np.concatenate(row, 1) for row in rows], 0))
