from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.tinyseg.serve.conftest import SIZE, drawn_source, until
from tinyseg.errors import DataError, InputError, PromptError
from tinyseg.prompts import Prompt
from tinyseg.serve.capture import Capture
from tinyseg.serve.live import Live, NotThere, Unavailable
from tinyseg.serve.picture import Picture
from tinyseg.serve.recording import Recording
from tinyseg.sources import ArraySource, Source, SyntheticSource

BOX = Prompt(box=[100, 60, 200, 160])


def test_a_file_waits_on_its_first_frame(live: Live) -> None:
    first = live.latest
    assert first is not None and first.status == "paused" and first.frame == 1 and first.size == (SIZE[1], SIZE[0])
    assert live.play().result(5) == "playing"
    assert until(lambda: live.latest.frame > 5)
    assert live.pause().result(5) == "paused"
    held = until(lambda: live.latest if live.latest.status == "paused" else None).frame
    assert live.step().result(5) == "paused"
    assert until(lambda: live.latest.frame == held + 1)


def test_an_object_is_followed_corrected_renamed_and_removed(live: Live) -> None:
    made = live.add(BOX).result(5)
    assert made.id == 1 and made.name == "object 1" and made.visible and made.box == (100, 60, 200, 160)
    assert until(lambda: live.latest.objects) == (made,)
    smaller = live.correct(1, Prompt([[150, 110]], [0])).result(5)
    assert 0 < smaller.area < made.area
    renamed = live.edit(1, " cup ", "#00ff00").result(5)
    assert renamed.name == "cup" and renamed.color == "#00ff00" and renamed.counts == smaller.counts
    live.remove(1).result(5)
    assert until(lambda: not live.latest.objects)
    assert live.add(BOX).result(5).id == 2  # a number never comes back


def test_what_cannot_be_done_says_so_and_changes_nothing(live: Live) -> None:
    live.add(BOX).result(5)
    before = until(lambda: live.latest.objects)
    for future, error, says in [
        (live.add(Prompt([[999, 1]], [1])), PromptError, "outside the frame"),
        (live.add(BOX, name="a\nb"), InputError, "printable"),
        (live.add(BOX, frame=77), NotThere, "not kept"),
        (live.correct(9, BOX), NotThere, "no object 9"),
        (live.edit(9, name="x"), NotThere, "no object 9"),
        (live.remove(9), NotThere, "no object 9"),
        (live.stop_recording(), InputError, "no recording"),
    ]:
        with pytest.raises(error, match=says):
            future.result(5)
    assert live.latest is not None and live.latest.objects == before
    for _ in range(31):
        live.add(BOX).result(5)
    with pytest.raises(InputError, match="32 objects"):
        live.add(BOX).result(5)


def test_a_click_means_the_picture_that_was_clicked(make_live: Callable[..., Live]) -> None:
    live = make_live(playing=True)
    shown = until(lambda: live.latest)
    assert live.add(BOX, frame=shown.frame).result(5).visible
    assert until(lambda: live.latest.frame > shown.frame + 10).__class__ is bool
    with pytest.raises(NotThere, match="point at the newest"):
        live.add(BOX, frame=shown.frame).result(5)


def test_the_end_and_again(make_live: Callable[..., Live]) -> None:
    live = make_live(lambda: drawn_source(3), playing=True)
    live.add(BOX).result(5)
    assert until(lambda: live.latest and live.latest.status == "ended")
    assert live.frames == 3
    with pytest.raises(InputError, match="no further frame"):
        live.step().result(5)
    live.play().result(5)
    assert until(lambda: live.frames == 6 and live.latest.status == "ended")
    assert live.latest is not None and len(live.latest.objects) == 1  # followed on


def test_repeat_goes_on_and_an_empty_source_is_not_opened_for_ever(make_live: Callable[..., Live]) -> None:
    live = make_live(lambda: drawn_source(2), playing=True, repeat=True)
    assert until(lambda: live.frames > 7)
    opened = []

    def nothing() -> ArraySource:
        opened.append(1)
        return ArraySource([])

    empty = make_live(nothing, playing=True, repeat=True)
    assert until(lambda: empty.latest and empty.latest.status == "ended") and len(opened) == 1


