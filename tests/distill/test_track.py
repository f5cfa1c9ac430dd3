"""The tracking decoder: clips, training, and a model folder that carries it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")
pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[train]')")

import tinyseg  # noqa: E402
from tests.conftest import ellipse  # noqa: E402
from tinyseg.bench.sequences import read_sequences  # noqa: E402
from tinyseg.cli import main as tinyseg_main  # noqa: E402
from tinyseg.dataset import read_photos  # noqa: E402
from tinyseg.distill import track, track_data  # noqa: E402
from tinyseg.distill.__main__ import main  # noqa: E402
from tinyseg.distill.checkpoint import KEYS  # noqa: E402
from tinyseg.distill.clips import Clips, motion  # noqa: E402
from tinyseg.distill.export import example_inputs  # noqa: E402
from tinyseg.distill.track_model import (  # noqa: E402
    begin_track_decoder,
    packaged_track_decoder,
    student_without_scores,
)
from tinyseg.distill.warm_start import folder_shape  # noqa: E402
from tinyseg.engines import create_engine  # noqa: E402
from tinyseg.errors import DataError, InputError  # noqa: E402
from tinyseg.graphs.compiled import Builder  # noqa: E402
from tinyseg.graphs.model import MODELS, open_model  # noqa: E402
from tinyseg.graphs.roles import TRACK_DECODER  # noqa: E402
from tinyseg.graphs.shapes import graph_shapes, square_view  # noqa: E402
from tinyseg.predict.load import graphs_for  # noqa: E402

SMALL = MODELS / "small"


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences of 12 frames with a disk that moves."""
    folder = tmp_path_factory.mktemp("sequences")
    for name in ("a", "b"):
        for kind in ("frames", "masks"):
            (folder / name / kind).mkdir(parents=True)
        for i in range(12):
            mask = ellipse(160, 120, 50 + 4 * i, 60, 20, 20)
            picture = np.random.default_rng(1).integers(0, 90, (120, 160, 3)).astype(np.uint8)
            picture[mask] += 150
            cv2.imwrite(str(folder / name / "frames" / f"{i:05d}.png"), picture)
            cv2.imwrite(str(folder / name / "masks" / f"{i:05d}.png"), mask.astype(np.uint8) * 255)
    return folder


