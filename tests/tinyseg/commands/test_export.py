from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tests.conftest import mask_iou
from tinyseg import pixels
from tinyseg.cli import main
from tinyseg.draw import overlay
from tinyseg.graphs.model import open_model
from tinyseg.images import read_image

onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[compile]')")
ort = pytest.importorskip("onnxruntime")
from tinyseg.graphs.sam_onnx import sam_decoder, sam_encoder  # noqa: E402

# With the same picture and prompt. What is left is the antialiased resize, which ONNX Runtime rounds differently.
SAME_MASK = 0.995
# A client resizes the picture in its own way first, and rounds prompts.
CLIENT_MASK = 0.97

# Where the picture of docs/clients.md is written; nowhere by default.
SHOTS = os.environ.get("TINYSEG_SCREENSHOTS")

PROMPTS: list[dict[str, Any]] = [
    {"box": [30, 14, 370, 512]},
    {"points": [[215, 330], [40, 100]], "labels": [1, 0], "box": [30, 14, 370, 512]},
    {"points": [[215, 400], [215, 120], [40, 100]], "labels": [1, 1, 0]},
]


class Pair:
    """The two files, run as segment-anything's own ONNX example runs them."""

    def __init__(self, name: str, all_masks: bool = False) -> None:
        model = open_model(name)
        self.encoder = ort.InferenceSession(sam_encoder(model).SerializeToString())
        self.decoder = ort.InferenceSession(sam_decoder(model, all_masks).SerializeToString())

    def encode(self, bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(self.encoder.run(None, {"input_image": bgr[..., ::-1].astype(np.float32)})[0])

    def decode(
        self, embedding: NDArray[np.float32], prompt: dict[str, Any], size: tuple[int, int], fit: float = 1.0,
        hint: NDArray[np.float32] | None = None,
    ) -> list[NDArray[np.float32]]:  # fmt: skip
        """masks, iou_predictions, low_res_masks. fit: pixels of the embedded picture for one of the prompt's."""
        box = prompt.get("box")
        points = [*([box[:2], box[2:]] if box else []), *prompt.get("points", []), [0, 0]]
        labels = [*([2, 3] if box else []), *prompt.get("labels", []), -1]
        feeds = {
            "image_embeddings": embedding, "point_coords": np.array(points, np.float32)[None] * np.float32(fit),
            "point_labels": np.array(labels, np.float32)[None],
            "mask_input": np.zeros((1, 1, 256, 256), np.float32) if hint is None else hint[None],
            "has_mask_input": np.array([hint is not None], np.float32), "orig_im_size": np.array(size, np.float32),
        }  # fmt: skip
        return [np.asarray(array) for array in self.decoder.run(None, feeds)]


def ours(seg: tinyseg.Segmenter, bgr: NDArray[np.uint8], prompt: dict[str, Any]) -> tuple[NDArray[np.bool_], float]:
    """What the decoder finds, in the frame's pixels, without the second look and speck removal that files cannot do."""
    embedding = seg.embed(bgr)
    asked = tinyseg.Prompt(prompt.get("points"), prompt.get("labels"), prompt.get("box"))
    logits, scores = seg.network.decode(embedding.features, embedding.geometry, embedding.geometry, [asked])
    mask = np.empty(bgr.shape[:2], np.bool_)
    pixels.threshold(logits[0, 0], embedding.geometry, mask)
    return mask, float(scores[0, 0])


@pytest.fixture(scope="module")
def photo(root: Path) -> NDArray[np.uint8]:
    return read_image(root / "examples" / "astronaut.jpg")


@pytest.fixture(scope="module", params=["base", "small"])
def both(request: pytest.FixtureRequest) -> tuple[Pair, tinyseg.Segmenter]:
    return Pair(request.param), tinyseg.load(request.param, "onnxruntime", "fp32")


@pytest.mark.parametrize("size", [(684, 1024), (1024, 700), (1024, 1024)])
def test_masks_are_the_runtimes(
    both: tuple[Pair, tinyseg.Segmenter], photo: NDArray[np.uint8], size: tuple[int, int]
) -> None:
    pair, seg = both
    frame = cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA)
    embedding = pair.encode(frame)
    assert embedding.shape == (1, 256, 64, 64)
    for prompt in PROMPTS:
        stretch = np.array([size[1] / photo.shape[1], size[0] / photo.shape[0]])
        moved = {k: (np.array(v).reshape(-1, 2) * stretch).round() for k, v in prompt.items() if k != "labels"}
        scaled = {k: (v.ravel() if k == "box" else v).tolist() for k, v in moved.items()}
        if "labels" in prompt:
            scaled["labels"] = prompt["labels"]
        masks, iou, low = pair.decode(embedding, scaled, size)
        expected, score = ours(seg, frame, scaled)
        assert masks.shape == (1, 1, *size) and low.shape == (1, 1, 256, 256)
        assert mask_iou(masks[0, 0] > 0, expected) > SAME_MASK and abs(iou[0, 0] - score) < 2e-3


