"""kill -9 at any time: what is gathered at the end is what an undisturbed run gives."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.killed import dies
from tests.tinyseg.label.conftest import Job, contents
from tinyseg.label import finding
from tinyseg.label.inputs import Shard
from tinyseg.label.processes import core_groups, label_in_processes
from tinyseg.label.shard import Journal, ShardStats
from tinyseg.label.worker import Setup

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.mark.parametrize("format", ["coco", "webdataset"])
def test_killed_again_and_again(format: str, job: Job, tmp_path: Path) -> None:
    """Every run gets a little farther; each begins with what the one before left."""
    job.label(tmp_path / "whole", format=format, images="copy")
    out = tmp_path / "out"
    context = multiprocessing.get_context("fork")
    kills = 0
    for at in range(5, 400, 7):
        child = context.Process(target=dies, args=(lambda: job.label(out, format=format, images="copy"), out, at))
        child.start()
        child.join(60)
        assert child.exitcode in (0, -signal.SIGKILL)
        if child.exitcode == 0:
            break
        kills += 1
    assert kills >= 5 and contents(out) == contents(tmp_path / "whole")


def test_killed_once_before_every_step(tmp_path: Path) -> None:
    """A small job, killed before each thing it does, and run again."""
    job = Job(tmp_path, 2)
    job.label(tmp_path / "whole")
    wanted = contents(tmp_path / "whole")
    context = multiprocessing.get_context("fork")
    for at in range(0, 200, 2):
        out = tmp_path / f"out{at}"
        child = context.Process(target=dies, args=(lambda out=out: job.label(out), out, at))
        child.start()
        child.join(60)
        job.label(out)
        found = contents(out)
        assert found == wanted, at
        if child.exitcode == 0:
            break
    assert at > 20


def setup_of(job: Job, out: Path) -> tuple[Setup, list[list[Shard]]]:
    """What label() hands to its processes."""
    (out / "shards").mkdir(parents=True)
    names = tuple(job.names)
    shards = [[Shard(i, "files", names[i : i + 1])] for i in range(len(names))]
    wanted = finding.BoxFile(str(job.boxes))
    return Setup(wanted, out, job.inputs, ".jsonl.gz", "auto", 1, 0, None, "fake", "fp32", 1, True), shards


def test_a_killed_process_is_started_again(job: Job, tmp_path: Path) -> None:
    setup, groups = setup_of(job, tmp_path / "out")
    done: list[ShardStats] = []
    killed = 0
    for stats in label_in_processes(setup, groups, 2):
        done.append(stats)
        if len(done) == 1:
            for child in psutil.Process().children():
                if any("spawn_main" in part for part in child.cmdline()):
                    child.kill()
                    killed += 1
    assert killed == 2 and sorted(s.shard for s in done) == list(range(10)) and sum(s.images for s in done) == 10


def test_what_a_process_raises_is_raised_here(job: Job, tmp_path: Path) -> None:
    setup, groups = setup_of(job, tmp_path / "out")
    (tmp_path / "out" / "shards").rmdir()
    with pytest.raises(finding.DataError, match="cannot be written"):
        list(label_in_processes(setup, groups, 2))


def test_a_picture_that_kills_is_left_out_after_three_deaths(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for _ in range(3):
        journal = Journal(tmp_path, 0)
        assert [journal.begin(i) for i in (0, 1)] == [True, True]  # and dies at 1
    journal = Journal(tmp_path, 0)
    assert [journal.begin(i) for i in (0, 1, 2)] == [True, False, True]
    for _ in range(2):  # dies at 2 as well, once
        journal = Journal(tmp_path, 0)
        assert [journal.begin(i) for i in (0, 1, 2)] == [True, False, True]
    journal.end()
    assert Journal(tmp_path, 0).begin(1)


def test_every_process_has_cores_of_its_own() -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    assert core_groups(1) == [tuple(cores)]
    groups = core_groups(len(cores))
    assert sorted(c for g in groups for c in g) == cores
    assert all(len(g) == 1 for g in core_groups(len(cores) + 3))


def test_the_longer_script_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """scripts/kill_label.py, which does this to the command itself for a minute, at its smallest."""
    spec = importlib.util.spec_from_file_location("kill_label", ROOT / "scripts" / "kill_label.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(["--seconds", "2", "--images", "6", "--engine", "fake"]) == 0
    assert "identical" in capsys.readouterr().out
