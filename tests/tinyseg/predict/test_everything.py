"""Everything in a frame, on the engine that draws the prompt: every click of the grid gives a disk."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tests.conftest import mask_iou
from tinyseg.cli import main
from tinyseg.dataset import read_photos
from tinyseg.errors import FrameError, InputError, ModelError
from tinyseg.geometry import letterbox
from tinyseg.graphs.everything_rule import EverythingRule, read_everything_rule
from tinyseg.images import write_image
from tinyseg.predict.everything import (
    Candidates,
    Search,
    close_parts,
    distinct,
    entries,
    everything_streams,
    in_parts,
    on_view,
    point_grid,
    sure_cells,
    views,
    without_small,
)

# The fake engine's disks: 24 model pixels of radius, logits up to 12, scores 0.9 to 0.6.
RULE = EverythingRule(
    points_per_side=8, coarse_per_side=2, score=0.7, stability=0.5, confident=2.0, sure_margin=0, box_overlap=0.5
)


@pytest.fixture
def frame() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8)


def test_the_grid_is_sams() -> None:
    np.testing.assert_allclose(point_grid(2), [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])


def test_every_click_is_found_once(fake: tinyseg.Segmenter, frame: NDArray[np.uint8]) -> None:
    full = fake.everything(frame, rule=replace(RULE, coarse_per_side=0))
    assert len(full) == 64  # disks of 24 pixels every 64 x 32 pixels: neighbours overlap by less than half
    assert (np.diff(full.scores) <= 0).all() and full.scores[0] == pytest.approx(0.9)
    points = {tuple(p) for p in full.points.tolist()}
    assert points == {tuple(p) for p in on_view(point_grid(8), fake.view(512, 256)).tolist()}
    for i in range(0, 64, 9):
        x, y = full.points[i].round().astype(int)
        assert full.mask(i)[y, x] and full.areas[i] == full.mask(i).sum()


def test_sure_areas_are_not_asked_again(fake: tinyseg.Segmenter, frame: NDArray[np.uint8]) -> None:
    asked: list[int] = []
    emb = fake.embed(frame)

    class Counting:
        device = "CUDA:0"

        def compiled(self, role: str, view: object, prompts: int = 1, points: int = 1) -> object:
            return SimpleNamespace(info=SimpleNamespace(device=self.device, streams=1))

        def decode_clicks(self, features: object, view: object, clicks: NDArray[np.float64], batch: int) -> object:
            asked.append(max(len(clicks), batch))
            return fake.network.decode_clicks(features, view, clicks, batch)  # type: ignore[arg-type]

    def calls(rule: EverythingRule, search: Search | None = None) -> list[int]:
        asked.clear()
        replace(emb, network=Counting()).everything(rule, search=search)  # type: ignore[arg-type]
        return list(asked)

    fine = replace(RULE, points_per_side=16, coarse_per_side=8)
    whole = Search(batch=64)
    assert calls(replace(fine, coarse_per_side=0), whole) == [64, 64, 64, 64]
    assert calls(replace(fine, confident=100.0), whole) == [64, 64, 64, 64, 64]  # never sure
    assert calls(replace(fine, confident=-100.0), whole) == [64]
    # Three levels, each with twice as many clicks a side as the one before.
    three = replace(RULE, points_per_side=15, coarse_per_side=4, confident=100.0)
    assert three.sides() == [4, 8, 15] and replace(three, coarse_per_side=20).sides() == [15]
    assert calls(three, Search(batch=50)) == [16, 50, 25, *[50] * 4, 25]  # 64 and 225 clicks
    assert (
        calls(three, Search(batch=15)) == [15, 7] + [15] * 4 + [7] + [15] * 15
    )  # the last of a few is laid out for half
    assert set(calls(replace(fine, coarse_per_side=0))) == {64}
    # On a CPU a call has few clicks, which stay in its caches.
    Counting.device = "CPU"
    some = calls(replace(three, confident=2.0))
    assert set(some) <= {4, 8} and 16 + 64 < sum(some) < 16 + 64 + 225


def test_only_what_is_sure_all_around_counts() -> None:
    logits = np.full((2, 12, 16), -5.0, np.float32)
    logits[0, 2:9, 0:7] = 6  # at the grid's edge, beyond which all is sure
    logits[0, 5, 3] = 5.5
    logits[1, 2:9, 7:14] = 5  # touches the first, but is another thing
    rule = replace(RULE, confident=4.0, sure_margin=2)
    expected = np.zeros((12, 16), np.bool_)
    expected[4:7, 0:5] = expected[4:7, 9:12] = True
    np.testing.assert_array_equal(sure_cells(logits, rule), expected)
    assert sure_cells(logits, replace(rule, sure_margin=0)).sum() == 2 * 49
    assert not sure_cells(logits[:0], rule).any()
    strict = sure_cells(logits, replace(rule, confident=5.75, sure_margin=1))
    assert strict.sum() == 5 * 6 - 9 and not strict[4:7, 2:5].any()


def test_thresholds_are_strict_for_scores_and_not_for_stability(
    fake: tinyseg.Segmenter, frame: NDArray[np.uint8]
) -> None:
    rule = replace(RULE, coarse_per_side=0)
    assert len(fake.everything(frame, rule=replace(rule, score=0.9))) == 0
    found = fake.everything(frame, rule=rule)
    again = fake.everything(frame, rule=replace(rule, stability=float(found.stability.max())))
    assert 0 < len(again) < len(found)


def test_crops_see_small_things_and_drop_what_they_cut(fake: tinyseg.Segmenter, frame: NDArray[np.uint8]) -> None:
    rule = replace(RULE, coarse_per_side=0, points_per_side=4)
    whole = fake.everything(frame, rule=rule)
    both = fake.everything(frame, rule=rule, crop_layers=1)
    assert len(both) > len(whole)
    small = [i for i, v in enumerate(both.views) if not v.whole_frame]
    assert small and both.areas[small].max() < whole.areas.max()
    for i in small:
        x0, y0, x1, y1 = both.views[i].region
        left, top, right, bottom = both.boxes[i]
        assert left > x0 or x0 == 0
        assert top > y0 or y0 == 0
        assert right < x1 or x1 == 512
        assert bottom < y1 or y1 == 256


CLOSE = replace(RULE, points_per_side=16, coarse_per_side=4, close_views=2, confident=100.0)


def test_the_finer_grids_are_asked_in_close_views(fake: tinyseg.Segmenter, frame: NDArray[np.uint8]) -> None:
    asked: dict[tuple[int, ...], set[tuple[float, ...]]] = {}
    encoded: list[tuple[int, ...]] = []
    emb = fake.embed(frame)

    class Watched:
        compiled = staticmethod(fake.network.compiled)

        def encode(self, layout: object, view: tinyseg.Letterbox) -> object:
            encoded.append(view.region)
            return fake.network.encode(layout, view)  # type: ignore[arg-type]

        def decode_clicks(
            self, features: object, view: tinyseg.Letterbox, clicks: NDArray[np.float64], batch: int
        ) -> object:
            assert batch == (8 if len(clicks) > 4 else 4) and max(view.input) == (512 if view.whole_frame else 256)
            asked.setdefault(view.region, set()).update(tuple(p) for p in clicks.tolist())
            return fake.network.decode_clicks(features, view, clicks, batch)  # type: ignore[arg-type]

    watched = replace(emb, network=Watched())  # type: ignore[arg-type]
    found = watched.everything(CLOSE, search=Search(batch=8))
    whole = asked.pop((0, 0, 512, 256))
    assert whole == {tuple(p) for side in (4, 8) for p in on_view(point_grid(side), emb.geometry).tolist()}
    parts = close_parts(emb.geometry, CLOSE)
    assert encoded == list(asked) == [p.region for p in parts] and len(parts) == 4
    close = [tuple(p) for p in on_view(point_grid(16), emb.geometry).tolist()]
    assert sorted(close) == sorted(p for points in asked.values() for p in points)  # each of them once
    small = [i for i, view in enumerate(found.views) if not view.whole_frame]
    assert 0 < len(small) < len(found)
    for i in small:
        x0, y0, x1, y1 = found.views[i].region
        left, top, right, bottom = found.boxes[i]
        assert (
            (left > x0 or x0 == 0)
            and (top > y0 or y0 == 0)
            and (right < x1 or x1 == 512)
            and (bottom < y1 or y1 == 256)
        )
    # What the whole frame is sure of is not looked at, nor a part in which it is sure of all.
    encoded.clear()
    asked.clear()
    watched.everything(replace(CLOSE, confident=-100.0), search=Search(batch=8))
    assert not encoded and set(asked) == {(0, 0, 512, 256)}
    # Two grids, or one, are asked in the whole frame, and so are points that are given.
    for rule in (replace(CLOSE, points_per_side=8), replace(CLOSE, coarse_per_side=0)):
        watched.everything(rule, search=Search(batch=8))
    watched.everything(CLOSE, search=Search(grids=[point_grid(8)], batch=8))
    assert not encoded and set(asked) == {(0, 0, 512, 256)}


def test_several_streams_find_the_same_at_the_same_time(fake: tinyseg.Segmenter, frame: NDArray[np.uint8]) -> None:
    several = tinyseg.load(engine="fake", streams=2)
    together = threading.Barrier(2)
    met: set[str] = set()

    class Meeting:
        """Two calls of a kind wait for each other: one after the other would never go on."""

        compiled = staticmethod(several.network.compiled)

        def _meet(self, kind: str) -> None:
            if kind not in met:
                together.wait(20)
                met.add(kind)

        def encode(self, layout: object, view: tinyseg.Letterbox) -> object:
            if threading.current_thread() is not threading.main_thread():
                self._meet("close")
            return several.network.encode(layout, view)  # type: ignore[arg-type]

        def decode_clicks(self, features: object, *others: object) -> object:
            if threading.current_thread() is not threading.main_thread():
                self._meet("decode")
            return several.network.decode_clicks(features, *others)  # type: ignore[arg-type]

    rule = replace(CLOSE, whole_side=128)
    one = fake.everything(frame, rule=rule)
    two = replace(several.embed(frame), network=Meeting()).everything(rule)  # type: ignore[arg-type]
    assert met == {"decode", "close"} and several.info.streams == 2 and fake.info.streams == 1
    np.testing.assert_array_equal(one.boxes, two.boxes)
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.masks, two.masks)
    assert not [t for t in threading.enumerate() if t.name.startswith("tinyseg-everything")]
    assert [everything_streams(threads) for threads in (1, 2, 64)] == [1, 2, 4]


def test_the_whole_view_may_be_asked_in_a_smaller_input(fake: tinyseg.Segmenter, frame: NDArray[np.uint8]) -> None:
    rule = replace(CLOSE, whole_side=128)
    emb = fake.embed(frame)
    found = emb.everything(rule)
    sizes = {(view.whole_frame, max(view.input)) for view in found.views}
    assert sizes == {(True, 128), (False, 256)}
    assert found.masks.shape[1:] == frame.shape[:2] and (found.areas > 0).all()
    # Two grids are asked in it too; one alone, and points that are given, in the frame's own input; crops likewise.
    for asked, search, side in (
        (replace(rule, points_per_side=8), Search(), 128),
        (replace(rule, coarse_per_side=0), Search(), 512),
        (rule, Search(grids=[point_grid(8)]), 512),
    ):
        assert {max(view.input) for view in emb.everything(asked, search=search).views} == {side}
    cropped = emb.everything(replace(rule, points_per_side=8), search=Search(crop_layers=1))
    assert len({view.region for view in cropped.views}) > 1 and {max(view.input) for view in cropped.views} == {128}
    # A region that was embedded is asked in its own small input.
    region = fake.embed(frame, region=(100, 20, 400, 220)).everything(replace(rule, points_per_side=8))
    assert {(view.region, max(view.input)) for view in region.views} == {((100, 20, 400, 220), 128)}


def test_close_views_cover_and_overlap() -> None:
    view = letterbox(1280, 720, 512, (100, 50, 1100, 650))
    parts = close_parts(view, replace(RULE, close_views=4))
    regions = np.array([p.region for p in parts])
    assert len(parts) == 16 and all(max(p.input) == 256 for p in parts)
    assert (regions.min(0)[:2] == (100, 50)).all() and (regions.max(0)[2:] == (1100, 650)).all()
    wide = regions[0, 2] - regions[0, 0]
    assert (regions[:, 2] - regions[:, 0] == wide).all() and 0.25 < (regions[0, 2] - regions[1, 0]) / wide < 0.35
    points = on_view(point_grid(32), view)
    shared = list(in_parts([points, points[:3]], parts))
    assert sum(len(levels[0]) for _, levels in shared) == 1024 and sum(len(levels[1]) for _, levels in shared) == 3
    for part, levels in shared:
        x0, y0, x1, y1 = part.region
        assert ((levels[0] >= (x0, y0)) & (levels[0] <= (x1 - 1, y1 - 1))).all()
    assert not list(in_parts([points[:0]], parts))
    assert len(close_parts(letterbox(1, 1, 512), replace(RULE, close_views=3))) == 9


def test_of_doubles_the_closer_look_stays() -> None:
    whole = letterbox(100, 100, 512)
    part = letterbox(100, 100, 256, (0, 0, 60, 60))

    def candidates(view: tinyseg.Letterbox, scores: list[float], boxes: list[list[float]]) -> Candidates:
        n = len(scores)
        return Candidates(
            np.zeros((n, *view.grid), np.float32), np.array(scores, np.float32), np.ones(n, np.float32),
            np.array(boxes, np.float32), np.zeros((n, 2), np.float32),
        )  # fmt: skip

    found = entries(whole, candidates(whole, [0.9, 0.5], [[0, 0, 40, 40], [50, 50, 90, 90]]))
    found += entries(part, candidates(part, [0.6], [[0, 0, 40, 39]]))
    assert [(view is part, row) for view, _, row in distinct(found, 0.7)] == [(True, 0), (False, 1)]
    assert [c.scores[row] for _, c, row in distinct(found, 1.0)] == pytest.approx([0.9, 0.6, 0.5])
    assert distinct([], 0.7) == []


def test_crops_are_laid_out_as_sams() -> None:
    layers = list(views(letterbox(1500, 1000, 512), Search(crop_layers=1)))
    # segment-anything's generate_crop_boxes((1000, 1500), 1, 512/1500)
    assert [v.region for _, v in layers] == [
        (0, 0, 1500, 1000), (0, 0, 921, 671), (580, 0, 1500, 671), (0, 330, 921, 1000), (580, 330, 1500, 1000)
    ]  # fmt: skip


def test_a_region_of_the_frame_is_searched_alone(fake: tinyseg.Segmenter, frame: NDArray[np.uint8]) -> None:
    found = fake.embed(frame, region=(128, 64, 384, 192)).everything(RULE)
    assert len(found) and (found.boxes[:, :2] >= (128, 64)).all() and (found.boxes[:, 2:] <= (384, 192)).all()
    assert found.masks.shape[1:] == (256, 512)


def test_small_islands_and_holes_go() -> None:
    logits = np.full((20, 20), -3.0, np.float32)
    logits[2:12, 2:12] = 3
    logits[5, 5] = -3
    logits[16, 16:18] = 3
    out = without_small(logits, 4)
    assert out[5, 5] == 3 and out[16, 16] == -3 and (out > 0).sum() == 100
    assert without_small(logits, 1) is logits and logits[5, 5] == -3
    lonely = np.full((4, 4), -3.0, np.float32)
    lonely[1, 1] = 3
    assert without_small(lonely, 9)[1, 1] == 3  # the largest stays


def test_a_tiny_frame(fake: tinyseg.Segmenter) -> None:
    found = fake.everything(np.zeros((1, 1, 3), np.uint8), rule=replace(RULE, coarse_per_side=0))
    assert found.masks.shape[1:] == (1, 1) and len(found) <= 1


def test_wrong_numbers_are_told(fake: tinyseg.Segmenter, frame: NDArray[np.uint8]) -> None:
    for changes in (
        {"points_per_side": 0}, {"points_per_side": 1.5}, {"score": float("nan")}, {"confident": "high"},
        {"close_views": -1}, {"close_views": 17}, {"close_side": 16}, {"whole_side": 16}, {"whole_side": -1},
    ):  # fmt: skip
        with pytest.raises(InputError, match=next(iter(changes))):
            replace(RULE, **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="crop_layers"):
        fake.everything(frame, crop_layers=9)
    with pytest.raises(InputError, match="rule must be"):
        fake.everything(frame, rule={"score": 0.5})  # type: ignore[arg-type]
    assert type(EverythingRule(score=np.float32(0.5)).score) is float  # type: ignore[arg-type]
    with pytest.raises(InputError, match="min_area"):
        fake.everything(frame, min_area=-1)
    with pytest.raises(InputError, match="search"):
        fake.embed(frame).everything(crop_layers=1, search=Search())
    with pytest.raises(InputError, match="grid"):
        Search(grids=[np.array([[0.5, 2.0]])])
    with pytest.raises(FrameError):
        fake.everything(frame.astype(np.float32))  # type: ignore[arg-type]


def test_the_models_own_rule_and_its_errors() -> None:
    assert read_everything_rule({}, "m") == EverythingRule()
    rule = read_everything_rule({"everything": {"score": 0.4, "later": 1}}, "m")
    assert rule.score == 0.4 and rule.stability == EverythingRule().stability
    assert read_everything_rule({"everything": rule.to_card()}, "m") == rule
    for wrong in ([1], {"score": "x"}, {"points_per_side": 0}):
        with pytest.raises(ModelError, match="everything"):
            read_everything_rule({"everything": wrong}, "m")


def test_a_real_model_finds_the_object(
    reference: tinyseg.Segmenter, scene: tuple[NDArray[np.uint8], NDArray[np.bool_]]
) -> None:
    frame, truth = scene
    found = reference.everything(frame, rule=replace(reference.everything_rule, points_per_side=5, coarse_per_side=0))
    assert max(mask_iou(m, truth) for m in found) > 0.85


def test_sams_generator(fake: tinyseg.Segmenter, frame: NDArray[np.uint8]) -> None:
    assert tinyseg.SamAutomaticMaskGenerator(fake).rule == replace(fake.everything_rule, points_per_side=32)
    thresholds = {"pred_iou_thresh": 0.7, "stability_score_thresh": 0.5}
    generator = tinyseg.SamAutomaticMaskGenerator(fake, points_per_side=8, box_nms_thresh=0.5, **thresholds)  # type: ignore[arg-type]
    assert generator.rule.score == 0.7 and generator.rule.confident == fake.everything_rule.confident
    rows = generator.generate(frame)
    assert rows
    for row in rows[:3]:
        assert list(row) == [
            "segmentation", "area", "bbox", "predicted_iou", "point_coords", "stability_score", "crop_box"
        ]  # fmt: skip
        mask = row["segmentation"]
        assert isinstance(mask, np.ndarray) and mask.shape == (256, 512) and mask.sum() == row["area"]
        assert row["bbox"] == list(cv2.boundingRect(mask.astype(np.uint8))) and row["crop_box"] == [0, 0, 512, 256]
        assert type(row["area"]) is int and type(row["predicted_iou"]) is type(row["stability_score"]) is float
    points = tinyseg.SamAutomaticMaskGenerator(
        fake, None, point_grids=[np.array([[0.5, 0.5]])], output_mode="uncompressed_rle", **thresholds
    ).generate(frame)
    assert len(points) == 1 and points[0]["point_coords"] == [[255.5, 127.5]]
    counts = points[0]["segmentation"]["counts"]  # type: ignore[index]
    assert sum(counts) == 256 * 512 and sum(counts[1::2]) == points[0]["area"]  # type: ignore[arg-type]
    rle = tinyseg.SamAutomaticMaskGenerator(fake, output_mode="coco_rle", points_per_side=2, **thresholds).generate(
        frame
    )
    assert isinstance(rle[0]["segmentation"]["counts"], str)  # type: ignore[index, call-overload]


def test_sams_generators_attributes_may_be_set_later(fake: tinyseg.Segmenter, frame: NDArray[np.uint8]) -> None:
    generator = tinyseg.SamAutomaticMaskGenerator(fake, points_per_side=8, box_nms_thresh=0.5)
    own = fake.everything_rule
    assert generator.pred_iou_thresh == own.score and generator.stability_score_thresh == own.stability
    assert isinstance(generator.predictor, tinyseg.SamPredictor) and generator.predictor.model is generator.model
    generator.pred_iou_thresh, generator.stability_score_thresh = 0.7, 0.5
    fewer = len(generator.generate(frame))
    assert 0 < fewer == len(fake.everything(frame, rule=generator.rule))
    generator.pred_iou_thresh = 0.95  # above all that the fake engine says
    assert generator.rule.score == 0.95 and generator.generate(frame) == []
    generator.pred_iou_thresh = 0.7
    generator.output_mode = "coco_rle"
    assert isinstance(generator.generate(frame)[0]["segmentation"]["counts"], str)  # type: ignore[index, call-overload]
    generator.output_mode = "png"
    with pytest.raises(InputError, match="output_mode"):
        generator.generate(frame)
    generator.output_mode = "binary_mask"
    generator.crop_n_layers = 1
    assert len({tuple(row["crop_box"]) for row in generator.generate(frame)}) > 1
    generator.crop_n_layers, generator.stability_score_offset = 0, -1.0
    with pytest.raises(InputError, match="stability_offset"):
        generator.generate(frame)


def test_sams_generators_grids(fake: tinyseg.Segmenter, frame: NDArray[np.uint8]) -> None:
    generator = tinyseg.SamAutomaticMaskGenerator(
        fake, 8, crop_n_layers=1, crop_n_points_downscale_factor=2, pred_iou_thresh=0.7, stability_score_thresh=0.5
    )
    assert [g.shape for g in generator.point_grids] == [(64, 2), (16, 2)]
    np.testing.assert_array_equal(generator.point_grids[0], point_grid(8))
    with pytest.raises(ValueError, match="read-only"):  # changed in place they would not be asked
        generator.point_grids[0][0] = 0.5
    generator.crop_n_layers = 0
    generator.point_grids = [np.array([[0.25, 0.5]])]
    assert [row["point_coords"] for row in generator.generate(frame)] == [[[127.5, 127.5]]]
    generator.point_grids[0][0] = 0.75, 0.5  # the caller's own list
    assert [row["point_coords"] for row in generator.generate(frame)] == [[[383.5, 127.5]]]


def test_sams_generator_refuses_what_sams_does(fake: tinyseg.Segmenter) -> None:
    with pytest.raises(InputError, match="exactly one"):
        tinyseg.SamAutomaticMaskGenerator(fake, None)
    with pytest.raises(InputError, match="exactly one"):
        tinyseg.SamAutomaticMaskGenerator(fake, 8, point_grids=[np.array([[0.5, 0.5]])])
    with pytest.raises(InputError, match="output_mode"):
        tinyseg.SamAutomaticMaskGenerator(fake, output_mode="png")
    with pytest.raises(InputError):
        tinyseg.SamAutomaticMaskGenerator("sam")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="grids must"):
        tinyseg.SamAutomaticMaskGenerator(fake, None, point_grids=[np.array([[0.5, 0.5]])], crop_n_layers=1)


@pytest.mark.parametrize(
    "grids", ["x", 5, [None], [["a"]], [[[0.5], [0.5, 0.5]]], [0.5], [[[0.5, 0.5, 0.5]]], [[[0.5, 2.0]]]]
)
def test_sams_generator_refuses_odd_grids(fake: tinyseg.Segmenter, frame: NDArray[np.uint8], grids: Any) -> None:
    generator = tinyseg.SamAutomaticMaskGenerator(fake, 8)
    generator.point_grids = grids
    with pytest.raises(InputError, match="grid"):
        generator.generate(frame)
    with pytest.raises(InputError, match="grid"):
        tinyseg.SamAutomaticMaskGenerator(fake, None, point_grids=grids)


@pytest.fixture
def photos(tmp_path: Path, frame: NDArray[np.uint8]) -> Path:
    folder = tmp_path / "photos"
    for name in ("a.png", "b.png"):
        write_image(folder / name, frame)
    return folder


COMMAND = ["--engine", "fake", "--points-per-side", "4", "--stability", "0.5", "--score", "0.5"]


def test_the_command_writes_every_format(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for kind in ("overlay", "labels", "coco", "json"):
        assert main(["everything", str(photos), "--out", str(out), "--format", kind, "--json", *COMMAND]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[0])
    assert row["regions"] > 3 and 0 < row["covered"] < 1 and row["engine"] == "fake"
    assert cv2.imread(str(out / "a.everything.png")).shape == (256, 512, 3)
    labels = cv2.imread(str(out / "b.labels.png"), cv2.IMREAD_UNCHANGED)
    assert labels.dtype == np.uint16 and labels.max() == row["regions"]
    coco = json.loads((out / "coco.json").read_text())
    assert [i["id"] for i in coco["images"]] == [1, 2] and {a["image_id"] for a in coco["annotations"]} == {1, 2}
    assert len({a["id"] for a in coco["annotations"]}) == len(coco["annotations"]) == 2 * row["regions"]
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    for name in ("a.json", "b.json"):
        assert json.loads((out / name).read_text())["image"]["file_name"] == name.replace("json", "png")
        (photos / name).write_bytes((out / name).read_bytes())
    read = read_photos(photos)  # the files are what readers of SA-1B expect
    assert [len(p.instances) for p in read] == [row["regions"]] * 2


def test_the_command_goes_on_after_a_bad_file(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "aa.png").write_bytes(b"")
    assert main(["everything", str(photos), "--out", str(tmp_path / "out"), *COMMAND]) == 1
    printed = capsys.readouterr()
    assert "2 of 3 images" in printed.out and "aa.png" in printed.err and "Traceback" not in printed.err
    assert main(["everything", str(photos), "--points-per-side", "0", "--engine", "fake"]) == 2
    assert main(["everything", str(photos), "--crop-layers", "7", "--engine", "fake"]) == 2
    (tmp_path / "file").write_bytes(b"")
    assert main(["everything", str(photos), "--out", str(tmp_path / "file"), "--engine", "fake"]) == 2
    capsys.readouterr()
    for name in (str(tmp_path / "r.png"), "-"):
        assert main(["everything", str(photos), "--out", name, "--engine", "fake"]) == 2
        assert "give a folder" in capsys.readouterr().err and not Path(name).exists()
