"""What the launcher reports while it works; the command line shows it."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from namd.methods.base import Step
from namd.pipeline.graph import Node


@runtime_checkable
class Reporter(Protocol):
    """Listens to a run."""

    def planned(self, nodes: Sequence[Node], missing: Sequence[Node]) -> None:
        """All nodes of the run, and those that are not in the store."""
        ...

    def cached(self, node: Node) -> None:
        """A node was found in the store."""
        ...

    def started(self, nodes: Sequence[Node]) -> None:
        """The body of these nodes (one, or members of a family) begins."""
        ...

    def stepped(self, nodes: Sequence[Node], step: Step) -> None:
        """The body is further on."""
        ...

    def finished(self, node: Node, seconds: float) -> None:
        """A node was published."""
        ...

    def waiting(self, node: Node, holder: str) -> None:
        """Another process builds this node; said again and again while it does."""
        ...

    def warned(self, node: Node, line: str) -> None:
        """A stage has one line for the user."""
        ...


class SilentReporter:
    """Says nothing."""

    def planned(self, nodes: Sequence[Node], missing: Sequence[Node]) -> None:
        """Say nothing."""

    def cached(self, node: Node) -> None:
        """Say nothing."""

    def started(self, nodes: Sequence[Node]) -> None:
        """Say nothing."""

    def stepped(self, nodes: Sequence[Node], step: Step) -> None:
        """Say nothing."""

    def finished(self, node: Node, seconds: float) -> None:
        """Say nothing."""

    def waiting(self, node: Node, holder: str) -> None:
        """Say nothing."""

    def warned(self, node: Node, line: str) -> None:
        """Say nothing."""
