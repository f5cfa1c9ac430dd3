"""The words of a command line: --text with a --detector, which find boxes."""

from __future__ import annotations

import argparse

from tinyseg.detect import BoxSource, GroundingDino, OnnxDetector, open_detector
from tinyseg.detect.card import require_words
from tinyseg.errors import PromptError
from tinyseg.prompts.text import phrases


def add_word_options(parser: argparse.ArgumentParser) -> None:
    """--text, --detector and --text-threshold."""
    group = parser.add_argument_group("words")
    group.add_argument("--text", metavar="WORDS", help='what to look for, as in "dog. red cup", with --detector')
    group.add_argument(
        "--detector", metavar="PLACE",
        help="what finds boxes: a folder of export-detector, or a detector.json (docs/words.md); without --text everything "
        "that it knows",
    )  # fmt: skip
    group.add_argument(
        "--text-threshold", type=float, metavar="T", help="least score of a box (default: the detector's)"
    )


def open_words(args: argparse.Namespace) -> BoxSource | None:
    """The detector that the options name, None without words. Raises PromptError, and what opening it raises."""
    if args.text is None and args.detector is None:
        if args.text_threshold is not None:
            raise PromptError("--text-threshold needs a --detector, whose boxes it is for")
        return None
    if args.detector is None:
        raise PromptError("--text needs a --detector to find boxes: a folder of export-detector, or a detector.json")
    if args.point or args.box or args.mask:
        raise PromptError("--text and --detector find boxes themselves; leave out --point, --box and --mask")
    words = phrases(args.text) if args.text is not None else ()
    source = open_detector(args.detector, args.engine, args.threads, args.text_threshold)
    if isinstance(source, (OnnxDetector, GroundingDino)):
        require_words(source.card, words)  # once, and not for every image
    return source
