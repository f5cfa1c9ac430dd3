from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")
pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[train]')")

from tinyseg.dataset import read_photos  # noqa: E402
from tinyseg.distill import step, step_inputs  # noqa: E402
from tinyseg.distill.config import DistilWeights, TrainConfig  # noqa: E402
from tinyseg.distill.data import TrainingBatches  # noqa: E402
from tinyseg.distill.losses import FeatureAdapter, RoundLoss, distil_loss, mask_iou  # noqa: E402
from tinyseg.distill.model import EMBED_DIM, Student  # noqa: E402
from tinyseg.distill.prompts import PromptBatch, first_prompts  # noqa: E402
from tinyseg.distill.step import training_loss  # noqa: E402
from tinyseg.distill.step_inputs import POINT_SLOTS  # noqa: E402
from tinyseg.distill.teachers import (  # noqa: E402
    Answer,
    Ensemble,
    Flipped,
    SamTeacher,
    StudentTeacher,
    load_teacher,
    match_readings,
)
from tinyseg.distill.teaching import Teaching  # noqa: E402
from tinyseg.distill.train import train  # noqa: E402
from tinyseg.engines import create_engine  # noqa: E402
from tinyseg.errors import InputError, NotInstalled  # noqa: E402
from tinyseg.graphs.model import PACKAGED, open_model  # noqa: E402

CPU = torch.device("cpu")


def samples(side: int = 64, images: int = 2, prompts: int = 2) -> tuple[torch.Tensor, PromptBatch]:
    """Noise with prompts of every kind."""
    generator = torch.Generator().manual_seed(0)
    image = (torch.rand(images, side, side, 3, generator=generator) * 255).to(torch.uint8)
    n = images * prompts
    target = torch.zeros(n, side // 4, side // 4)
    target[:, 4:10, 3:12] = 1
    boxes = torch.tensor([[12.0, 16.0, 48.0, 40.0]]).repeat(n, 1)
    return image, first_prompts(target, boxes, POINT_SLOTS, generator)


KINDS = ("sam", "sam_hq", "sam2", "sam3_tracker")


def sam_model(kind: str) -> object:
    """A model of a few thousand random weights, images of 128 pixels."""
    model = build_sam_model(kind)
    for weight in model.parameters():  # the library leaves some as it found them in memory
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.05)
        elif not torch.isfinite(weight).all():
            torch.nn.init.zeros_(weight)
    return model


