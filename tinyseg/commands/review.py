"""``tinyseg review``: a contact sheet of the labels that most need a look."""

from __future__ import annotations

import argparse
from typing import Any

from tinyseg.label.review import MEASURES, review

EXAMPLES = """examples:
  tinyseg review labels                                # labels/review.html
  tinyseg review labels --count 500 --by stability --page doubtful.html"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "review", help="a page of the least certain masks of a label folder", epilog=EXAMPLES,
        description="Write one static HTML file with the masks that the model was least sure of, and their scores.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("labels", metavar="DIR", help="a folder that tinyseg label wrote")
    parser.add_argument("--count", type=int, default=200, metavar="N", help="masks on the page (default: 200)")
    parser.add_argument(
        "--by", choices=tuple(MEASURES), default="score", help="what makes a mask doubtful (default: score)"
    )
    parser.add_argument("--page", metavar="FILE", help="where to write it (default: review.html in DIR)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    print(f"wrote {review(args.labels, args.count, args.by, args.page)}")
    return 0
