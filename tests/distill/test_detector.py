"""Grounding DINO on a small random configuration: transformers' boxes, the exported graph's and the whole pipeline's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyseg.detect import GroundingDino, open_detector
from tinyseg.detect.graph import image_input
from tinyseg.errors import InputError, ModelError, PromptError

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")

from tinyseg.distill.__main__ import main  # noqa: E402 - after the skip
from tinyseg.distill.detector import export_detector  # noqa: E402

WORDS = {200: "cat", 201: "dog", 202: "red", 203: "cup", 204: "a", 205: "##s", 1012: ".", 1029: "?"}
THRESHOLD = 0.3


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Grounding DINO with random weights and a tokenizer of a few words, as transformers keeps them."""
    folder = tmp_path_factory.mktemp("grounding-dino")
    torch.manual_seed(0)
    swin = transformers.SwinConfig(
        image_size=64, embed_dim=12, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    bert = {
        "model_type": "bert", "vocab_size": 1100, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 64,
    }  # fmt: skip
    config = transformers.GroundingDinoConfig(
        backbone_config=swin, text_config=bert, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=20, max_text_len=32,
        num_feature_levels=4,
    )  # fmt: skip
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    vocabulary = {(special | WORDS).get(i, f"[unused{i}]"): i for i in range(1100)}
    transformers.BertTokenizerFast(vocab=vocabulary).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "detector"
    done = export_detector(str(source), out, 96, 64, 16)
    assert done.scores_off < 1e-4 and done.boxes_off < 1e-4
    return out


@pytest.fixture(scope="module")
def frame() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 255, (120, 200, 3)).astype(np.uint8)


@pytest.mark.parametrize("words", [("cat", "red cup"), ("dog",), ("a red cup", "cats", "dog")])
def test_the_pipelines_boxes_are_those_of_transformers(
    source: Path, exported: Path, frame: NDArray[np.uint8], words: tuple[str, ...]
) -> None:
    detector = open_detector(exported, "onnxruntime", threshold=THRESHOLD)
    assert isinstance(detector, GroundingDino)
    found = detector.find(frame, words)
    model = transformers.GroundingDinoForObjectDetection.from_pretrained(source).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(source)(" ".join(f"{w}." for w in words), return_tensors="pt")
    with torch.no_grad():
        out = model(pixel_values=torch.from_numpy(image_input(frame, detector.card)), **tokens)
    # As transformers' post_process_grounded_object_detection has it.
    scores = torch.sigmoid(out.logits[0]).max(1).values.numpy()
    x, y, w, h = out.pred_boxes[0].numpy().T * np.array([[200], [120], [200], [120]])
    corners = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    corners = np.clip(corners, 0, [200, 120, 200, 120])
    wanted = scores > THRESHOLD
    assert wanted.sum() > 3 and set(found.labels) <= set(words)
    assert (np.diff(found.scores) <= 0).all()
    rows = np.concatenate([found.xyxy, found.scores[:, None]], 1)
    expected = np.concatenate([corners[wanted], scores[wanted, None]], 1)
    # Random weights give scores that tie: compared in the order of their places.
    rows, expected = (r[np.lexsort(np.round(r[:, :4]).T)] for r in (rows, expected))
    np.testing.assert_allclose(rows[:, :4], expected[:, :4], atol=0.05)
    np.testing.assert_allclose(rows[:, 4], expected[:, 4], atol=1e-4)


def test_what_it_cannot_take_is_told(exported: Path, frame: NDArray[np.uint8]) -> None:
    detector = open_detector(exported, "onnxruntime")
    with pytest.raises(PromptError, match="looks for words"):
        detector.find(frame)
    with pytest.raises(PromptError, match="exported for 16"):
        detector.find(frame, ["cat"] * 12)
    (exported / "tokenizer.json").rename(exported / "t.json")
    (exported / "tokenizer.json").write_text("{}")
    try:
        with pytest.raises(ModelError, match=r"tokenizer\.json"):
            open_detector(exported, "onnxruntime")
    finally:
        (exported / "t.json").replace(exported / "tokenizer.json")


def test_the_command_tells_what_cannot_be_exported(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "o")
    for arguments, says in (
        ([str(tmp_path / "none")], "does not load"),
        ([str(source), "--size", "100x64"], "multiple of 32"),
        ([str(source), "--size", "96x64", "--text-length", "99"], "from 8 to 32"),
    ):
        assert main(["export-detector", *arguments, "--out", out]) == 2
        assert says in capsys.readouterr().err
    size = ["--size", "96x64", "--text-length", "16", "--out", out]
    broken = shutil.copytree(source, tmp_path / "broken")
    for content in ("{", '{"image_mean": [0.5, 0.5], "image_std": [1, 1, 1]}', '{"image_mean": 1}'):
        (broken / "preprocessor_config.json").write_text(content)
        assert main(["export-detector", str(broken), *size]) == 2
        assert "image_mean and image_std" in capsys.readouterr().err
    (broken / "preprocessor_config.json").unlink()
    weights = safetensors.load_file(broken / "model.safetensors")
    lost = next(name for name in sorted(weights) if "encoder.layers" in name)
    safetensors.save_file(
        {k: v for k, v in weights.items() if k != lost}, broken / "model.safetensors", {"format": "pt"}
    )
    assert main(["export-detector", str(broken), *size]) == 2
    assert "lacks 1 of the detector's weights (model.backbone" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    with pytest.raises(InputError):
        export_detector(str(source), tmp_path / "o", 96, 8192)
