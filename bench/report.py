"""One report of a device: rows, rivals in the same run, a table, and a plot of accuracy against frame rate."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyseg.bench.rivals import PEER_NAMES, SpeedReport, compare_predict, load_peer, run_peer
from tinyseg.bench.rows import BenchRow, against_sam2, to_json, to_markdown
from tinyseg.errors import NotInstalled
from tinyseg.files import write_bytes
from tinyseg.predict.load import load
from tinyseg.predict.segmenter import Segmenter
from tinyseg.system.folders import ResultFolder

# Published mIoU on COCO from ground-truth boxes (survey, arXiv 2410.04960), which nobody here measured.
PUBLISHED_BOX_MIOU = {"mobilesam": 0.734, "edgesam": 0.759, "nanosam": 0.697}
OUR_SET = "coco-train2017"
FILES = ("report.md", "rows.json", "rivals.json", "accuracy-speed.svg", "accuracy-speed.png")


@dataclass(frozen=True)
class PlotPoint:
    """One model on the plot."""

    label: str
    frames_per_second: float
    box_miou: float
    measured: bool  # False: the accuracy is somebody else's published figure


def plot_points(seg: Segmenter, rivals: dict[str, SpeedReport]) -> list[PlotPoint]:
    """Ours with the accuracy of its card, rivals with their published one; all frame rates are of this run."""
    rows = seg.model.card.get("accuracy", {}).get("by_set", [])
    ours = next((r["box"] for r in rows if r["set"] == OUR_SET), None)
    points = []
    if ours is not None and rivals:
        rate = 1e3 / next(iter(rivals.values())).ours.p50_ms
        points.append(PlotPoint(f"tinyseg ({seg.info.engine} {seg.info.precision})", rate, ours, True))
    for name, report in rivals.items():
        title = report.peer.label.partition(" (")[0]
        points.append(
            PlotPoint(f"{title} (accuracy as published)", 1e3 / report.peer.p50_ms, PUBLISHED_BOX_MIOU[name], False)
        )
    return points


def draw_plot(points: list[PlotPoint], folder: ResultFolder, device: str) -> list[Path]:
    """Box mIoU over frames/s (log), as SVG and PNG. Raises NotInstalled without matplotlib."""
    try:
        import matplotlib  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise NotInstalled("the plot needs matplotlib; run: pip install 'tinyseg[report]'") from exc
    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415 - after the choice of what it draws with

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for point in points:
        marker, color = ("o", "#0072b2") if point.measured else ("s", "#d55e00")
        axes.scatter(point.frames_per_second, point.box_miou, marker=marker, color=color, s=60, zorder=3)
        axes.annotate(
            point.label,
            (point.frames_per_second, point.box_miou),
            xytext=(7, 6),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.margins(x=0.45, y=0.25)
    axes.set_xlabel(f"frames a second, one 1280x720 frame at a time, measured on {device}")
    axes.set_ylabel("COCO box mIoU")
    axes.grid(alpha=0.3)
    axes.set_title("accuracies are not of one protocol: ours on 90 photos, rivals' as published", fontsize=9)
    written = []
    for suffix in ("svg", "png"):
        path = folder.place(f"accuracy-speed.{suffix}")
        drawn = io.BytesIO()
        figure.savefig(drawn, format=suffix, dpi=130, metadata={"Date": None} if suffix == "svg" else None)
        write_bytes(path, drawn.getvalue())
        written.append(path)
    pyplot.close(figure)
    return written


def open_report(folder: Path) -> ResultFolder:
    """The folder of a report, before anything is timed. Raises DataError where it holds somebody's files of these names."""
    out = ResultFolder(folder)
    for name in FILES:
        out.place(name)
    return out


def write_report(seg: Segmenter, rows: list[BenchRow], out: ResultFolder, command: str, rounds: int) -> str:
    """Measure the rivals, and write FILES; returns the report's text."""
    rivals: dict[str, SpeedReport] = {
        name: compare_predict(seg, run_peer(load_peer(name), seg.info.threads), rounds) for name in PEER_NAMES
    }
    if seg.info.precision != "fp32":
        # Rivals run in fp32: beside ours in its own precision that is two effects, so ours in fp32 is measured too.
        plain = load(seg.model.path, seg.info.engine, "fp32", threads=seg.info.threads)
        same = {n: compare_predict(plain, run_peer(load_peer(n), plain.info.threads), rounds) for n in PEER_NAMES}
        facts = {name: report.to_json() for name, report in same.items()}
        write_bytes(out.place("rivals-fp32.json"), json.dumps(facts, indent=1).encode())
    pictures = draw_plot(plot_points(seg, rivals), out, rows[0].device)
    card = seg.model.card.get("accuracy", {})
    lines = [
        f"# Speed on {rows[0].device}", "", f"Made by `{command}`.", "", to_markdown(rows), "", *against_sam2(rows), "",
        "## Beside rivals, in alternating rounds", "",
        "Their architectures with random weights on ONNX Runtime fp32: speed only. Their encoder and decoder alone are timed;",
        "resizing and full-resolution masks are in our time and not in theirs.", "", "```",
        *(line for report in rivals.values() for line in (report.to_text(), "")), "```", "",
        f"![accuracy against frame rate]({pictures[0].name})", "",
        f"Rivals' accuracies are published ones (arXiv 2410.04960); ours is of the model's card: the {OUR_SET} set of the "
        f"evaluation data, on {card.get('engine', '?')} {card.get('precision', '?')}.",
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    write_bytes(out.place("rows.json"), to_json(rows).encode())
    content: dict[str, Any] = {name: report.to_json() for name, report in rivals.items()}
    write_bytes(out.place("rivals.json"), json.dumps(content, indent=1).encode())
    write_bytes(out.place("report.md"), text.encode())
    return text
