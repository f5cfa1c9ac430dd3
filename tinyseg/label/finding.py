"""What is looked for in every picture, as plain data that travels to other processes, and what looks for it there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_choice, check_path, check_whole, clipped, shown
from tinyseg.detect import Boxes, BoxSource, name_boxes, open_detector
from tinyseg.detect.card import fingerprint, open_card, require_words
from tinyseg.errors import DataError, InputError, PromptError
from tinyseg.graphs.everything_rule import MAX_POINTS_PER_SIDE
from tinyseg.label.coco import read_coco
from tinyseg.masks import Masks
from tinyseg.predict.everything import Search
from tinyseg.predict.exemplar import MAX_FOUND, THRESHOLD, Reference
from tinyseg.predict.second_look import ZOOM_CHOICES
from tinyseg.predict.segmenter import Segmenter
from tinyseg.prompts.text import phrases
from tinyseg.rle import CocoRle, decode_rle, encode_rle
from tinyseg.track.tracker import MOST_OBJECTS, Tracker

OBJECT = "object"  # the category of what has no name
PATIENCE = 30  # frames in which nothing that is followed was seen, after which objects are looked for anew


@dataclass(frozen=True)
class Found:
    """One mask. box: x0, y0, x1, y1, ends exclusive. score: predicted IoU, or likeness of an exemplar."""

    category: str
    rle: CocoRle
    box: tuple[int, int, int, int]
    area: int
    score: float
    stability: float | None = None
    track: int | None = None

    def to_annotation(self) -> dict[str, Any]:
        """A COCO annotation without ids; ``category`` is the name of what will be ``category_id``."""
        x0, y0, x1, y1 = self.box
        row: dict[str, Any] = {
            "category": self.category, "iscrowd": 0, "segmentation": self.rle, "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": self.area, "score": round(self.score, 4),
        }  # fmt: skip
        if self.stability is not None:
            row["stability_score"] = round(self.stability, 4)
        if self.track is not None:
            row["track_id"] = self.track
        return row


class Finder(Protocol):
    """What looks for something in one picture after the other."""

    def find(self, frame: NDArray[np.uint8], name: str) -> list[Found]:
        """Masks in a frame (H, W, 3) BGR, the surest first. Raises InputError or EngineError."""
        ...


def check_share(name: str, value: Any) -> None:
    """Raises InputError for what is no number in [0, 1]."""
    if not (isinstance(value, (int, float)) and 0 <= value <= 1):
        raise InputError(f"{name} must lie in [0, 1], but is {shown(value)}")


@dataclass(frozen=True)
class Everything:
    """All regions (``tinyseg everything``); None leaves a threshold to the model."""

    points_per_side: int | None = None
    score: float | None = None
    stability: float | None = None
    crop_layers: int = 0
    min_area: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, np.generic):  # numpy's numbers go into no JSON
                object.__setattr__(self, name, value.item())
        Search(crop_layers=self.crop_layers, min_area=self.min_area)
        if self.points_per_side is not None:
            check_whole("points_per_side", self.points_per_side, 1, MAX_POINTS_PER_SIDE)
        for name in ("score", "stability"):
            if getattr(self, name) is not None:
                check_share(name, getattr(self, name))

    def facts(self) -> dict[str, Any]:
        """What decides the answers, for the job's own file."""
        return {"everything": asdict(self)}

    @property
    def categories(self) -> tuple[str, ...]:
        """Names that are known before anything was found, in their order."""
        return (OBJECT,)

    def open(self, seg: Segmenter, engine: str, threads: int | None) -> Finder:
        """Raises what is wrong with it: InputError, ModelError, EngineError, NotInstalled."""
        given = {n: getattr(self, n) for n in ("points_per_side", "score", "stability")}
        rule = replace(seg.everything_rule, **{n: v for n, v in given.items() if v is not None})
        return _EverythingFinder(seg, rule, self.crop_layers, self.min_area)


