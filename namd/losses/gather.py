"""Rows of all workers as one batch, with gradients. Needs no process group to work on one worker.

The scaling law. Let L be a loss of the global batch z = (z_1, ..., z_R), formed alike on each of
R ranks from gathered rows. The backward pass of `gather_rows` sums the ranks' gradients, so rank
r receives R dL/dz_r and its parameters R (dL/dz_r) (dz_r/dtheta). DDP averages over ranks:
(1/R) sum_r R (dL/dz_r)(dz_r/dtheta) = dL/dtheta. A loss formed on gathered rows is therefore
neither multiplied nor divided by anything; a loss formed as a mean over a rank's own rows is right
under the same averaging where all ranks hold equally many rows; where they do not, it is to be
multiplied by `uneven_share`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.distributed import (
    all_gather,
    all_reduce,
    get_rank,
    get_world_size,
    is_available,
    is_initialized,
)

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Inside this block nothing is gathered: what every rank computes on the same rows.

    A validation is such: gathered, its cases would be there once per rank.
    """
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def workers() -> int:
    """Return how many ranks share a batch here; 1 without a process group."""
    if _ALONE.get() or not (is_available() and is_initialized()):
        return 1
    return int(get_world_size())


def gather_rows(rows: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "G ..."]:
    """Return the rows of all ranks in order of rank; the input itself without a process group.

    Every rank must call it with the same shape: cases that a loss leaves out are marked in a mask
    that is gathered too, not cut from the rows. Integers and booleans carry no gradient.
    """
    if workers() == 1:
        return rows
    if rows.dtype == torch.bool:
        return _GatherRows.apply(rows.to(torch.uint8)).bool()
    return _GatherRows.apply(rows)


def global_masked_mean(values: Float[Tensor, " B"], mask: Bool[Tensor, " B"]) -> Float[Tensor, ""]:
    """Return the mean of the masked-in values over the rows of all ranks; 0 if there are none.

    The count is global: ranks with few known labels weigh as much as their cases do.
    """
    gathered, known = gather_rows(values), gather_rows(mask)
    return gathered.masked_fill(~known, 0.0).sum() / known.sum().clamp(min=1)


def sum_over_ranks(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return the sum of all ranks' values, with gradients; the input itself on one worker."""
    return values if workers() == 1 else _SumOverRanks.apply(values)


def uneven_share(count: int, device: torch.device | str) -> float | Float[Tensor, ""]:
    """Return this rank's number of items over the mean number of the ranks; 1 on one worker.

    A mean over a rank's own items, multiplied by it, averages over ranks to the global mean.
    """
    if workers() == 1:
        return 1.0
    total = torch.tensor(float(count), device=device)
    all_reduce(total)
    return count * workers() / total


class _SumOverRanks(torch.autograd.Function):
    """Own code for the same reason as `_GatherRows`."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor) -> Tensor:  # noqa: ARG004
        total = values.clone(memory_format=torch.contiguous_format)
        all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        all_reduce(total)
        return total


class _GatherRows(torch.autograd.Function):
    """Own code: torch.distributed.nn's is deprecated and its successor is private."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor) -> Tensor:  # noqa: ARG004
        parts = [torch.empty_like(rows) for _ in range(get_world_size())]
        all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        all_reduce(summed)
        return summed.chunk(get_world_size())[get_rank()]
