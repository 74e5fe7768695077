"""Random initial weights that depend on (purpose, seed) alone, and leave torch's state alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from namd.config.seeding import derive_seed


@contextmanager
def initialised_from(purpose: str, seed: int) -> Iterator[None]:
    """Build modules inside this block: their initial weights come from (purpose, seed).

    torch's layers draw their weights from its global generator only, so it is set for the
    block and put back after it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(purpose, seed) % 2**63)
        yield