def test_masks_come_at_the_original_size(photo: NDArray[np.uint8]) -> None:
    """segment-anything's own use: the embedded picture is 1024 wide, prompts are scaled to it, masks are not."""
    pair, seg = Pair("small"), tinyseg.load("small", "onnxruntime", "fp32")
    large = cv2.resize(photo, (1536, 1100), interpolation=cv2.INTER_LINEAR)
    fit = 1024 / 1536
    embedded = pair.encode(cv2.resize(large, (1024, round(1100 * fit)), interpolation=cv2.INTER_AREA))
    prompt = {"box": [90.0, 30.0, 1110.0, 1090.0]}
    masks, _, _ = pair.decode(embedded, prompt, (1100, 1536), fit)
    assert masks.shape == (1, 1, 1100, 1536)
    assert mask_iou(masks[0, 0] > 0, ours(seg, large, prompt)[0]) > CLIENT_MASK


def test_an_earlier_answer_is_a_hint(photo: NDArray[np.uint8]) -> None:
    pair, seg = Pair("base"), tinyseg.load("base", "onnxruntime", "fp32")
    frame = cv2.resize(photo, (1024, 1024), interpolation=cv2.INTER_LINEAR)
    embedding = pair.encode(frame)
    prompt = {"points": [[430, 800]], "labels": [1]}
    _, _, low = pair.decode(embedding, prompt, (1024, 1024))
    masks, _, _ = pair.decode(embedding, prompt, (1024, 1024), hint=low[0])
    predictor = tinyseg.SamPredictor(seg, zoom="off")
    predictor.set_image(frame, "BGR")
    expected, _, _ = predictor.predict(
        np.array([[430, 800]]), np.array([1]), mask_input=low[0].astype(np.float32), multimask_output=False
    )
    assert mask_iou(masks[0, 0] > 0, np.asarray(expected[0], np.bool_)) > CLIENT_MASK


def test_the_signature_is_sams() -> None:
    model = open_model("base")
    decoder = sam_decoder(model, all_masks=True)
    shapes = {i.name: [d.dim_value or d.dim_param for d in i.type.tensor_type.shape.dim] for i in decoder.graph.input}
    assert shapes == {
        "image_embeddings": [1, 256, 64, 64], "point_coords": [1, "num_points", 2], "point_labels": [1, "num_points"],
        "mask_input": [1, 1, 256, 256], "has_mask_input": [1], "orig_im_size": [2],
    }  # fmt: skip
    assert [o.name for o in decoder.graph.output] == ["masks", "iou_predictions", "low_res_masks"]
    assert decoder.graph.output[1].type.tensor_type.shape.dim[1].dim_value == 4
    assert len(sam_encoder(model).graph.input) == 1


