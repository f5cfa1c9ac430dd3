from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tinyseg.errors import InputError

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")

from tinyseg.distill.model import Encoder, Student, load_backbone, rasterize_prompt  # noqa: E402
from tinyseg.distill.shape import SIZES, StudentShape  # noqa: E402


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    return Student().eval()


def features(student: Student, height: int = 96, width: int = 128) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        return student.encoder(torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0)))


def decode(student: Student, points: list[list[float]], labels: list[float], **more: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        logits, iou = student.decoder(
            *features(student),
            torch.tensor([points]),
            torch.tensor([labels]),
            torch.zeros(1, 1, 24, 32),
            torch.zeros(1),
            **more,
        )
    assert ((iou >= 0) & (iou <= 1)).all()
    return logits


def test_shapes(student: Student) -> None:
    assert [tuple(f.shape) for f in features(student)] == [(1, 128, 6, 8), (1, 64, 12, 16), (1, 32, 24, 32)]
    assert decode(student, [[10.0, 20.0]], [1.0]).shape == (1, 4, 24, 32)


def test_padded_slots_change_nothing(student: Student) -> None:
    short = decode(student, [[10.0, 20.0]], [1.0])
    long = decode(student, [[10.0, 20.0], [99.0, 3.0], [0.0, 0.0]], [1.0, -1.0, -1.0])
    torch.testing.assert_close(long, short, atol=1e-5, rtol=1e-4)


def test_one_image_serves_many_prompts(student: Student) -> None:
    points = torch.rand(3, 2, 2) * 90
    labels = torch.tensor([[2.0, 3.0], [1.0, 0.0], [1.0, -1.0]])
    masks, given = torch.randn(3, 1, 24, 32), torch.tensor([0.0, 1.0, 0.0])
    with torch.inference_mode():
        together, _ = student.decoder(*features(student), points, labels, masks, given)
        for i in range(3):
            alone, _ = student.decoder(
                *features(student), points[i : i + 1], labels[i : i + 1], masks[i : i + 1], given[i : i + 1]
            )
            torch.testing.assert_close(together[i], alone[0], atol=1e-4, rtol=1e-4)


def test_a_mask_that_is_not_given_is_not_read(student: Student) -> None:
    points, labels, none = torch.zeros(1, 1, 2), torch.ones(1, 1), torch.zeros(1)
    with torch.inference_mode():
        a, _ = student.decoder(*features(student), points, labels, torch.zeros(1, 1, 24, 32), none)
        b, _ = student.decoder(*features(student), points, labels, torch.ones(1, 1, 24, 32) * 9, none)
    torch.testing.assert_close(a, b)


def test_the_raster_draws_what_was_said() -> None:
    points = torch.tensor([[[40.0, 24.0], [20.0, 12.0], [60.0, 44.0]]])
    labels = torch.tensor([[1.0, 2.0, 3.0]])
    mask = torch.full((1, 1, 16, 32), 4.0)
    raster = rasterize_prompt(points, labels, mask, torch.ones(1))[0]
    assert raster.shape == (8, 16, 32)
    y, x = divmod(int(raster[0].argmax()), 32)
    assert abs(x * 4 + 2 - 40) <= 2 and abs(y * 4 + 2 - 24) <= 2
    assert raster[1].sum() > raster[0].sum() and raster[2].abs().max() < 1e-6
    assert raster[4].sum() == pytest.approx(10 * 8, abs=0.5) and raster[4, 3:11, 5:15].min() == 1
    assert raster[5].max() <= 1 and raster[5, 0, 0] == 0
    torch.testing.assert_close(raster[6], torch.full((16, 32), 1.0).tanh())
    nothing = rasterize_prompt(points, torch.full((1, 3), -1.0), mask, torch.zeros(1))
    assert nothing.abs().max() == 0


def test_positions_mean_the_same_for_every_origin_only_if_told(student: Student) -> None:
    here = decode(student, [[10.0, 20.0]], [1.0])
    there = decode(student, [[10.0, 20.0]], [1.0], origin=torch.tensor([200.0, 100.0]))
    assert not torch.allclose(here, there)


def test_the_backbones_function_survives_its_batch_norm(tmp_path: Path) -> None:
    """Folded weights with batch norm put back compute what the folded weights compute."""
    torch.manual_seed(1)
    reference = Encoder(SIZES["base"]).eval()
    convs = [m for b in (reference.stem, reference.blocks) for m in b.modules() if isinstance(m, torch.nn.Conv2d)]
    arrays = {}
    for i, conv in enumerate(convs):
        conv.weight.data *= 1.5
        arrays[f"conv{i:02d}.weight"] = conv.weight.detach().numpy()
        arrays[f"conv{i:02d}.bias"] = np.random.default_rng(i).normal(0, 0.3, conv.out_channels).astype(np.float32)
    np.savez(tmp_path / "w.npz", **arrays)
    for module in (m for b in (reference.stem, reference.blocks) for m in b.modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0
    norms = [m for b in (reference.stem, reference.blocks) for m in b.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for i, norm in enumerate(norms):
        norm.bias.data = torch.from_numpy(arrays[f"conv{i:02d}.bias"])
    loaded = Encoder(SIZES["base"])
    loaded.load_state_dict(
        {k: v for k, v in reference.state_dict().items() if "blocks" not in k and "stem" not in k}, strict=False
    )
    load_backbone(loaded, tmp_path / "w.npz", torch.randn(2, 3, 64, 64))
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for a, b in zip(loaded.eval()(image), reference(image)):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_a_wider_backbone_computes_what_the_file_does(tmp_path: Path) -> None:
    torch.manual_seed(1)
    narrow, wide = Encoder(SIZES["base"]), Encoder(SIZES["large"])
    convs = [m for b in (narrow.stem, narrow.blocks) for m in b.modules() if isinstance(m, torch.nn.Conv2d)]
    weights = {f"conv{i:02d}.weight": c.weight.detach().numpy() for i, c in enumerate(convs)}
    biases = {f"conv{i:02d}.bias": np.random.default_rng(i).normal(0, 0.3, c.out_channels) for i, c in enumerate(convs)}
    np.savez(tmp_path / "w.npz", **weights, **biases)
    image = torch.randn(2, 3, 64, 64)
    for encoder in (narrow, wide):
        load_backbone(encoder.eval(), tmp_path / "w.npz", image)
    with torch.inference_mode():
        a, b = (torch.nn.Sequential(e.stem, *e.blocks)(image) for e in (narrow, wide))
    torch.testing.assert_close(b, torch.cat([a, a], 1), atol=1e-3, rtol=1e-3)


def test_a_smaller_backbone_takes_its_blocks_from_the_whole_one(tmp_path: Path) -> None:
    whole = [m for m in Encoder(StudentShape()).modules() if isinstance(m, torch.nn.Conv2d)][:51]
    weights = {f"conv{i:02d}.weight": np.full(tuple(c.weight.shape), 0.01 * i, np.float32) for i, c in enumerate(whole)}
    biases = {f"conv{i:02d}.bias": np.zeros(c.out_channels, np.float32) for i, c in enumerate(whole)}
    np.savez(tmp_path / "w.npz", **weights, **biases)
    small = Encoder(SIZES["small"])
    load_backbone(small, tmp_path / "w.npz", torch.randn(1, 3, 64, 64))
    # Stem, a block of two convolutions, then blocks of three; the third block of stage 3 and its kin are left out.
    for block, whole_block in ((0, 0), (4, 4), (5, 6), (7, 10), (9, 13), (11, 16)):
        first = 1 if whole_block == 0 else 3 * whole_block
        conv = next(m for m in small.blocks[block].modules() if isinstance(m, torch.nn.Conv2d))
        assert float(conv.weight.detach().mean()) == pytest.approx(0.01 * first, rel=1e-4), block


def test_architectures_that_are_none() -> None:
    with pytest.raises(InputError, match="stages repeat"):
        StudentShape(repeats=(1, 2, 3))
    with pytest.raises(InputError, match="not the architecture"):
        StudentShape.of({"repeats": [1, 2, 3, 4, 3, 3, 1]})
    with pytest.raises(InputError, match="width"):
        StudentShape(width=0)


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    student = Student()
    points, labels = torch.rand(2, 3, 2) * 60, torch.tensor([[2.0, 3.0, 1.0], [1.0, 0.0, -1.0]])
    found = student.encoder(torch.randn(2, 3, 64, 64))
    logits, iou = student.decoder(*found, points, labels, torch.randn(2, 1, 16, 16), torch.ones(2))
    (logits.square().mean() + iou.mean()).backward()
    missing = [n for n, p in student.named_parameters() if p.grad is None]
    assert missing == []


@pytest.mark.parametrize(
    "name, value",
    [("decoder_layers", 0), ("width", 9), ("decoder_layers", 10**9), ("score_width", 1e300)],
)
def test_an_architecture_out_of_bounds_is_told(name: str, value: float) -> None:
    """A model.json is a stranger's until it is checked."""
    with pytest.raises(InputError, match=name.replace("_", " ")):
        StudentShape.of({**asdict(StudentShape()), name: value})
    with pytest.raises(InputError, match="not the architecture"):
        StudentShape.of({**asdict(StudentShape()), name: float("inf")})


def test_sizes() -> None:
    sizes = {n: [sum(p.numel() for p in m.parameters()) for m in (s.encoder, s.decoder)] for n, s in
             ((n, Student(shape)) for n, shape in SIZES.items())}  # fmt: skip
    assert sizes["base"][0] < 2.3e6 and sizes["base"][1] < 1.0e6
    assert sum(sizes["small"]) < 0.75 * sum(sizes["base"]) and sum(sizes["large"]) > 2.5 * sum(sizes["base"])
