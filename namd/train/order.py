"""Which cases make up a step: a function of (seed, step), so a data position is a step number."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from namd.config.seeding import generator


@dataclass(frozen=True)
class CaseOrder:
    """Shuffled passes over `num_cases` cases in global batches.

    A pass that does not divide by the batch size runs on into the next pass, so every batch is
    full and every case is seen equally often.

    Attributes:
        purpose: Name of the training; two trainings of one run shuffle differently.
        seed: Training seed.
        num_cases: Cases in the training set.
        batch_size: Global batch.
    """

    purpose: str
    seed: int
    num_cases: int
    batch_size: int

    def __post_init__(self) -> None:
        """Reject an empty training set."""
        if self.num_cases < 1:
            raise ValueError(f"{self.purpose}: no cases to train on")

    def at(self, step: int) -> Int[np.ndarray, " batch"]:
        """Return the case numbers of the global batch of a step."""
        first = step * self.batch_size
        positions = np.arange(first, first + self.batch_size)
        passes = positions // self.num_cases
        order = {int(p): self._pass(int(p)) for p in np.unique(passes)}
        return np.array(
            [order[int(p)][i % self.num_cases] for p, i in zip(passes, positions, strict=True)]
        )

    def _pass(self, number: int) -> np.ndarray:
        return generator("case-order", self.purpose, self.seed, number).permutation(self.num_cases)
