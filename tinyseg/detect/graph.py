"""A detector's graph on an engine: a frame in, its raw outputs out, and boxes back in the frame's pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.detect.boxes import Boxes, checked_boxes, only, require_known
from tinyseg.detect.card import Card
from tinyseg.detect.gate import ReadRows, require_parity
from tinyseg.engines import CompiledGraph, GraphSource, create_engine
from tinyseg.engines.base import SymbolicShape
from tinyseg.engines.cache import entry_key, open_cache
from tinyseg.errors import EngineError, ModelError, ParityError
from tinyseg.graphs.compiled import UNCHECKED


@contextmanager
def _sizes_told(card: Card) -> Iterator[None]:
    """Engines say that an image does not fit, each in words of its own, and not where its size was written."""
    try:
        yield
    except ParityError:
        raise
    except EngineError as exc:
        raise EngineError(
            f"{exc!s:.300}; the card says that the graph takes images of {card.width} x {card.height}: if it takes others, mend "
            "width and height there"
        ) from exc


class DetectorGraph:
    """A compiled detector. Fixed shapes, fp32, one run a frame."""

    def __init__(
        self, card: Card, engine: str, threads: int | None, inputs: Mapping[str, SymbolicShape],
        probe: Mapping[str, NDArray[np.float32]], rows: ReadRows,
    ) -> None:  # fmt: skip
        """Built engines are kept in the cache, and compared with the graph on ONNX Runtime before they are used.

        inputs: shapes of what is fed beside the image. probe: values of them to compare with. rows: boxes, as the card has
        them, and scores of a run's outputs. Raises EngineError, ParityError or CacheError.
        """
        self.card, self._rows, self._probe = card, rows, dict(probe)
        shapes = {card.input: (1, 3, card.height, card.width), **inputs}
        # Their outputs' shapes are read off what comes; engines use the names, in the graph's order.
        source = GraphSource("detector", card.graph, shapes, {name: () for name in card.outputs}, "fp32", card.sha256)
        self.engine = create_engine(engine, "fp32", threads).engine
        with _sizes_told(card):
            self._compiled = self._open(source)

    def _open(self, source: GraphSource) -> CompiledGraph:
        engine = self.engine
        if (engine.name, engine.precision) in UNCHECKED:
            return engine.compile(source, {})
        cache, _ = open_cache()
        if cache is None:
            return self._checked(source, engine.compile(source, {}))

        def restore(blob: bytes) -> CompiledGraph:
            return engine.restore(blob, source, {})

        key = entry_key(engine.identity(), source.sha256, {})
        return cache.get_or_build(key, lambda: self._build(source), restore, lambda found: self._checked(source, found))

    def _build(self, source: GraphSource) -> bytes:
        blob = self.engine.build(source, {})
        self._checked(source, self.engine.restore(blob, source, {}))
        return blob

    def _checked(self, source: GraphSource, compiled: CompiledGraph) -> CompiledGraph:
        def feeds(photograph: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
            return {self.card.input: image_input(photograph, self.card), **self._probe}

        def rows(out: Mapping[str, NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            boxes, scores = self._rows(out)
            return self._corners(boxes), scores

        reference = create_engine("onnxruntime", "fp32", None).engine.compile(source, {})
        longer = max(self.card.width, self.card.height)
        require_parity(reference, compiled, feeds, rows, longer, f"on {self.engine.name} {self.engine.version}")
        return compiled

    def run(self, frame: NDArray[np.uint8], feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Outputs by name for a frame (H, W, 3) BGR."""
        with _sizes_told(self.card):
            return dict(self._compiled.run({self.card.input: image_input(frame, self.card), **feeds}))

    def to_frame(self, boxes: NDArray[np.float32], frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, 4) boxes as the card describes them -> (N, 4) x0, y0, x1, y1 in the frame's pixels."""
        scale, offset = _placement(frame.shape, self.card)
        return np.asarray((self._corners(boxes) - np.tile(offset, 2)) / np.tile(scale, 2), np.float32)

    def _corners(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 4) boxes as the card describes them -> (N, 4) x0, y0, x1, y1 in pixels of the input."""
        card = self.card
        corners = np.asarray(boxes, np.float32).reshape(-1, 4)
        if card.box_format == "cxcywh":
            half = corners[:, 2:] / 2
            corners = np.concatenate([corners[:, :2] - half, corners[:, :2] + half], 1)
        if card.unit == "share":
            corners = corners * np.array([card.width, card.height] * 2, np.float32)
        return corners


def _placement(shape: tuple[int, ...], card: Card) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(x, y) input pixels a frame pixel, and where the frame's corner lies in the input."""
    height, width = shape[:2]
    scale = np.array([card.width / width, card.height / height], np.float32)
    if card.fit == "stretch":
        return scale, np.zeros(2, np.float32)
    even = np.full(2, scale.min(), np.float32)
    size = np.maximum(1, np.round(np.array([width, height]) * even))
    # In the middle, as YOLO's own code does; the odd pixel is on the right and below.
    return even, np.floor((np.array([card.width, card.height]) - size) / 2).astype(np.float32)


