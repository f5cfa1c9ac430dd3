"""Write the tables of README.md and docs/ from what was measured, so that no figure is typed by hand.

    python scripts/tables.py            # fill the blocks in README.md and docs/*.md
    python scripts/tables.py --check    # exit 1, naming the blocks that are not what results/ and the models say

A block lies between ``<!-- table: NAME ARGUMENTS -->`` and ``<!-- end of table -->``; TABLES has the names. The figures are
those of results/FOLDER/*.json (``tinyseg bench --all --report results/FOLDER``) and of tinyseg/models/*/model.json.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- table: ([\w-]+)((?: [\w./-]+)*) -->\n).*?(<!-- end of table -->)", re.DOTALL)
ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tensorrt": "TensorRT"}
RIVALS = {"mobilesam": "MobileSAM", "edgesam": "EdgeSAM", "nanosam": "NanoSAM"}
SAM2_FPS = 130.1  # arXiv 2408.00714, image task
SETS = {
    "coco-train2017": "COCO (train2017 photos)", "duts": "DUTS-like (one salient object)", "bsds500": "BSDS500 (regions)",
    "animals": "animals", "mixed": "mixed", "all": "all",
}  # fmt: skip


def read(path: Path) -> Any:
    """A JSON file of the checkout; exits with a message where it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        sys.exit(f"{path}: {exc}")


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Cells, headings first -> a Markdown table."""
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    rows.insert(1, "|" + "---|" * len(lines[0]))
    return "\n".join(rows) + "\n"


def accuracy(model: str) -> str:
    """Mean IoU by set of a packaged model."""
    card = read(ROOT / "tinyseg" / "models" / model / "model.json")["accuracy"]
    columns = {
        "instances": "objects", "fill": "box, just filled", "box": "box", "box_off": "box, no zoom",
        "click1": "1 click", "click1_off": "1 click, no zoom", "click3": "3 clicks",
    }  # fmt: skip
    lines = [["set", *columns.values()]]
    for row in sorted(card["by_set"], key=lambda r: list(SETS).index(r["set"])):
        figures = [str(row[n]) if n == "instances" else f"{row[n]:.3f}" for n in columns]
        lines.append([SETS.get(row["set"], row["set"]), *figures])
    return markdown(lines)


def precisions(model: str) -> str:
    """Speed beside accuracy of every engine and precision of a packaged model, as ``bench --precisions`` measured it."""
    measured = read(ROOT / "tinyseg" / "models" / model / "model.json")["measured"]
    lines = [
        [
            "engine",
            "precision",
            "MB of graphs",
            "speed against its fp32 (95%)",
            "most points lost",
            "COCO box / 1 click",
        ]
    ]
    for row in measured["rows"]:
        plain = row["precision"] == "fp32"
        coco = (row.get("accuracy") or {}).get("coco-train2017")
        factor = "{against_fp32:.2f} ({against_fp32_low:.2f} to {against_fp32_high:.2f})".format(**row)
        lost = row["lost_points"]
        lines.append(
            [
                f"{row['engine']} {row['version']}", row["precision"], f"{row['megabytes']:.1f}", "1.00" if plain else factor,
                "-" if plain or lost is None else f"{lost:.2f}", f"{coco['box']:.3f} / {coco['click1']:.3f}" if coco else "as ONNX Runtime",
            ]
        )  # fmt: skip
    return markdown(lines)


def speed(*folders: str) -> str:
    """The scenarios of some reports, a column each, and the rivals of the same runs; a column of another device names it."""
    reports = [Report(ROOT / folder) for folder in folders]
    first = reports[0]
    titles = [r.title if r.device == first.device else f"{r.title}, {r.device}" for r in reports]
    lines = [[f"{first.device}, {first.frame} frames", *titles]]
    names: dict[str, Callable[[Report], str]] = {
        "frame to full-resolution mask, one box (`predict`)": lambda r: r.milliseconds("predict"),
        "one more prompt (`prompt`)": lambda r: r.milliseconds("prompt"),
        "8 prompts on a frame (`prompts-8`)": lambda r: r.milliseconds("prompts-8"),
        "source to sink, a frame on every core (`loop`)": Report.loop,
        "source to sink, one frame in flight (`loop-latency`)": lambda r: r.milliseconds("loop-latency"),
        "start of the process to its first mask, engines kept from before (`startup`)": Report.startup,
        "faster than " + " / ".join(RIVALS.values()) + " in fp32, frame to mask": lambda r: r.rivals("times_faster"),
        "the same, ours in fp32 too": Report.rivals_in_fp32,
        "faster than MobileSAM in fp32, one more prompt": lambda r: r.rivals("prompt_times_faster", ("mobilesam",)),
    }
    lines += [[name, *(cell(r) for r in reports)] for name, cell in names.items()]
    return markdown(lines)


def sam2(folder: str) -> str:
    """How a report stands to the frame rate that SAM 2's paper states."""
    report = Report(ROOT / folder)
    throughput, single = (report.rate(scenario) for scenario in ("loop", "predict"))
    return (
        f"SAM 2's published {SAM2_FPS} images/s are throughput of Hiera-B+ on an A100, in batches of 10. Our throughput on\n"
        f"{report.device} is {throughput:.0f} frames/s, {throughput / SAM2_FPS:.2f} of that figure, with a far smaller model; "
        f"single stream {single:.0f} frames/s.\n"
    )


