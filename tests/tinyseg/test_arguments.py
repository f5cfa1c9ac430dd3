"""Arguments of wrong types and absurd values, each at the public call that takes it: one exception that names it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tinyseg
from tinyseg import Prompt, SAM2ImagePredictor, SamPredictor
from tinyseg.arguments import check_path, check_whole, parse_size, parse_whole, shown
from tinyseg.cli import main
from tinyseg.image_headers import is_cut_off, stated_size

FRAME = np.zeros((48, 64, 3), np.uint8)
ODD = [None, 5, 1.5, b"bgr", ["bgr"], [["a"], [1, 2]], np.zeros(3), np.array(["bgr", "rgb"]), {"a": 1}, object()]
FAKE = ["--engine", "fake"]


@pytest.mark.parametrize("odd", ODD, ids=lambda o: type(o).__name__)
def test_choices_of_a_wrong_type_are_told(fake: tinyseg.Segmenter, odd: Any) -> None:
    embedding = fake.embed(FRAME)
    predictor = SamPredictor(fake)
    calls: dict[str, Callable[[], object]] = {
        "color": lambda: fake.embed(FRAME, color=odd),
        "zoom": lambda: embedding.predict(box=[1, 1, 9, 9], zoom=odd),
        "multimask": lambda: embedding.predict(box=[1, 1, 9, 9], multimask=odd),
        "image_format": lambda: predictor.set_image(FRAME, odd),
        "engine": lambda: tinyseg.load(engine=odd),
        "precision": lambda: tinyseg.load(engine="fake", precision=odd),
        "threads": lambda: tinyseg.load(engine="fake", threads=0 if odd is None else 10**20 if odd is ODD[1] else odd),
        "streams": lambda: tinyseg.load(engine="fake", streams=10**20 if odd is ODD[1] else odd),
    }
    for name, call in calls.items():
        with pytest.raises(tinyseg.InputError, match=name):
            call()
    for make in (SamPredictor, SAM2ImagePredictor):
        with pytest.raises(tinyseg.InputError, match="zoom"):
            make(fake, zoom=odd)
    if odd is not None:
        with pytest.raises(tinyseg.TinysegError, match="model"):
            tinyseg.load(model=odd, engine="fake")
        with pytest.raises(tinyseg.InputError):
            embedding.predict(box=[1, 1, 9, 9]).cutout(FRAME, index=odd)


@pytest.mark.parametrize(
    "part, value",
    [("points", [[1, 2], [3]]), ("points", "ab"), ("points", [[10**400, 1]]), ("labels", [[1], [0, 1]]), ("labels", object()),
     ("box", [1, [2], 3, 4]), ("box", [0, 0, np.inf, 9]), ("box", {"a": 1}), ("mask", [[1.0], [2.0, 3.0]]), ("mask", "ab"),
     ("mask", np.zeros((4, 4), complex)), ("mask", np.array([object()]))],
)  # fmt: skip
def test_ragged_and_odd_prompts_are_told(part: str, value: Any) -> None:
    parts = {"points": [[1, 2]], "labels": [1], "box": [1, 1, 9, 9], part: value}
    with pytest.raises(tinyseg.PromptError, match=part):
        Prompt(**parts)


def test_arrays_that_cannot_be_made_are_told(fake: tinyseg.Segmenter) -> None:
    class NeedsGrad:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise RuntimeError("can't call numpy() on a tensor that requires grad")

        def __repr__(self) -> str:
            raise RuntimeError("nor show it")

    for part in ("points", "box", "mask"):
        with pytest.raises(tinyseg.PromptError, match="requires grad"):
            Prompt(**{"labels": [1] if part == "points" else None, part: NeedsGrad()})
    assert "NeedsGrad" in shown(NeedsGrad())
    predictor = SAM2ImagePredictor(fake)
    predictor.set_image(FRAME)
    for wrong in (NeedsGrad(), [[1], [1, 2]], [5]):
        with pytest.raises(tinyseg.InputError):
            predictor.predict(box=wrong)


def test_logits_beyond_float32_are_hints_like_others(fake: tinyseg.Segmenter) -> None:
    embedding = fake.embed(FRAME)
    hint = np.full(embedding.geometry.grid, -1e300)
    hint[4:20, 4:20] = 1e300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert embedding.predict(mask=hint, multimask=False).areas[0] > 0


@pytest.mark.parametrize("size", [(1, 4096), (4096, 1), (1, 1), (1, 16384), (3, 2000)])
@pytest.mark.parametrize("kind", [SamPredictor, SAM2ImagePredictor])
def test_sam_predictors_take_extreme_shapes(fake: tinyseg.Segmenter, size: tuple[int, int], kind: Any) -> None:
    height, width = size
    predictor = kind(fake)
    predictor.set_image(np.zeros((height, width, 3), np.uint8))
    points, labels = np.array([[width // 2, height // 2]]), np.array([1])
    for given in ({"point_coords": points, "point_labels": labels}, {"box": np.array([0, 0, width, height])}):
        masks, scores, low = predictor.predict(**given)
        assert masks.shape == (3, height, width) and scores.shape == (3,) and low.shape == (3, 256, 256)
        again, _, _ = predictor.predict(**given, mask_input=low[:1], multimask_output=False, return_logits=True)
        assert again.shape == (1, height, width) and np.isfinite(again).all()


@pytest.mark.parametrize(
    "content",
    [b'\xff\xfe{"frame": 0}', b'{"frame": 1e999, "prompts": []}', b'{"frame": 0, "prompts": [{"box": [0, 0, 1e999, 5]}]}',
     b"[" * 100_000, b'{"frame": 0, "prompts": [{"box": ' + b"[" * 50_000, b'{"frame": -1, "prompts": []}',
     b'{"frame": true, "prompts": []}', b'{"frame": 0, "prompts": 5}', b'{"frame": 0, "prompts": {"box": 1}}', b"\x00",
     b'{"frame": ' + b"9" * 5000 + b', "prompts": []}', b'{"frame": 1.5, "prompts": []}', b'{"frame": NaN, "prompts": []}'],
    ids=range(13),
)  # fmt: skip
def test_absurd_prompt_files_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    assert main(["run", "synthetic:9x9:1", "--every-frame-prompts", str(path), *FAKE]) == 2
    told = capsys.readouterr().err
    assert str(path) in told and len(told) < 1000 and told.count("\n") == 1


@pytest.mark.parametrize("line", [
    ["run", "²", "--box", "1,1,9,9"], ["run", "9" * 21, "--box", "1,1,9,9"], ["run", "synthetic:999999x999999", "--box", "1,1,9,9"],
    ["run", "-", "--raw-size", "999999x999999", "--box", "1,1,9,9"], ["run", "-", "--raw-size", "²x²", "--box", "1,1,9,9"],
    ["compile", "--size", "²x9"], ["compile", "--size", "999999x999999"], ["run", "synthetic:9x9:1", "--box", "1,1,1e999,9"],
    ["run", "synthetic:9x9:1", "--box", "1,1,9,9", "--threads", "99999999999999999999"],
    ["segment", "a" * 300 + ".png", "--box", "1,1,9,9"],
    ["segment", "x", "--box", "1,1,9,9", "--out", "a" * 300], ["eval", "a" * 300], ["eval", "a\0b"],
    ["run", "synthetic:9x9:1", "--every-frame-prompts", "a" * 300], ["run", "synthetic:9x9:1", "--every-frame-prompts", "."],
])  # fmt: skip
def test_absurd_command_lines_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(cv2.imencode(".png", FRAME)[1].tobytes())
    assert main([*line, *FAKE]) == 2
    told = capsys.readouterr().err
    assert told.startswith("tinyseg: ") and told.count("\n") == 1 and len(told) < 600


def test_numbers_sizes_and_paths() -> None:
    assert parse_whole("0042") == 42 and [parse_whole(t) for t in ("", "²", "٣", "-1", "1.0", "9" * 19)] == [None] * 6
    assert parse_size("--size", "640X480", 1000) == (640, 480)
    for text in ("640", "640x", "0x9", "9x1001", "²x9", "9x9x9", " 9x9"):
        with pytest.raises(tinyseg.InputError, match="--size takes"):
            parse_size("--size", text, 1000)
    assert check_whole("n", np.int16(3), 1, 3) == 3
    for value in (True, 0, 4, 2.0, "3", None):
        with pytest.raises(tinyseg.InputError, match="n must be a whole number from 1 to 3"):
            check_whole("n", value, 1, 3)
    for path in ("", "a\0b", "\ud800", b"x", 5, None, ["x"]):
        with pytest.raises(tinyseg.DataError, match="place must be a path"):
            check_path("place", path)


def test_image_headers_state_size_and_end() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    for suffix in (".png", ".jpg", ".bmp"):
        data = cv2.imencode(suffix, noise)[1].tobytes()
        assert stated_size(data) == (50, 30) and not is_cut_off(data)
        for end in range(0, len(data), 97):  # whatever is cut off, no other error
            stated_size(data[:end])
            assert is_cut_off(data[:end]) == (suffix == ".jpg" and end >= 2)
    progressive = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert stated_size(progressive) == (50, 30) and not is_cut_off(progressive) and is_cut_off(progressive[:-2])
    assert stated_size(b"") is None and not is_cut_off(b"")


def test_messages_are_short_whatever_was_given() -> None:
    class Wordy:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise ValueError("no " * 10_000)

    for value in (Wordy(), ["a" * 10_000], [[1] * 10_000, [2]], np.full((6, 6, 6, 6), np.nan)):
        with pytest.raises(tinyseg.PromptError) as told:
            Prompt(points=value, labels=[1])
        assert len(str(told.value)) < 1000