def build_sam_model(kind: str) -> object:
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed (pip install 'tinyseg[baseline]')"
    )
    torch.manual_seed(0)
    prompt = {"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 4}
    decoder = {"hidden_size": 32, "num_attention_heads": 2, "mlp_dim": 32, "iou_head_hidden_dim": 32}
    parts = {"prompt_encoder_config": prompt, "mask_decoder_config": decoder}
    vision = {
        "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 128, "patch_size": 16,
        "output_channels": 32, "num_pos_feats": 16, "mlp_dim": 32, "global_attn_indexes": [0, 1, 2, 3], "window_size": 4,
    }  # fmt: skip
    if kind == "sam":
        return transformers.SamModel(transformers.SamConfig(vision_config=vision, **parts))
    if kind == "sam_hq":
        parts["mask_decoder_config"] = {**decoder, "vit_dim": 32}
        return transformers.SamHQModel(transformers.SamHQConfig(vision_config=vision, **parts))
    pyramid = {"backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "fpn_hidden_size": 32, "image_size": 128}
    if kind == "sam2":
        backbone = {
            "model_type": "sam2_hiera_det_model", "hidden_size": 16, "num_attention_heads": 1, "image_size": [128, 128],
            "embed_dim_per_stage": [16, 32, 64, 128], "num_attention_heads_per_stage": [1, 2, 2, 4],
            "blocks_per_stage": [1, 1, 2, 1], "global_attention_blocks": [3],
            "window_positional_embedding_background_size": [7, 7],
        }  # fmt: skip
        vision2 = {"backbone_config": backbone, "backbone_channel_list": [128, 64, 32, 16], **pyramid}
        return transformers.Sam2Model(transformers.Sam2Config(vision_config=vision2, **parts))
    backbone = {
        "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 128, "patch_size": 16, "window_size": 4, "global_attn_indexes": [1],
        "pretrain_image_size": 128,
    }  # fmt: skip
    config = transformers.Sam3TrackerConfig(vision_config={"backbone_config": backbone, **pyramid}, **parts)
    return transformers.Sam3TrackerModel(config)


@pytest.mark.parametrize("kind", KINDS)
def test_random_sam_models_answer_every_kind_of_prompt(kind: str) -> None:
    teacher = SamTeacher.of(f"random {kind}", sam_model(kind), CPU)
    image, prompts = samples()
    encoded = teacher.encode(image)
    answer = encoded.answer(prompts)
    assert answer.logits.shape == (4, 4, 16, 16) and answer.iou.shape == (4, 4)
    assert encoded.embedding.shape[:2] == (2, teacher.channels) and answer.tokens.shape == (4, 5, teacher.channels)
    assert torch.isfinite(answer.logits).all() and answer.logits.std() > 0
    # Another prompt, another answer; the other images' prompts do not matter.
    moved = PromptBatch(prompts.points + 8, prompts.labels, prompts.mask, prompts.has_mask)
    assert not torch.equal(encoded.answer(moved).logits, answer.logits)
    one = PromptBatch(prompts.points[2:], prompts.labels[2:], prompts.mask[2:], prompts.has_mask[2:])
    torch.testing.assert_close(teacher.encode(image[1:]).answer(one).logits, answer.logits[2:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "named"), [("sam", None), ("sam_hq", None), ("sam2", "sam2_video"), ("sam3_tracker", None)]
)
def test_published_folders_load_as_image_models(kind: str, named: str | None, tmp_path: Path) -> None:
    """From folders; SAM 2's name their video model."""
    model = sam_model(kind)
    model.save_pretrained(tmp_path)
    if named is not None:
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": named}))
    loaded = load_teacher(f"sam:{tmp_path}", CPU)
    image, prompts = samples()
    expected = SamTeacher.of("x", model, CPU).encode(image).answer(prompts)
    torch.testing.assert_close(loaded.encode(image).answer(prompts).logits, expected.logits)


def publish_as_sam3_video(model: object, folder: Path) -> None:
    """Lay a SAM 3 tracker out as the published checkpoint has it: a part of the video model beside its detector."""
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors comes with transformers")

    def published(name: str) -> str:
        if name.startswith("vision_encoder.backbone."):
            return f"detector_model.{name}"
        if name.startswith("vision_encoder.neck."):
            return name.replace("vision_encoder.neck.", "tracker_neck.", 1)
        return f"tracker_model.{name}"

    weights = {published(name): value.contiguous().clone() for name, value in model.state_dict().items()}
    safetensors.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tracker = {**json.loads((folder / "config.json").read_text()), "model_type": "sam3_tracker_video"}
    (folder / "config.json").write_text(json.dumps({"model_type": "sam3_video", "tracker_config": tracker}))


def test_the_published_layout_of_sam3_loads(tmp_path: Path) -> None:
    model = sam_model("sam3_tracker")
    model.save_pretrained(tmp_path)
    publish_as_sam3_video(model, tmp_path)
    image, prompts = samples()
    expected = SamTeacher.of("x", model, CPU).encode(image).answer(prompts)
    answer = load_teacher(f"sam:{tmp_path}", CPU).encode(image).answer(prompts)
    torch.testing.assert_close(answer.logits, expected.logits)


def test_weights_that_lack_a_part_do_not_teach(tmp_path: Path) -> None:
    """The library would fill them at random."""
    model = sam_model("sam2")
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("mask_decoder.")}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(InputError, match=r"lacks .* weights .*mask_decoder"):
        load_teacher(f"sam:{tmp_path}", CPU)


def test_other_models_are_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed (pip install 'tinyseg[baseline]')"
    )
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a bert model; sam, sam_hq, sam2"):
        load_teacher(f"sam:{tmp_path}", CPU)
    if importlib.util.find_spec("timm") is None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "edgetam"}))
        with pytest.raises(NotInstalled, match="timm"):
            load_teacher(f"sam:{tmp_path}", CPU)


