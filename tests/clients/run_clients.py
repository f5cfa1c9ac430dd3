"""Run other people's clients of segment-anything on exported files; in an environment of theirs (scripts/clients).

    python run_clients.py JOB.json

A job names encoder, decoder, yaml, image, out and prompts; a mask file out/CLIENT-N.png is written for every prompt. The
clients are used as they are: rembg's "sam" session, samexporter's inference, and X-AnyLabeling's segment_anything class,
which is loaded from its own file because the package around it needs a window system.
"""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

# rembg takes known model names only; an existing file of that name is used as it is.
REMBG_NAME = "sam_vit_b_01ec64"


def marks(prompt):
    """A prompt as samexporter, X-AnyLabeling and rembg want it."""
    rows = []
    if "box" in prompt:
        rows.append({"type": "rectangle", "data": [int(v) for v in prompt["box"]], "label": 1})
    for point, label in zip(prompt.get("points", []), prompt.get("labels", [])):
        rows.append({"type": "point", "data": [int(v) for v in point], "label": label})
    return rows


def rembg_masks(job):
    home = Path(job["out"]) / "u2net"
    home.mkdir()
    for kind in ("encoder", "decoder"):
        shutil.copy(job[kind], home / f"{REMBG_NAME}.{kind}.onnx")
    os.environ["U2NET_HOME"] = str(home)
    from rembg import new_session  # noqa: PLC0415 - reads U2NET_HOME when it is imported

    session = new_session("sam", sam_model=REMBG_NAME)
    image = Image.open(job["image"])
    return [np.array(session.predict(image, sam_prompt=marks(p))[0]) > 0 for p in job["prompts"]]


def samexporter_masks(job):
    from samexporter.sam_onnx import SegmentAnythingONNX  # noqa: PLC0415 - each client alone

    model = SegmentAnythingONNX(job["encoder"], job["decoder"])
    embedding = model.encode(cv2.imread(job["image"]))
    return [model.predict_masks(embedding, marks(p))[0, 0] > 0 for p in job["prompts"]]


def x_anylabeling_masks(job):
    package = importlib.util.find_spec("anylabeling")
    file = Path(package.submodule_search_locations[0]) / "services" / "auto_labeling" / "sam_onnx.py"
    spec = importlib.util.spec_from_file_location("sam_onnx", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.SegmentAnythingONNX(job["encoder"], job["decoder"])
    embedding = model.encode(cv2.imread(job["image"])[..., ::-1])
    return [model.predict_masks(embedding, marks(p))[0, 0] > 0 for p in job["prompts"]]


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    for name, masks in (
        ("rembg", rembg_masks(job)), ("samexporter", samexporter_masks(job)), ("x-anylabeling", x_anylabeling_masks(job)),
    ):  # fmt: skip
        for i, mask in enumerate(masks):
            Image.fromarray(mask.astype(np.uint8) * 255).save(Path(job["out"]) / f"{name}-{i}.png")


main()
