"""How fast a site of `tinyseg web build` answers in this machine's Chromium, without a window: the table of docs/web.md.

python scripts/web_speed.py site [PICTURE] [--threads 1 2] [--rounds 30]

Loads the page over loopback, encodes the picture and clicks into its middle. Medians of rounds; the first of each, in which
memory is laid out, is left out. Needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import shutil
import statistics
import sys
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

from tinyseg.system.device import processor_name

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
MEASURE = """async ([bytes, threads, rounds]) => {
  const { Engine } = await import("./engine.js");
  const { pixelsOf } = await import("./pictures.js");
  const site = await (await fetch("site.json")).json();
  const engine = new Engine(() => {}, () => {});
  const start = performance.now();
  const loaded = await engine.load(site, "wasm", threads);
  const load = performance.now() - start;
  const bitmap = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
  const times = { encode: [], click: [], box: [] };
  for (let i = 0; i <= rounds; i++) times.encode.push((await engine.open(pixelsOf(bitmap))).milliseconds);
  const [x, y] = [bitmap.width / 2, bitmap.height / 2];
  const ask = async (prompt, readings) => (await engine.ask(prompt, readings)).milliseconds;
  for (let i = 0; i <= rounds; i++) times.click.push(await ask({ points: [[x, y]], labels: [1] }, true));
  for (let i = 0; i <= rounds; i++) times.box.push(await ask({ box: [x / 4, y / 4, 1.75 * x, 1.75 * y] }, false));
  return { load, times, model: site.model, precision: loaded.precision, threads: loaded.threads,
    size: `${bitmap.width}x${bitmap.height}`, agent: navigator.userAgent };
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def serve(folder: Path) -> str:
    """A host on loopback, in a thread; its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/"


def main() -> int:
    parser = argparse.ArgumentParser(description="How fast a site answers in Chromium on this machine.")
    parser.add_argument("site", type=Path)
    parser.add_argument("picture", type=Path, nargs="?", default=Path("examples/coffee.jpg"))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, min(4, os.cpu_count() or 1)])
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    chromium = os.environ.get("TINYSEG_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or not (args.site / "site.json").is_file():
        print("chromium is not installed" if chromium is None else f"{args.site} holds no site", file=sys.stderr)
        return 2
    url = serve(args.site)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("#link[data-good]", timeout=300_000)
        picture = list(args.picture.read_bytes())
        rows = [page.evaluate(MEASURE, [picture, threads, args.rounds]) for threads in dict.fromkeys(args.threads)]
        browser.close()
    print(
        f"{processor_name()}, {rows[0]['agent'].split()[-2]}, {rows[0]['model']} {rows[0]['precision']}, picture {rows[0]['size']}\n"
    )
    print("| threads | load | picture | click | box |\n|---|---|---|---|---|")
    for row in rows:
        medians = [statistics.median(row["times"][name][1:]) for name in ("encode", "click", "box")]
        print(f"| {row['threads']} | {row['load'] / 1000:.1f} s | " + " | ".join(f"{m:.0f} ms" for m in medians) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