def test_a_model_folder_teaches_what_the_runtime_computes() -> None:
    teacher = StudentTeacher(PACKAGED, CPU)
    image, prompts = samples()
    encoded = teacher.encode(image[:1])
    answer = encoded.answer(PromptBatch(prompts.points[:2], prompts.labels[:2], prompts.mask[:2], prompts.has_mask[:2]))
    assert encoded.embedding.shape == (1, EMBED_DIM, 4, 4) and answer.tokens.shape == (2, 5, EMBED_DIM)
    engine = create_engine("onnxruntime", "fp32", 1).engine
    model = open_model(None)
    pixels = ((image[:1].permute(0, 3, 1, 2).float() - 127.5) / 127.5).numpy()
    features = engine.compile(model.graphs["encoder"], {}).run({"image": np.ascontiguousarray(pixels)})
    expected = engine.compile(model.graphs["decoder"], {}).run(
        {
            **features, "points": prompts.points[:2].numpy(), "labels": prompts.labels[:2].numpy(),
            "mask": prompts.mask[:2].numpy(), "has_mask": prompts.has_mask[:2].numpy(),
        }
    )  # fmt: skip
    assert np.abs(answer.logits.numpy() - expected["logits"]).max() < 0.01 * np.abs(expected["logits"]).max()


class Echo:
    """Answers with the column of the first point, as a ramp from left to right, and remembers nothing."""

    name, channels, embedding = "echo", 1, torch.zeros(2, 1, 4, 4)

    def encode(self, image: torch.Tensor) -> Echo:
        return self

    def answer(self, prompts: PromptBatch) -> Answer:
        side = prompts.mask.shape[-1]
        columns = (torch.arange(side) + 0.5) * 4
        ramp = (columns - prompts.points[:, 0, :1]) / 8  # (n, side): positive right of the point
        logits = ramp[:, None, None, :].expand(-1, 4, side, -1)
        return Answer(logits, torch.full((len(ramp), 4), 0.5), torch.zeros(len(ramp), 5, 1))


def test_the_mirrored_look_is_mirrored_back() -> None:
    image, _ = samples()
    points = torch.tensor([[[10.0, 20.0], [30.0, 40.0]]] * 4)
    labels = torch.tensor([[2.0, 3.0]] * 4)
    prompts = PromptBatch(points, labels, torch.zeros(4, 1, 16, 16), torch.zeros(4))
    answer = Flipped(Echo()).encode(image).answer(prompts)
    # Straight: right of 10. Mirrored: the box is (34, 20, 54, 40), so right of 34 there, which is left of 30 here.
    probabilities = answer.logits[0, 0, 0].sigmoid()
    columns = (torch.arange(16) + 0.5) * 4
    expected = (torch.sigmoid((columns - 10) / 8) + torch.sigmoid((30 - columns) / 8)) / 2
    torch.testing.assert_close(probabilities, expected, rtol=1e-3, atol=1e-3)


def test_readings_are_matched_before_they_are_averaged() -> None:
    base = torch.full((2, 4, 8, 8), -9.0)
    for k, at in enumerate((0, 2, 4, 6)):
        base[:, k, :, at : at + 2] = 9.0
    order = torch.tensor([0, 3, 1, 2])
    shuffled = base[:, order]
    assert torch.equal(shuffled.gather(1, match_readings(base, shuffled)[:, :, None, None].expand_as(base)), base)

    class Fixed:
        name, channels = "fixed", 1

        def __init__(self, logits: torch.Tensor) -> None:
            self.logits = logits

        def encode(self, image: torch.Tensor) -> Fixed:
            return self

        def answer(self, prompts: PromptBatch) -> Answer:
            return Answer(self.logits, torch.ones(2, 4), torch.zeros(2, 5, 1))

    image, prompts = samples()
    both = Ensemble([Fixed(base), Fixed(shuffled)]).encode(image).answer(prompts)
    assert torch.equal(both.logits > 0, base > 0)


