"""Grounding DINO without torch or transformers: the text is laid out here, the network is an exported graph.

What transformers computes of the text inside the network (which token may look at which, and where in its phrase it
stands) has no ONNX operators; ``python -m tinyseg.distill export-detector`` makes them inputs of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_whole
from tinyseg.detect.boxes import Boxes, checked_boxes
from tinyseg.detect.card import Card, misstated_text, read_tokenizer, require_words
from tinyseg.detect.graph import DetectorGraph, sigmoid
from tinyseg.errors import ModelError, NotInstalled, PromptError

MOST_TOKENS = 256
PROBE = ("cat", "cup")  # what the gate's photographs are asked for
TEXT_INPUTS = ("ids", "tokens", "mask", "positions")


@dataclass(frozen=True)
class TextInputs:
    """A text as the graph takes it, all float32. ids, tokens (1 where a token is), positions: (1, T). mask: (1, T, T).

    phrase: (T,) the phrase that each token belongs to, -1 for none.
    """

    ids: NDArray[np.float32]
    tokens: NDArray[np.float32]
    mask: NDArray[np.float32]
    positions: NDArray[np.float32]
    phrase: NDArray[np.intp]


def lay_out(ids: Sequence[int], length: int, separators: Sequence[int]) -> TextInputs:
    """Token numbers of "[CLS] dog . red cup . [SEP]" -> the graph's inputs, padded to ``length``.

    Tokens see their own phrase and its full stop only, and count their positions from its start (Liu et al., "Grounding
    DINO", ECCV 2024, section 3.4, sub-sentence level text features). Raises PromptError for a text that is too long.
    """
    count = len(ids)
    if count > length:
        raise PromptError(f"the text has {count} tokens, and this detector was exported for {length}; use fewer words")
    mask = np.eye(length, dtype=np.float32)
    positions = np.zeros(length, np.float32)
    phrase = np.full(length, -1, np.intp)
    stops = [i for i, token in enumerate(ids) if token in separators]
    number = 0
    for before, stop in zip([-1, *stops], stops):
        if stop in (0, count - 1):
            continue  # [CLS] and [SEP] stand alone
        block = slice(before + 1, stop + 1)
        mask[block, block] = 1
        positions[block] = np.arange(stop - before)
        if stop - before > 1:
            phrase[before + 1 : stop] = number
            number += 1
    row = np.zeros(length, np.float32)
    row[:count] = ids
    tokens = (np.arange(length) < count).astype(np.float32)
    return TextInputs(row[None], tokens[None], mask[None], positions[None], phrase)


class GroundingDino:
    """Boxes for any words, from an exported Grounding DINO."""

    def __init__(
        self, card: Card, engine: str = "auto", threads: int | None = None, threshold: float | None = None
    ) -> None:
        """Raises NotInstalled, ModelError or EngineError."""
        text: Any = card.text
        try:
            self._length = check_whole("text.length", text["length"], 8, MOST_TOKENS)
            self._separators = tuple(int(i) for i in text["separators"])
        except (KeyError, TypeError, ValueError) as exc:
            raise misstated_text(card, exc) from exc
        self._tokenizer = _tokenizer(read_tokenizer(card))
        self.card = card
        self.threshold = card.threshold if threshold is None else threshold
        shapes = {n: (1, self._length) for n in TEXT_INPUTS} | {"mask": (1, self._length, self._length)}
        text_inputs = self.text_inputs(PROBE)
        probe = {n: getattr(text_inputs, n) for n in TEXT_INPUTS}
        self._graph = DetectorGraph(card, engine, threads, shapes, probe, self._rows)

    def text_inputs(self, words: Sequence[str]) -> TextInputs:
        """Phrases as the graph takes them. Raises PromptError."""
        encoded = self._tokenizer.encode(" ".join(f"{w}." for w in words))
        return lay_out(encoded.ids, self._length, self._separators)

    def _rows(self, out: Mapping[str, NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (N, 4) as the card has them and the score of each one's surest token."""
        certain = sigmoid(np.asarray(out[self.card.scores], np.float32)[0])
        return np.asarray(out[self.card.boxes], np.float32)[0], certain.max(1)

    def find(self, frame: NDArray[np.uint8], words: Sequence[str] = ()) -> Boxes:
        """As :class:`tinyseg.detect.BoxSource`. A box's score is its surest token's, as transformers has it; its label is
        the phrase of its surest word."""
        require_words(self.card, words)
        text = self.text_inputs(words)
        out = self._graph.run(frame, {n: getattr(text, n) for n in TEXT_INPUTS})
        certain = sigmoid(np.asarray(out[self.card.scores], np.float32)[0])  # (queries, T)
        scores = certain.max(1)
        kept = np.flatnonzero(scores > self.threshold)
        inside = text.phrase >= 0
        count = int(text.phrase.max()) + 1
        if count != len(words):
            raise PromptError(f"the tokenizer reads {count} phrases in {', '.join(words)}; leave out its special signs")
        by_phrase = np.stack([certain[:, inside & (text.phrase == p)].max(1) for p in range(count)], 1)
        names = [words[int(by_phrase[i].argmax())] for i in kept]
        boxes = np.asarray(out[self.card.boxes], np.float32)[0]
        return checked_boxes(self._graph.to_frame(boxes[kept], frame), names, scores[kept], frame)


def _tokenizer(content: bytes) -> Any:
    try:
        import tokenizers  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise NotInstalled("words are split with the tokenizers package; run: pip install 'tinyseg[words]'") from exc
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode())
    except Exception as exc:  # it raises plain Exception
        raise ModelError(f"the detector's tokenizer.json cannot be read ({exc!s:.100}); export it again") from exc
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
