"""Draws of follow-ups: batching of cases. What a draw is, the method's model knows."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from namd.config.threads import spare_threads

Batch = TypeVar("Batch")
Result = TypeVar("Result")


@runtime_checkable
class Drawer(Protocol):
    """A trained model bound to the cases it is asked about.

    Everything that does not depend on the draw index (context, baseline latents) is computed
    once, when the drawer is made.
    """

    batch_size: int
    device: str

    def __len__(self) -> int:
        """Return the number of cases."""
        ...

    def draw(self, cases: np.ndarray, index: int) -> Float[Tensor, "B 1 H W"]:
        """Return draw `index` of these case numbers, in [-1, 1].

        The noise behind it depends on (draw seed, case id, index) alone.
        """
        ...


@runtime_checkable
class ReportReader(Protocol):
    """A drawer that reads a record as text."""

    def report(self, values: Mapping[str, Any]) -> str:
        """Return the text that it reads of a record's values."""
        ...


def draw(drawer: Drawer, index: int, cases: np.ndarray | None = None) -> Float[Tensor, "N 1 H W"]:
    """Return draw `index` of these case numbers (None: every case), on the CPU in fp32."""

    def one(batch: np.ndarray) -> Tensor:
        return drawer.draw(batch, index).float().cpu()

    cases = np.arange(len(drawer)) if cases is None else cases
    batches = [
        cases[first : first + drawer.batch_size]
        for first in range(0, len(cases), drawer.batch_size)
    ]
    return torch.cat(map_batches(one, batches, drawer.device))


def map_batches(
    function: Callable[[Batch], Result], batches: Sequence[Batch], device: str
) -> list[Result]:
    """Return the function of every batch, in order and without gradients.

    On a CPU each batch has one thread to itself, and as many batches as the process has threads
    are done at a time: a step's operations on small latents are too short to be shared out, and
    one thread's sums do not depend on how many there are.
    """

    @torch.no_grad()
    def one(batch: Batch) -> Result:
        return function(batch)

    if device != "cpu":
        return [one(batch) for batch in batches]
    threads, workers = torch.get_num_threads(), min(spare_threads(), len(batches))
    torch.set_num_threads(1)  # of this thread, and of each that starts from here on
    try:
        if workers < 2:
            return [one(batch) for batch in batches]
        with ThreadPoolExecutor(workers, "batch") as pool:
            return list(pool.map(one, batches))
    finally:
        torch.set_num_threads(threads)
