"""Draws of follow-ups: batching of cases. What a draw is, the method's model knows."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Drawer(Protocol):
    """A trained model bound to the cases it is asked about.

    Everything that does not depend on the draw index (context, baseline latents) is computed
    once, when the drawer is made.
    """

    batch_size: int

    def __len__(self) -> int:
        """Return the number of cases."""
        ...

    def draw(self, cases: np.ndarray, index: int) -> Float[Tensor, "B 1 H W"]:
        """Return draw `index` of these case numbers, in [-1, 1].

        The noise behind it depends on (draw seed, case id, index) alone.
        """
        ...


@torch.no_grad()
def draw(drawer: Drawer, index: int) -> Float[Tensor, "N 1 H W"]:
    """Return draw `index` of every case, on the CPU in fp32."""
    count = len(drawer)
    batches = [
        drawer.draw(np.arange(first, min(first + drawer.batch_size, count)), index).float().cpu()
        for first in range(0, count, drawer.batch_size)
    ]
    return torch.cat(batches)