def image_input(frame: NDArray[np.uint8], card: Card) -> NDArray[np.float32]:
    """A frame (H, W, 3) BGR -> (1, 3, h, w) as the card describes it."""
    scale, offset = _placement(frame.shape, card)
    size = [max(1, round(float(s))) for s in np.array(frame.shape[1::-1]) * scale]
    shrinks = bool((scale < 1).any())
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    canvas = np.full((card.height, card.width, 3), card.pad, np.float32)
    x, y = (int(v) for v in offset)
    canvas[y : y + size[1], x : x + size[0]] = small
    if card.color == "rgb":
        canvas = canvas[..., ::-1]
    values = (canvas - np.array(card.mean, np.float32)) / np.array(card.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None], np.float32)


class OnnxDetector:
    """Any detector with boxes, scores and perhaps classes, or a YOLO's packed output, described by a card."""

    def __init__(
        self, card: Card, engine: str = "auto", threads: int | None = None, threshold: float | None = None
    ) -> None:
        self.card = card
        self.threshold = card.threshold if threshold is None else threshold
        self._graph = DetectorGraph(card, engine, threads, {}, {}, lambda out: _unpacked(card, out)[:2])

    def find(self, frame: NDArray[np.uint8], words: Sequence[str] = ()) -> Boxes:
        """As :class:`tinyseg.detect.BoxSource`; words must be among the card's labels."""
        require_known(words, self.card.labels)
        out = self._graph.run(frame, {})
        boxes, scores, classes = _unpacked(self.card, out)
        kept = scores >= self.threshold
        corners = self._graph.to_frame(boxes[kept], frame)
        scores, classes = scores[kept], classes[kept]
        if self.card.nms is not None and len(corners):
            sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
            chosen = cv2.dnn.NMSBoxesBatched(
                sides.astype(np.float64).tolist(), scores.tolist(), classes.tolist(), self.threshold, self.card.nms
            )
            rows = np.asarray(chosen, np.intp).reshape(-1)
            corners, scores, classes = corners[rows], scores[rows], classes[rows]
        names = [self.card.labels[int(c)] for c in classes]
        return only(checked_boxes(corners, names, scores, frame), words)


def _unpacked(
    card: Card, out: Mapping[str, NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]:
    """Boxes (N, 4), scores (N,) and class numbers (N,). Raises ModelError where the outputs are not as described."""
    try:
        return _as_described(card, out)
    except (ValueError, IndexError) as exc:  # of NumPy: a card is soon wrong about which output is which
        shapes = ", ".join(f"{name} {np.shape(out[name])}" for name in card.outputs if name in out)
        raise ModelError(
            f"the graph's outputs ({shapes}) do not belong together as the card says; check outputs, boxes, scores and classes there"
        ) from exc


def _as_described(
    card: Card, out: Mapping[str, NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]:
    boxes = np.asarray(out[card.boxes], np.float32)
    labels = len(card.labels)
    if card.kind == "yolo":
        rows = boxes.reshape(boxes.shape[-2], boxes.shape[-1]) if boxes.ndim > 1 else boxes.reshape(1, -1)
        rows = rows.T if rows.shape[0] == 4 + labels and rows.shape[1] != 4 + labels else rows
        if rows.shape[1] != 4 + labels:
            raise ModelError(
                f"{card.boxes} has shape {boxes.shape}, not 4 + {labels} labels wide; check labels in the card"
            )
        boxes, scores = rows[:, :4], rows[:, 4:]
    else:
        scores = np.asarray(out[card.scores], np.float32)
        if boxes.shape[-1] != 4:
            raise ModelError(
                f"{card.boxes} has shape {boxes.shape}, not (N, 4); are outputs listed in the graph's order?"
            )
        boxes = boxes.reshape(-1, 4)
        scores = scores.reshape(len(boxes), -1) if scores.size and len(boxes) else scores.reshape(len(boxes), labels)
    if card.score_kind == "logits":
        scores = sigmoid(scores)
    if card.classes is not None:
        classes = np.asarray(out[card.classes]).reshape(-1).astype(np.intp)
        certain = scores[:, 0] if scores.shape[1] == 1 else scores.max(1)
    elif scores.shape[1] == 1 and labels == 1:
        classes, certain = np.zeros(len(boxes), np.intp), scores[:, 0]
    else:
        if scores.shape[1] < labels:
            raise ModelError(
                f"{card.scores} has {scores.shape[1]} scores a box for {labels} labels; name classes in the card"
            )
        # More scores than labels: the rest stands for nothing (RF-DETR's and DETR's last one).
        scores = scores[:, :labels]
        classes, certain = scores.argmax(1), scores.max(1) if len(scores) else np.zeros(0, np.float32)
    if len(classes) != len(boxes) or (len(classes) and not 0 <= classes.min() <= classes.max() < labels):
        raise ModelError(
            f"the graph gives classes that the card's {labels} labels do not name; check labels in the card"
        )
    return boxes, np.asarray(certain, np.float32), classes


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)
