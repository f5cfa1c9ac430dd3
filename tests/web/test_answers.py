"""A golden set: what the JavaScript runtime answers in Node is what the Python runtime answers."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tests.conftest import mask_iou
from tests.tinyseg.serve.browser import missing
from tests.web.conftest import PER_SIDE

LEAST = 0.99
PROMPTS: dict[str, list[dict[str, Any]]] = {
    "astronaut.jpg": [
        {"points": [[256, 230]], "labels": [1]},
        {"points": [[256, 230], [150, 100]], "labels": [1, 0], "hint": True, "options": {"multimask": False}},
        {"points": [[77, 154]], "labels": [1]},  # small: a second look adds to the first
        {"points": [[77, 154], [90, 200]], "labels": [1, 0], "hint": True, "options": {"multimask": False}},
        {"box": [205, 51, 307, 179], "options": {"multimask": False}},  # small by its box alone
        {"box": [205.5, 51.25, 700, 179], "points": [[250, 100]], "labels": [1], "options": {"multimask": False, "zoom": "off"}},
        {"points": [[512, 512]], "labels": [1], "options": {"multimask": False}},  # the frame's very edge
    ],
    "coffee.jpg": [{"points": [[300, 180]], "labels": [1]}, {"points": [[120.5, 300]], "labels": [1]}],
}  # fmt: skip
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"points": [[-5, 3]]}, "lies outside the picture of 512 x 512"),
    ({"points": [[5, 3]], "labels": [2]}, "labels must be 1 or 0"),
    ({"points": [[5]]}, "points must be"),
    ({"box": [5, 5, 5, 9]}, "no area"),
    ({"box": [600, 5, 700, 9]}, "no area"),
    ({}, "the prompt is empty"),
]


def bits(row: dict[str, Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = row["box"]
    mask = np.zeros(shape, np.bool_)
    mask[y0:y1, x0:x1] = np.frombuffer(base64.b64decode(row["bits"]), np.bool_).reshape(y1 - y0, x1 - x0)
    return mask


def in_node(script: Path, site: Path, pictures: list[dict[str, Any]]) -> str:
    """Standard output of a script of this folder about a site's parts."""
    if shutil.which("node") is None:
        missing("node is not installed (Debian: apt-get install nodejs)")
    request = {
        "sources": str(site / "tinyseg" / "index.js"), "ort": str(site / "ort" / "ort.wasm.min.mjs"),
        "core": str(site / "tinyseg" / "core.wasm"), "card": str(site / "model" / "model.json"),
        "encoder": str(site / "model" / "encoder.fp32.onnx"), "decoder": str(site / "model" / "decoder.fp32.onnx"),
        "pictures": pictures,
    }  # fmt: skip
    done = subprocess.run(["node", str(script)], input=json.dumps(request), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def answers(root: Path, site: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("answers")
    pictures = []
    for name, prompts in PROMPTS.items():
        frame = tinyseg.read_image(root / "examples" / name)
        (folder / name).write_bytes(cv2.cvtColor(frame, cv2.COLOR_BGR2RGBA).tobytes())
        wrong = [prompt for prompt, _ in WRONG] if name == "astronaut.jpg" else []
        pictures.append(
            {"image": str(folder / name), "width": frame.shape[1], "height": frame.shape[0], "prompts": prompts + wrong,
             "everything": name == "coffee.jpg"}
        )  # fmt: skip
    return dict(zip(PROMPTS, json.loads(in_node(root / "tests" / "web" / "answers.mjs", site, pictures))))


def test_masks_are_the_python_runtime_s(answers: Any, python: tinyseg.Segmenter, root: Path) -> None:
    zoomed = set()
    for name, prompts in PROMPTS.items():
        frame = tinyseg.read_image(root / "examples" / name)
        embedding = python.embed(frame)
        hint = None
        for given, found in zip(prompts, answers[name]["prompts"]):
            prompt = {key: value for key, value in given.items() if key not in ("hint", "options")}
            masks = embedding.predict(**prompt, mask=hint if given.get("hint") else None, **given.get("options", {}))
            hint = masks.logits[masks.best]
            assert "error" not in found, found
            assert found["best"] == masks.best and len(found["masks"]) == len(masks)
            assert (found["zoom"] and tuple(found["zoom"])) == masks.zoom
            zoomed.add(found["zoom"] is not None)
            for k, row in enumerate(found["masks"]):
                drawn = bits(row, frame.shape[:2])
                same = np.array_equal(drawn, masks.masks[k])  # also where both are empty
                assert same or mask_iou(drawn, masks.masks[k]) >= LEAST, (name, given, k)
                assert drawn.sum() == row["area"]
                np.testing.assert_allclose(row["score"], masks.scores[k], atol=1e-3)
                np.testing.assert_allclose(row["stability"], masks.stability[k], atol=0.01)
                logits = np.frombuffer(base64.b64decode(row["logits"]), np.float32).reshape(masks.logits[k].shape)
                np.testing.assert_allclose(logits, masks.logits[k], atol=0.02)
    assert zoomed == {True, False}


def test_wrong_prompts_are_told(answers: Any) -> None:
    found = answers["astronaut.jpg"]["prompts"][len(PROMPTS["astronaut.jpg"]) :]
    for (_, told), answer in zip(WRONG, found):
        assert answer["name"] == "TinysegError" and told in answer["error"]


def test_wrong_use_is_told_in_one_line_that_names_the_fix(root: Path, site: Path) -> None:
    in_node(root / "tests" / "web" / "misuse.mjs", site, [])


def test_everything_is_the_python_runtime_s(answers: Any, python: tinyseg.Segmenter, root: Path) -> None:
    frame = tinyseg.read_image(root / "examples" / "coffee.jpg")
    regions = python.embed(frame).everything()
    found = answers["coffee.jpg"]["regions"]
    assert len(found) == len(regions) >= PER_SIDE
    for i, row in enumerate(found):
        np.testing.assert_allclose(row["score"], regions.scores[i], atol=1e-3)
        np.testing.assert_allclose(row["point"], regions.points[i])
        assert mask_iou(bits(row, frame.shape[:2]), regions.mask(i)) >= LEAST