@dataclass(frozen=True)
class Words:
    """What a detector finds by name. text: as in "dog. red cup", None for all that it knows; zoom as of ``predict``."""

    text: str | None
    detector: str
    threshold: float | None = None
    zoom: str = "auto"

    def __post_init__(self) -> None:
        if self.text is not None:
            phrases(self.text)
        if self.threshold is not None:
            check_share("threshold", self.threshold)
        check_choice("zoom", self.zoom, ZOOM_CHOICES)

    def facts(self) -> dict[str, Any]:
        """Raises DataError or ModelError where the detector cannot be read, PromptError for words that it does not know."""
        card = open_card(self.detector)
        require_words(card, self.categories)  # once, and not for every picture
        asked = {name: value for name, value in asdict(self).items() if name != "detector"}
        # Another detector of the same name, or one described otherwise, gives other labels; the digest is short to be seen
        # whole in a message.
        return {"words": {"detector": f"{Path(self.detector).name} {fingerprint(card)[:16]}", **asked}}

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(phrases(self.text)) if self.text is not None else ()

    def open(self, seg: Segmenter, engine: str, threads: int | None) -> Finder:
        source = open_detector(self.detector, engine, threads, self.threshold)
        return _WordsFinder(seg, source, self.categories, self.zoom)


@dataclass(frozen=True)
class BoxFile:
    """Boxes of a COCO file, of a detector or of people, matched by file name: every box is a mask.

    whole: names in the file that a picture has from end to end, so that no other that ends alike is meant; a job fills it in.
    """

    path: str
    zoom: str = "auto"
    whole: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_choice("zoom", self.zoom, ZOOM_CHOICES)

    def facts(self) -> dict[str, Any]:
        try:
            digest = hashlib.sha256(check_path("boxes", self.path).read_bytes()).hexdigest()
        except OSError as exc:
            raise DataError(f"{clipped(self.path)} cannot be read: {exc.strerror or exc}") from exc
        return {"boxes": {"sha256": digest, "zoom": self.zoom}}

    @property
    def categories(self) -> tuple[str, ...]:
        return read_coco(Path(self.path)).category_names

    def open(self, seg: Segmenter, engine: str, threads: int | None) -> Finder:
        return _BoxesFinder(seg, Path(self.path), self.zoom, self.whole)


@dataclass(frozen=True)
class Like:
    """The same thing as in an example: a .npz that ``tinyseg find --save`` or :meth:`tinyseg.Reference.save` wrote."""

    reference: str
    most: int = MAX_FOUND
    threshold: float = THRESHOLD
    zoom: str = "auto"

    def __post_init__(self) -> None:
        check_whole("most", self.most, 1, MAX_FOUND)
        check_share("threshold", self.threshold)
        check_choice("zoom", self.zoom, ZOOM_CHOICES)

    def facts(self) -> dict[str, Any]:
        return {"like": {**asdict(self), "reference": reference_digest(Reference.load(self.reference))}}

    @property
    def categories(self) -> tuple[str, ...]:
        return (OBJECT,)

    def open(self, seg: Segmenter, engine: str, threads: int | None) -> Finder:
        return _LikeFinder(seg, Reference.load(self.reference), self)


def reference_digest(reference: Reference) -> str:
    """Tells references apart by their values; a file's bytes hold the time of day."""
    digest = hashlib.sha256()
    for part in (reference.positive, reference.negative, reference.shares):
        digest.update(part.tobytes())
    return digest.hexdigest()


Wanted = Everything | Words | BoxFile | Like


class _EverythingFinder:
    def __init__(self, seg: Segmenter, rule: Any, crop_layers: int, min_area: int) -> None:
        self._seg, self._rule, self._search = seg, rule, (crop_layers, min_area)

    def find(self, frame: NDArray[np.uint8], name: str) -> list[Found]:
        regions = self._seg.everything(frame, "bgr", self._rule, *self._search)
        return [
            Found(
                OBJECT, regions.rle(i), _corners(regions.boxes[i]), int(regions.areas[i]), float(regions.scores[i]),
                float(regions.stability[i]),
            )
            for i in range(len(regions)) if regions.areas[i]
        ]  # fmt: skip


class _WordsFinder:
    def __init__(self, seg: Segmenter, source: BoxSource, words: Sequence[str], zoom: str) -> None:
        self._seg, self._source, self._words, self._zoom = seg, source, words, zoom

    def find(self, frame: NDArray[np.uint8], name: str) -> list[Found]:
        boxes = self._source.find(frame, self._words)
        return _of_boxes(self._seg, frame, boxes, self._zoom)