@pytest.fixture(scope="module")
def run_folder(shapes: Path, sequences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps in crops of 64 pixels, by the command, with the smaller model."""
    out = tmp_path_factory.mktemp("run") / "track"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(track, "SIDES", ((64, 1.0),))
        patch.setattr(track_data, "SIDES", ((64, 1.0),))
        arguments = [
            "track", "--data", str(shapes), "--video", str(sequences), "--start", "small", "--clips", "4", "--batch-size", "2",
            "--validation-clips", "2", "--out", str(out),
        ]  # fmt: skip
        assert main([*arguments, "--steps", "1"]) == 0
        first = torch.load(out / "checkpoint.pt", weights_only=True)
        assert main([*arguments, "--steps", "2"]) == 0
        second = torch.load(out / "checkpoint.pt", weights_only=True)
        assert main([*arguments, "--steps", "2"]) == 0  # nothing left to do
    assert (first["step"], second["step"]) == (1, 2)
    changed = [k for k, v in second["student"].items() if not torch.equal(v, first["student"][k])]
    assert changed and not any(".running_" in k for k in changed)
    return out


def test_clips_are_pure_functions_of_their_number(shapes: Path, sequences: Path) -> None:
    photos, videos = read_photos(shapes), read_sequences(sequences)
    clips = Clips(photos, videos, 0, 0.5)
    sizes = set()
    for number in range(8):
        a, b = clips[number], Clips(photos, videos, 0, 0.5)[number]
        assert np.array_equal(a.frames, b.frames) and np.array_equal(a.masks, b.masks)
        assert a.frames.shape == (*a.masks.shape, 3) and len(a.frames) == 3 and a.masks[:2].any((1, 2)).all()
        sizes.add(a.masks.shape[1:])
    assert (120, 160) in sizes and len(sizes) > 1  # sequences as they are, photos at the sizes of frames
    still = motion(np.array([50.0, 40.0]), 30.0, 0.0, np.random.default_rng(0))
    assert all(np.allclose(m, np.eye(3)) for m in still)
    with pytest.raises(DataError, match="--data"):
        Clips([], [], 0, 0.5)


def test_it_begins_as_the_decoder_that_it_comes_from() -> None:
    student = student_without_scores(SMALL)
    decoder = begin_track_decoder(student)
    features = example_inputs("decoder", 8, 12, 2)
    told = example_inputs(TRACK_DECODER, 8, 12, 2)
    with torch.inference_mode():
        expected, iou = student.decoder(*features[:-1], torch.ones(2))
        found, score = decoder(*features[:-1], *told[-2:])
    assert torch.allclose(found, expected[:, :1], atol=1e-3) and torch.allclose(score, iou[:, :1], atol=1e-4)


def test_going_on_from_a_packaged_tracking_decoder() -> None:
    """What is loaded answers as the graph does, and another architecture's is refused."""
    decoder = packaged_track_decoder(SMALL, folder_shape(SMALL))
    told = example_inputs(TRACK_DECODER, 8, 12, 2)
    session = onnxruntime.InferenceSession(SMALL / "track_decoder.onnx", providers=["CPUExecutionProvider"])
    expected = session.run(None, {i.name: x.numpy() for i, x in zip(session.get_inputs(), told)})
    with torch.inference_mode():
        found = decoder(*told)
    for a, b in zip(found, expected):
        assert np.abs(a.numpy() - b).max() < 2e-2 * np.abs(b).max()
    with pytest.raises(InputError, match="another architecture"):
        packaged_track_decoder(SMALL, folder_shape(MODELS / "base"))
    with pytest.raises(InputError, match=r"holds no track_decoder\.onnx"):
        packaged_track_decoder(Path(__file__).parent, folder_shape(SMALL))


def test_a_run_folder(run_folder: Path) -> None:
    assert {"checkpoint.pt", "best.pt", "config.json", "validation.csv", "clips"} <= {
        p.name for p in run_folder.iterdir()
    }
    assert len((run_folder / "validation.csv").read_text().splitlines()) == 4  # begun, and after each command's steps
    # What is stored is read back, and made again where a file is damaged.
    (file,) = sorted((run_folder / "clips").rglob("*.npz"))[:1]
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    crops = track_data.EncodedClips(_NoClips(), None, run_folder / "clips", 0)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="made again"):
        crops[int(file.stem)]
    file.write_bytes(whole)
    first = crops[int(file.stem)][0]
    assert first.features["embedding"].shape == (1, 128, 4, 4) and first.share.shape == first.view.grid == (16, 16)


def test_clips_of_another_training_are_not_taken(
    run_folder: Path, shapes: Path, sequences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run_folder, out)
    before = (out / "config.json").read_bytes()
    both = ["--data", str(shapes), "--video", str(sequences)]
    few = ["track", "--out", str(out), "--clips", "4", "--steps", "3", "--validation-clips", "2"]
    for given, named in (
        ([*both, "--start", "base"], "encoder is"), ([*both, "--start", "small", "--seed", "1"], "seed is 0 there and 1 now"),
        (["--data", str(shapes), "--start", "small"], "data is"),
    ):  # fmt: skip
        assert main([*few, *given]) == 2
        err = capsys.readouterr().err
        assert f"holds clips of another training: {named}" in err and err.count("\n") == 1
    (out / "checkpoint.pt").unlink()
    (out / "clips" / "clips.json").write_text("[]")
    assert main([*few, *both, "--start", "small"]) == 2
    assert "clips.json cannot be read" in capsys.readouterr().err
    saved = {key: {} for key in KEYS}
    torch.save(saved, out / "checkpoint.pt")  # of a student
    assert main([*few, *both, "--start", "small"]) == 2
    assert "is no checkpoint of a tracking decoder" in capsys.readouterr().err
    assert (out / "config.json").read_bytes() == before


class _NoClips:
    def __getitem__(self, number: int) -> None:
        raise AssertionError(f"clip {number} is made again")


