"""What code may ask of the workers that carry a stage. Torch-free: a stage names them too."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class World(Protocol):
    """The workers that carry one stage: this one's rank, their number, its device."""

    @property
    def rank(self) -> int:
        """Number of this worker, from 0."""

    @property
    def size(self) -> int:
        """Number of workers."""

    @property
    def device(self) -> str:
        """Device that this worker computes on, in torch's words."""
