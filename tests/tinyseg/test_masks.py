from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tinyseg.images import read_image, write_image
from tinyseg.masks import encode_rle, most_interior, polygons
from tinyseg.pixels import check_frame
from tinyseg.predict.workspace import Workspace


def random_masks() -> list[NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    masks = [
        rng.random((h, w)) < p for h, w, p in [(7, 5, 0.5), (40, 61, 0.02), (40, 61, 0.98), (1, 9, 0.5), (9, 1, 0.5)]
    ]
    blob = np.zeros((120, 200), np.bool_)
    blob[10:100, 20:180] = True
    blob[40:60, 50:90] = False  # a hole
    blob[110:118, 3:9] = True  # a second part
    return [*masks, blob, np.zeros((6, 8), np.bool_), np.ones((6, 8), np.bool_)]


@pytest.mark.parametrize("index", range(8))
def test_coco_rle_is_what_pycocotools_writes_and_reads(index: int) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    mask = random_masks()[index]
    rle = encode_rle(mask)
    np.testing.assert_array_equal(coco.decode(rle).astype(bool), mask)
    assert rle["counts"].encode() == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


@pytest.mark.parametrize("index", [1, 5, 6, 7])
def test_polygons_fill_to_the_same_mask(index: int) -> None:
    mask = random_masks()[index]
    again = np.zeros(mask.shape, np.uint8)
    outlines = polygons(mask)
    if outlines:
        cv2.fillPoly(again, outlines, 1)
    np.testing.assert_array_equal(again.astype(bool), mask)


@pytest.fixture
def answer(fake: tinyseg.Segmenter) -> tinyseg.Masks:
    return fake.embed(np.zeros((60, 80, 3), np.uint8)).predict(box=[10, 20, 50, 40], zoom="off")


def test_cutout_keeps_the_object_and_turns_bgr_to_rgba(answer: tinyseg.Masks) -> None:
    frame = np.full((60, 80, 3), (10, 20, 30), np.uint8)
    picture = answer.cutout(frame)
    assert picture.shape == (60, 80, 4) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[..., 3] == 255, answer.masks[0])
    assert picture[30, 30].tolist() == [30, 20, 10, 255] and picture[0, 0, 3] == 0
    assert answer.cutout(frame, color="rgb")[30, 30].tolist() == [10, 20, 30, 255]
    assert answer.cutout(frame[..., 0])[30, 30].tolist() == [10, 10, 10, 255]
    with pytest.raises(tinyseg.FrameError, match="made for"):
        answer.cutout(frame[:30])
    with pytest.raises(tinyseg.InputError, match="index"):
        answer.cutout(frame, index=3)


def test_boxes_and_areas_describe_the_masks(answer: tinyseg.Masks) -> None:
    assert len(answer) == 3 and answer.best == 0
    np.testing.assert_array_equal(answer.areas, answer.masks.sum((1, 2)))
    np.testing.assert_array_equal(answer.boxes[0], [10, 20, 50, 40])
    assert [len(p) for p in answer.to_polygons()] == [1, 1, 1]
    assert [r["size"] for r in answer.to_coco()] == [[60, 80]] * 3


def test_supervision_takes_the_answer(answer: tinyseg.Masks) -> None:
    pytest.importorskip("supervision", reason="supervision is not installed (pip install 'tinyseg[supervision]')")
    found = answer.to_supervision()
    assert len(found) == 3 and found.mask is not None and found.mask.shape == (3, 60, 80)
    np.testing.assert_array_equal(found.xyxy, answer.boxes)


def test_missing_supervision_is_named(answer: tinyseg.Masks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(tinyseg.NotInstalled, match="pip install"):
        answer.to_supervision()


def test_one_line_says_what_there_is(answer: tinyseg.Masks) -> None:
    assert str(answer).startswith("Masks(3 of 80 x 60 pixels, scores ") and "\n" not in str(answer)
    assert "box (10, 20, 50, 40), 800 px" in repr(answer)


def test_plot_and_save_know_the_frame(fake: tinyseg.Segmenter, tmp_path: Path) -> None:
    frame = np.full((60, 80, 3), 90, np.uint8)
    write_image(tmp_path / "photo.png", frame)
    out = fake(tmp_path / "photo.png", box=(10, 20, 50, 40), zoom="off")
    picture = out.plot()
    assert picture.shape == (60, 80, 3) and (picture[30, 30] != 90).any() and (picture[55, 70] == 90).all()
    assert np.array_equal(read_image(out.save(tmp_path / "new" / "out.png")), picture)
    grey = fake(frame[..., 0], box=(10, 20, 50, 40), zoom="off")
    assert np.array_equal(grey.plot(), picture)
    assert np.array_equal(fake(frame, points=[[30, 30]], labels=[1]).plot(index=2).shape, (60, 80, 3))
    with pytest.raises(tinyseg.FrameError, match="made for"):
        out.plot(frame[:30])
    with pytest.raises(tinyseg.DataError, match="cannot be read"):
        fake("nowhere.jpg", box=(1, 1, 9, 9))


def test_a_loops_masks_ask_for_the_frame(fake: tinyseg.Segmenter) -> None:
    frame = np.full((60, 80, 3), 90, np.uint8)
    (out,) = fake.run(frame, [tinyseg.Prompt(box=(10, 20, 50, 40))], Workspace())
    with pytest.raises(tinyseg.InputError, match="give it"):
        out.plot()
    assert out.plot(frame).shape == frame.shape


def test_one_of_several_is_all_that_it_was(fake: tinyseg.Segmenter) -> None:
    masks = fake.embed(np.zeros((240, 320, 3), np.uint8)).predict(box=[100, 100, 130, 130])
    assert masks.zoom is not None and len(masks) == 3
    one = masks.only(1)
    np.testing.assert_array_equal(one.plot(), masks.plot(index=1))
    assert len(one) == 1 and one.zoom == masks.zoom and one.scores[0] == masks.scores[1]
    np.testing.assert_array_equal(one.logits[0], masks.logits[1])


def test_where_nothing_was_found_that_is_told(answer: tinyseg.Masks) -> None:
    none = tinyseg.Masks(
        answer.masks[:0], answer.scores[:0], answer.logits[:0], answer.boxes[:0], answer.areas[:0],
        answer.stability[:0], frame=answer.frame,
    )  # fmt: skip
    frame = np.zeros((60, 80, 3), np.uint8)
    asked: list[Callable[[], object]] = [
        lambda: none.best, none.plot, lambda: none.cutout(frame), lambda: none.only(0), lambda: tinyseg.cut_out(frame, none),
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(tinyseg.InputError, match="there is no mask"):
            ask()


@pytest.mark.parametrize(
    "color, channels", [("bgr", (0, 1, 2)), ("rgb", (2, 1, 0)), ("bgra", (0, 1, 2)), ("rgba", (2, 1, 0))]
)
def test_frames_become_bgr(color: str, channels: tuple[int, int, int]) -> None:
    frame = np.arange(2 * 3 * len(color), dtype=np.uint8).reshape(2, 3, len(color))
    np.testing.assert_array_equal(check_frame(frame, color).to_bgr(), frame[..., channels])


def test_the_most_interior_pixel_is_in_the_middle() -> None:
    region = np.zeros((40, 60), np.bool_)
    region[10:21, 30:41] = True
    assert most_interior(region) == (35, 15)
    assert most_interior(np.ones((5, 5), np.bool_)) == (2, 2)  # the frame's border counts as outside
