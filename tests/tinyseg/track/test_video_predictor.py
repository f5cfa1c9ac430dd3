"""SAM 2's video calls: shapes, order and meaning as in facebookresearch/sam2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tinyseg
from tests.conftest import mask_iou
from tests.tinyseg.track.conftest import Moving
from tinyseg.sources.clip import KEPT_FRAMES, Clip

FRAMES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, moving: Moving) -> Path:
    path = tmp_path_factory.mktemp("frames")
    for number in range(FRAMES):
        cv2.imwrite(str(path / f"{number}.jpg"), moving(number)[0])
    return path


@pytest.fixture(scope="module")
def predictor(seg: tinyseg.Segmenter) -> tinyseg.SAM2VideoPredictor:
    return tinyseg.SAM2VideoPredictor(seg)


def test_a_box_is_followed_in_both_directions(
    predictor: tinyseg.SAM2VideoPredictor, folder: Path, moving: Moving
) -> None:
    state = predictor.init_state(str(folder))
    assert state["num_frames"] == FRAMES and (state["video_height"], state["video_width"]) == (240, 320)
    mask = moving(4)[1]
    ys, xs = np.nonzero(mask)
    frame, ids, logits = predictor.add_new_points_or_box(
        inference_state=state, frame_idx=4, obj_id="cup", box=np.array([xs.min(), ys.min(), xs.max(), ys.max()])
    )
    assert (frame, ids, logits.shape, logits.dtype) == (4, ["cup"], (1, 1, 240, 320), np.float32)
    assert mask_iou((logits[0] > 0.0).cpu().numpy()[0], mask) > 0.8 and abs(logits).max() <= 32
    onward = list(predictor.propagate_in_video(state))
    assert [f for f, _, _ in onward] == [4, 5, 6, 7]
    back = list(predictor.propagate_in_video(state, reverse=True))
    assert [f for f, _, _ in back] == [4, 3, 2, 1, 0]
    for number, _, found in [*onward, *back]:
        assert mask_iou(np.asarray(found[0, 0] > 0), moving(number)[1]) > 0.7, number


def test_how_many_frames_are_given(predictor: tinyseg.SAM2VideoPredictor, folder: Path, moving: Moving) -> None:
    state = predictor.init_state(folder)
    with pytest.raises(tinyseg.NotReadyError):
        next(predictor.propagate_in_video(state))
    predictor.add_new_mask(state, 0, 1, moving(0)[1])
    assert [f for f, _, _ in predictor.propagate_in_video(state, max_frame_num_to_track=2)] == [0, 1, 2]
    assert list(predictor.propagate_in_video(state, reverse=True)) == []
    frames = predictor.propagate_in_video(state, start_frame_idx=2, max_frame_num_to_track=1)
    assert [f for f, _, _ in frames] == [2, 3]


@pytest.mark.parametrize("reverse", [False, True])
def test_all_frames_prompted_before_the_start_are_remembered(
    predictor: tinyseg.SAM2VideoPredictor, folder: Path, moving: Moving, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trackers: list[tinyseg.Tracker] = []
    make = predictor.model.segmenter.tracker
    monkeypatch.setattr(
        type(predictor.model.segmenter), "tracker", lambda _: trackers.append(tracker := make()) or tracker
    )
    given = [7, 5, 4, 3, 2] if reverse else [0, 2, 3, 4, 5]
    state = predictor.init_state(folder)
    for obj_id, frames in ((1, given[:2]), (2, given), (3, given[1:2])):
        for frame in frames:
            predictor.add_new_mask(state, frame, obj_id, moving(frame)[1])
    start = 1 if reverse else 6
    ((frame, _, found),) = predictor.propagate_in_video(state, start, 0, reverse)
    assert frame == start and all(mask_iou(one[0] > 0, moving(start)[1]) > 0.7 for one in np.asarray(found))
    kept = [one.memory.prompted for one in trackers[0]._objects.values()]
    # The first one for ever, and the newest.
    assert [[s.frame for s in prompted] for prompted in kept] == [[0, 1], [0, 2, 3, 4], [1]]


def test_masks_come_back_as_given(predictor: tinyseg.SAM2VideoPredictor, folder: Path, moving: Moving) -> None:
    state = predictor.init_state(folder)
    mask = moving(1)[1]
    _, _, logits = predictor.add_new_mask(state, 1, 5, mask)
    assert np.array_equal(logits[0, 0], np.where(mask, 10, -10))
    _, ids, logits = predictor.add_new_mask(state, 3, 6, cv2.resize(moving(3)[1].astype(np.float32), (160, 120)))
    assert ids == [5, 6] and logits.shape == (2, 1, 240, 320) and (logits[0] == -1024).all()
    answers = {f: found for f, _, found in predictor.propagate_in_video(state)}
    assert (answers[1][1] == -1024).all() and (answers[3][1] > 0).any()  # not there before it was prompted


def test_clicks_and_coordinates(predictor: tinyseg.SAM2VideoPredictor, folder: Path, moving: Moving) -> None:
    answers = []
    for points, normalize in (([[70, 120]], True), ([[70 / 320, 120 / 240]], False)):
        state = predictor.init_state(folder)
        answers.append(
            predictor.add_new_points_or_box(state, 0, 1, points=points, labels=[1], normalize_coords=normalize)[2]
        )
    assert np.array_equal(*answers)
    predictor.add_new_points_or_box(state, 0, 1, points=[[200, 30]], labels=[0], clear_old_points=False)
    assert len(state.objects[1].points[0]) == 2
    predictor.add_new_points_or_box(state, 0, 1, points=[[71, 120]], labels=[1])
    assert state.objects[1].points[0] == [[71, 120]]
    predictor.add_new_mask(state, 0, 1, moving(0)[1])
    assert 0 not in state.objects[1].points


def test_objects_and_prompts_are_forgotten(predictor: tinyseg.SAM2VideoPredictor, folder: Path, moving: Moving) -> None:
    state = predictor.init_state(folder)
    for obj_id in (1, 2):
        predictor.add_new_mask(state, 0, obj_id, moving(0)[1])
    answer = predictor.clear_all_prompts_in_frame(state, 0, 1)
    assert answer is not None and (answer[2][0] == -1024).all() and (answer[2][1] == answer[2][1]).all()
    assert predictor.clear_all_prompts_in_frame(state, 0, 1, need_output=False) is None
    ids, shown = predictor.remove_object(state, 2)
    assert ids == [1] and [f for f, _ in shown] == [0] and shown[0][1].shape == (1, 1, 240, 320)
    assert predictor.remove_object(state, 9) == ([1], [])
    with pytest.raises(tinyseg.InputError, match="9"):
        predictor.remove_object(state, 9, strict=True)
    predictor.reset_state(state)
    assert state["obj_ids"] == []


@pytest.mark.parametrize(
    "given",
    [
        {}, {"points": [[1, 1]]}, {"labels": [1]}, {"points": [[1, 1]], "labels": [1, 0]},
        {"box": [1, 1, 9, 9], "clear_old_points": False}, {"points": "a", "labels": [1]},
        {"box": [1, 2, 3]}, {"box": 5}, {"points": [1, 2, 3], "labels": [1]}, {"points": [[1, 2, 3, 4]], "labels": [1, 1]},
        {"points": 1, "labels": [1]},
    ],
)  # fmt: skip
def test_prompts_that_cannot_be(predictor: tinyseg.SAM2VideoPredictor, folder: Path, given: dict[str, Any]) -> None:
    state = predictor.init_state(folder)
    with pytest.raises(tinyseg.InputError):
        predictor.add_new_points_or_box(state, 0, 1, **given)
    assert state["obj_ids"] == []


def test_states_and_frames_that_are_none(predictor: tinyseg.SAM2VideoPredictor, folder: Path) -> None:
    state = predictor.init_state(folder)
    with pytest.raises(tinyseg.InputError, match="frame_idx"):
        predictor.add_new_points_or_box(state, FRAMES, 1, points=[[1, 1]], labels=[1])
    not_a_state: Any = {}
    with pytest.raises(tinyseg.InputError, match="init_state"):
        predictor.reset_state(not_a_state)
    with pytest.raises(tinyseg.DataError):
        predictor.init_state(folder / "missing.mp4")
    with pytest.raises(tinyseg.ModelError, match="yaml"):
        tinyseg.build_sam2_video_predictor("configs/sam2.1/sam2.1_hiera_t.yaml")


@pytest.mark.parametrize(
    "given,shape",
    [({"box": [1, 2, 3]}, r"\(3,\)"), ({"points": [1, 2, 3], "labels": [1]}, r"\(3,\)"),
     ({"points": [[1, 2, 3, 4]], "labels": [1, 1]}, r"\(1, 4\)")],
)  # fmt: skip
def test_misshapen_prompts_are_told_with_their_shape(
    predictor: tinyseg.SAM2VideoPredictor, folder: Path, given: dict[str, Any], shape: str
) -> None:
    with pytest.raises(tinyseg.PromptError, match=shape):
        predictor.add_new_points_or_box(predictor.init_state(folder), 0, 1, **given)


def test_ids_that_cannot_be(predictor: tinyseg.SAM2VideoPredictor, folder: Path, moving: Moving) -> None:
    state = predictor.init_state(folder)
    odd: Any = [1]
    for call in (
        lambda: predictor.add_new_points_or_box(state, 0, odd, points=[[1, 1]], labels=[1]),
        lambda: predictor.add_new_mask(state, 0, odd, moving(0)[1]),
        lambda: predictor.clear_all_prompts_in_frame(state, 0, odd),
        lambda: predictor.remove_object(state, odd),
    ):
        with pytest.raises(tinyseg.InputError, match=r"obj_id must be hashable.*\[1\]"):
            call()


def test_frames_of_another_size_are_named(
    predictor: tinyseg.SAM2VideoPredictor, tmp_path: Path, moving: Moving
) -> None:
    for number in range(3):
        frame = moving(number)[0]
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), frame[:200] if number == 2 else frame)
    state = predictor.init_state(tmp_path)
    predictor.add_new_mask(state, 0, 1, moving(0)[1])
    expected = r"frame 2 \(2\.jpg\) has 320 x 200 pixels, but the first one has 320 x 240"
    with pytest.raises(tinyseg.DataError, match=expected):
        list(predictor.propagate_in_video(state))
    with pytest.raises(tinyseg.DataError, match=expected):
        predictor.add_new_points_or_box(state, 2, 1, box=[1, 1, 9, 9])


def test_a_video_file_gives_each_frame_forwards_and_backwards(root: Path) -> None:
    capture = cv2.VideoCapture(str(root / "examples" / "clip.mp4"))
    frames = []
    while True:
        there, frame = capture.read()
        if not there:
            break
        frames.append(frame)
    clip = Clip(root / "examples" / "clip.mp4")
    assert len(clip) == len(frames) and (clip.height, clip.width) == frames[0].shape[:2]
    for number in (*range(len(frames)), *reversed(range(len(frames)))):
        assert np.array_equal(clip[number], frames[number]), number
        assert len(clip._kept) <= KEPT_FRAMES
    clip.close()


def test_images_are_ordered_by_number(tmp_path: Path) -> None:
    for number in (2, 10, 1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    clip = Clip(tmp_path)
    assert [int(clip[i][0, 0, 0]) for i in range(3)] == [1, 2, 10]
