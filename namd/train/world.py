"""The ranks of a training: one process, or a worker group that torch.distributed has joined."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from namd.train.workers import World


@dataclass(frozen=True)
class LocalWorld:
    """This worker's rank, the number of workers, and the device it computes on."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this worker writes what the worker group writes once."""
        return self.rank == 0


def current_world(device: str | None = None) -> LocalWorld:
    """Return the world of this process; alone where no process group is initialised."""
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if torch.device(chosen).type == "cuda":
        compute_repeatably()
    if dist.is_available() and dist.is_initialized():
        return LocalWorld(dist.get_rank(), dist.get_world_size(), chosen)
    return LocalWorld(device=chosen)


def compute_repeatably() -> None:
    """Let this process's CUDA kernels give the same bits every time, and fp32 mean fp32.

    An operation that has no deterministic kernel warns and goes on. Has to come before the first
    product on the device; without CUDA it changes nothing.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def mean_over_workers(values: Float[Tensor, " N"], world: World) -> Float[Tensor, " N"]:
    """Return the mean of the workers' values; the input itself on one worker."""
    if world.size == 1:
        return values
    total = values.to(world.device)
    dist.all_reduce(total)
    return (total / world.size).cpu()


def wait_for_all(world: World) -> None:
    """Return once every worker has come here."""
    if world.size > 1:
        dist.barrier()


def leaders_word(number: int, world: World) -> int:
    """Return the number that rank 0 holds."""
    if world.size == 1:
        return number
    told = torch.tensor(number, device=world.device)
    dist.broadcast(told, src=0)
    return int(told)


def share_of(batch: int, rank: int, size: int) -> slice:
    """Return the part of a global batch that a rank takes: contiguous, equal for all ranks.

    Raises ValueError if the batch cannot be shared equally.
    """
    if batch % size:
        raise ValueError(f"a global batch of {batch} cannot be shared by {size} workers")
    part = batch // size
    return slice(rank * part, (rank + 1) * part)
