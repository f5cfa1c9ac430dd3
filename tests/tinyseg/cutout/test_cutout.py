from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tests.conftest import ellipse, mask_iou
from tinyseg.cli import main
from tinyseg.cutout import Follower, open_background, united
from tinyseg.cutout.alpha import cut_out_mask, guided_filter, soft_alpha
from tinyseg.cutout.background import blurred, fill
from tinyseg.cutout.saliency import candidates
from tinyseg.errors import FrameError, InputError
from tinyseg.images import write_image

FAKE = ["--engine", "fake"]
FRONT, BACK = np.array([30.0, 120, 230]), np.array([150.0, 90, 40])


@pytest.fixture(scope="module")
def blended() -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
    """A frame mixed of two colours by a known soft alpha, that alpha, and a mask whose edge is off by up to 3 pixels."""
    y, x = np.mgrid[0:240, 0:320] + 0.5
    distance = 70 - np.hypot(x - 160, y - 120)
    alpha = np.clip(distance / 6 + 0.5, 0, 1).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 2, (240, 320, 3))
    frame = np.clip(alpha[..., None] * FRONT + (1 - alpha[..., None]) * BACK + noise, 0, 255).astype(np.uint8)
    wobble = 3 * np.sin(np.arctan2(y - 120, x - 160) * 9)
    return frame, alpha, distance + wobble > 0


def test_a_soft_edge_is_nearer_the_truth_than_the_mask(
    blended: tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]],
) -> None:
    frame, alpha, mask = blended
    found = soft_alpha(frame, mask, 6)
    hard, soft = np.abs(mask - alpha).mean(), np.abs(found - alpha).mean()
    assert soft < 0.6 * hard
    assert found.min() == 0 and found.max() == 1 and found[120, 160] == 1 and found[5, 5] == 0


def test_the_edge_keeps_the_objects_colour(
    blended: tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]],
) -> None:
    frame, alpha, mask = blended
    cutout = cut_out_mask(frame, mask, 6)
    edge = (cutout.alpha > 0.2) & (cutout.alpha < 0.8) & (np.abs(cutout.alpha - alpha) < 0.2)
    assert edge.sum() > 300
    mixed = np.abs(frame[edge] - FRONT).mean()
    assert np.abs(cutout.foreground[edge] - FRONT).mean() < 0.4 * mixed
    np.testing.assert_array_equal(cutout.foreground[cutout.alpha == 1], frame[cutout.alpha == 1])
    green = cutout.over(np.full_like(frame, (0, 255, 0)))
    assert (green[cutout.alpha == 0] == (0, 255, 0)).all()


def test_the_guided_filter_of_large_frames_is_that_of_small_ones() -> None:
    guide = cv2.resize(np.random.default_rng(1).random((20, 30, 3)).astype(np.float32), (1500, 1000))
    values = (guide[..., 0] > 0.5).astype(np.float32)
    small = guided_filter(cv2.resize(guide, (750, 500), interpolation=cv2.INTER_AREA),
                          cv2.resize(values, (750, 500), interpolation=cv2.INTER_AREA), 8, 1e-3)  # fmt: skip
    large = guided_filter(guide, values, 16, 1e-3)
    assert np.abs(cv2.resize(large, (750, 500), interpolation=cv2.INTER_AREA) - small).mean() < 0.01


