"""Values that callers might hand in by mistake or on purpose, mixed with proper ones."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

SIZES = [(1, 1), (1, 2), (2, 1), (5, 7), (48, 64), (1, 600), (600, 1), (33, 200)]
WORDS = [
    "", " ", "bgr", "rgb", "gray", "BGR", "RGB", "auto", "off", "none", "latest", "fake", "fp32", "int8", "base",
    "²", "٣", "\0", "\ud800", "-1",
    "1e999", "nan", "..", "/", "/dev/null", "/dev/full", "~nosuch", "a" * 300, "null", "raw", "window", "png:",
    "jsonl:", "jsonl:/dev/full",
    "jsonl:x/y.jsonl", "video:x.txt", "video:x.avi", "png:pictures", "jsonl:/", "synthetic:9x9:1",
    "synthetic:999999x999999", "*", "[", "{}",
]  # fmt: skip


class Odd(np.ndarray[Any, Any]):
    """A subclass of arrays."""


class Mute:
    """Something that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise OSError("no array either")


class Unable:
    """Something whose every answer is an error."""

    def fails(self, *_: object) -> Any:
        raise OSError("no")

    __fspath__ = __len__ = __iter__ = __index__ = __float__ = __bool__ = __getitem__ = __eq__ = __hash__ = fails


class Broken(type):
    """Kind of a class that is no iterable but says so."""

    def __iter__(cls) -> Any:
        raise RuntimeError("no")


class Uncountable(metaclass=Broken):
    """A class handed in where an object was wanted."""


def odd_values() -> list[Any]:
    """Handmade ones; each once more in every run."""
    frame = np.zeros((48, 64, 3), np.uint8)
    return [
        None, True, False, 0, 1, -1, 2, 7, 256, 512, 10**20, -(10**400), 0.5, -0.0, float("nan"), float("inf"),
        1e308, 1j, b"", b"bgr", object(), Mute(), Mute, Unable(), Uncountable, [Unable()],
        [], [[]], [1], [[1, 2], [3]], [[1, 2]], [[5, 5], [6, 6]], [1, 0], [2, 2, 20, 20], (2, 2, 20, 20), [10**400],
        ["a"], [None], {}, {"a": 1}, {1, 2},
        {"box": 1}, range(4), iter([1]), lambda *a: None, type, np.float32(1), np.int64(3), np.bool_(True),
        np.array(5), np.array(None), np.zeros(0), np.zeros((0, 2)),
        np.zeros((4,)), np.zeros((1, 4)), np.full((2, 2), np.nan), np.full((1, 2), 1e300), np.array(["x"]),
        np.array([object()]), np.zeros(3, complex),
        np.zeros(2, "datetime64[s]"), np.zeros(2, [("a", int)]), np.ones((48, 64), bool), np.zeros((48, 64), bool),
        np.zeros((1, 256, 256), np.float32),
        np.full((256, 256), np.inf), np.full((96, 128), 1e300), np.zeros((96, 128), np.float16),
        np.ones((96, 128), np.longdouble), frame, frame[::-1, ::-2], frame[..., 0],
        frame.astype(float), frame.transpose(2, 0, 1), np.broadcast_to(np.uint8(3), (48, 64, 3)),
        np.asfortranarray(frame), np.zeros((48, 64, 2), np.uint8),
        np.zeros((1, 4096, 3), np.uint8), np.zeros((4096, 1, 4), np.uint8), np.zeros((1, 20000, 3), np.uint8),
        np.zeros((2, 2), np.uint8).view(Odd),
        np.ma.masked_array(frame, frame > 1),
    ]  # fmt: skip


def values() -> st.SearchStrategy[Any]:
    """Anything."""
    numbers = st.one_of(st.integers(), st.floats(), st.integers(-5, 70), st.floats(-5, 70))
    arrays = hnp.arrays(

        st.one_of(hnp.scalar_dtypes(), st.sampled_from([np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.float64)])),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
    )  # fmt: skip
    pairs = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=3)
    nested = st.recursive(numbers, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
    return st.one_of(numbers, st.text(max_size=8), st.sampled_from(WORDS), st.binary(max_size=4), arrays, pairs, nested)


def frame_of(choice: random.Random) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A proper frame of an odd size."""
    height, width = choice.choice(SIZES)
    return np.full((height, width, 3), choice.randrange(256), np.uint8)
