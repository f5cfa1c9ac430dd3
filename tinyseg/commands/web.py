"""``tinyseg web build``: a page that segments in the reader's own browser."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from tinyseg.web.site import PRECISIONS, build_site

EXAMPLES = """examples:
  tinyseg web build --out site          # then: python -m http.server --directory site
  tinyseg web build --out site --model small --webgpu"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "web", help="make a page that segments in the reader's own browser",
        description="A page that segments in the reader's own browser: pictures never leave it. See docs/web.md.",
    )  # fmt: skip
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser(
        "build", help="write the page as a folder that any host can serve", epilog=EXAMPLES,
        description="Write a static site: the page, a packaged model, and onnxruntime-web, which npm fetches (its version and "
        "hashes are fixed). Serve the folder from https or localhost; anything that serves files will do.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    build.add_argument("--out", required=True, metavar="DIR", help="where to; replaced if it is an earlier site")
    build.add_argument("--model", metavar="MODEL", help="packaged model, model folder or zip (default: base)")
    build.add_argument(
        "--precision", choices=PRECISIONS, default="fp32",
        help="of the graphs that run on the CPU; in browsers fp32 is the faster one (default: fp32)",
    )  # fmt: skip
    build.add_argument(
        "--webgpu", action="store_true",
        help="add fp16 graphs and a second engine, 33 MB, for browsers with WebGPU; needs the compile extra",
    )  # fmt: skip
    build.add_argument(
        "--onnxruntime-web", metavar="DIR", help="a folder that holds this npm package (default: npm fetches it)"
    )
    build.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    site = build_site(args.out, args.model, args.precision, args.webgpu, args.onnxruntime_web)
    print(
        f"wrote {site.folder}: {len(site.files)} files, {sum(site.files.values()) / 1e6:.1f} MB ({', '.join(site.engines)})"
    )
    print(f"to see it: python -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(site.folder))}")
    return 0
