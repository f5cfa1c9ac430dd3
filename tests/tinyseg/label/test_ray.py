"""The same job on a Ray cluster: a head and two nodes, each a process of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.tinyseg.label.conftest import Job, contents, write_boxes
from tinyseg.cli import main
from tinyseg.errors import DataError, InputError
from tinyseg.label import BoxFile, label
from tinyseg.label.shard import stats_path

ray = pytest.importorskip("ray", reason="ray is not installed (pip install 'tinyseg[ray]')")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 << 20},
        )
        for _ in range(2):
            made.add_node(num_cpus=1, object_store_memory=80 << 20)
        # Classes of this file travel whole: nodes do not know where tests lie.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield made
        made.shutdown()


@dataclass(frozen=True)
class Deadly:
    """Boxes; but picture 004 kills whoever looks at it, and 007 the first who does."""

    boxes: BoxFile
    flag: str

    categories = ("cup", "dog")

    def facts(self) -> dict[str, Any]:
        return self.boxes.facts()

    def open(self, *given: Any) -> DeadlyFinder:
        return DeadlyFinder(self.boxes.open(*given), self.flag)


class DeadlyFinder:
    def __init__(self, finder: Any, flag: str) -> None:
        self.finder, self.flag = finder, flag

    def find(self, frame: Any, name: str) -> Any:
        if name == "004.png":
            os._exit(1)
        if name == "007.png" and not os.path.exists(self.flag):
            Path(self.flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.finder.find(frame, name)


def test_same_as_one_process_though_workers_die(cluster: Any, job: Job, tmp_path: Path) -> None:
    (job.inputs / "bad.png").write_bytes(b"no picture")
    wanted = Deadly(BoxFile(str(job.boxes)), str(tmp_path / "flag"))
    out = tmp_path / "out"
    report = label([job.inputs], out, wanted, engine="fake", shard=3, ray=cluster.address, threads=1)  # type: ignore[arg-type]
    assert (tmp_path / "flag").exists() and report.images == 9 and report.failed == 2
    errors = (out / "errors.jsonl").read_text()
    assert "died at this picture 3 times" in errors and "bad.png" in errors
    assert not ray.is_initialized()
    # One process never meets the deadly picture.
    (job.inputs / "004.png").write_bytes(b"no picture")
    job.label(tmp_path / "one")
    one, other = contents(tmp_path / "one"), contents(out)
    for name in one:
        if name not in ("label.json", "errors.jsonl", "shards/00001_stats.json"):
            assert one[name] == other[name], name
    assert not [n for n in other if n.endswith((".tmp", ".trying"))]


def test_a_node_lost_in_the_middle(cluster: Any, tmp_path: Path) -> None:
    job = Job(tmp_path, 60)
    out = tmp_path / "out"
    cluster.add_node(num_cpus=1, object_store_memory=80 << 20)

    def lose() -> None:
        while not stats_path(out, 3).exists():
            time.sleep(0.02)
        # Not the one through which this process has joined: it would end with it. (Older releases of Ray take any.)
        own = ray.get_runtime_context().get_node_id()
        sockets = {n["RayletSocketName"] for n in ray.nodes() if n["NodeID"] != own}
        node = next(n for n in cluster.worker_nodes if n.raylet_socket_name in sockets)
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    report = label([job.inputs], out, BoxFile(str(job.boxes)), engine="fake", shard=3, ray=cluster.address, threads=1)
    thread.join(30)
    assert report.images == 60 and not thread.is_alive()
    job.label(tmp_path / "one")
    assert contents(out) == contents(tmp_path / "one")


@dataclass(frozen=True)
class Wrecking(Deadly):
    """Takes the folder away under the job, and is slow in all shards but the first: they are still at it when that one fails."""

    def open(self, *given: Any) -> Any:
        return WreckingFinder(self.boxes.open(*given), self.flag)


class WreckingFinder(DeadlyFinder):
    def find(self, frame: Any, name: str) -> Any:
        if name not in ("000.png", "001.png", "002.png"):
            time.sleep(10.0)
        shutil.rmtree(self.flag, ignore_errors=True)
        return []


def test_what_an_actor_raises_is_told_as_it_is(cluster: Any, job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wanted = Wrecking(BoxFile(str(job.boxes)), str(out / "shards"))
    with pytest.raises(DataError, match=r"shards.*cannot be written"):
        label([job.inputs], out, wanted, engine="fake", shard=3, ray=cluster.address, threads=1)  # type: ignore[arg-type]
    assert not ray.is_initialized()
    # Ray Data's own thread would connect again, behind our back, or end this process.
    assert not [t for t in threading.enumerate() if t.name.startswith("StreamingExecutor")]


def test_what_cannot_be(cluster: Any, job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Two cores, or three while the cluster has not yet noticed that a node was lost (the test before).
    with pytest.raises(InputError, match=r"room for \d workers of 1 threads, not for 50"):
        job.label(tmp_path / "out", ray=cluster.address, processes=50, threads=1)
    arguments = ["label", str(job.inputs), "--out", str(tmp_path / "out"), "--engine", "fake", "--shard", "3"]
    arguments += ["--boxes", str(write_boxes(job.boxes, job.names)), "--ray", "127.0.0.1:1"]
    assert main(arguments) == 2
    assert "--ray 127.0.0.1:1 cannot be reached" in capsys.readouterr().err