def test_a_model_folder_with_one(
    run_folder: Path, shapes: Path, sequences: Path, untracked_small: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("TINYSEG_CACHE_MB", "0")
    small = str(untracked_small)
    out = tmp_path / "model"
    command = ["export-track", str(run_folder / "best.pt"), "--data", str(shapes), "--photos", "1", "--out", str(out)]
    assert main([*command, "--model", small]) == 0
    before, after = open_model(untracked_small), open_model(out)
    for precision in ("fp32", "int8"):
        own, theirs = after.variant(precision), before.variant(precision)
        assert set(own) == {"encoder", "decoder", TRACK_DECODER}
        assert all(own[name].data == theirs[name].data for name in theirs)  # masks of still images stay as they are
        engine = create_engine("onnxruntime", precision, 1).engine
        builder = Builder(after, engine, None)
        (dimensions,) = graph_shapes(square_view(64), 64, [1], own)[TRACK_DECODER]
        builder(graphs_for(after, precision)[TRACK_DECODER], dimensions)
        assert precision == "fp32" or builder.parities[0].passed
    assert 0 <= after.card["tracking"]["step"] <= 2 and after.card["tracking"]["data"] == [shapes.name]
    assert after.card["measured"] == before.card["measured"]

    # It is what the tracker asks, and a saved tracker goes on with the same results.
    seg = tinyseg.load(out, "onnxruntime", "fp32")
    frames = [f.image() for f in read_sequences(sequences)[0].frames]
    tracker, other = seg.tracker(), seg.tracker()
    tracker.add("disk", box=(30, 40, 71, 81), frame=frames[0])
    tracker.step(frames[1])
    tracker.save(tmp_path / "state")
    other.restore(tmp_path / "state")
    for frame in frames[2:4]:
        mine, theirs = tracker.step(frame)["disk"], other.step(frame)["disk"]
        assert mine.visible and np.array_equal(mine.mask, theirs.mask) and np.array_equal(mine.logits, theirs.logits)
    assert "track_decoder" in str(seg.network.graphs.keys())

    capsys.readouterr()
    assert tinyseg_main(["info", "--model", str(out), "--engine", "onnxruntime", "--precision", "fp32"]) == 0
    assert "a decoder of its own" in capsys.readouterr().out
    assert tinyseg_main(["info", "--model", small, "--engine", "onnxruntime", "--precision", "fp32"]) == 0
    assert "the decoder of still images" in capsys.readouterr().out

    # Another size, another kind of checkpoint, a graph of another shape.
    assert main([*command, "--model", "base"]) == 2
    assert "another architecture" in capsys.readouterr().err
    assert main(["export", str(run_folder / "best.pt"), "--out", str(tmp_path / "no")]) == 2
    assert "export-track" in capsys.readouterr().err
    saved = torch.load(run_folder / "best.pt", weights_only=True)
    saved["average"].pop("output_tokens")
    torch.save(saved, tmp_path / "damaged.pt")
    damaged = ["export-track", str(tmp_path / "damaged.pt"), "--model", small, "--out", str(tmp_path / "no")]
    assert main(damaged) == 2
    assert "output_tokens does not fit" in capsys.readouterr().err
    broken = tmp_path / "broken"
    shutil.copytree(out, broken)
    card = json.loads((broken / "model.json").read_text())
    card["graphs"][TRACK_DECODER]["inputs"].pop("last")
    (broken / "model.json").write_text(json.dumps(card))
    with pytest.raises(tinyseg.ModelError, match="last must be"):
        open_model(broken)


def test_what_it_is_not_trained_with(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "run")]
    for wrong, told in (
        ([], "--data"), (["--data", str(shapes), "--video-share", "2"], "at least 0 and at most 1"),
        (["--data", str(shapes), "--clips", "0"], "--clips"), (["--data", str(shapes), "--clips", "9" * 30], "at most 1000000"),
        (["--data", str(shapes), "--validation-clips", "9" * 30], "at most 1000000"),
        (["--data", str(shapes), "--batch-size", "9" * 30], "at most 1024"), (["--video", str(tmp_path / "none")], "no data set"),
    ):  # fmt: skip
        assert main(["track", *wrong, *out]) == 2
        assert told in capsys.readouterr().err
