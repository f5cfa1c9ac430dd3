from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import tinyseg
from tests.conftest import mask_iou
from tinyseg import Prompt, _native
from tinyseg.geometry import letterbox
from tinyseg.predict.embedding import choose_masks, resample_logits

Scene = tuple[NDArray[np.uint8], NDArray[np.bool_]]


@pytest.mark.parametrize("size", [(32, 32), (33, 500), (720, 1280), (1280, 720), (427, 640), (17, 2000), (2160, 3840)])
def test_masks_lie_where_the_box_was_for_any_size(fake: tinyseg.Segmenter, size: tuple[int, int]) -> None:
    height, width = size
    frame = np.zeros((height, width, 3), np.uint8)
    box = [round(width * 0.2), round(height * 0.3), round(width * 0.9), round(height * 0.8)]
    out = fake.embed(frame).predict(box=box, multimask=False, zoom="off")
    assert out.masks.shape == (1, height, width) and out.masks.dtype == np.bool_
    # The fake's outline is straight, so interpolation places it to well under a pixel of the grid.
    model_pixel = max(width, height) / 512
    assert np.abs(out.boxes[0] - box).max() <= max(1.0, 2 * model_pixel)


def test_a_second_look_places_masks_like_the_first(fake: tinyseg.Segmenter) -> None:
    emb = fake.embed(np.zeros((720, 1280, 3), np.uint8))
    box = [1000, 600, 1060, 660]
    near, far = (emb.predict(box=box, multimask=False, zoom=z) for z in ("auto", "off"))
    assert near.zoom is not None and far.zoom is None
    assert np.abs(near.boxes[0] - box).max() <= 1 and np.abs(far.boxes[0] - box).max() <= 3
    assert near.logits.shape == far.logits.shape == (1, 72, 128)
    x0, y0, x1, y1 = near.zoom
    assert x0 <= 1000 and x1 >= 1060 and y0 <= 600 and y1 >= 660
    assert emb.predict(box=[100, 100, 1100, 600], multimask=False).zoom is None


def test_an_8k_frame_works(fake: tinyseg.Segmenter) -> None:
    out = fake.embed(np.zeros((4320, 7680, 3), np.uint8)).predict(points=[[4000, 2000]], labels=[1], zoom="off")
    assert out.masks.shape == (3, 4320, 7680) and out.masks[0, 2000, 4000]


@pytest.mark.parametrize(
    "convert, color",
    [
        (lambda f: f[..., ::-1], "rgb"),
        (lambda f: np.dstack([f, f[..., :1]]), "bgra"),
        (lambda f: np.dstack([f[..., ::-1], f[..., :1]]), "rgba"),
        (lambda f: np.dstack([f, f[..., :1]]), "bgr"),
        (np.asfortranarray, "bgr"),
        (lambda f: np.repeat(np.repeat(f, 2, 0), 2, 1)[::2, ::2], "bgr"),
    ],
)
def test_every_layout_of_the_same_pixels_gives_the_same_features(
    real: tinyseg.Segmenter, scene: Scene, convert: Any, color: str
) -> None:
    expected = real.embed(scene[0]).features
    found = real.embed(convert(scene[0]), color=color).features
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)


def test_grey_frames_are_taken(real: tinyseg.Segmenter, scene: Scene) -> None:
    grey = scene[0][..., 1]
    two, three, colour = real.embed(grey), real.embed(grey[..., None], "gray"), real.embed(np.dstack([grey] * 3))
    np.testing.assert_array_equal(two.features["embedding"], three.features["embedding"])
    np.testing.assert_allclose(two.features["embedding"], colour.features["embedding"], atol=1e-5)


