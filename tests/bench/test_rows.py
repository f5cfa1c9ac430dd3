"""A row for tests of what is said of rows."""

from __future__ import annotations

from dataclasses import fields

from tinyseg.bench.rows import BenchRow, read_json, to_csv, to_json


def bench_row() -> BenchRow:
    """A measured "predict" of a processor that does not exist."""
    values: dict[str, object] = {f.name: None for f in fields(BenchRow)}
    values.update(
        scenario="predict", kind="latency", fps=90.0, p50_ms=11.0, p90_ms=12.0, p99_ms=13.0, mean_ms=11.1, std_ms=0.5,
        count=100, warm_up=5, stable=True, median_low_ms=10.9, median_high_ms=11.1, stages="all", model="m",
        model_sha256="0" * 64, engine="openvino", engine_version="1", precision="fp32", threads=2, streams=1,
        frame_size="1280x720", input_size="512x288", batch=1, prompts=1, reference_iou=1.0, device="a processor", cores=2,
        notes="", utc="2026-01-01T00:00:00+00:00", tinyseg_version="0.1.0", samples_ms=(11.0,),
    )  # fmt: skip
    return BenchRow(**values)  # type: ignore[arg-type]


def test_rows_go_to_json_and_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "rows.json").write_text(to_json([bench_row()]))
    assert read_json(tmp_path / "rows.json") == [bench_row()]
    assert to_csv([bench_row()]).count("\n") == 2
