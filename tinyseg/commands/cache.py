"""``tinyseg cache``: what was built, whether it is whole, and how to be rid of it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tinyseg.engines.cache import EngineCache, Entry, open_cache
from tinyseg.errors import CacheError
from tinyseg.graphs.shapes import describe_shape


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "cache", help="list, verify or clear the engines that were built",
        description="Engines are built once and kept. The folder is TINYSEG_CACHE, else the platform's place for caches; "
        "TINYSEG_CACHE_MB bounds its size (default 2048, 0 goes without), the least recently used go first. It has to be your "
        "own: with TINYSEG_CACHE_SHARED=1 a folder of several users serves too, and every engine is compared again.",
    )  # fmt: skip
    parser.add_argument(
        "action", choices=("list", "verify", "clear"), help="verify reads every byte, sets damaged ones aside"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    cache, told = open_cache()
    if cache is None:
        raise CacheError(f"the cache is {told}")
    if args.action == "clear":
        count = cache.clear()
        print(json.dumps({"removed": count}) if args.json else f"removed {count} engines from {cache.root}")
        return 0
    entries = cache.entries(check=args.action == "verify")
    damaged = [e for e in entries if e.problem]
    aside = {e.path for e in damaged if args.action == "verify" and cache.set_aside(e.path)}
    print(json.dumps([_facts(e) for e in entries], indent=1) if args.json else _table(cache, entries, aside))
    return 1 if args.action == "verify" and damaged else 0


def _facts(entry: Entry) -> dict[str, object]:
    return {"id": entry.path.name[:12], "megabytes": entry.megabytes, "last_used": entry.last_used,
            "problem": entry.problem, "key": dict(entry.key)}  # fmt: skip


def _table(cache: EngineCache, entries: list[Entry], aside: Collection[Path]) -> str:
    lines = []
    for entry in sorted(entries, key=lambda e: -e.last_used):
        key = entry.key
        shape = key.get("dimensions")
        sizes = describe_shape(shape) if isinstance(shape, dict) else ""
        age = max(time.time() - entry.last_used, 0) / 3600
        state = f"used {age:.1f} h ago"
        if entry.problem:
            state = f"damaged{', set aside' if entry.path in aside else ''}: {entry.problem}"
        lines.append(
            f"{entry.path.name[:12]}  {entry.megabytes:6.1f} MB  {key.get('engine', '?')} {key.get('version', '')} "
            f"{key.get('precision', '')}  {sizes}  {state}"
        )
    total = sum(e.megabytes for e in entries)
    return "\n".join([*lines, f"{len(entries)} engines, {total:.1f} MB in {cache.root}"])
