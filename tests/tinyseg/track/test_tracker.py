from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tinyseg
from tests.conftest import mask_iou
from tests.tinyseg.track.conftest import Moving
from tinyseg.track.decoder import has_track_decoder
from tinyseg.track.memory import PROMPTED_KEPT, RECENT_KEPT

AWAY = 60  # a frame number at which the cup has left


def test_a_cup_is_followed(seg: tinyseg.Segmenter, moving: Moving) -> None:
    tracker = seg.tracker()
    frame, mask = moving(0)
    first = tracker.add("cup", mask=mask, frame=frame)
    assert first.visible and first.score == 1.0 and np.array_equal(first.mask, mask) and first.area == mask.sum()
    for number in range(1, 13):
        frame, mask = moving(number)
        result = tracker.step(frame)["cup"]
        assert result.visible and result.mask.dtype == np.bool_ and result.mask.shape == (240, 320)
        assert mask_iou(result.mask, mask) > 0.75, number
    x0, y0, x1, y1 = result.box
    ys, xs = np.nonzero(result.mask)
    assert (x0, y0, x1, y1) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert result.area == np.count_nonzero(result.mask) and 0.5 < result.score <= 1
    assert np.array_equal(result.frame_logits() > 0, result.mask)
    assert result.to_masks().masks.shape == (1, 240, 320)


@pytest.mark.parametrize("prompt", [{"box": (8, 60, 130, 170)}, {"points": [[82, 110]], "labels": [1]}])
def test_boxes_and_clicks_begin_too(seg: tinyseg.Segmenter, moving: Moving, prompt: dict[str, Any]) -> None:
    tracker = seg.tracker()
    tracker.add(1, **prompt, frame=moving(0)[0])
    assert tracker.step(moving(1)[0])[1].visible


def test_a_hidden_object_is_lost_and_comes_back_with_its_id(seg: tinyseg.Segmenter, moving: Moving) -> None:
    tracker = seg.tracker()
    tracker.add(7, mask=moving(0)[1], frame=moving(0)[0])
    for number in range(1, 7):
        result = tracker.step(moving(number)[0])[7]
    box, memory = result.box, tracker._objects[7].memory
    assert memory.last is not None and memory.recent
    for _ in range(6):
        result = tracker.step(moving(AWAY)[0])[7]
        assert not tracker.cut
    # What was seen lately may have been what hides it: only what the caller vouched for is kept.
    assert memory.last is None and not memory.recent and len(memory.prompted) == 1
    assert not result.visible and not result.mask.any() and result.score == 0 and result.area == 0
    assert np.array_equal(result.box, box) and result.lost_for >= 3
    for number in (20, 19, 18):  # elsewhere
        result = tracker.step(moving(number)[0])[7]
    assert result.visible and result.lost_for == 0 and mask_iou(result.mask, moving(18)[1]) > 0.75


def test_a_cut_is_noticed_and_the_object_found_in_the_new_scene(seg: tinyseg.Segmenter, moving: Moving) -> None:
    tracker = seg.tracker()
    tracker.add(1, mask=moving(0)[1], frame=moving(0)[0])
    for number in range(1, 4):
        assert tracker.step(moving(number)[0])[1].visible and not tracker.cut
    night = np.full((240, 320, 3), 15, np.uint8)
    assert not tracker.step(night)[1].visible and tracker.cut
    result = tracker.step(moving(25)[0])[1]
    assert tracker.cut and result.visible and mask_iou(result.mask, moving(25)[1]) > 0.7


def test_at_a_cut_what_was_seen_lately_is_forgotten(seg: tinyseg.Segmenter, moving: Moving) -> None:
    """Also where the object is found in the new scene at once."""
    tracker = seg.tracker()
    tracker.add(1, mask=moving(0)[1], frame=moving(0)[0])
    for number in range(1, 7):
        tracker.step(moving(number)[0])
    memory = tracker._objects[1].memory
    assert memory.recent and not tracker.cut
    frame, mask = moving(7)
    night = np.full_like(frame, 15)
    result = tracker.step(np.where(mask[..., None], frame, night))[1]
    assert tracker.cut and result.visible and not memory.recent and len(memory.prompted) == 1


