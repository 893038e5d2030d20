"""Data parallelism with `torchrun`: one process per GPU, or several processes on a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a group: imported later, by DDP, its defaults keep that group and its threads
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dovit.runtime.errors import DovitError, UsageError

# the others wait while the first process validates: torch's 10 minutes (NCCL) or 30 (gloo) would end the run there. Where a
# process has died, torchrun ends the others
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Process:
    """The rank of this process, the number of processes, and its device."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes files and shows progress."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module` with its gradients averaged over the processes."""
        if self.world == 1:
            return module
        # where every token of a batch has stopped, the later layers take no part in a step
        return DistributedDataParallel(module, find_unused_parameters=True)

    def synchronised(self, model: nn.Module) -> None:
        """Let batch norms see the batches of all processes, on GPUs."""
        if self.world > 1 and self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.world > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
            value /= self.world
        return value

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any of the processes."""
        if self.world > 1:
            count = torch.tensor(int(flag), device=self.device)
            dist.all_reduce(count)
            flag = bool(count.item())
        return flag

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that a DovitError in one of the processes ends in all of them, so that none waits for one that has ended."""
        met: DovitError | None = None
        try:
            yield
        except DovitError as error:
            met = error
        if self.any(met is not None):
            raise met or DovitError("another process of this run met an error, which it names itself")


@contextmanager
def process(device: str | None) -> Iterator[Process]:
    """Join the processes that torchrun started, or be the only one. `device`: cpu, cuda, or None for the GPU if any.

    Raises UsageError where there is no such device.
    """
    if device not in (None, "cpu", "cuda"):
        raise UsageError(f"--device {device}: choose cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here; leave --device out to train on the CPU")
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if kind == "cuda":
        torch.cuda.set_device(local)
    place = torch.device(kind, local) if kind == "cuda" else torch.device("cpu")
    if world > 1:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Process(int(os.environ.get("RANK", "0")), world, place)
    finally:
        if world > 1:
            dist.destroy_process_group()