class _BoxesFinder:
    def __init__(self, seg: Segmenter, path: Path, zoom: str, whole: frozenset[str]) -> None:
        self._seg, self._zoom, self._whole = seg, zoom, whole
        self._file = read_coco(path)

    def find(self, frame: NDArray[np.uint8], name: str) -> list[Found]:
        rows = self._file.of(name, self._whole)
        height, width = frame.shape[:2]
        corners, labels = [], []
        for row in rows:
            x, y, w, h = row.bbox
            box = np.clip([x, y, x + w, y + h], 0, [width, height, width, height])
            if box[2] - box[0] <= 0.5 or box[3] - box[1] <= 0.5:
                raise PromptError(f"the box {list(row.bbox)} does not lie in the picture of {width} x {height} pixels")
            corners.append(box)
            labels.append(row.category)
        boxes = Boxes(np.array(corners, np.float32).reshape(-1, 4), tuple(labels), np.ones(len(labels), np.float32))
        return _of_boxes(self._seg, frame, boxes, self._zoom)


class _LikeFinder:
    def __init__(self, seg: Segmenter, reference: Reference, wanted: Like) -> None:
        self._seg, self._reference, self._wanted = seg, reference, wanted

    def find(self, frame: NDArray[np.uint8], name: str) -> list[Found]:
        wanted = self._wanted
        masks = self._seg.find(frame, self._reference, "bgr", wanted.most, wanted.threshold, wanted.zoom)
        return [_of_mask(masks, i, OBJECT) for i in range(len(masks)) if masks.areas[i]]


def _of_boxes(seg: Segmenter, frame: NDArray[np.uint8], boxes: Boxes, zoom: str) -> list[Found]:
    named = name_boxes(seg.embed(frame), boxes, zoom) if len(boxes) else None
    if named is None:
        return []
    return [_of_mask(m, m.best, label) for m, label in zip(named.answers, named.boxes.labels) if m.areas[m.best]]


def _of_mask(masks: Masks, index: int, category: str) -> Found:
    return Found(
        category, encode_rle(masks.masks[index]), _corners(masks.boxes[index]), int(masks.areas[index]),
        float(masks.scores[index]), float(masks.stability[index]),
    )  # fmt: skip


def _corners(box: NDArray[np.integer[Any]]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (int(v) for v in box)
    return x0, y0, x1, y1


class Follower:
    """Objects of a video: found in its first frame by another finder, and followed from there.

    They are looked for anew after a cut and when none was seen for a while. Ids are never given twice. The score is the tracker's
    likeness. Make a new one for every video.
    """

    def __init__(self, seg: Segmenter, finder: Finder, most: int) -> None:
        check_whole("tracks", most, 1, MOST_OBJECTS)
        self._tracker = Tracker(seg)
        self._finder, self._most = finder, most
        self._categories: dict[int, str] = {}
        self._given = 0

    def find(self, frame: NDArray[np.uint8], name: str) -> list[Found]:
        results = {}
        if len(self._tracker):
            results = self._tracker.step(frame)
            seen = any(r.visible for r in results.values())
            if not seen and (self._tracker.cut or min(r.lost_for for r in results.values()) >= PATIENCE):
                self._tracker.reset()
                results = {}
        if not len(self._tracker):
            for found in self._finder.find(frame, name)[: self._most]:
                self._given += 1
                self._categories[self._given] = found.category
                results[self._given] = self._tracker.add(self._given, mask=decode_rle(found.rle), frame=frame)
        return [
            Found(
                self._categories[int(id)], encode_rle(r.mask), _corners(r.box), r.area, r.score, track=int(id)
            )
            for id, r in results.items() if r.visible and r.area
        ]  # fmt: skip


def check_facts(found: Mapping[str, Any], asked: Mapping[str, Any], place: Path) -> None:
    """Raises DataError where a folder holds labels of another job, and says of which one."""
    # Last what another option may have changed too, and of which only a digest is there.
    for name in sorted({*found, *asked}, key=lambda n: (n == "inputs", n)):
        if found.get(name) != asked.get(name):
            if name == "inputs":
                raise DataError(
                    f"{clipped(place)} holds labels of another job: pictures among the inputs came, went or have other names, or "
                    "--shard or --every is another; put them back, or name another --out"
                )
            raise DataError(
                f"{clipped(place)} holds labels of another job: {name} is {_short(found.get(name))} there and "
                f"{_short(asked.get(name))} now; name another --out, or give the options and inputs of that job"
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:120] + "..."
