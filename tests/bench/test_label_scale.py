"""The command that says what labelling costs; its figures are not looked at, only that they belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinyseg.bench import label_scale
from tinyseg.errors import InputError


def test_rates_and_what_they_add_up_to(tmp_path: Path) -> None:
    for part, count in (("whole", 24), ("half", 12)):
        label_scale.tiny_pictures(tmp_path / part, count, 6)
    rate = label_scale.measure(tmp_path, "one process", "fake", 1, 1, 16)
    assert (rate.workers, rate.threads) == (1, 1) and rate.masks_per_image == 0.2 and rate.bytes_per_image > 10
    each = label_scale.costs(tmp_path)
    assert each.plan_bytes > 10 and each.annotations_bytes > 50 and each.gather_us > 0 and each.sent_bytes > 5
    exact = label_scale.Rate("one process", 1, 1, 4.0, 1.0, 20.0, 2000.0)
    rows = {what: much for what, _, much in label_scale.added_up(100_000_000, 1000, exact, 2.0, each)}
    assert rows["work, core-days"] == "289" and rows["days on 1000 cores"] == "0.29"
    assert rows["shards of 1000"] == "100,000" and rows["rows, GB"] == "200"
    assert rows["Ray beside processes, worker-days"] == "2.3" and rows["lost by a kill, s a worker at most"] == "250"
    unknown = label_scale.Rate("one process", 1, 1, None, None, 20.0, 2000.0)
    assert label_scale.added_up(1000, 10, unknown, None, each)[0][2] == "give more images"


def test_photographs_and_memory(tmp_path: Path) -> None:
    assert len(list(label_scale.photographs(tmp_path / "photos", 2).iterdir())) == 2
    samples = label_scale.memory(tmp_path, 150)
    assert all(0 <= share <= 1 and megabytes > 20 for share, megabytes in samples)
    assert label_scale.tenths([(0.05, 10.0), (0.07, 30.0), (0.95, 20.0)]) == [30.0, *[0.0] * 8, 20.0]


def test_numbers_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="at least 4"):
        label_scale.main(["--images", "2"])
