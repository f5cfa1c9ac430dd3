"""What is looked for by its likeness: --like with --like-mask, --like-box and --like-point."""

from __future__ import annotations

import argparse
from typing import Any

from tinyseg.arguments import clipped
from tinyseg.commands.prompts import numbers
from tinyseg.errors import InputError, PromptError
from tinyseg.images import read_image, read_mask
from tinyseg.predict.exemplar import Reference, joined
from tinyseg.predict.segmenter import Segmenter
from tinyseg.prompts import Prompt


def add_like_options(parser: argparse.ArgumentParser) -> None:
    """--like, --like-mask, --like-box and --like-point."""
    group = parser.add_argument_group("example")
    group.add_argument(
        "--like", action="append", default=[], metavar="FILE",
        help="a picture of what to find, or a .npz file that tinyseg find --save wrote (repeatable)",
    )  # fmt: skip
    for kind, shown, told in (
        ("mask", "FILE", "image of the picture's size, not black where the thing is"),
        ("box", "X0,Y0,X1,Y1", "a box around it, in pixels"),
        ("point", "X,Y", "a click on it, in pixels"),
    ):
        group.add_argument(
            f"--like-{kind}", action=_LikeAction, dest="like_parts", const=kind, metavar=shown, help=told
        )


class _LikeAction(argparse.Action):
    """Keeps --like-mask, --like-box and --like-point in the order in which they were given."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        namespace.like_parts = [*(getattr(namespace, "like_parts", None) or []), (self.const, values)]


def read_reference(args: argparse.Namespace, seg: Segmenter) -> Reference:
    """What the options say to look for. Raises PromptError or DataError."""
    saved = [name for name in args.like if name.endswith(".npz")]
    pictures = [name for name in args.like if not name.endswith(".npz")]
    parts = args.like_parts or []
    if not args.like:
        raise PromptError(
            "say what to find: --like PICTURE with --like-mask, --like-box or --like-point, or --like FILE.npz"
        )
    if len(parts) != len(pictures):
        raise PromptError(
            f"{len(pictures)} --like pictures need as many of --like-mask, --like-box and --like-point, but there are "
            f"{len(parts)}"
        )
    references = [Reference.load(name) for name in saved]
    for name, (kind, text) in zip(pictures, parts):
        frame = read_image(name)
        try:
            references.append(seg.reference((frame, read_mask(text) if kind == "mask" else like_prompt(kind, text))))
        except InputError as exc:
            raise type(exc)(f"{clipped(name)}: {exc}") from exc
    return joined(references)


def like_prompt(kind: str, text: str) -> Prompt:
    if kind == "box":
        return Prompt(box=numbers(text, (4,), "--like-box takes X0,Y0,X1,Y1"))
    return Prompt(points=[numbers(text, (2,), "--like-point takes X,Y")], labels=[1])
