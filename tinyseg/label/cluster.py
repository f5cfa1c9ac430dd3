"""The same job on a Ray cluster: Ray Data hands shards to actors, each of which is one worker (extra ``ray``).

Every machine must see inputs and --out under the same paths. Only shards' descriptions and stats pass through Ray: pictures are read,
and results written, where they are labelled, so its object store stays empty. Ray starts dead actors again and repeats their work;
names of files are functions of the shard, so nothing is doubled, and shards that were done are passed over.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from tinyseg.engines.cpu import available_cores
from tinyseg.errors import EngineError, InputError, NotInstalled, TinysegError
from tinyseg.label.inputs import Shard
from tinyseg.label.shard import ShardStats, is_done, read_stats
from tinyseg.label.worker import Setup, Worker

LOCAL = "local"
GROUP = 16  # shards of one video or tar that an actor is given at once
BLOCKS_AN_ACTOR = 64
CONNECT_SECONDS = 10.0
STOP_SECONDS = 30.0


def import_ray() -> Any:
    """The module. Raises NotInstalled."""
    try:
        import ray  # noqa: PLC0415 - an extra
        import ray.data  # noqa: PLC0415
    except ImportError as exc:
        raise NotInstalled(f"ray is not installed ({exc}); run: pip install 'tinyseg[ray]'") from exc
    return ray


class LabelActor:
    """What Ray Data makes one of in every actor; its call takes and gives batches of rows."""

    def __init__(self, setup: Setup) -> None:
        self._worker = Worker(setup)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        shards = [shard for packed in batch["shards"] for shard in pickle.loads(packed)]
        try:
            return {"told": [pickle.dumps(self._label(shard)) for shard in shards]}
        except TinysegError as exc:  # as a row: what Ray makes of an exception is no longer one of ours
            return {"told": [pickle.dumps(exc)]}

    def _label(self, shard: Shard) -> ShardStats | None:
        setup = self._worker.setup
        if is_done(setup.out, shard.number, setup.kind):  # by an actor that died afterwards
            return read_stats(setup.out, shard.number)
        stats: ShardStats | None = None
        for stats in self._worker.label(shard):  # noqa: B007 - the last one is of the whole shard
            pass
        return stats


def label_on_ray(
    setup: Setup, groups: Sequence[Sequence[Shard]], address: str, actors: int | None, devices: float = 0
) -> Iterator[ShardStats]:
    """Label groups of shards; gives the stats of each shard as it is done.

    address: "local" starts a cluster on this machine for the job, "auto" or ray://... joins one. actors: how many, None for as many
    as the cluster has room for. devices: GPUs of each. Raises NotInstalled, InputError, DataError or EngineError.
    """
    ray = import_ray()
    started = _connect(ray, address)
    bundles: Any = None
    try:
        cpus = setup.threads or 1
        cores = int(ray.cluster_resources().get("CPU", 0))
        room = max(1, cores // cpus)
        if actors is not None and actors > room:
            raise InputError(
                f"the cluster has {cores} cores: room for {room} workers of {cpus} threads, not for {actors}; lower "
                "--processes or --threads"
            )
        parts = [list(g[i : i + GROUP]) for g in groups for i in range(0, len(g), GROUP)]
        size = min(actors or room, len(parts))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # its own progress, among ours
        rows = [{"shards": pickle.dumps(tuple(part))} for part in parts]
        blocks = min(len(rows), size * BLOCKS_AN_ACTOR)
        bundles = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            LabelActor, fn_constructor_args=(dataclasses.replace(setup, threads=cpus),), batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=size), num_cpus=cpus, num_gpus=devices or None,
        ).iter_internal_ref_bundles()  # fmt: skip
        for bundle in bundles:
            for block in ray.get(bundle.block_refs):
                for row in ray.data.block.BlockAccessor.for_block(block).iter_rows(public_row_format=True):
                    told = pickle.loads(row["told"])
                    if isinstance(told, TinysegError):
                        raise told
                    yield told
    except ray.exceptions.RayError as exc:
        lines = str(exc).strip().splitlines() or [type(exc).__name__]
        # The last error of ours in what an actor printed, else Ray's own words.
        ours = next((line for line in reversed(lines) if line.startswith(TinysegError.__module__)), lines[-1])
        raise EngineError(f"Ray gave up: {ours.removeprefix(TinysegError.__module__ + '.')}") from exc
    finally:
        # Ray Data executes in a thread that ends with the last reference to its iterator. (iter_rows has a thread more, which
        # keeps one.) A thread that outlives the connection makes another one, or takes the process with it.
        bundles = None
        for thread in threading.enumerate():
            if started and thread.name.startswith("StreamingExecutor"):
                thread.join(STOP_SECONDS)
        if started:
            ray.shutdown()


def _connect(ray: Any, address: str) -> bool:
    """Join or start a cluster; whether we are to leave it at the end. Raises InputError."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that we start reports to nobody
    try:
        if address == LOCAL:
            ray.init(
                address="local", num_cpus=available_cores(), include_dashboard=False, log_to_driver=False,
                logging_level="error",
            )  # fmt: skip
        else:
            _require_somebody(address)
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError, OSError) as exc:
        first = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        raise InputError(
            f"--ray {address} cannot be reached: {first}; give the address of a running head (ray start --head), or local"
        ) from exc
    return True


def _require_somebody(address: str) -> None:
    """Ray itself waits for minutes where nobody listens. Raises OSError or ValueError."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