@pytest.mark.parametrize(
    "frame, color, says",
    [
        (np.zeros((4, 4, 3), np.float32), "bgr", "uint8"),
        (np.zeros((4, 4, 3), np.int64), "bgr", "uint8"),
        (np.zeros((3, 40, 50), np.uint8), "bgr", "transpose"),
        (np.zeros((4, 4, 2), np.uint8), "bgr", "shape"),
        (np.zeros((4,), np.uint8), "bgr", "shape"),
        (np.zeros((1, 4, 4, 3), np.uint8), "bgr", "shape"),
        (np.zeros((0, 4, 3), np.uint8), "bgr", "empty"),
        (np.zeros((1, 20000), np.uint8), "bgr", "at most"),
        (np.zeros((4, 4, 3), np.uint8), "hsv", "color must be"),
        (np.zeros((4, 4, 3), np.uint8), "rgba", "does not fit"),
        (np.zeros((4, 4, 3), np.uint8), "gray", "does not fit"),
        ([[1, 2], [3, 4]], "bgr", "numpy array"),
        (None, "bgr", "cannot read"),
    ],
)
def test_wrong_frames_are_refused(fake: tinyseg.Segmenter, frame: Any, color: str, says: str) -> None:
    with pytest.raises(tinyseg.FrameError, match=says):
        fake.embed(frame, color=color)


@pytest.mark.parametrize("prompt", [{"box": (95, 55, 245, 165)}, {"points": [[170, 110]], "labels": [1]}])
def test_the_packaged_model_finds_the_object(real: tinyseg.Segmenter, scene: Scene, prompt: dict[str, Any]) -> None:
    frame, truth = scene
    out = real.embed(frame).predict(**prompt)
    assert out.masks.shape == (3, 240, 320) and out.scores.shape == (3,) and out.scores.dtype == np.float32
    assert out.logits.shape == (3, 96, 128)
    assert mask_iou(out.masks[out.best], truth) > 0.85
    assert ((out.scores >= 0) & (out.scores <= 1)).all()


def test_clicks_and_hints_can_be_mixed_with_a_box(real: tinyseg.Segmenter, scene: Scene) -> None:
    frame, truth = scene
    emb = real.embed(frame)
    first = emb.predict(points=[[170, 110]], labels=[1])
    for given in (
        {"points": [[170, 110], [20, 20]], "labels": [1, 0]},
        {"points": [[170, 110]], "labels": [1], "box": (95, 55, 245, 165)},
        {"mask": first.logits[first.best]},
        {"mask": first.logits[first.best][None], "points": [[130, 110]], "labels": [1]},
        {"mask": truth},
        {"mask": truth, "box": (95, 55, 245, 165), "points": [[20, 20]], "labels": [0]},
    ):
        out = emb.predict(**given, multimask=False)
        assert out.masks.shape == (1, 240, 320)
        assert mask_iou(out.masks[0], truth) > 0.8, given.keys()


def test_a_batch_equals_single_prompts(real: tinyseg.Segmenter, scene: Scene) -> None:
    emb = real.embed(scene[0])
    hint = emb.predict(points=[[170, 110]], labels=[1]).logits[0]
    prompts = [
        Prompt(points=[[170, 110]], labels=[1]),
        Prompt(box=(95, 55, 245, 165)),
        Prompt(points=[[20, 20], [300, 200], [170, 110], [100, 200], [5, 5]], labels=[0, 0, 1, 0, 0]),
        Prompt(mask=hint),
        Prompt(points=[[160, 100]], labels=[1], box=(90, 50, 250, 170), mask=hint),
    ]
    for multimask in (False, True):
        together = emb.predict_batch(prompts, multimask=multimask)
        assert len(together) == 5
        for prompt, one in zip(prompts, together):
            alone = emb.predict(prompt.points, prompt.labels, prompt.box, prompt.mask, multimask, zoom="off")
            np.testing.assert_allclose(one.logits, alone.logits, atol=2e-3 * np.abs(alone.logits).max())
            np.testing.assert_allclose(one.scores, alone.scores, atol=1e-3)


def test_empty_and_long_batches(fake: tinyseg.Segmenter) -> None:
    emb = fake.embed(np.zeros((64, 64, 3), np.uint8))
    assert emb.predict_batch([]) == []
    boxes = [(i % 8, i % 5, i % 8 + 20, i % 5 + 30) for i in range(70)]
    out = emb.predict_batch([Prompt(box=b) for b in boxes])
    np.testing.assert_array_equal([o.boxes[0] for o in out], boxes)