def test_cut_out_takes_every_colour_order_and_the_best_mask(
    fake: tinyseg.Segmenter, scene: tuple[NDArray[np.uint8], NDArray[np.bool_]]
) -> None:
    frame, _ = scene
    masks = fake.embed(frame).predict(box=[100, 60, 240, 160], multimask=False, zoom="off")
    cutout = tinyseg.cut_out(frame, masks)
    again = tinyseg.cut_out(np.ascontiguousarray(frame[..., ::-1]), masks, color="rgb", index=0)
    np.testing.assert_array_equal(cutout.foreground, again.foreground)
    rgba = cutout.rgba()
    assert rgba.shape == (240, 320, 4) and rgba.dtype == np.uint8
    np.testing.assert_array_equal(rgba[110, 170, :3], frame[110, 170, ::-1])
    grey = tinyseg.cut_out(frame[..., 0], masks)
    assert grey.foreground.shape == (240, 320, 3)
    with pytest.raises(FrameError, match="made for"):
        tinyseg.cut_out(frame[:100], masks)
    with pytest.raises(InputError, match="index must"):
        tinyseg.cut_out(frame, masks, index=3)
    with pytest.raises(InputError, match=r"masks must be tinyseg\.Masks"):
        tinyseg.cut_out(frame, masks.masks[0])  # type: ignore[arg-type]
    for background in (frame[:100], "beach.jpg", (255, 255, 255)):
        with pytest.raises(FrameError, match="background"):
            cutout.over(background)  # type: ignore[arg-type]


def test_several_prompts_make_one_cutout(fake: tinyseg.Segmenter, scene: tuple[NDArray[np.uint8], object]) -> None:
    emb = fake.embed(scene[0])
    answers = emb.predict_batch([tinyseg.Prompt(box=[10, 10, 60, 60]), tinyseg.Prompt(box=[200, 100, 300, 200])])
    both = united(answers)
    assert len(both) == 1 and both.boxes.tolist() == [[10, 10, 300, 200]]
    np.testing.assert_array_equal(both.masks[0], answers[0].masks[0] | answers[1].masks[0])
    assert both.areas[0] == answers[0].areas[0] + answers[1].areas[0]


def test_the_salient_object_is_found(
    reference: tinyseg.Segmenter, scene: tuple[NDArray[np.uint8], NDArray[np.bool_]]
) -> None:
    frame, mask = scene
    found = tinyseg.salient(reference.embed(frame))
    assert len(found) == 1 and mask_iou(found.masks[0], mask) > 0.9


def test_what_is_no_embedding_is_told(scene: tuple[NDArray[np.uint8], NDArray[np.bool_]]) -> None:
    frame: Any = scene[0]
    with pytest.raises(tinyseg.InputError, match=r"seg\.embed\(frame\)"):
        tinyseg.salient(frame)


def test_candidates_are_described_and_none_is_no_error(fake: tinyseg.Segmenter) -> None:
    emb = fake.embed(np.full((120, 160, 3), 90, np.uint8))
    found = candidates(emb)
    assert len(found.masks) == len(found.features) == len(found.logits) and np.isfinite(found.features).all()


def test_a_follower_searches_until_it_has_its_object_and_keeps_to_it(reference: tinyseg.Segmenter) -> None:
    def frame(x: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        mask = ellipse(320, 240, x, 110, 50, 40)
        picture = np.full((240, 320, 3), (150, 90, 40), np.uint8)
        picture[mask] = (30, 120, 230)
        return picture, mask

    searches = 0

    def find(emb: tinyseg.Embedding) -> tinyseg.Masks:
        nonlocal searches
        searches += 1
        if searches == 1:
            raise tinyseg.DataError("nobody there")
        return emb.predict(points=[[100, 110]], labels=[1])

    follower = Follower(reference, find)
    with pytest.raises(tinyseg.DataError, match="nobody"):
        follower.step(frame(100)[0])
    for x in (100, 106, 112, 118):
        picture, mask = frame(x)
        answer = follower.step(picture)
        assert len(answer) == 1 and mask_iou(answer.masks[0], mask) > 0.85
    assert searches == 2


def test_backgrounds(blended: tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]], tmp_path: Path) -> None:
    frame, _, mask = blended
    cutout = cut_out_mask(frame, mask, 6)
    assert open_background("none") is None
    for text, expected in (("#102030", (0x30, 0x20, 0x10)), ("white", (255, 255, 255))):
        background = open_background(text)
        assert background is not None and (background(frame, cutout) == expected).all()
    write_image(tmp_path / "b.png", np.full((50, 400, 3), 7, np.uint8))
    picture = open_background(str(tmp_path / "b.png"))
    assert picture is not None and picture(frame, cutout).shape == frame.shape
    assert fill(np.zeros((1, 1, 3), np.uint8), 33, 7).shape == (7, 33, 3)
    soft = blurred(frame, cutout)
    # Behind the object there is the background's colour, not a glow of the object.
    assert soft.shape == frame.shape and np.abs(soft[120, 100].astype(float) - BACK).max() < 30
    for text in ("#12", "beige-ish", "nothing.jpg"):
        with pytest.raises(InputError, match="no background"):
            open_background(text)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name, value in (("a", 60), ("b", 120)):
        write_image(folder / f"{name}.png", np.full((90, 120, 3), value, np.uint8))
    return folder


