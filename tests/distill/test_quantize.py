from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[train]')")
torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")

import tinyseg  # noqa: E402
import tinyseg.graphs.parity  # noqa: E402
from tinyseg.dataset import read_photos  # noqa: E402
from tinyseg.distill import quantize  # noqa: E402
from tinyseg.distill.__main__ import main  # noqa: E402
from tinyseg.distill.calibration import pick_photos, record_feeds  # noqa: E402
from tinyseg.engines.lower import load_graph  # noqa: E402
from tinyseg.errors import DataError, InputError  # noqa: E402
from tinyseg.graphs.model import open_model  # noqa: E402


def test_scales_cover_the_samples_and_hold_zero_exactly() -> None:
    rng = np.random.default_rng(0)
    samples = np.clip(rng.normal(1.0, 2.0, 4000), 0.0, 6.0).astype(np.float32)
    scale, zero = quantize.Range(0.0, 6.0, samples, None).scale_and_zero()
    assert zero == 0 and 0.9 * 6 / 255 <= scale <= 6 / 255
    both = quantize.Range(-1.0, 3.0, rng.uniform(-1, 3, 4000).astype(np.float32), None)
    scale, zero = both.scale_and_zero()
    levels = np.clip(np.round(both.samples / scale) + float(zero), 0, 255)
    assert np.abs((levels - float(zero)) * scale - both.samples).max() < 1.2 * scale


def test_a_range_that_almost_nothing_uses_is_narrowed() -> None:
    samples = np.random.default_rng(0).normal(0, 1, 20000).astype(np.float32)
    scale, zero = quantize.Range(-100.0, 100.0, samples, None).scale_and_zero()
    assert scale == pytest.approx(0.4 * 200 / 255) and zero in (127, 128)


