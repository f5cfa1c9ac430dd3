"""Make web/core.wasm, the core for browsers, of the C++ in native/; and web/core.json, which says of what it was made.

python scripts/web_core.py          after a change in native/; both files are committed
python scripts/web_core.py --check  says whether they fit the sources

Needs Emscripten (Debian, Ubuntu: sudo apt-get install emscripten); the committed file is made with Debian 12's, 3.1.6, and the
same sources give the same bytes there (tests/web/test_core.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
NATIVE = ROOT / "native"
SOURCES = ("web", "answer", "frame", "geometry", "grid", "mask", "prompt", "resample", "specks")
# No contraction: products and sums are rounded as written (native/geometry.hpp says why).
FLAGS = (
    "-O3", "-msimd128", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fno-exceptions", "-fno-rtti", "-ffp-contract=off",
    "--no-entry", "-sSTANDALONE_WASM=1", "-sALLOW_MEMORY_GROWTH=1",
)  # fmt: skip
DEBIAN_NODE = Path("/usr/share/nodejs")


def files() -> list[Path]:
    """The sources and every header that they include."""
    found: list[Path] = []
    queue = [NATIVE / f"{name}.cpp" for name in SOURCES]
    while queue:
        path = queue.pop()
        if path not in found:
            found.append(path)
            queue += [NATIVE / name for name in re.findall(r'^#include "(.+)"$', path.read_text(), re.MULTILINE)]
    return sorted(found)


def digest() -> str:
    """sha256 of the sources and the flags."""
    summed = hashlib.sha256(" ".join(FLAGS).encode())
    for path in files():
        summed.update(path.name.encode() + path.read_bytes())
    return summed.hexdigest()


def compiler() -> str | None:
    """emcc's version line, None where it is not installed."""
    if shutil.which("emcc") is None:
        return None
    out = subprocess.run(["emcc", "--version"], capture_output=True, text=True, check=True, env=_environment()).stdout
    return out.splitlines()[0].strip()


def _environment() -> dict[str, str]:
    # Debian's Emscripten takes its JavaScript parser from Debian's Node packages, whichever Node runs.
    return {**os.environ, **({"NODE_PATH": str(DEBIAN_NODE)} if DEBIAN_NODE.is_dir() else {})}


def build(out: Path) -> None:
    """Compile core.wasm into a file."""
    names = [f"{name}.cpp" for name in SOURCES]
    subprocess.run(["emcc", *names, *FLAGS, "-o", str(out)], cwd=NATIVE, check=True, env=_environment())
    out.chmod(0o644)


def main() -> int:
    wasm, card = ROOT / "web" / "core.wasm", ROOT / "web" / "core.json"
    if "--check" in sys.argv[1:]:
        fits = card.is_file() and json.loads(card.read_text())["sources"] == digest()
        print("web/core.wasm fits native/" if fits else "native/ has changed: run python scripts/web_core.py")
        return 0 if fits else 1
    version = compiler()
    if version is None:
        print("emcc is not installed (Debian, Ubuntu: sudo apt-get install emscripten)", file=sys.stderr)
        return 1
    build(wasm)
    facts = {"sources": digest(), "compiler": version, "sha256": hashlib.sha256(wasm.read_bytes()).hexdigest()}
    card.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"web/core.wasm: {wasm.stat().st_size:,} bytes, {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