def test_the_command_writes_alpha_and_resumes(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["cutout", str(photos), "--box", "20,20,80,70", "--zoom", "off", "--out", str(out), *FAKE]
    assert main(arguments) == 0
    picture = cv2.imread(str(out / "a.cutout.png"), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (90, 120, 4) and picture[45, 50, 3] == 255 and picture[5, 5, 3] == 0
    (out / "b.cutout.png").unlink()
    before = (out / "a.cutout.png").stat().st_mtime_ns
    assert main([*arguments, "--resume"]) == 0
    assert (out / "b.cutout.png").exists() and (out / "a.cutout.png").stat().st_mtime_ns == before
    assert "1 of 2 images are done already" in capsys.readouterr().out
    assert main([*arguments, "--format", "webp", "--trim", "--background", "white"]) == 0
    assert cv2.imread(str(out / "a.cutout.webp"), cv2.IMREAD_UNCHANGED).shape[:2] < (70, 80)


def test_resuming_takes_no_other_photos_result_for_its_own(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["cutout", str(photos), "--box", "20,20,80,70", "--zoom", "off", "--out", str(out), "--resume", *FAKE]
    assert main(arguments) == 0
    write_image(photos / "a.bmp", np.full((60, 100, 3), 90, np.uint8))  # its stem had a result before
    assert main(arguments) == 0
    sizes = {p.name: cv2.imread(str(p)).shape[:2] for p in out.glob("a*.png")}
    assert sizes == {"a.cutout.png": (90, 120), "a.png.cutout.png": (90, 120), "a.bmp.cutout.png": (60, 100)}
    # Older than its photo, or not tinyseg's: not done.
    os.utime(photos / "b.png", (4e9, 4e9))
    before = (out / "b.cutout.png").stat().st_mtime_ns
    assert main(arguments) == 0 and (out / "b.cutout.png").stat().st_mtime_ns > before
    (tmp_path / "strange" / "b.cutout.png").mkdir(parents=True)
    assert main([*arguments[:-3], "--out", str(tmp_path / "strange"), "--resume", *FAKE]) == 1


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "in one way"),
        (["--auto", "--point", "3,3"], "in one way"),
        (["--auto", "--like-box", "1,2,30,40"], "in one way"),
        (["--point", "3,3", "--text-threshold", "0.3"], "needs a --detector"),
        (["--point", "3,3", "--background", "plaid"], "no background"),
        (["--auto", "--out", "cut.png"], "give a folder"),
        (["--point", "3"], "--point takes"),
    ],
)
def test_bad_options_exit_with_2(
    photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["cutout", str(photos), *arguments, *FAKE]) == 2
    assert says in capsys.readouterr().err


def test_standard_input_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cutout", "-", "--auto", *FAKE]) == 2
    assert "not standard input" in capsys.readouterr().err


def test_a_bad_image_fails_alone(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "c.jpg").write_bytes(b"no")
    assert main(["cutout", str(photos), "--point", "30,30", "--json", "--out", str(tmp_path), *FAKE]) == 1
    assert "c.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("suffix, fourth", [(".webm", "yuva420p"), (".mov", "yuva444p12le")])