def test_teachers_by_name() -> None:
    both = load_teacher("tinyseg:packaged,flip:tinyseg:packaged", CPU)
    assert isinstance(both, Ensemble) and both.channels == EMBED_DIM and "flip:" in both.name
    for wrong, message in (
        ("", "--teacher needs a name"), ("resnet", "is not known"), ("sam:", "is not known"),
        ("tinyseg:nowhere", "not a model folder"), ("sam:./nowhere", "cannot be loaded"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            load_teacher(wrong, CPU)


def test_hard_prompts_count_more() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.zeros(2, 16, 16)
    target[:, 4:12, 4:12] = 1
    teacher = (target * 12 - 6)[:, None].expand(-1, 4, -1, -1)
    student = torch.stack([teacher[0], -teacher[1]]) + 0.1 * torch.randn(2, 4, 16, 16, generator=generator)
    score = torch.full((2, 4), 0.5)

    def loss(i: int, hard: bool) -> float:
        part = slice(i, i + 1)
        return float(
            distil_loss(student[part], score[part], teacher[part], score[part], target[part], DistilWeights(hard=hard))
        )

    assert mask_iou(student, target[:, None].expand_as(student))[0].min() > 0.99
    assert loss(0, True) == pytest.approx(loss(0, False), rel=0.02)  # as good as the teacher: as before
    assert loss(1, True) > 1.9 * loss(1, False)
    plain = distil_loss(student, score, teacher, score + 0.5, target, DistilWeights(masks=0.0, iou=1.0))
    assert float(plain) == pytest.approx(4 * 0.25)
    # Logits: 12 apart at every cell of two masks that say the opposite, nothing beyond 10 counts.
    apart = distil_loss(teacher, score, -2 * teacher, score, target, DistilWeights(masks=0.0, logits=1.0))
    assert float(apart) == pytest.approx(2 * 1.6)


@pytest.mark.usefixtures("small_samples")
def test_a_student_overfits_a_random_teacher(shapes: Path) -> None:
    """Every part of the loss falls, and reaches student and adapter: on one batch, towards a SAM of random weights."""
    torch.manual_seed(0)
    teacher = SamTeacher.of("random", sam_model("sam"), CPU)
    teaching = Teaching(teacher, FeatureAdapter(EMBED_DIM, teacher.channels))
    weights = DistilWeights(masks=1.0, logits=0.5, iou=1.0, embedding=1.0, tokens=1.0, hard=True, rounds=True)
    config = TrainConfig(data=(), out="x", batch_size=2, instances=2, distil=weights)
    batch = TrainingBatches(read_photos(shapes), 2, 2, 0, {})[0]
    student = Student()
    optimizer = torch.optim.AdamW([*student.parameters(), *teaching.adapter.parameters()], lr=2e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        with_teacher, _ = training_loss(student, batch, config, CPU, teaching)
        with_teacher.backward()
        optimizer.step()
        losses.append(float(with_teacher.detach()))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in teaching.adapter.parameters())
    assert student.encoder.lateral16[0].weight.grad.abs().sum() > 0
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.usefixtures("small_samples")
def test_later_rounds_ask_where_teacher_and_student_disagree(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[PromptBatch] = []
    wanted: list[torch.Tensor] = []
    real = step.correct

    class Nothing(Echo):
        """Sees nothing anywhere, so all that the student shows is too much."""

        def answer(self, prompts: PromptBatch) -> Answer:
            asked.append(prompts)
            n, side = len(prompts.points), prompts.mask.shape[-1]
            return Answer(torch.full((n, 4, side, side), -9.0), torch.ones(n, 4), torch.zeros(n, 5, 1))

    def spy(
        prompts: PromptBatch, slot: int, logits: torch.Tensor, target: torch.Tensor, g: torch.Generator
    ) -> PromptBatch:
        wanted.append(target)
        return real(prompts, slot, logits, target, g)

    monkeypatch.setattr(step, "correct", spy)
    monkeypatch.setattr(step_inputs, "ROUND_SHARES", (0.0, 0.0, 1.0))
    batch = TrainingBatches(read_photos(shapes), 2, 2, 0, {})[0]
    for rounds, times in ((False, 1), (True, 3)):
        asked.clear(), wanted.clear()
        config = TrainConfig(data=(), out="x", batch_size=2, instances=2, distil=DistilWeights(rounds=rounds))
        training_loss(Student(), batch, config, CPU, Teaching(Nothing(), None))
        assert len(asked) == times and len(wanted) == 2
        assert all(bool(w.any()) != rounds for w in wanted)
    assert float(asked[1].labels[:, 3].max()) == 0.0  # a click that takes away


@pytest.mark.usefixtures("small_samples")
def test_the_ground_truth_can_be_left_out(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = TrainingBatches(read_photos(shapes), 2, 2, 0, {})[0]
    teacher = load_teacher("tinyseg:packaged", CPU)
    torch.manual_seed(0)
    student = Student().eval()
    both = TrainConfig(data=(), out="x", batch_size=2, instances=2, teacher="tinyseg:packaged")

    def loss(config: TrainConfig) -> tuple[float, list[RoundLoss]]:
        total, rounds = training_loss(student, batch, config, CPU, Teaching(teacher, None))
        return float(total.detach()), rounds

    monkeypatch.setattr(step_inputs, "ROUND_SHARES", (1.0, 0.0, 0.0))
    (full, rounds), (taught, _) = loss(both), loss(replace(both, ground_truth=0.0))
    assert full - taught == pytest.approx(float(rounds[0].total.detach()), rel=1e-4) and taught > 0.1
    # Without the truth only the teacher can say what is wrong in later rounds.
    monkeypatch.setattr(step_inputs, "ROUND_SHARES", (0.0, 0.0, 1.0))
    assert len(loss(both)[1]) == 3 and len(loss(replace(both, ground_truth=0.0))[1]) == 1
    assert len(loss(replace(both, ground_truth=0.0, distil=DistilWeights(rounds=True)))[1]) == 3


def test_scores_learn_from_the_reading_most_alike() -> None:
    torch.manual_seed(0)
    logits = 8 * torch.randn(1, 4, 16, 16)
    other = [0, 2, 3, 1]  # the same readings in another order
    said = (logits, torch.tensor([[0.9, 0.1, 0.2, 0.3]]), torch.zeros(1, 5, 1))
    answer = Answer(logits[:, other], said[1][:, other], said[2])
    learn = DistilWeights(masks=0.0, iou=1.0)
    assert float(Teaching(Echo(), None).loss(said, answer, torch.zeros(1, 16, 16), learn)) == pytest.approx(
        0.0, abs=1e-6
    )


@pytest.mark.usefixtures("small_samples")
def test_training_with_a_teacher_resumes(shapes: Path, tmp_path: Path) -> None:

    def config(steps: int, out: str) -> TrainConfig:
        return TrainConfig(
            data=(str(shapes),), out=str(tmp_path / out), steps=steps, batch_size=2, instances=2, workers=0,
            validation_photos=1, start=str(PACKAGED), teacher="tinyseg:packaged",
            distil=DistilWeights(embedding=0.5, tokens=0.5),
        )  # fmt: skip

    checkpoint = train(config(2, "run"))
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["step"] == 2 and saved["adapter"]["project.weight"].shape == (EMBED_DIM, EMBED_DIM, 1, 1)
    assert saved["adapter"]["project_tokens.weight"].shape == (EMBED_DIM, EMBED_DIM)
    assert torch.load(train(config(3, "run")), weights_only=True)["step"] == 3
