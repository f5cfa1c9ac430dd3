"""``tinyseg doctor``: what this device has, what works on it, and what is in the way."""

from __future__ import annotations

import argparse
import json
from typing import Any

from tinyseg.diagnosis import diagnose

EXIT_NOTHING_WORKS = 3


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor", help="what this device has, which engines work, what is missing",
        description="Look at the device (processor, memory, GPUs, cameras, codecs), run every installed engine once, and say "
        "what would be chosen, what is missing with the command that installs it, and which known traps are sprung.",
        epilog="exit codes: 0 an engine works, 3 none does",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    found = diagnose()
    print(json.dumps(found.to_json(), indent=1) if args.json else found.to_text())
    return 0 if any(e.works for e in found.engines) else EXIT_NOTHING_WORKS
