"""What is looked for: one or several pictures of the same thing, boiled down to part features that fit in a small file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyseg.arguments import check_path, shown
from tinyseg.errors import DataError, PromptError
from tinyseg.files import read_regular, write_bytes
from tinyseg.npz import read_npz
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.exemplar.look import features, likeness, parts, stacked
from tinyseg.prompts import Prompt

FORMAT = 1
MAX_BYTES = 16 << 20  # of a file that claims to be a reference
MAX_ROWS = 4096
FIELDS = ("format", "model", "positive", "negative", "shares", "inside", "outside", "size")


@dataclass(frozen=True)
class Reference:
    """An example of what is looked for. Made by :meth:`tinyseg.Segmenter.reference`, kept in a file by :meth:`save`.

    model: sha256 of the model whose features these are; another model's mean nothing to it. positive: (P, C) float32
    part features, negative: (N, C) of what lay around. shares: (P,) how much of the object each part was. inside,
    outside: mean likeness on the object and around it, which other pictures' are compared with. size: the object's
    longer side over its frame's.
    """

    model: str
    positive: NDArray[np.float32]
    negative: NDArray[np.float32]
    shares: NDArray[np.float32]
    inside: float
    outside: float
    size: float

    def save(self, path: str | Path) -> None:
        """Write a .npz file (no pickle), whole or not at all. Raises DataError."""
        place = check_path("a reference's file", path)
        if place.suffix != ".npz":
            raise DataError(f"{place}: references are kept as .npz")
        buffer = io.BytesIO()
        numbers = np.array([self.inside, self.outside, self.size])
        np.savez_compressed(
            buffer, format=np.array(FORMAT), model=np.array(self.model), positive=self.positive, negative=self.negative,
            shares=self.shares, inside=numbers[0], outside=numbers[1], size=numbers[2],
        )  # fmt: skip
        write_bytes(place, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """Read what :meth:`save` wrote. The file may be a stranger's: sizes, types and values are checked. Raises DataError."""
        place = check_path("a reference's file", path)
        try:
            arrays = read_npz(read_regular(place, MAX_BYTES), MAX_BYTES)
        except OSError as exc:
            raise DataError(f"{place} cannot be read: {exc.strerror or exc}") from exc
        except DataError as exc:
            raise DataError(f"{place} {exc}; make the reference again") from exc
        missing = [name for name in FIELDS if name not in arrays]
        if missing:
            raise DataError(f"{place} is not a reference that tinyseg wrote (no {missing[0]}); make it again")
        read = {name: arrays[name] for name in FIELDS}
        return cls._checked(place, read)

    @classmethod
    def _checked(cls, place: Path, read: dict[str, NDArray[np.generic]]) -> Reference:
        scalars = {n: read[n] for n in ("format", "model", "inside", "outside", "size")}
        tables = {n: read[n] for n in ("positive", "negative", "shares")}
        good = all(a.shape == () for a in scalars.values()) and scalars["model"].dtype.kind == "U"
        good = good and all(scalars[n].dtype.kind in "iuf" for n in scalars if n != "model")
        good = good and all(a.dtype == np.float32 and np.isfinite(a.astype(np.float64)).all() for a in tables.values())
        positive, negative, shares = tables["positive"], tables["negative"], tables["shares"]
        good = good and positive.ndim == negative.ndim == 2 and positive.shape[1] == negative.shape[1] > 0
        good = good and 0 < len(positive) <= MAX_ROWS and len(negative) <= MAX_ROWS and shares.shape == (len(positive),)
        if not good or int(scalars["format"].astype(np.int64)) != FORMAT:
            raise DataError(f"{place} is not a reference that this version of tinyseg reads; make it again")
        inside, outside, size = (float(scalars[n].astype(np.float64)) for n in ("inside", "outside", "size"))
        if not (np.isfinite([inside, outside]).all() and 0 < size <= 1):
            raise DataError(f"{place} is damaged: its figures make no sense; make it again")
        return cls(
            str(scalars["model"]), positive.astype(np.float32), negative.astype(np.float32), shares.astype(np.float32),
            inside, outside, size,
        )  # fmt: skip


def reference_of(emb: Embedding, model: str, what: Prompt | ArrayLike) -> Reference:
    """A reference from an embedded picture. what: a bool mask (H, W) of it, or a prompt that means the object.

    Raises PromptError.
    """
    if isinstance(what, Prompt):
        answer = emb.predict(what.points, what.labels, what.box, what.mask, what.ambiguous)
        mask = answer.masks[answer.best]
    else:
        mask = np.asarray(what)
        if mask.dtype.kind == "O":  # an answer, say, which holds several masks
            raise PromptError(
                f"what is looked for must be a bool mask of its frame, as out.masks[out.best], or a Prompt, but is {shown(what)}"
            )
    shape = emb.geometry.frame_height, emb.geometry.frame_width
    if mask.shape != shape or mask.dtype != np.bool_:
        raise PromptError(
            f"a reference mask must be bool of its frame's shape {shape}, but is {mask.dtype} {mask.shape}"
        )
    if not mask.any():
        raise PromptError("the reference mask is empty; give a mask of the object, or a prompt that finds it")
    x0, y0, x1, y1 = emb.geometry.region
    seen = mask[y0:y1, x0:x1]
    look = features(emb)
    positive, negative = parts(look, seen)
    rows, columns = np.nonzero(mask)
    size = max(int(np.ptp(rows)), int(np.ptp(columns))) + 1
    return _measured(model, look, seen, positive, negative, size / max(shape))


def _measured(
    model: str, look: NDArray[np.float32], mask: NDArray[np.bool_], positive: NDArray[np.float32],
    negative: NDArray[np.float32], size: float,
) -> Reference:  # fmt: skip
    height, width = look.shape[:2]
    share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    alike = likeness(look, positive, negative)
    weight = share / share.sum()
    nearest = (look @ positive.T).argmax(2)
    shares = np.bincount(nearest.ravel(), weights=weight.ravel(), minlength=len(positive))
    around = share == 0
    outside = float(alike[around].mean()) if around.any() else 0.0
    inside = float((alike * weight).sum())
    return Reference(model, positive, negative, shares.astype(np.float32), inside, outside, min(1.0, size))


def joined(references: Sequence[Reference]) -> Reference:
    """Several examples of the same thing as one. Raises PromptError where they are of different models, or none."""
    if not references:
        raise PromptError("no reference was given")
    if len({r.model for r in references}) > 1:
        raise PromptError("the references were made with different models; make them again with one")
    if len(references) == 1:
        return references[0]
    return Reference(
        references[0].model, stacked([r.positive for r in references]), stacked([r.negative for r in references]),
        stacked([r.shares for r in references]) / np.float32(len(references)), *(
            float(np.mean([getattr(r, name) for r in references])) for name in ("inside", "outside", "size")
        ),
    )  # fmt: skip
