"""What a study's driver tells whoever shows it elsewhere: plain values, so that no room is needed.

A tracker is a view. It is told what the ledger has already recorded, may be built again from the
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
        """One record of the ledger, after it is durable; in the order of the ledger.

        The first one is the study's `opened`, whose body holds `specification` and
        `configuration`.
        """
        ...

    def step(
        self, label: str, key: str, index: int, total: int, metrics: Mapping[str, float]
    ) -> None:
        """A stage that is being built is further on."""
        ...

    def table(
        self, rows: Sequence[Mapping[str, Any]], effects: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """The study's final table: one mapping per arm or winner, and one per effect."""
        ...

    def close(self) -> None:
        """Nothing more will be told."""
        ...