def test_a_source_that_fails_is_told_and_can_be_opened_again(make_live: Callable[..., Live]) -> None:
    def broken() -> Iterable[np.ndarray]:
        yield np.zeros((40, 60, 3), np.uint8)
        raise DataError("the camera is gone")

    live = make_live(lambda: ArraySource(broken()), playing=True)
    failed = until(lambda: live.latest if live.latest and live.latest.status == "failed" else None)
    assert failed.message == "the camera is gone" and live.running
    live.play().result(5)
    assert until(lambda: live.frames == 2 and live.latest.status == "failed")


def test_another_picture_size_lets_objects_go(make_live: Callable[..., Live]) -> None:
    pictures = [np.zeros((60, 80, 3), np.uint8), np.zeros((90, 80, 3), np.uint8)]
    live = make_live(lambda: ArraySource(pictures))
    until(lambda: live.latest)
    live.add(Prompt(box=[10, 10, 30, 30])).result(5)
    live.step().result(5)
    told = until(lambda: live.latest if live.latest.frame == 2 else None)
    assert told.size == (90, 80) and not told.objects and "let go" in told.message
    assert live.add(Prompt(box=[10, 10, 30, 80])).result(5).visible


def test_a_camera_drops_what_nobody_could_take(make_live: Callable[..., Live]) -> None:
    live = make_live(lambda: SyntheticSource(*SIZE, frame_rate=200.0, live=True))
    assert until(lambda: live.latest and live.latest.status == "playing")  # a camera never waits
    live.pause().result(5)
    held = until(lambda: live.latest if live.latest.status == "paused" else None)
    live.play().result(5)
    assert until(lambda: live.latest.frame > held.frame)


def test_a_recording_is_whole(make_live: Callable[..., Live], tmp_path: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    live = make_live(lambda: drawn_source(12))
    until(lambda: live.latest)
    made = live.add(BOX, name="Tür").result(5)
    assert live.record().result(5).running
    with pytest.raises(InputError, match="running already"):
        live.record().result(5)
    live.play().result(5)
    until(lambda: live.latest.status == "ended")
    live.stop_recording().result(5)
    done = until(lambda: live.recording(1).state if not live.recording(1).state.running else None)
    assert done.message == "" and done.lost == 0 and done.frames == 11
    video = cv2.VideoCapture(str(live.recording(1).video))
    pictures = [picture for there, picture in iter(video.read, (False, None)) if there]
    assert len(pictures) == 11 and pictures[0].shape == (SIZE[1], SIZE[0], 3)
    document = json.loads(live.recording(1).masks.read_text())
    assert len(document["images"]) == 11 == len(document["annotations"])
    assert document["categories"] == [{"id": 1, "name": "Tür"}]
    assert len({row["id"] for row in document["annotations"]}) == 11
    assert [r["image_id"] for r in document["annotations"]] == [i["id"] for i in document["images"]] == [*range(1, 12)]
    mask = pycocotools.decode(document["annotations"][3]["segmentation"])
    assert mask.sum() == made.area and document["annotations"][3]["bbox"] == [100, 60, 100, 100]
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".mp4"]  # no parts are left
    with pytest.raises(NotThere, match="no recording 7"):
        live.recording(7)


@pytest.mark.parametrize("keep", [True, False])
def test_old_recordings_go_only_where_nobody_named_the_folder(
    keep: bool, make_live: Callable[..., Live], tmp_path: Path
) -> None:
    live = make_live(playing=True, keep=keep)
    for number in range(1, 11):
        live.record().result(5)
        assert until(lambda n=number: live.recording(n).state.frames)
        live.stop_recording().result(5)
    assert [one.number for one in live.recordings()] == [*range(3, 11)]
    kept = 10 if keep else 8
    # Files get their names when they are whole, each in a thread of its own.
    assert until(lambda: not [*tmp_path.glob(".*")] and not any(one.state.running for one in live.recordings()))
    assert len([*tmp_path.glob("*.mp4")]) == len([*tmp_path.glob("*.json")]) == kept


