from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")
pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[train]')")

from tinyseg.dataset import read_photos  # noqa: E402
from tinyseg.distill.__main__ import main  # noqa: E402
from tinyseg.distill.average import average_checkpoints  # noqa: E402
from tinyseg.distill.checkpoint import KEYS, save_checkpoint  # noqa: E402
from tinyseg.distill.config import TrainConfig  # noqa: E402
from tinyseg.distill.data import TrainingBatches  # noqa: E402
from tinyseg.distill.export import example_inputs  # noqa: E402
from tinyseg.distill.model import Student  # noqa: E402
from tinyseg.distill.shape import SIZES  # noqa: E402
from tinyseg.distill.train import run_once  # noqa: E402
from tinyseg.distill.validation import validate  # noqa: E402
from tinyseg.distill.warm_start import fit, folder_shape, load_folder  # noqa: E402
from tinyseg.engines import create_engine  # noqa: E402
from tinyseg.errors import InputError  # noqa: E402
from tinyseg.graphs.model import PACKAGED, open_model  # noqa: E402


def test_the_student_computes_what_the_folder_does(shapes: Path) -> None:
    torch.manual_seed(0)
    student = Student(folder_shape(PACKAGED))
    batches = TrainingBatches(read_photos(shapes), 2, 2, 0, {})
    load_folder(student, PACKAGED, lambda s: run_once(s, batches))
    student.eval()
    for name in ("encoder", "decoder"):
        inputs = example_inputs(name, 4, 6, 2)
        graph = create_engine("onnxruntime", "fp32", 1).engine.compile(open_model(None).graphs[name], {})
        source = open_model(None).graphs[name]
        expected = graph.run({n: x.numpy() for n, x in zip(source.inputs, inputs)})
        with torch.inference_mode():
            found = getattr(student, name)(*inputs)
        for (output, a), b in zip(expected.items(), found):
            assert np.abs(a - b.numpy()).max() <= 2e-3 * np.abs(a).max(), output


def test_a_wider_student_begins_as_the_narrower(shapes: Path) -> None:
    """Its outputs are the packaged model's, and copies of a channel do not learn alike."""
    student, wide = Student(), Student(SIZES["large"])
    batches = TrainingBatches(read_photos(shapes), 2, 2, 0, {})
    load_folder(student, PACKAGED, lambda s: run_once(s, batches))
    load_folder(wide, PACKAGED, lambda s: run_once(s, batches))
    student.eval(), wide.eval()
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for a, b in zip(student.encoder(image), wide.encoder(image)):
        assert (a - b).abs().max() <= 1e-3 * a.abs().max()
    assert sum(p.numel() for p in wide.parameters()) > 2.5 * sum(p.numel() for p in student.parameters())
    sum(out.square().mean() for out in wide.encoder(image)).backward()
    gradient = wide.encoder.blocks[3].layers[1][0].weight.grad
    one, other = gradient.chunk(2)
    assert one.abs().max() > 0 and not torch.allclose(one, other, rtol=0.05)
    with pytest.raises(InputError, match="width 1 cannot start from one of width 2"):
        fit(wide.state_dict(), SIZES["large"], SIZES["base"])


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no encoder.onnx"):
        load_folder(Student(), tmp_path, lambda _: None)
    shutil.copy(PACKAGED / "encoder.onnx", tmp_path / "encoder.onnx")
    shutil.copy(PACKAGED / "encoder.onnx", tmp_path / "decoder.onnx")
    with pytest.raises(InputError, match="states no architecture"):
        load_folder(Student(), tmp_path, lambda _: None)
    shutil.copy(PACKAGED / "model.json", tmp_path / "model.json")
    shutil.copy(PACKAGED / "encoder.onnx", tmp_path / "decoder.onnx")
    with pytest.raises(InputError, match="another architecture"):
        load_folder(Student(), tmp_path, lambda _: None)
    with pytest.raises(InputError, match="--start or --backbone, not both"):
        TrainConfig(data=(), out="x", backbone="a", start="b")


def test_validation_figures_of_the_packaged_model(shapes: Path) -> None:
    """Drawn shapes are easy; corrections help, and the third click comes from the student's own earlier answers."""
    student = Student()
    photos = read_photos(shapes)
    load_folder(student, PACKAGED, lambda s: run_once(s, TrainingBatches(photos, 2, 2, 0, {})))
    figures = validate(student, photos[:4], torch.device("cpu"))
    assert list(figures) == ["box_frame", "click_frame", "oracle_frame", "click3_frame", "box_zoom"]
    assert figures["box_frame"] > 0.8 and figures["click3_frame"] > figures["click_frame"] - 0.02


def test_damaged_weights_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = SIZES["small"]
    state = Student(shape).state_dict()
    name = "decoder.output_tokens"
    facts = {**{key: {} for key in KEYS}, "shape": asdict(shape), "step": 1, "spent": 1.0}
    for wrong in (
        {k: v for k, v in state.items() if k != name}, {**state, name: state[name][:1]}, {**state, "decoder.more": state[name]},
    ):  # fmt: skip
        save_checkpoint(tmp_path / "x.pt", {**facts, "student": wrong, "average": wrong})
        with pytest.raises(InputError, match="does not hold the network that it states: decoder"):
            average_checkpoints([tmp_path / "x.pt"], None, 1, tmp_path / "mean.pt")  # type: ignore[arg-type]
        assert main(["export", str(tmp_path / "x.pt"), "--out", str(tmp_path / "out")]) == 2
        err = capsys.readouterr().err
        assert "does not hold the network that it states: decoder" in err and err.count("\n") == 1
    shutil.copytree(PACKAGED, tmp_path / "model")
    (tmp_path / "model" / "encoder.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match=r"encoder\.onnx is not a graph that can be read"):
        load_folder(Student(folder_shape(PACKAGED)), tmp_path / "model", lambda _: None)