def test_the_command_writes_whole_folders_and_replaces_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sam"
    command = ["export", "--format", "sam-onnx", "--model", "small", "--out", str(out)]
    assert main(command) == 0 and main(command) == 0
    facts = json.loads((out / "export.json").read_text())
    assert len(facts["files"]) == 3 and facts["masks"] == 1
    for name, digest in facts["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    capsys.readouterr()
    (out / "mine.txt").write_text("mine")
    assert main(command) == 2 and "mine.txt" in capsys.readouterr().err
    assert main(["export", "--format", "sam-onnx", "--model", "nowhere", "--out", str(tmp_path / "x")]) == 3
    assert not (tmp_path / "x").exists()


def clients_python(root: Path, name: str = "clients") -> str:
    """The interpreter of .venv-NAME; skips, or fails where TINYSEG_REQUIRE_CLIENTS=1 says that it must be there."""
    path = root / f".venv-{name}" / "bin" / "python"
    if not path.exists():
        if os.environ.get("TINYSEG_REQUIRE_CLIENTS") == "1":
            pytest.fail(f"TINYSEG_REQUIRE_CLIENTS=1, but there is no .venv-{name}; run scripts/clients")
        pytest.skip(f"there is no .venv-{name}; run scripts/clients")
    return str(path)


def test_real_clients_find_our_masks(root: Path, tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    python = clients_python(root)
    assert main(["export", "--format", "sam-onnx", "--out", str(tmp_path / "sam")]) == 0
    job = {
        "encoder": str(tmp_path / "sam" / "tinyseg-base.encoder.onnx"), "out": str(tmp_path),
        "decoder": str(tmp_path / "sam" / "tinyseg-base.decoder.onnx"),
        "image": str(root / "examples" / "astronaut.jpg"), "prompts": PROMPTS,
    }  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(job))
    script = root / "tests" / "clients" / "run_clients.py"
    done = subprocess.run([python, script, tmp_path / "job.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    seg = tinyseg.load("base", "onnxruntime", "fp32")
    # rembg and X-AnyLabeling put every picture into 684 x 1024, so a square one is seen in two thirds of the detail.
    small = cv2.warpAffine(photo, np.array([[684 / 512, 0, 0], [0, 684 / 512, 0]]), (1024, 684))
    for i, prompt in enumerate(PROMPTS):
        scaled = {k: (np.array(v) * 684 / 512).tolist() if k != "labels" else v for k, v in prompt.items()}
        in_client, _ = ours(seg, small, scaled)
        as_clients = cv2.resize(in_client[:684, :684].astype(np.uint8), (512, 512), interpolation=cv2.INTER_LINEAR) > 0
        for client, expected in (
            ("rembg", as_clients), ("x-anylabeling", as_clients), ("samexporter", ours(seg, photo, prompt)[0]),
        ):  # fmt: skip
            found = cv2.imread(str(tmp_path / f"{client}-{i}.png"), cv2.IMREAD_GRAYSCALE) > 0
            assert found.shape == photo.shape[:2]
            assert mask_iou(found, expected) > CLIENT_MASK, (client, i)
    if SHOTS:
        clients = ("rembg", "samexporter", "x-anylabeling")
        masks = [cv2.imread(str(tmp_path / f"{client}-0.png"), cv2.IMREAD_GRAYSCALE) > 0 for client in clients]
        prompt = tinyseg.Prompt(box=PROMPTS[0]["box"])
        shown = [overlay(photo, [mask], [prompt]) for mask in (*masks, ours(seg, photo, PROMPTS[0])[0])]
        for picture, name in zip(shown, (*clients, "tinyseg")):
            cv2.putText(picture, name, (150, 500), cv2.FONT_HERSHEY_DUPLEX, 1.1, (255, 255, 255), 2, cv2.LINE_AA)
        cv2.imwrite(str(Path(SHOTS) / "clients.jpg"), cv2.resize(np.hstack(shown), None, fx=0.5, fy=0.5))
