"""Several processes, each with its own GPU or cores, training one student: what ``torchrun`` starts.

Every process computes the gradients of a batch of its own; they are averaged before every step, so that all take the same
step. Only the first one writes files. Without torchrun there is one process and nothing is exchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from tinyseg.errors import InputError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors, in place, by their mean over all processes; one exchange for all of them."""
        if self.count == 1:
            return
        held = list(tensors)
        flat = torch.cat([t.detach().flatten().float() for t in held])
        distributed.all_reduce(flat)
        flat /= self.count
        at = 0
        for t in held:
            t.copy_(flat[at : at + t.numel()].view_as(t))
            at += t.numel()

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process: they must stop at the same step."""
        if self.count == 1:
            return flag
        told = torch.tensor([float(flag)], device=device)
        distributed.all_reduce(told, distributed.ReduceOp.MAX)
        return bool(told.item() > 0)

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            distributed.barrier()

    def leave(self) -> None:
        if self.count > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


def checked_device(name: str) -> torch.device:
    """A device by its name. Raises InputError where torch sees none of the kind."""
    if name == "cuda" and torch.cuda.device_count() == 0:
        raise InputError("--device cuda: torch sees no GPU here; use --device cpu")
    return torch.device(name)


def join(device: str) -> tuple[Processes, torch.device]:
    """Meet the other processes that torchrun started, if any; returns this one and the device that is its own.

    Raises InputError where there is no GPU, or fewer than processes.
    """
    own = checked_device(device)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(), own
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if own.type == "cuda":
        if local >= torch.cuda.device_count():
            raise InputError(
                f"torchrun started process {local} on this machine, which has {torch.cuda.device_count()} GPUs; "
                "set --nproc-per-node to that"
            )
        own = torch.device("cuda", local)
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if own.type == "cuda" else "gloo")
    return Processes(rank, count), own