def test_a_wrong_prompt_in_a_batch_is_named(fake: tinyseg.Segmenter) -> None:
    emb = fake.embed(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(tinyseg.PromptError, match="prompt 1: point"):
        emb.predict_batch([Prompt(box=(0, 0, 9, 9)), Prompt([[99, 99]], [1])])
    with pytest.raises(tinyseg.InputError, match="prompt 0 must be a"):
        emb.predict_batch([{"box": (0, 0, 9, 9)}])  # type: ignore[list-item]


def test_choices_are_checked(fake: tinyseg.Segmenter) -> None:
    emb = fake.embed(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(tinyseg.InputError, match="zoom"):
        emb.predict(box=(0, 0, 9, 9), zoom="always")
    with pytest.raises(tinyseg.InputError, match="multimask"):
        emb.predict(box=(0, 0, 9, 9), multimask=2)  # type: ignore[arg-type]
    with pytest.raises(tinyseg.PromptError, match="empty"):
        emb.predict()


def test_padding_slots_change_nothing(real: tinyseg.Segmenter, scene: Scene) -> None:
    """Five points need 16 slots, four need 4: a repeated fifth point must not change what four say."""
    emb = real.embed(scene[0])
    points, labels = [[170, 110], [150, 100], [190, 120], [20, 20]], [1, 1, 1, 0]
    four = emb.network.decode(emb.features, emb.geometry, emb.geometry, [Prompt(points, labels)])
    more = Prompt(points * 3, labels * 3)  # forces the larger shape for the whole batch
    both = emb.network.decode(emb.features, emb.geometry, emb.geometry, [Prompt(points, labels), more])
    np.testing.assert_allclose(both[0][0], four[0][0], atol=2e-3 * np.abs(four[0]).max())


def test_clicks_of_a_grid_are_answered_like_others(real: tinyseg.Segmenter, scene: Scene) -> None:
    emb = real.embed(scene[0])
    height, width = scene[0].shape[:2]
    part = letterbox(width, height, 256, (width // 4, 0, width, height // 2))
    features = real.network.encode(emb.frame, part)
    x0, y0, x1, y1 = part.region
    clicks = np.array([(x0, y0), (x1 - 1, y1 - 1), (x0 + 10.3, y0 + 40.7)])
    prompts = [Prompt(points=[click], labels=[1]) for click in clicks]
    logits, scores = real.network.decode_clicks(features, part, clicks, 4)
    others, other_scores = real.network.decode(features, emb.geometry, part, prompts)
    assert logits.shape == others.shape == (3, 4, *part.grid)
    np.testing.assert_allclose(logits, others, atol=0.02)  # padding slots, of which there are none here, take no part
    np.testing.assert_allclose(scores, other_scores, atol=0.002)


def test_an_embedding_does_not_change_with_the_frames_buffer(real: tinyseg.Segmenter, scene: Scene) -> None:
    frame = scene[0].copy()
    emb = real.embed(frame)
    before = emb.predict(box=(95, 55, 150, 100), multimask=False)
    frame[:] = 0
    after = emb.predict(box=(95, 55, 150, 100), multimask=False)
    np.testing.assert_array_equal(before.masks, after.masks)
    assert before.zoom is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        emb.geometry = None  # type: ignore[misc,assignment]
    with pytest.raises(ValueError, match="read-only"):
        emb.features["embedding"][:] = 0


def test_threads_may_share_a_segmenter(real: tinyseg.Segmenter, scene: Scene) -> None:
    frame = scene[0]
    expected = real.embed(frame).predict(points=[[170, 110]], labels=[1])
    same: list[bool] = []

    def work() -> None:
        for _ in range(4):
            found = real.embed(frame).predict(points=[[170, 110]], labels=[1])
            same.append(mask_iou(found.masks, expected.masks) > 0.999)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(same) == 16 and all(same)


def test_info_says_what_runs(real: tinyseg.Segmenter, fake: tinyseg.Segmenter) -> None:
    info = real.info
    assert info.engine in ("onnxruntime", "openvino") and info.precision == "fp32" and info.threads >= 1
    assert len(info.model_sha256) == 64 and info.engine in str(info) and info.reason == "engine as asked for"
    assert fake.info.engine == "fake" and fake.info.model_path == "packaged"


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_wrong_thread_counts_are_refused(threads: Any) -> None:
    with pytest.raises(tinyseg.InputError, match="threads"):
        tinyseg.load(engine="fake", threads=threads)


def test_wrong_sizes_rules_and_logits_are_refused(fake: tinyseg.Segmenter) -> None:
    for call in (lambda: fake.view(-1, 5), lambda: fake.warm_up(0, 5), lambda: fake.view(5, 1 << 20)):
        with pytest.raises(tinyseg.FrameError, match="must be a whole number from 1 to 16384"):
            call()
    with pytest.raises(tinyseg.InputError, match="prompts must be"):
        fake.warm_up(64, 64, prompts=0)
    with pytest.raises(tinyseg.FrameError, match=r"convert\('RGB'\)"):
        fake.tracker().add(1, box=(1, 1, 9, 9), frame=Image.new("RGB", (64, 64)))  # type: ignore[arg-type]
    with pytest.raises(tinyseg.InputError, match="workspace must be"):
        fake.run(np.zeros((64, 64, 3), np.uint8), [Prompt(box=(1, 1, 9, 9))], None)  # type: ignore[arg-type]
    with pytest.raises(tinyseg.InputError, match="ZoomRule"):
        fake.with_zoom("x")  # type: ignore[arg-type]
    emb = fake.embed(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(tinyseg.InputError, match="logits must have shape"):
        emb.logits_in_frame(np.zeros((3, 3), np.float32))
    for threshold in ("x", float("nan"), True):
        with pytest.raises(tinyseg.InputError, match="mask_threshold"):
            tinyseg.SAM2ImagePredictor(fake, mask_threshold=threshold)  # type: ignore[arg-type]
    answer = emb.predict(box=(5, 5, 30, 30))
    with pytest.raises(tinyseg.DataError, match="must be a path"):
        answer.save(None)  # type: ignore[arg-type]
    assert answer.only(-1).scores == answer.scores[-1]
    with pytest.raises(tinyseg.InputError, match="index must be"):
        answer.only(9)


def test_mask_0_takes_the_place_of_the_reading_most_alike_it() -> None:
    logits = np.full((4, 8, 8), -1.0, np.float32)
    logits[0, :4] = 1.0  # the upper half
    logits[1, :, :2] = 1.0
    logits[2, :5] = 1.0  # the twin: one row more
    logits[3] = 1.0
    assert choose_masks(logits, multimask=True) == [1, 0, 3]
    assert choose_masks(logits, multimask=False) == [0]
    assert len(choose_masks(np.full((4, 8, 8), -1.0, np.float32), multimask=True)) == 3


def test_a_second_look_adds_what_the_first_saw(fake: tinyseg.Segmenter) -> None:
    emb = fake.embed(np.zeros((720, 1280, 3), np.uint8))
    click = Prompt(points=[[600, 300]], labels=[1])
    for prompt, blends in (
        (click, True),
        (dataclasses.replace(click, mask=emb.answer((click,), False, "off")[0].logits[0]), False),
    ):
        out = emb.answer((prompt,), False, "auto")[0]
        assert out.zoom is not None
        crop = letterbox(1280, 720, emb.zoom_rule.side, out.zoom, square=True)
        first, scores = emb.network.decode(emb.features, emb.geometry, emb.geometry, [prompt])
        alone, _ = emb.network.decode(emb.network.encode(emb.frame, crop), emb.geometry, crop, [prompt])
        both = alone[0, :1] + np.float32(_native.FIRST_LOOK_WEIGHT) * resample_logits(first[0, :1], emb.geometry, crop)
        plain, blended = (emb.to_masks(crop, prompt, one, scores[0, :1]) for one in (alone[0, :1], both))
        expected, other = (blended, plain) if blends else (plain, blended)
        assert np.array_equal(out.logits, expected.logits) and not np.array_equal(out.logits, other.logits)
        assert np.array_equal(out.masks, expected.masks)