def test_a_lost_object_is_not_searched_in_the_padding(fake: tinyseg.Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[Any] = []
    monkeypatch.setattr("tinyseg.track.tracker.candidate_box", lambda margins, *_: searched.append(margins.copy()))
    tracker = fake.tracker()
    frame = np.zeros((250, 320, 3), np.uint8)  # 512 x 400 model pixels in an input of 512 x 416
    tracker.add(1, box=(60, 60, 120, 120), frame=frame)
    while not searched:
        tracker.step(frame)
    assert searched[0].shape == (26, 32)
    assert (searched[0][25] == -1.0).all() and (searched[0][:25] > -1.0).all()


def test_a_decoder_of_still_images_gets_no_maps_of_matches(
    fake: tinyseg.Segmenter, untracked_small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(
        "tinyseg.track.hints.match_maps", lambda *_: made.append(1) or np.zeros((4, 20, 20), np.float32)
    )
    frame = np.zeros((240, 320, 3), np.uint8)
    for seg, count in ((tinyseg.load(untracked_small, engine="fake"), 0), (fake, 1)):
        assert has_track_decoder(seg.network) == bool(count)
        tracker = seg.tracker()
        tracker.add(1, box=(60, 60, 120, 120), frame=frame)
        tracker.step(frame)
        assert len(made) == count


def test_objects_come_and_go_while_others_are_followed(seg: tinyseg.Segmenter, moving: Moving) -> None:
    alone, both = seg.tracker(), seg.tracker()
    for tracker in (alone, both):
        tracker.add(1, mask=moving(0)[1], frame=moving(0)[0])
    both.add("corner", box=(250, 10, 310, 60), frame=moving(0)[0])
    assert both.ids == (1, "corner") and len(both) == 2 and "corner" in both
    a, b = alone.step(moving(1)[0]), both.step(moving(1)[0])
    assert list(b) == [1, "corner"] and np.array_equal(a[1].mask, b[1].mask)
    both.remove("corner")
    assert list(both.step(moving(2)[0])) == [1]


def test_neighbours_share_a_view_and_a_decoder_call(seg: tinyseg.Segmenter, moving: Moving) -> None:
    tracker = seg.tracker()
    mask = moving(0)[1]
    tracker.add(1, mask=mask, frame=moving(0)[0])
    left = mask.copy()
    left[:, 80:] = False
    tracker.add(2, mask=mask & ~left, frame=moving(0)[0])
    results = tracker.step(moving(1)[0])
    assert results[1].view == results[2].view


def test_a_correction_replaces_what_was_found_and_is_remembered(seg: tinyseg.Segmenter, moving: Moving) -> None:
    tracker = seg.tracker()
    tracker.add(1, box=(60, 80, 110, 130), frame=moving(0)[0])  # the coffee, not the cup
    for number in (1, 2):
        tracker.step(moving(number)[0])
    frame, mask = moving(2)
    result = tracker.add(1, mask=mask, frame=frame)
    assert np.array_equal(result.mask, mask) and tracker.ids == (1,)
    after = tracker.step(moving(3)[0])[1]
    assert mask_iou(after.mask, moving(3)[1]) > 0.6


def test_clicks_of_one_frame_add_up(seg: tinyseg.Segmenter, moving: Moving) -> None:
    tracker, together = seg.tracker(), seg.tracker()
    for t in (tracker, together):
        t.add(1, mask=moving(0)[1], frame=moving(0)[0])
        t.step(moving(1)[0])
    frame = moving(1)[0]
    tracker.correct(1, points=[[60, 140]], labels=[1], frame=frame)
    one = tracker._objects[1]
    assert one.points == [(60.0, 140.0)]
    tracker.correct(1, points=[[280, 30]], labels=[0], frame=frame)
    assert one.points == [(60.0, 140.0), (280.0, 30.0)] and one.labels == [1.0, 0.0]
    assert len(one.memory.prompted) == 2  # the first frame and this one, not three
    tracker.step(moving(2)[0])
    tracker.correct(1, points=[[90, 140]], labels=[1], frame=moving(2)[0])
    assert one.points == [(90.0, 140.0)]


def test_results_do_not_depend_on_how_frames_come(seg: tinyseg.Segmenter, moving: Moving) -> None:
    frames = [moving(n)[0] for n in range(6)]
    found = []
    buffer = np.empty_like(frames[0])
    for way in ("list", "one buffer"):
        tracker = seg.tracker()
        tracker.add(1, mask=moving(0)[1], frame=frames[0])
        masks = []
        for frame in frames[1:]:
            if way == "one buffer":
                buffer[:] = frame
                masks.append(tracker.step(buffer)[1].mask)
                buffer[:] = 0
            else:
                masks.append(tracker.step(frame)[1].mask)
        found.append(np.stack(masks))
    assert np.array_equal(*found)


def test_memory_is_bounded(seg: tinyseg.Segmenter, moving: Moving) -> None:
    tracker = seg.tracker()
    tracker.add(1, mask=moving(0)[1], frame=moving(0)[0])
    frames = [moving(n)[0] for n in (0, 1, 2, 1)]
    memory = tracker._objects[1].memory
    tracemalloc.start()
    for n in range(40):
        tracker.step(frames[n % 4])
    before = tracemalloc.take_snapshot()
    for n in range(40):
        tracker.step(frames[n % 4])
    grown = sum(s.size_diff for s in tracemalloc.take_snapshot().compare_to(before, "filename"))
    tracemalloc.stop()
    assert grown < 200_000
    assert len(memory.recent) == RECENT_KEPT and len(memory.prompted) == 1
    for _ in range(PROMPTED_KEPT + 3):
        tracker.step(frames[1])
        tracker.correct(1, mask=moving(1)[1], frame=frames[1])
    assert len(memory.prompted) == PROMPTED_KEPT and memory.prompted[0].frame == 0
    assert tracker.memory_bytes <= 1.4 * 2**20


def test_a_saved_tracker_goes_on_alike(seg: tinyseg.Segmenter, moving: Moving, tmp_path: Path) -> None:
    tracker = seg.tracker()
    tracker.add(1, mask=moving(0)[1], frame=moving(0)[0])
    tracker.add("x", box=(250, 10, 310, 60), frame=moving(0)[0])
    for number in range(1, 8):
        tracker.step(moving(number)[0])
    tracker.save(tmp_path / "state.npz")
    other = seg.tracker()
    other.restore(tmp_path / "state.npz")
    assert other.ids == tracker.ids and other.frames == tracker.frames and other.memory_bytes == tracker.memory_bytes
    for number in range(8, 12):
        a, b = tracker.step(moving(number)[0]), other.step(moving(number)[0])
        for id in tracker.ids:
            assert np.array_equal(a[id].mask, b[id].mask) and a[id].visible == b[id].visible
            assert a[id].score == b[id].score and a[id].lost_for == b[id].lost_for


class TestBadInput:
    def test_a_step_before_any_object(self, seg: tinyseg.Segmenter, moving: Moving) -> None:
        with pytest.raises(tinyseg.NotReadyError, match="add"):
            seg.tracker().step(moving(0)[0])

    def test_a_frame_of_another_size(self, seg: tinyseg.Segmenter, moving: Moving) -> None:
        tracker = seg.tracker()
        tracker.add(1, mask=moving(0)[1], frame=moving(0)[0])
        with pytest.raises(tinyseg.FrameError, match=r"100 x 100.*320 x 240"):
            tracker.step(np.zeros((100, 100, 3), np.uint8))
        assert tracker.frames == 0 and tracker.step(moving(1)[0])[1].visible  # nothing was harmed
        tracker.reset()
        tracker.add(1, box=(10, 10, 90, 90), frame=np.zeros((100, 100, 3), np.uint8))

    def test_a_failed_first_add_leaves_no_size(self, seg: tinyseg.Segmenter, moving: Moving) -> None:
        tracker = seg.tracker()
        with pytest.raises(tinyseg.PromptError):
            tracker.add(1, box=(400, 400, 500, 500), frame=np.zeros((100, 100, 3), np.uint8))
        tracker.add(1, mask=moving(0)[1], frame=moving(0)[0])

    def test_unknown_ids(self, seg: tinyseg.Segmenter, moving: Moving) -> None:
        tracker = seg.tracker()
        tracker.add("cup", mask=moving(0)[1], frame=moving(0)[0])
        for call in (lambda: tracker.remove(3), lambda: tracker.correct(3, box=(1, 1, 9, 9), frame=moving(0)[0])):
            with pytest.raises(tinyseg.InputError, match=r"3.*'cup'"):
                call()

    @pytest.mark.parametrize("id", [None, 1.5, True, (1, 2)])
    def test_odd_ids(self, seg: tinyseg.Segmenter, moving: Moving, id: Any) -> None:
        with pytest.raises(tinyseg.InputError, match="whole number or a string"):
            seg.tracker().add(id, box=(1, 1, 9, 9), frame=moving(0)[0])

    def test_empty_and_misshapen_masks(self, seg: tinyseg.Segmenter, moving: Moving) -> None:
        frame = moving(0)[0]
        tracker = seg.tracker()
        with pytest.raises(tinyseg.PromptError, match="empty"):
            tracker.add(1, mask=np.zeros((240, 320), np.bool_), frame=frame)
        with pytest.raises(tinyseg.PromptError, match="frame's shape"):
            tracker.add(1, mask=np.ones((24, 32), np.bool_), frame=frame)
        with pytest.raises(tinyseg.PromptError, match="without points or box"):
            tracker.add(1, mask=moving(0)[1], box=(1, 1, 9, 9), frame=frame)
        with pytest.raises(tinyseg.PromptError, match="empty"):
            tracker.add(1, frame=frame)
        assert len(tracker) == 0

    def test_an_object_that_fills_the_frame(self, seg: tinyseg.Segmenter, moving: Moving) -> None:
        tracker = seg.tracker()
        tracker.add(1, mask=np.ones((240, 320), np.bool_), frame=moving(0)[0])
        result = tracker.step(moving(1)[0])[1]
        assert result.visible and result.mask.mean() > 0.5

    def test_an_object_of_a_single_pixel(self, seg: tinyseg.Segmenter, moving: Moving) -> None:
        mask = np.zeros((240, 320), np.bool_)
        mask[100, 200] = True
        tracker = seg.tracker()
        tracker.add(1, mask=mask, frame=moving(0)[0])
        tracker.step(moving(0)[0])

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("width,height", [(900, 16), (16, 900), (600, 3), (1, 500)])
    def test_very_wide_and_tall_frames(self, seg: tinyseg.Segmenter, root: Path, width: int, height: int) -> None:
        photo = cv2.imread(str(root / "examples" / "coffee.jpg"))
        frame = np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        masks = np.zeros((2, height, width), np.bool_)
        masks[0], masks[1, : (height + 1) // 2, : (width + 1) // 2] = True, True
        tracker = seg.tracker()
        for number, mask in enumerate(masks):
            tracker.add(number, mask=mask, frame=frame)
        for _ in range(5):
            found = tracker.step(frame)
            assert found[0].visible and mask_iou(found[0].mask, masks[0]) > 0.6

    def test_a_tiny_frame(self, seg: tinyseg.Segmenter) -> None:
        frame = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
        tracker = seg.tracker()
        tracker.add(1, box=(1, 1, 5, 6), frame=frame)
        tracker.step(frame)

    def test_state_files(self, seg: tinyseg.Segmenter, moving: Moving, tmp_path: Path) -> None:
        tracker = seg.tracker()
        tracker.add(1, mask=moving(0)[1], frame=moving(0)[0])
        good = tmp_path / "good.npz"
        tracker.save(good)
        data = good.read_bytes()
        bad = tmp_path / "bad.npz"
        for content in (b"", b"no zip", data[: len(data) // 2], data[:-30]):
            bad.write_bytes(content)
            with pytest.raises(tinyseg.DataError):
                tracker.restore(bad)
        with np.load(good) as opened:
            arrays = {name: opened[name] for name in opened.files}
        for change in (
            {"0.box": np.zeros((3, 4))}, {"0.mean": np.zeros(3, np.float32)}, {"0.0.on": np.zeros((2, 128))},
            {"0.mean": np.full(128, np.nan, np.float32)}, {"facts": np.frombuffer(b"[]", np.uint8)},
            {"facts": np.frombuffer(b"{}", np.uint8)}, {"0.box": np.array([[object()] * 4] * 2)},
        ):  # fmt: skip
            np.savez(bad, **{**arrays, **change})
            with pytest.raises(tinyseg.DataError):
                tracker.restore(bad)
        facts = json.loads(arrays["facts"].tobytes())
        object_facts: list[tuple[str, Any]] = [
            (name, value)
            for name in ("frames", "lost_for", "area", "doubts", "prompted_at")
            for value in (float("inf"), float("nan"), -1, 1e999, None, "1")
        ]
        object_facts += [
            ("points", [[float("nan"), 1.0]]), ("labels", [7]), ("snapshots", [["prompted", float("inf")]]),
            ("snapshots", [[[], 0]]), ("snapshots", None), ("id", None), ("visible", None), ("seen", {"side": 320}),
            ("seen", {"side": 320, "region": None}), ("usual", [float("nan")]), ("usual", [1e9]), ("usual", None),
            ("size", None), ("size", [320]), ("size", [1 << 20, 2]), ("objects", None), ("objects", facts["objects"] * 2),
            ("objects", [None]),
        ]  # fmt: skip
        row = facts["objects"][0] | {"points": [[1.0, 1.0]], "labels": [1.0]}
        for name, value in object_facts:
            changed = facts | {name: value} if name in facts else facts | {"objects": [row | {name: value}]}
            np.savez(bad, **{**arrays, "facts": np.frombuffer(json.dumps(changed).encode(), np.uint8)})
            with pytest.raises(tinyseg.DataError, match=r"bad\.npz .*save it again with Tracker\.save$"):
                tracker.restore(bad)
        thin = {name: np.ascontiguousarray(a[..., :3]) for name, a in arrays.items() if a.shape[-1:] == (128,)}
        for change in (
            thin, {"0.box": np.array([[-1e300, -1e300, 1e300, 1e300]] * 3)}, {"0.deviation": np.zeros(128, np.float32)},
            {"0.mean": np.full(128, 1e30, np.float32)}, {"0.0.on": np.full((200_000, 128), 0.08, np.float32)},
            {"0.0.on": np.full((3, 128), 1e30, np.float32)}, {"0.0.on": np.zeros((0, 128), np.float32)},
        ):  # fmt: skip
            np.savez(bad, **{**arrays, **change})
            with pytest.raises(tinyseg.DataError, match=r"bad\.npz .*save it again with Tracker\.save$"):
                tracker.restore(bad)
        np.savez_compressed(bad, **arrays)
        seg.tracker().restore(bad)  # packed anew is no damage
        bad.unlink()
        bad.symlink_to(good)
        seg.tracker().restore(bad)
        no_path: Any
        for no_path in (None, 5, b"x.npz"):
            for call in (tracker.save, tracker.restore):
                with pytest.raises(tinyseg.DataError, match="must be a path"):
                    call(no_path)
        with pytest.raises(tinyseg.DataError, match="another model"):
            tinyseg.load("small", engine="fake").tracker().restore(good)
        with pytest.raises(tinyseg.DataError):
            tracker.restore(tmp_path / "missing.npz")
        assert tracker.ids == (1,)  # what failed changed nothing
