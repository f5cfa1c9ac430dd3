"""kill -9 on ``tinyseg label`` every few seconds, then let it end, and compare with an undisturbed run byte by byte.

python scripts/kill_label.py                      # a minute, on the packaged model
python scripts/kill_label.py --seconds 600 --processes 2
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def contents(out: Path) -> dict[str, bytes]:
    """What a job leaves, but how long it took."""
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    for name in [n for n in found if n.endswith("_stats.json")]:
        found[name] = json.dumps({**json.loads(found[name]), "seconds": 0}).encode()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long to go on killing (default: 60)")
    parser.add_argument("--images", type=int, default=400, help="pictures to label (default: 400)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args(arguments)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="tinyseg-kill-") as folder:
        root = Path(folder)
        (root / "in").mkdir()
        noise = np.random.default_rng(0)
        for i in range(args.images):
            frame = cv2.resize(noise.integers(0, 255, (9, 12, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(root / "in" / f"{i:05d}.jpg"), frame)
        command = [sys.executable, "-m", "tinyseg", "label", str(root / "in"), "--shard", "4", "--engine", args.engine]
        command += ["--points-per-side", "2", "--processes", str(args.processes), "--images", "copy", "--out"]
        subprocess.run([*command, str(root / "whole")], check=True, stdout=subprocess.DEVNULL)
        kills = ended = 0
        start = time.monotonic()
        while time.monotonic() - start < args.seconds:
            job = subprocess.Popen([*command, str(root / "out")], stdout=subprocess.DEVNULL, start_new_session=True)
            try:
                job.wait(rng.uniform(1, 5))
                ended += 1
                break
            except subprocess.TimeoutExpired:
                # Half of the time the parent alone: its processes must end by themselves.
                if rng.random() < 0.5:
                    os.killpg(job.pid, signal.SIGKILL)
                else:
                    job.kill()
                job.wait()
                kills += 1
        subprocess.run([*command, str(root / "out")], check=True, stdout=subprocess.DEVNULL)
        same = contents(root / "whole") == contents(root / "out")
        print(
            f"{kills} kills in {time.monotonic() - start:.0f} s over {args.images} images in {args.processes} processes: "
            f"output {'identical' if same else 'DIFFERENT'}{', ended before the time was up' if ended else ''}"
        )
        return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
