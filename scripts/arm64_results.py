"""What the pixel core and the engines answer here, and whether another machine answers the same.

python scripts/arm64_results.py make FILE.npz [MODEL [ENGINE]]    everything below, on this machine, of a packaged model (small)
python scripts/arm64_results.py held-out FILE.npz MODEL ENGINE DATASET COUNT    masks and scores of other prompts: a box and a click on
    the largest object of each of COUNT photographs of a data set (tinyseg/dataset.py says which kinds are read)
python scripts/arm64_results.py shaken FILE.npz MODEL ENGINE    make's, of inputs that are off by as much as another rounding
python scripts/arm64_results.py compare HERE.npz THERE.npz    differences beside what is tolerated; exit code 1 where one is larger
python scripts/arm64_results.py quantized FILE.npz    how far a machine's own lower precisions are from its fp32

What is compared: prepared pixels of a photograph, also turned and cut out of a larger one (the paths of strided frames); the
three readings and scores of boxes, clicks and both, in every precision of every CPU engine that is installed on both. What is
tolerated, and why, is in docs/arm.md.
"""

from __future__ import annotations

import platform
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import cv2
import numpy as np
from numpy.typing import NDArray

import tinyseg
from tinyseg.dataset import read_photos
from tinyseg.engines import is_installed, offered_precisions
from tinyseg.geometry import letterbox
from tinyseg.pixels import check_frame, prepare

Answer: TypeAlias = NDArray[Any]
Question: TypeAlias = tuple[NDArray[np.uint8], dict[str, Any]]  # (H, W, 3) BGR, and a prompt in its pixels
ROOT = Path(__file__).parent.parent
# Frames of one shape, so that every engine is compiled once: an emulator takes minutes for that.
FRAME = 512, 341
PROMPTS: dict[str, tuple[str, dict[str, Any]]] = {
    "coffee box": ("coffee", {"box": (126, 17, 366, 307)}),
    "coffee click": ("coffee", {"points": [[256, 171]], "labels": [1]}),
    "coffee both": ("coffee", {"points": [[256, 171], [17, 17]], "labels": [1, 0], "box": (126, 17, 366, 307)}),
    "astronaut box": ("astronaut", {"box": (28, 13, 364, 341)}),
    "astronaut click": ("astronaut", {"points": [[230, 120]], "labels": [1]}),
    "astronaut clicks": ("astronaut", {"points": [[230, 120], [250, 300]], "labels": [1, 1]}),
}
ROUNDING = np.float32(4.2e-7)  # of a normalised value: four roundings of values near 1
PIXELS_APART = 1e-3  # of a normalised value (a grey level is 0.0078)
SCORES_APART = {"fp32": 2e-3, "fp16": 0.01, "bf16": 0.02, "int8": 0.02}
MASK_IOU = {"fp32": 0.999, "fp16": 0.99}
# bf16 and int8: a piece that is kept or dropped as a whole moves a single mask far, on one processor as between two. So
# their masks have to agree on average better than with fp32 here, and each alone as far as these say (docs/arm.md).
SURE_SCORE, SURE_IOU, UNSURE_IOU = 0.7, 0.9, 0.75


def photograph(name: str) -> NDArray[np.uint8]:
    """An example's middle columns and upper rows as a (341, 512, 3) BGR frame, taken as they are: no resampling."""
    picture = tinyseg.read_image(ROOT / "examples" / f"{name}.jpg")
    left = (picture.shape[1] - FRAME[0]) // 2
    return np.ascontiguousarray(picture[: FRAME[1], left : left + FRAME[0]])


def make(path: Path, model: str = "small", *engines: str) -> None:
    """Write the answers of this machine, by the engines named or every one on the CPU."""
    frame = tinyseg.read_image(ROOT / "examples" / "coffee.jpg")
    answers: dict[str, Answer] = {}
    for name, view in {
        "plain": frame,
        "turned": frame.transpose(1, 0, 2),
        "cut": frame[5:-7, 3:-9],
        "grey": frame[:, :, 1],
    }.items():
        height, width = view.shape[:2]
        for side in (512, 256, 1024):
            answers[f"pixels {name} {side}"] = prepare(check_frame(view, "bgr"), letterbox(width, height, side))
    photos = {photo: photograph(photo) for photo, _ in PROMPTS.values()}
    asked = {name: (photos[photo], prompt) for name, (photo, prompt) in PROMPTS.items()}
    for engine in engines or ("onnxruntime", "openvino"):
        answers |= answered(model, engine, asked)
    write(path, answers)