def test_weights_have_a_scale_for_each_channel() -> None:
    weight = (
        np.random.default_rng(0).normal(0, 1, (6, 4, 3, 3)).astype(np.float32)
        * 10.0 ** np.arange(-3, 3)[:, None, None, None]
    )
    weight[2] = 0
    levels, scale = quantize.quantize_weight(weight)
    error = np.abs(levels * scale.reshape(-1, 1, 1, 1) - weight).reshape(6, -1).max(1)
    assert levels.dtype == np.int8 and (error <= 0.51 * scale).all() and np.isfinite(scale).all()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_bias_correction_restores_the_mean(groups: int) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(8, 4 // groups, 3, 3)).astype(np.float32)
    rounded = (weight + rng.normal(0, 0.05, weight.shape)).astype(np.float32)
    mean = rng.normal(size=4)
    x = torch.from_numpy(np.broadcast_to(mean[None, :, None, None], (1, 4, 3, 3)).astype(np.float32).copy())
    convolve = torch.nn.functional.conv2d
    wanted = convolve(x, torch.from_numpy(weight), groups=groups) - convolve(
        x, torch.from_numpy(rounded), groups=groups
    )
    found = quantize.bias_correction(weight, rounded, mean, groups)
    np.testing.assert_allclose(found, wanted.numpy().ravel(), atol=1e-4)


@pytest.fixture(scope="module")
def feeds(shapes: Path) -> dict[str, list[dict[str, np.ndarray]]]:
    return record_feeds(open_model(None), read_photos(shapes)[:3])  # type: ignore[return-value]


def test_calibration_sees_what_the_runtime_feeds(feeds: dict[str, list[dict[str, np.ndarray]]]) -> None:
    assert {f["image"].shape for f in feeds["encoder"]} >= {(1, 3, 384, 512)}
    labels = np.concatenate([f["labels"].ravel() for f in feeds["decoder"]])
    assert {1.0, 2.0, 3.0, -1.0} <= set(labels)
    assert any(f["has_mask"].any() for f in feeds["decoder"])


def test_only_what_depends_on_data_is_quantized() -> None:
    names = [n.name for n in quantize.convolutions(load_graph(open_model(None).graphs["decoder"].data))]
    assert len(names) > 20 and not any("position" in n for n in names)


def test_quantized_graphs_stay_close_and_keep_what_they_are_told(feeds: dict[str, list[dict[str, np.ndarray]]]) -> None:
    model = load_graph(open_model(None).graphs["decoder"].data)
    nodes = quantize.convolutions(model)
    ranges = quantize.measure_ranges(model, quantize.quantized_tensors(model, nodes), feeds["decoder"][:4])
    kept = nodes[3].name
    quantized = quantize.quantize_graph(model, ranges, keep=[kept])
    convolutions = [n for n in quantized.graph.node if n.op_type == "Conv"]
    assert not next(n for n in convolutions if n.name == kept).input[1].endswith("_dq")
    assert sum(n.input[1].endswith("_dq") for n in convolutions) == len(nodes) - 1
    outputs = [o.name for o in model.graph.output]
    a, b = (quantize.session_of(m).run(outputs, feeds["decoder"][0]) for m in (model, quantized))
    assert 0 < quantize.output_noise(a, b) < 0.05
    with pytest.raises(InputError, match="no convolution 'nonsense' to keep"):
        quantize.quantize_graph(model, ranges, keep=["nonsense"])
    worst = quantize.sensitivity(model, ranges, feeds["decoder"][:1], [n.name for n in nodes[:3]])
    assert [r.noise for r in worst] == sorted((r.noise for r in worst), reverse=True) and worst[0].noise > 0


def test_command(
    shapes: Path, few_shapes: Path, untracked_small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(quantize, "sensitivity", lambda *_: [quantize.Sensitivity("/stem/stem.0/Conv", 0.001)])
    monkeypatch.setattr("tinyseg.bench.precisions.REAL_ENGINES", ("onnxruntime",))
    monkeypatch.setattr("tinyseg.bench.measure.WARM_UP", 1)
    out = tmp_path / "int8"
    out.mkdir()
    command = [
        "quantize",
        str(untracked_small),
        "--data",
        str(shapes),
        "--photos",
        "2",
        "--rounds",
        "2",
        "--out",
        str(out),
    ]
    # Ranges of two drawn pictures do not do for photographs, and the gate says so; nothing takes the folder's place.
    monkeypatch.setitem(tinyseg.graphs.parity.LEAST_IOU, "int8", 0.999)
    assert main(command) == 2
    assert "does not keep the masks in int8" in capsys.readouterr().err and list(out.iterdir()) == []
    monkeypatch.setitem(tinyseg.graphs.parity.LEAST_IOU, "int8", 0.5)
    monkeypatch.setitem(tinyseg.graphs.parity.MOST_NOISE, "int8", 1.0)
    assert main([*command, "--keep", "encoder:/stem/stem.0/Conv", "--eval", str(few_shapes)]) == 0
    told = capsys.readouterr().out
    assert "kept in float: /stem/stem.0/Conv" in told and "onnxruntime" in told and "points lost" in told
    card = json.loads((out / "model.json").read_text())
    assert card["precisions"]["int8"]["calibration"] == {"data": [shapes.name], "photos": 2, "seed": 0}
    assert card["measured"]["speed"]["onnxruntime"]["fp32"] == 1.0 and "int8" in card["measured"]["lost_points"]
    assert {r["graph"] for r in json.loads((out / quantize.REPORT).read_text())} == {"encoder", "decoder"}
    seg = tinyseg.load(out, engine="onnxruntime", precision="int8")
    assert (
        seg.info.precision == "int8" and seg.info.model_sha256 != tinyseg.load(out, precision="fp32").info.model_sha256
    )


@pytest.mark.parametrize(
    "given, says",
    [
        ("--keep x:y", "no graph 'x'; it has encoder, decoder"),
        ("--keep encoder:y", "the encoder has no convolution 'y'; known are /stem/stem.0/Conv"),
        ("--keep decoder", "no convolution ''"),
        ("--seed -1", "--seed must be a whole number from 0"),
        ("--eval nowhere.tar", "there is no data set at nowhere.tar"),
    ],
)
def test_wrong_options_are_told_before_anything_is_measured(
    given: str, says: str, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quantize", "small", "--data", str(shapes), "--out", str(tmp_path / "int8"), *given.split()]
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert says in err and err.count("\n") == 1 and not out and not (tmp_path / "int8").exists()


def test_no_calibration_data_is_an_error(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="random numbers would give wrong ranges"):
        pick_photos([], 5)
    assert main(["quantize", "packaged", "--data", "nowhere", "--out", "x"]) == 2
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["quantize", "packaged", "--out", "x"])
    assert "--data" in capsys.readouterr().err