@pytest.mark.parametrize(
    ("limit", "value", "says"), [("RECORDED_BYTES", 0, "its limit"), ("DISK_RESERVE_BYTES", 1 << 62, "disk is full")]
)
def test_a_recording_ends_where_it_would_take_too_much(
    limit: str, value: int, says: str, make_live: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyseg.serve.recording.DISK_CHECK_FRAMES", 3)
    live = make_live(lambda: drawn_source(40))
    until(lambda: live.latest)
    live.add(BOX).result(5)
    live.record().result(5)
    assert until(lambda: live.latest and live.recording(1)) is not None
    monkeypatch.setattr(f"tinyseg.serve.recording.{limit}", value)
    live.play().result(5)
    done = until(lambda: live.recording(1).state if not live.recording(1).state.running else None)
    assert says in done.message and done.frames % 3 == 0


def test_a_recording_that_runs_at_the_end_is_finished(make_live: Callable[..., Live]) -> None:
    live = make_live(playing=True)
    live.record().result(5)
    assert until(lambda: live.recording(1).state.frames > 2)
    live.stop()
    assert json.loads(live.recording(1).masks.read_text())["images"] and live.recording(1).video.stat().st_size > 100
    with pytest.raises(Unavailable):
        live.play()


def picture(width: int, height: int) -> Picture:
    return Picture(np.full((height, width, 3), 90, np.uint8), ())


def test_a_recording_of_odd_size_loses_nothing(tmp_path: Path) -> None:
    recording = Recording(tmp_path, 1, "r", 30.0, wait=True)
    recording.add(picture(63, 49), ())
    recording.finish()
    recording.join()
    assert recording.state.message == "" and recording.state.frames == 1
    there, frame = cv2.VideoCapture(str(recording.video)).read()
    assert there and frame.shape == (50, 64, 3) and abs(int(frame[-1, -1, 0]) - 90) < 8
    assert json.loads(recording.masks.read_text())["images"][0]["width"] == 63


def test_a_recording_ends_where_the_pictures_size_changes(tmp_path: Path) -> None:
    recording = Recording(tmp_path, 1, "r", 30.0, wait=True)
    for size in ((64, 48), (64, 48), (48, 64)):
        recording.add(picture(*size), ())
    until(lambda: not recording.state.running)
    assert "size changed" in recording.state.message and recording.state.frames == 2 and recording.video.exists()


def test_frames_that_a_recording_is_too_slow_for_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.serve.recording.WAITING_FRAMES", 1)
    go_on = threading.Event()
    masked = Picture.masked

    def slow(self: Picture) -> object:
        assert go_on.wait(20)
        return masked(self)

    monkeypatch.setattr(Picture, "masked", slow)
    recording = Recording(tmp_path, 1, "r", 30.0, wait=False)
    for _ in range(6):
        recording.add(picture(64, 48), ())
    go_on.set()
    recording.finish()
    recording.join()
    assert recording.state.lost >= 3 and recording.state.frames + recording.state.lost == 6


class Hangs(Source):
    """A camera that gives a frame, then hangs until it is told to go on."""

    live = True

    def __init__(self, value: int) -> None:
        super().__init__()
        self.value = value
        self.hanging, self.go_on, self.closed = (threading.Event() for _ in range(3))

    def read(self) -> NDArray[np.uint8] | None:
        if self._count == 1:
            self.hanging.set()
            assert self.go_on.wait(20)
        return np.full((4, 4, 3), self.value, np.uint8)

    def close(self) -> None:
        self.closed.set()


def test_a_camera_that_hung_gives_no_frames_once_it_was_opened_again() -> None:
    old, new = Hangs(1), Hangs(2)
    sources = iter([old, new])
    capture = Capture(lambda: next(sources))
    assert old.hanging.wait(5)
    capture.restart()
    assert new.hanging.wait(5)
    frame = capture.next(5)
    assert frame is not None and frame.pixels[0, 0, 0] == 2
    old.go_on.set()
    assert old.closed.wait(5)  # it is let go at once, not read on
    assert capture.next(0.05) is None
    new.go_on.set()
    frame = capture.next(5)
    assert frame is not None and frame.pixels[0, 0, 0] == 2
    capture.close()