class Report:
    """One folder of results/."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        rows = read(folder / "rows.json")
        self._rows: Mapping[str, Any] = {row["scenario"]: row for row in rows}
        self._rivals = read(folder / "rivals.json")
        self.device, self.frame = f"{rows[0]['cores']} cores of {rows[0]['device']}", rows[0]["frame_size"]
        self._precision = rows[0]["precision"]
        self.title = f"{ENGINES.get(rows[0]['engine'], rows[0]['engine'])} {rows[0]['precision']}"

    def milliseconds(self, scenario: str) -> str:
        return f"{self._rows[scenario]['p50_ms']:.1f} ms"

    def rate(self, scenario: str) -> float:
        return float(self._rows[scenario]["fps"])

    def startup(self) -> str:
        return f"{self._rows['startup']['p50_ms'] / 1e3:.2f} s"

    def loop(self) -> str:
        row = self._rows["loop"]
        return f"{row['fps']:.0f} frames/s, {row['loop_efficiency']:.2f} of the bare engine"

    def rivals(self, name: str, which: Sequence[str] = tuple(RIVALS)) -> str:
        return " / ".join(_times(self._rivals[rival][name]["value"]) for rival in which)

    def rivals_in_fp32(self) -> str:
        """Of a run of its own, where there is one; int8 against fp32 would be two effects in one figure."""
        path = self._folder / "rivals-fp32.json"
        if self._precision == "fp32":
            found = self._rivals
        elif path.exists():
            found = read(path)
        else:
            return "not measured"
        return " / ".join(_times(found[rival]["times_faster"]["value"]) for rival in RIVALS)


def _times(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= 15 else f"{ratio:.1f}x"


TABLES: Mapping[str, Callable[..., str]] = {
    "accuracy": accuracy,
    "precisions": precisions,
    "speed": speed,
    "sam2": sam2,
}


def fill(text: str) -> tuple[str, list[str]]:
    """A document with its blocks filled, and the blocks that were not as they should be."""
    changed = []

    def block(found: re.Match[str]) -> str:
        name, arguments = found[2], found[3].split()
        if name not in TABLES:
            sys.exit(f"there is no table {name!r}; known are {', '.join(TABLES)}")
        written = found[1] + TABLES[name](*arguments) + found[4]
        if written != found[0]:
            changed.append(" ".join([name, *arguments]))
        return written

    return BLOCK.sub(block, text), changed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where a table is not what was measured"
    )
    args = parser.parse_args()
    stale = 0
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text()
        written, changed = fill(text)
        stale += len(changed)
        for name in changed:
            print(f"{path.relative_to(ROOT)}: {name} {'is not what was measured' if args.check else 'written'}")
        if written != text and not args.check:
            path.write_text(written)
    return 1 if stale and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
