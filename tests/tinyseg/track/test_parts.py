"""Views, memory, presence and cuts by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from tinyseg.geometry import letterbox
from tinyseg.pixels import check_frame, shrink_mask
from tinyseg.track.cuts import CutDetector
from tinyseg.track.hints import hint_box, read_out
from tinyseg.track.memory import Cells, Memory, coverage, view_cells
from tinyseg.track.presence import Presence, candidate_box, to_score
from tinyseg.track.tracker import mask_box
from tinyseg.track.views import SIDES, plan_views


def box(x: float, y: float, side: float) -> np.ndarray:
    return np.array([x, y, x + side, y + side])


def test_one_object_gets_a_crop_of_its_own() -> None:
    (look,) = plan_views([box(600, 300, 100)], 1280, 720, 512)
    assert look.members == (0,) and look.view.region == (570, 270, 730, 430) and look.view.input == (320, 320)


def test_neighbours_of_a_size_share_one_and_others_do_not() -> None:
    near = plan_views([box(600, 300, 100), box(610, 310, 85)], 1280, 720, 512)
    assert [look.members for look in near] == [(0, 1)]
    for other in (
        box(100, 100, 100),
        box(640, 340, 20),
        box(690, 300, 100),
    ):  # far; far smaller; cut by the crop's edge
        assert len(plan_views([box(600, 300, 100), other], 1280, 720, 512)) == 2


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9, 16])
def test_crops_shrink_as_they_become_more(count: int) -> None:
    looks = plan_views([box(70 * i, 40 * i, 40) for i in range(count)], 1280, 720, 512)
    side = next(s for most, s in SIDES if count <= most)
    assert len(looks) == count and {look.view.input for look in looks} == {(side, side)}
    assert sorted(i for look in looks for i in look.members) == list(range(count))


def test_a_crowd_is_served_by_the_whole_frame() -> None:
    (look,) = plan_views([box(70 * i, 40 * i, 40) for i in range(17)], 1280, 720, 512)
    assert look.view.whole_frame and look.view.input == (512, 288) and len(look.members) == 17


def test_memory_reads_what_it_was_told() -> None:
    rng = np.random.default_rng(0)
    on, off, strange = rng.normal(size=(3, 16)).astype(np.float32) * 3
    raw = np.stack([on, on, off, off]).astype(np.float32) + rng.normal(size=(4, 16)).astype(np.float32) * 0.1
    cells = Cells(raw, np.ones(4, np.bool_), 2, 2)
    memory = Memory.of_first(cells)
    keys = memory.keys(cells)
    assert np.allclose(np.linalg.norm(keys, axis=1), 1, atol=1e-5)
    share = np.array([1, 0.9, 0, 0.1], np.float32)
    memory.learn_prompted(0, keys, share, cells.inside)
    read = memory.read(keys)
    assert (read.all[:2] > 0.2).all() and (read.all[2:] < -0.2).all() and np.array_equal(read.all, read.prompted)
    # What was never seen is ground.
    unseen = memory.keys(Cells(np.stack([strange] * 4), cells.inside, 2, 2))
    assert (memory.read(unseen).all < 0).all()
    assert memory.likeness(keys, share, cells.inside) > 1.5 > memory.likeness(keys, 1 - share, cells.inside)
    assert memory.likeness(keys, share * 0, cells.inside * False) == -2.0


def test_an_object_in_the_last_sliver_of_a_frame_is_remembered_by_the_cells_that_it_touches() -> None:
    raw = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
    cells = Cells(raw, np.array([True] * 4 + [False] * 2), 3, 2)  # the last row has content, but not at its middle
    memory = Memory.of_first(cells)
    keys = memory.keys(cells)
    memory.learn_prompted(0, keys, np.array([0, 0, 0, 0, 0.4, 0], np.float32), cells.inside)
    assert np.array_equal(memory.prompted[0].foreground, keys[4:5])
    assert np.array_equal(memory.prompted[0].background, keys[:4])


@pytest.mark.parametrize("width,height", [(900, 16), (3, 600), (1, 500)])
def test_a_thin_crop_has_cells_that_can_be_covered(width: int, height: int) -> None:
    view = letterbox(width, height, 320, square=True)
    cells = view_cells({"embedding": np.zeros((1, 8, 20, 20), np.float32)}, view)
    across = np.arange(20) == 0 if width < height else np.ones(20, np.bool_)
    down = np.arange(20) == 0 if height < width else np.ones(20, np.bool_)
    assert np.array_equal(cells.inside.reshape(20, 20), down[:, None] & across)
    covered = coverage(shrink_mask(np.ones((height, width), np.bool_), view), view)
    assert np.allclose(covered, cells.inside)
    assert np.array_equal(coverage(np.ones(view.grid, np.float32), view), cells.inside)  # padding counts nothing


def test_hints_and_boxes() -> None:
    view = letterbox(160, 160, 320, square=True)
    margins = np.full((20, 20), -0.3, np.float32)
    margins[5:10, 5:15] = 0.3
    margins[18, 18] = 0.3  # too small a part to widen the box
    hint = read_out(margins.ravel(), Cells(margins, np.ones(400, np.bool_), 20, 20))
    assert hint.shape == (80, 80) and hint.max() == 6 and hint.min() == -6
    found = hint_box(hint, view)
    assert found is not None and np.abs(found - (40 - 2.4, 40 - 1.2, 120 + 2.4, 80 + 1.2)).max() < 3
    assert hint_box(-np.abs(hint), view) is None
    assert coverage((hint > 0).astype(np.float32), view).reshape(20, 20)[6, 7] == 1.0
    mask = np.zeros((9, 9), np.bool_)
    mask[2:4, 5] = True
    assert mask_box(mask).tolist() == [5, 2, 6, 4]


def test_presence_needs_several_doubts_and_comes_back_by_likeness_and_size() -> None:
    presence = Presence(area=1000)
    assert presence.see(1.8, 1000, False) and presence.sure
    assert presence.see(0.2, 1000, False) and not presence.sure
    assert presence.see(0.2, 1000, False) and not presence.see(0.2, 1000, False)
    assert presence.lost_for == 1 and not presence.visible
    assert not presence.see(1.0, 1000, True) and not presence.see(1.9, 20_000, True) and presence.lost_for == 3
    assert presence.see(1.9, 900, True) and presence.lost_for == 0 and presence.sure
    assert not presence.see(1.9, 0, False)  # an empty mask
    assert (to_score(-2), to_score(2)) == (0.0, 1.0) and 0 < to_score(1.2) < 1


def test_a_candidate_is_the_best_part_of_the_frame() -> None:
    whole = letterbox(512, 288, 512)
    margins = np.full((18, 32), -0.2, np.float32)
    margins[3, 4], margins[10:12, 20:22] = 0.1, 0.2
    found = candidate_box(margins, whole, box(0, 0, 40))
    assert found is not None and found[0] < 330 < found[2] and found[1] < 176 < found[3]
    assert candidate_box(np.minimum(margins, 0), whole, box(0, 0, 40)) is None


def test_cuts_and_what_is_none() -> None:
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (120, 400, 3)).astype(np.uint8)
    ground = np.repeat(np.repeat(ground[::24, ::24], 24, 0), 24, 1)
    cuts = CutDetector()
    for shift in range(0, 36, 2):  # a camera that pans
        assert not cuts.see(check_frame(np.ascontiguousarray(ground[:, shift : shift + 160]), "bgr"))
    assert cuts.see(check_frame(255 - ground[:, 36:196], "bgr"))
    assert not cuts.see(check_frame(255 - ground[:, 38:198], "bgr"))


def test_fast_motion_is_not_cut_in_every_frame() -> None:
    """A camera that turns fast from its first frame on, or after it stood still: two cuts at most, not one a frame."""
    rng = np.random.default_rng(0)
    far = [np.ascontiguousarray(rng.integers(0, 256, (90, 160, 3), np.uint8)) for _ in range(12)]
    for frame in far:
        frame[:] = np.kron(rng.integers(0, 256, (9, 16, 3)), np.ones((10, 10, 1)))
    cuts = CutDetector()
    assert not any(cuts.see(check_frame(frame, "bgr")) for frame in far)
    cuts = CutDetector()
    assert not any(cuts.see(check_frame(far[0], "bgr")) for _ in range(6))
    seen = [cuts.see(check_frame(frame, "bgr")) for frame in far[1:]]
    assert seen[0] and sum(seen) <= 2
    assert not any(cuts.see(check_frame(far[0], "bgr")) for _ in range(12)) and cuts.see(check_frame(far[1], "bgr"))