def held_out(path: Path, model: str, engine: str, data: Path, count: int) -> None:
    """Write this machine's answers to prompts that no tolerance was chosen by."""
    write(path, answered(model, engine, dict(on_objects(data, count))))


def shaken(path: Path, model: str, engine: str) -> None:
    """Write the answers to inputs that noise in their last bits has moved: what a decision is worth that this turns."""
    rng = np.random.default_rng(0)

    def off(*arguments: Any) -> NDArray[np.float32]:
        image = prepare(*arguments)
        image += ROUNDING * rng.uniform(-1, 1, image.shape).astype(np.float32)
        return image

    with mock.patch("tinyseg.pixels.prepare", off):
        make(path, model, engine)


def on_objects(data: Path, count: int) -> Iterator[tuple[str, Question]]:
    """A box and a click, each on the largest object of a photograph's middle; photographs are taken evenly from the
    data set, and those without one in their middle are passed over."""
    width, height = FRAME
    large = [p for p in read_photos(data) if p.width >= width and p.height >= height and p.instances]
    for i in range(count):
        photo = large[i * len(large) // count]
        left, top = (photo.width - width) // 2, (photo.height - height) // 2
        frame = np.ascontiguousarray(photo.read()[top : top + height, left : left + width])
        masks = photo.masks()[:, top : top + height, left : left + width]
        mask = max(masks, key=np.count_nonzero).astype(np.uint8)
        if not mask.any():
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = tuple(int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        # The pixel that lies deepest in it, a pixel outside the frame being no object.
        depth = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        yield f"{photo.name} box", (frame, {"box": box})
        yield f"{photo.name} click", (frame, {"points": [[int(x), int(y)]], "labels": [1]})


def answered(model: str, engine: str, asked: Mapping[str, Question]) -> dict[str, Answer]:
    """Masks (as bits) and scores by every precision of an engine, none where it is not installed."""
    answers: dict[str, Answer] = {}
    for precision in offered_precisions(engine) if is_installed(engine) else ():
        seg = tinyseg.load(model, engine=engine, precision=precision)
        seen, embedding = None, None
        for name, (frame, prompt) in asked.items():
            if embedding is None or seen is not frame:
                seen, embedding = frame, seg.embed(frame)
            masks = embedding.predict(**prompt, zoom="off")
            answers[f"{engine} {precision} {name} masks"] = np.packbits(masks.masks, axis=-1)
            answers[f"{engine} {precision} {name} scores"] = masks.scores
    return answers


def write(path: Path, answers: Mapping[str, Answer]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, machine=np.array(platform.machine()), **answers)


def iou(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Of two masks whose pixels are bits."""
    union = int(np.unpackbits(a | b).sum())
    return int(np.unpackbits(a & b).sum()) / union if union else 1.0


def read(path: Path) -> dict[str, Answer]:
    """A file that this script made; ends the program where it is none."""
    try:
        with np.load(path) as file:
            answers = dict(file)
            print(f"{path}: answers of {answers['machine']}")
            return answers
    # A file of one array is none of this script's; zipfile and zlib tell damage in their own ways.
    except (OSError, ValueError, TypeError, AttributeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as exc:
        told = (
            exc.strerror
            if isinstance(exc, OSError) and exc.strerror
            else "it was not made by this script, or is damaged"
        )
        sys.exit(f"{path} cannot be read: {told}; make one with: python scripts/arm64_results.py make FILE.npz")


def compare(here: Path, there: Path) -> int:
    """Print a row for each answer; how many differ by more than is tolerated."""
    ours, others = read(here), read(there)
    names = [n for n in ours if n in others and n != "machine"]
    alone = sorted({" ".join(n.split()[:2]) for n in set(ours) ^ set(others)})
    print(f"{len(names)} answers of both; of one alone: {', '.join(alone) or 'none'}")
    if not any(name.endswith("masks") for name in names):
        sys.exit("there is nothing to compare: both files need masks of one engine in one precision")
    theirs = {n: others[n] for n in names}
    rows = [(n, *row) for n in names for row in differences(n, ours[n], theirs[n], ours)]
    rows += averages(ours, theirs)
    for name, good, told in rows:
        print(f"{'same' if good else 'DIFFERS'}  {name:42s} {told}")
    return sum(not good for _, good, _ in rows)


def differences(name: str, here: Answer, there: Answer, ours: Mapping[str, Answer]) -> Iterator[tuple[bool, str]]:
    """(whether it is tolerated, what it is) for pixels, for scores, or for each reading's masks."""
    if here.shape != there.shape:
        yield False, f"shapes {here.shape} and {there.shape}"
    elif name.endswith("masks"):
        scores = ours[name.removesuffix("masks") + "scores"]
        for i, score in enumerate(scores):
            least = MASK_IOU.get(name.split()[1], SURE_IOU if score >= SURE_SCORE else UNSURE_IOU)
            found = iou(here[i], there[i])
            yield found >= least, f"reading {i} of score {score:.3f}: IoU {found:.5f} (at least {least})"
    else:
        most = SCORES_APART[name.split()[1]] if name.endswith("scores") else PIXELS_APART
        apart = float(np.abs(here.astype(np.float64) - there).max())
        yield apart <= most, f"apart {apart:.2e} (at most {most:g})"


def averages(ours: Mapping[str, Answer], theirs: Mapping[str, Answer]) -> Iterator[tuple[str, bool, str]]:
    """Where masks may differ: whether the two machines' do so less, on average, than they differ from fp32 here."""
    kinds = sorted({tuple(n.split()[:2]) for n in theirs if n.endswith("masks") and n.split()[1] not in MASK_IOU})
    for engine, precision in kinds:
        for which, least_score in (("sure", SURE_SCORE), ("all", 0.0)):
            between, own = [], []
            for name in (n for n in theirs if n.startswith(f"{engine} {precision} ") and n.endswith("masks")):
                full = ours[name.replace(f" {precision} ", " fp32 ")]
                for i, score in enumerate(ours[name.removesuffix("masks") + "scores"]):
                    if score >= least_score:
                        between.append(iou(ours[name][i], theirs[name][i]))
                        own.append(iou(ours[name][i], full[i]))
            found, least = float(np.mean(between)), float(np.mean(own))
            told = f"{len(own)} readings: mean IoU {found:.5f} (at least {least:.5f}, which is that with fp32 here)"
            yield f"{engine} {precision} {which}", found >= least, told


def quantized(path: Path) -> None:
    """Print each reading's IoU with the same engine's in fp32, and with another engine's in the same precision."""
    answers = read(path)
    for name in answers:
        if not name.endswith("masks"):
            continue
        engine, precision, *rest = name.split()
        others = [] if precision == "fp32" else [f"{engine} fp32 {' '.join(rest)}"]
        others += [f"{e} {precision} {' '.join(rest)}" for e in ("onnxruntime", "openvino") if e > engine]
        scores = answers[name.removesuffix("masks") + "scores"]
        for other in filter(answers.__contains__, others):
            for i, (one, two) in enumerate(zip(answers[name], answers[other])):
                with_what = " ".join(other.split()[:2])
                print(f"{name:46s} reading {i} of score {scores[i]:.3f}: IoU {iou(one, two):.5f} with {with_what}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"] and len(sys.argv) >= 3:
        make(Path(sys.argv[2]), *sys.argv[3:])
    elif sys.argv[1:2] == ["held-out"] and len(sys.argv) == 7:
        held_out(Path(sys.argv[2]), sys.argv[3], sys.argv[4], Path(sys.argv[5]), int(sys.argv[6]))
    elif sys.argv[1:2] == ["shaken"] and len(sys.argv) == 5:
        shaken(Path(sys.argv[2]), sys.argv[3], sys.argv[4])
    elif sys.argv[1:2] == ["compare"] and len(sys.argv) == 4:
        sys.exit(1 if compare(Path(sys.argv[2]), Path(sys.argv[3])) else 0)
    elif sys.argv[1:2] == ["quantized"] and len(sys.argv) == 3:
        quantized(Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