def test_videos_carry_alpha(tmp_path: Path, suffix: str, fourth: str) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed (pip install 'tinyseg[video]')")
    out = tmp_path / f"o{suffix}"
    arguments = ["cutout", "synthetic:128x96:4", "--box", "20,20,80,70", "--zoom", "off", "--out", str(out), *FAKE]
    assert main(arguments) == 0
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        # FFmpeg's own VP9 decoder drops alpha; libvpx's keeps it.
        decoder = av.CodecContext.create("libvpx-vp9" if suffix == ".webm" else stream.codec_context.name, "r")
        decoder.extradata = stream.codec_context.extradata
        decoder.width, decoder.height = 128, 96
        frames = [f for packet in container.demux(stream) for f in decoder.decode(packet if packet.size else None)]
    assert len(frames) == 4 and frames[0].format.name.startswith("yuva")
    # The first frame's: the fake engine draws prompts and has no features to follow them by.
    rgba = frames[0].to_ndarray(format="rgba")
    assert rgba[45, 50, 3] > 240 and rgba[5, 5, 3] < 15
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_frames_of_odd_size_keep_their_last_row_and_column(tmp_path: Path) -> None:
    out = tmp_path / "odd.mp4"
    base = ["cutout", "synthetic:65x33:2", "--box", "5,5,30,30", "--zoom", "off", "--background", "white", *FAKE]
    assert main([*base, "--out", str(out)]) == 0
    there, picture = cv2.VideoCapture(str(out)).read()
    assert there and picture.shape == (34, 66, 3)


def test_a_film_is_not_replaced_by_what_is_made_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = tmp_path / "film.mp4"
    base = ["--box", "20,20,80,70", *FAKE]
    assert main(["cutout", "synthetic:128x96:3", "--background", "white", "--out", str(film), *base]) == 0
    content = film.read_bytes()
    (tmp_path / "link.mp4").symlink_to(film)
    for place in (film, tmp_path / "link.mp4"):
        assert main(["cutout", str(film), "--background", "white", "--out", str(place), *base]) == 2
        assert main(["track", str(film), "--sink", f"video:{place}", *base]) == 2
        assert main(["run", str(film), "--sink", f"video:{place}", *base]) == 2
        assert capsys.readouterr().err.count("is the source") == 3
    assert film.read_bytes() == content and len(list(tmp_path.iterdir())) == 2


def test_a_cut_off_film_ends_in_part(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = tmp_path / "whole.avi"
    sink = ["--sink", f"video:{whole}", *FAKE]
    assert main(["run", "synthetic:64x48:20", "--box", "5,5,30,30", *sink]) == 0
    (tmp_path / "half.avi").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    capsys.readouterr()
    arguments = ["--background", "white", "--box", "5,5,30,30", "--out", str(tmp_path / "o.mp4"), *FAKE]
    assert main(["cutout", str(tmp_path / "half.avi"), *arguments]) == 1
    assert "damaged" in capsys.readouterr().out
    picture = str(tmp_path / "like.png")
    write_image(Path(picture), np.full((48, 64, 3), 90, np.uint8))
    like = ["--like", picture, "--like-box", "5,5,30,30", *FAKE]
    assert main(["find", str(tmp_path / "half.avi"), *like]) == 1
    assert "damaged" in capsys.readouterr().out


def test_videos_over_a_background_need_no_extra(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["cutout", "synthetic:128x96:3", "--box", "20,20,80,70", "--zoom", "off", *FAKE]
    assert main([*base, "--background", "white", "--out", str(tmp_path / "o.mp4")]) == 0
    there, picture = cv2.VideoCapture(str(tmp_path / "o.mp4")).read()
    assert there and picture.shape == (96, 128, 3) and picture[5, 5].min() > 235
    for extra, says in (
        (["--out", str(tmp_path / "o.mp4")], "carries no alpha"),
        (["--out", str(tmp_path)], "must name a video file"),
        (["--out", str(tmp_path / "o.gif")], "videos are written as"),
        (["--out", str(tmp_path / "o.mov"), "--resume"], "for images"),
    ):
        assert main([*base, *extra]) == 2
        assert says in capsys.readouterr().err
