"""``tinyseg serve``: a page over a camera, video, folder or stream, for any browser."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tinyseg.commands.options import add_engine_options, load_segmenter
from tinyseg.errors import InputError, NotInstalled
from tinyseg.sources import SOURCE_HELP, open_source
from tinyseg.system.console import forget_interrupts, heed_interrupts

EXAMPLES = """examples:
  tinyseg serve examples/clip.mp4                         # then open http://127.0.0.1:8000/
  tinyseg serve 0 --port 9000                             # the first camera
  tinyseg serve rtsp://camera/stream --host 0.0.0.0 --token "$(openssl rand -hex 16)"
  ssh -L 8000:127.0.0.1:8000 device                       # the page of a device, without opening it to the network"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "serve", help="a page over a stream: see, click, follow, in any browser", epilog=EXAMPLES,
        description="Open a page over a source: the live picture with masks, objects followed from a click or box on, "
        "corrections, recordings and downloads; a REST and websocket API (/openapi.json), /metrics and /healthz. Needs the "
        "serve extra.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("source", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: 127.0.0.1, this machine only)"
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="0 for any free one (default: 8000)")
    parser.add_argument(
        "--token", metavar="TOKEN",
        help="what viewers must know; needed for any other --host (default: TINYSEG_TOKEN in the environment, else none)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a host name by which browsers may ask; repeatable",
    )
    parser.add_argument("--certificate", metavar="FILE", help="PEM certificate chain, for https")
    parser.add_argument("--key", metavar="FILE", help="its PEM key")
    parser.add_argument("--play", action="store_true", help="start a file at once, not when a viewer says so")
    parser.add_argument("--repeat", action="store_true", help="begin a file again at its end")
    parser.add_argument(
        "--recordings", metavar="DIR", help="keep recordings there (default: a temporary folder, until the end)"
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="of the log on standard error (default: text)"
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning"), default="info", help="(default: info)")
    add_engine_options(parser)
    parser.set_defaults(run=run)


def shown_name(source: str) -> str:
    """What viewers are told of a source: no folder of this machine, no password in a url."""
    if source.startswith("gst:"):
        return "gst"
    if "://" in source and not source.startswith("file:"):
        scheme, _, rest = source.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
    return source if source.startswith("synthetic:") else Path(source).name or source


def run(args: argparse.Namespace) -> int:
    try:
        from tinyseg.serve.logs import log, start_logging  # noqa: PLC0415 - an extra
        from tinyseg.serve.server import Settings, serve  # noqa: PLC0415
    except ImportError as exc:
        raise NotInstalled(f"{exc.name} is not installed; run: pip install 'tinyseg[serve]'") from exc
    if args.source == "-":
        raise InputError("serve takes no raw frames on standard input; give a camera, url, file or folder")
    token = args.token if args.token is not None else os.environ.get("TINYSEG_TOKEN") or None
    settings = Settings(
        args.host, args.port, token, tuple(args.allow_host), Path(args.recordings) if args.recordings else None, args.play,
        args.repeat, Path(args.certificate) if args.certificate else None, Path(args.key) if args.key else None,
    )  # fmt: skip
    start_logging(args.log_format, args.log_level)
    seg = load_segmenter(args)
    if args.log_format == "json":
        log("model", **asdict(seg.info))
    else:
        print(seg.info, file=sys.stderr)

    def ready(url: str) -> None:
        print(f"open {url} (Ctrl-C stops)", flush=True)

    heed_interrupts()
    serve(partial(open_source, args.source), seg.tracker, seg, shown_name(args.source), settings, ready)
    forget_interrupts()
    return 0
