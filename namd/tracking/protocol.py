"""The interface between a study's driver and trackers: plain values, no imports of other packages.

A tracker is a view. It receives what the ledger has already recorded, can be rebuilt from the
ledger at any time, and never decides anything.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Tracker(Protocol):
    """Listens to a study."""

    def event(
        self, trial: str | None, attempt: int, transition: str, body: Mapping[str, Any]
    ) -> None:
        """Receive a durable record of the ledger, in the ledger's order.

        The first one is the study's `opened`, whose body holds `specification` and
        `configuration`.
        """
        ...

    def step(
        self, label: str, key: str, index: int, total: int, metrics: Mapping[str, float]
    ) -> None:
        """Receive a step of a stage that is being built."""
        ...

    def table(
        self, rows: Sequence[Mapping[str, Any]], effects: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Receive the study's final table: one mapping per arm or winner, and one per effect."""
        ...

    def close(self) -> None:
        """End: no further call follows."""
        ...
