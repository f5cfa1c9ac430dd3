"""What the pixel core and the engines answer here, and whether another machine answers the same.

python scripts/arm64_results.py make FILE.npz [MODEL]    everything below, on this machine, of a packaged model (small)
python scripts/arm64_results.py compare HERE.npz THERE.npz    differences beside what is tolerated; exit code 1 where one is larger

What is compared: prepared pixels of a photograph, also turned and cut out of a larger one (the paths of strided frames); masks
and scores of a box, a click and both, in every precision of every CPU engine that is installed on both.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

import tinyseg
from tinyseg.engines import is_installed, offered_precisions
from tinyseg.geometry import letterbox
from tinyseg.pixels import check_frame, prepare

ROOT = Path(__file__).parent.parent
PROMPTS: dict[str, dict[str, Any]] = {
    "box": {"box": (90, 20, 480, 390)},
    "click": {"points": [[300, 200]], "labels": [1]},
    "both": {"points": [[300, 200], [20, 20]], "labels": [1, 0], "box": (90, 20, 480, 390)},
}
# Sums are rounded elsewhere in a fused multiply-add, and int8 kernels differ in where they saturate.
PIXELS_APART = 1e-3  # of a normalised value (a grey level is 0.0078)
MASK_IOU = {"fp32": 0.999, "fp16": 0.99, "bf16": 0.98, "int8": 0.98}
SCORES_APART = {"fp32": 2e-3, "fp16": 0.01, "bf16": 0.02, "int8": 0.02}


def make(path: Path, model: str = "small") -> None:
    """Write the answers of this machine."""
    frame = tinyseg.read_image(ROOT / "examples" / "coffee.jpg")
    answers: dict[str, Any] = {}
    for name, view in {
        "plain": frame,
        "turned": frame.transpose(1, 0, 2),
        "cut": frame[5:-7, 3:-9],
        "grey": frame[:, :, 1],
    }.items():
        height, width = view.shape[:2]
        for side in (512, 256, 1024):
            answers[f"pixels {name} {side}"] = prepare(check_frame(view, "bgr"), letterbox(width, height, side))
    for engine in ("onnxruntime", "openvino"):
        for precision in offered_precisions(engine) if is_installed(engine) else ():
            seg = tinyseg.load(model, engine=engine, precision=precision)
            embedding = seg.embed(frame)
            for name, prompt in PROMPTS.items():
                masks = embedding.predict(**prompt, zoom="off")
                answers[f"{engine} {precision} {name} masks"] = np.packbits(masks.masks, axis=-1)
                answers[f"{engine} {precision} {name} scores"] = masks.scores
    with path.open("wb") as file:
        np.savez_compressed(file, machine=platform.machine(), **answers)


def compare(here: Path, there: Path) -> int:
    """Print a row for each answer; how many differ by more than is tolerated."""
    with np.load(here) as one, np.load(there) as other:
        names = [n for n in one.files if n in other.files and n != "machine"]
        missing = sorted(set(one.files) ^ set(other.files))
        told = ", ".join(missing) or "none"
        print(f"{one['machine']} and {other['machine']}: {len(names)} answers of both; of one alone: {told}")
        failed = 0
        for name in names:
            a, b = one[name], other[name]
            precision = name.split()[1]
            if name.endswith("masks"):
                union = np.unpackbits(a | b).sum()
                found, least = np.unpackbits(a & b).sum() / max(union, 1), MASK_IOU[precision]
                good, told = found >= least, f"IoU {found:.5f} (at least {least})"
            else:
                most = SCORES_APART[precision] if name.endswith("scores") else PIXELS_APART
                apart = float(np.abs(a.astype(np.float64) - b).max()) if a.shape == b.shape else np.inf
                good, told = apart <= most, f"apart {apart:.2e} (at most {most:g})"
            failed += not good
            print(f"{'same' if good else 'DIFFERS'}  {name:38s} {told}")
    return failed


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"] and len(sys.argv) in (3, 4):
        make(Path(sys.argv[2]), *sys.argv[3:])
    elif sys.argv[1:2] == ["compare"] and len(sys.argv) == 4:
        sys.exit(1 if compare(Path(sys.argv[2]), Path(sys.argv[3])) else 0)
    else:
        sys.exit(__doc__)
