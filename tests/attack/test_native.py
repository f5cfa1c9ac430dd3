"""The pixel core's own checks: any argument gives a result or an exception, never a crash."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from tests.attack.conftest import Attack
from tests.attack.mutation import seeds
from tinyseg import _native

FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    7.25,
    1e-38,
    1e38,
    float("inf"),
    float("-inf"),
    float("nan"),
    -5.0,
    1e300,
)  # the last is no float32
WHOLES = (0, 1, -1, 2, 3, 16, 40, 64, 2**31 - 1, -(2**31), 2**31, 2**63, 10**20)


def size(draw: random.Random) -> int:
    return draw.choice((1, 2, 3, 4, 5, 16, 33, 70)) if draw.randrange(20) else 0


def array(draw: random.Random, dimensions: int, dtype: type = np.float32) -> Any:
    """An array that fits, or one of another rank, type, order or right to be written; or no array."""
    shape = [size(draw) for _ in range(draw.choice((dimensions,) * 40 + (0, 1, 4)))]
    if dimensions == 3 and len(shape) == 3:
        shape[draw.choice((0, 2))] = draw.choice((1, 3, 3, 3, 4))
    made = np.zeros(shape, draw.choice((dtype,) * 60 + (np.float64, np.uint8, np.int32)))
    if made.dtype.kind == "f":
        made[...] = draw.choice(FLOATS[:-1])
        made.ravel()[: draw.randrange(9)] = draw.choice(FLOATS[:-1])
    how = draw.randrange(80)
    if how == 0:
        made = np.asfortranarray(made)
    elif how == 1 and made.ndim:
        made = made[::-1]
    elif how == 2:
        made.flags.writeable = False
    elif how == 3:
        return draw.choice((None, 3, "x", [[1.0]], b""))
    return made


def call(draw: random.Random) -> None:
    content: Any = (draw.choice(FLOATS), draw.choice(FLOATS))
    region: Any = tuple(draw.choice(WHOLES) for _ in range(4))
    if draw.randrange(3):
        region = tuple(sorted(draw.choices((0, 1, 2, 3, 16), k=2)) + sorted(draw.choices((0, 1, 2, 3, 16), k=2)))
        region = (region[0], region[2], region[1], region[3])
    if draw.randrange(3):
        content = (draw.uniform(0.1, 40), draw.uniform(0.1, 40))
    numbers = [1.0, 0.0, 127.5] if draw.randrange(3) else list(FLOATS)
    which = draw.randrange(5)
    if which <= 1:
        function = (_native.prepare, _native.prepare_reference)[which]
        function(
            array(draw, 3, np.uint8), array(draw, 3), (draw.choice(WHOLES[:7]), draw.choice(WHOLES[:7])), draw.choice((True, False)),
            draw.choice(numbers), draw.choice(numbers),
        )  # fmt: skip
    elif which <= 3:
        function = (_native.threshold, _native.threshold_reference)[which - 2]
        function(array(draw, 2), array(draw, 2, np.uint8), region, content, draw.choice(numbers))
    else:
        _native.upsample(array(draw, 2), array(draw, 2), region, content, draw.choice(numbers))


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast", "ignore:overflow encountered in cast")
def test_native_arguments(attack: Attack) -> None:
    done: list[bool] = []

    def check(draw: random.Random) -> None:
        try:
            call(draw)
            done.append(True)
        except (TypeError, ValueError, OverflowError):
            pass

    attack("native calls", seeds, check, 3000, each=50)
    assert len(done) > 100  # and some went through


@pytest.mark.parametrize("name", ["threshold", "threshold_reference", "upsample"])
@pytest.mark.parametrize("content", [(float("nan"), 4.0), (4.0, float("inf")), (0.0, 4.0), (4.0, -1.0)])
def test_content_that_is_no_size(name: str, content: tuple[float, float]) -> None:
    """NaN became an index (a crash)."""
    out = np.zeros((8, 8), np.float32 if name == "upsample" else np.uint8)
    with pytest.raises(ValueError, match="content must be finite and positive"):
        getattr(_native, name)(np.zeros((4, 4), np.float32), out, (0, 0, 8, 8), content, 1.0)


@pytest.mark.parametrize(("mean", "std"), [(float("nan"), 1.0), (0.0, 0.0), (0.0, -1.0), (0.0, float("nan"))])
def test_normalisation_that_is_none(mean: float, std: float) -> None:
    with pytest.raises(ValueError, match="mean must be finite, std positive"):
        _native.prepare(np.zeros((4, 4, 3), np.uint8), np.zeros((3, 4, 4), np.float32), (4, 4), True, mean, std)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_have_a_defined_answer(value: float) -> None:
    """What is no number is out (in the fast version as in the reference), and what was counted is what was written."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (12, 16)).astype(np.float32)
    logits[3:5, 4:9] = value
    masks = []
    for function in (_native.threshold, _native.threshold_reference):
        mask = np.full((48, 64), 9, np.uint8)
        x0, y0, x1, y1, area, above, below = function(logits, mask, (0, 0, 64, 48), (16.0, 12.0), 1.0)
        assert area == mask.sum() and above <= area <= below and mask.max() <= 1
        ys, xs = np.nonzero(mask)
        assert (x0, y0, x1, y1) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        masks.append(mask)
    if np.isnan(value):
        assert (masks[0] != masks[1]).mean() < 0.01
        assert not masks[0][14:18, 20:32].any()
