"""A run's progress for people: bars on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from namd.cli.output import duration, echo
from namd.methods.base import Step
from namd.pipeline.graph import Node
from namd.storage.stage_names import StageName

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET_S = 30.0
"""A log hears of a stage at every tenth of it, and at least this often."""

Estimates = Mapping[str, float | None]


class PlainReporter:
    """Writes lines to stderr.

    Args:
        estimate: Returns what the missing nodes took when something like them was last built,
            by label; None if nothing is known.
    """

    def __init__(self, estimate: Callable[[Sequence[Node]], Estimates]) -> None:
        self.estimate = estimate
        self._tenth = -1
        self._last = 0.0
        self._begin = 0.0
        self._first_index: int | None = None
        self._waiting: set[str] = set()

    def planned(self, nodes: Sequence[Node], missing: Sequence[Node]) -> None:
        """Say how much is there, how much is to do, and about how long that takes."""
        echo(
            f"{len(nodes)} artifacts: {len(nodes) - len(missing)} in the store, "
            f"{len(missing)} to build"
        )
        if missing:
            stages = [node.stage.recorded for node in missing]
            echo(forecast(stages, self.estimate(missing)))

    def cached(self, node: Node) -> None:
        """A found artifact was counted in the plan already."""

    def started(self, nodes: Sequence[Node]) -> None:
        """Say which body begins."""
        self._tenth, self._last = -1, time.monotonic()
        self._begin, self._first_index = self._last, None
        echo(f"{title(nodes)}: started")

    def stepped(self, nodes: Sequence[Node], step: Step) -> None:
        """Say how far the body is, at every tenth."""
        now = time.monotonic()
        if self._first_index is None:
            self._first_index, self._begin = step.index, now
        tenth = 10 * step.index // max(step.total, 1)
        if tenth <= self._tenth and now - self._last < QUIET_S:
            return
        self._tenth, self._last = max(tenth, self._tenth), now
        echo(f"{title(nodes)}: {step.index} of {step.total}{self._left(step, now)}{metrics(step)}")

    def finished(self, node: Node, seconds: float) -> None:
        """Say what was published."""
        echo(f"{node.label}: done in {duration(seconds)}")

    def waiting(self, node: Node, holder: str) -> None:
        """Say once per node who builds it."""
        if node.label not in self._waiting:
            self._waiting.add(node.label)
            echo(f"{node.label}: being built by {holder}; waiting")

    def warned(self, node: Node, line: str) -> None:
        """Say the warning."""
        echo(f"{node.label}: warning: {line}")

    def _left(self, step: Step, now: float) -> str:
        done = step.index - (self._first_index or 0)
        if done <= 0 or step.index >= step.total:
            return ""
        return f", {duration((now - self._begin) / done * (step.total - step.index))} left"


class RichReporter(PlainReporter):
    """Draws a bar for the body that runs; what is done stays as a line above it."""

    def __init__(
        self, estimate: Callable[[Sequence[Node]], Estimates], progress: "Progress"
    ) -> None:
        super().__init__(estimate)
        self.progress = progress
        self._bar: TaskID | None = None

    def started(self, nodes: Sequence[Node]) -> None:
        """Open a bar."""
        self._close()
        self._bar = self.progress.add_task(title(nodes), total=None)

    def stepped(self, nodes: Sequence[Node], step: Step) -> None:
        """Move the bar."""
        if self._bar is not None:
            described = f"{title(nodes)}{metrics(step)}"
            self.progress.update(
                self._bar, completed=step.index, total=step.total, description=described
            )

    def finished(self, node: Node, seconds: float) -> None:
        """Leave a line; a family's bar goes on until the next body starts."""
        self.progress.console.print(
            f"{node.label}: done in {duration(seconds)}", markup=False, highlight=False
        )
        if node.stage.index is None:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self.progress.remove_task(self._bar)
            self._bar = None


def title(nodes: Sequence[Node]) -> str:
    """Return the name of what one body builds: `vae`, or `draws-test (15)` for a family."""
    if len(nodes) == 1:
        return nodes[0].label
    return f"{nodes[0].stage.name} ({len(nodes)})"


def metrics(step: Step) -> str:
    """Return what a step measured, the losses first, as the end of a line."""
    named = sorted(step.metrics.items(), key=lambda item: "loss" not in item[0])
    listed = ", ".join(f"{name} {value:.4g}" for name, value in named[:3])
    return f" ({listed})" if listed else ""


def forecast(missing: Sequence[StageName], estimates: Estimates) -> str:
    """Return about how long the missing artifacts take, as far as the store remembers.

    Args:
        missing: The stages to build.
        estimates: Seconds of each, by label.
    """
    known = [seconds for seconds in estimates.values() if seconds is not None]
    unknown = dict.fromkeys(stage.name for stage in missing if estimates[stage.label] is None)
    if not known:
        return "no estimate: nothing like this was built in this store before"
    expected = f"{duration(sum(known))}, judged by earlier builds in this store"
    if unknown:
        return f"at least {expected}; nothing like {', '.join(unknown)} was built in it before"
    return f"about {expected}"


def is_terminal() -> bool:
    """Whether a person watches stderr."""
    return sys.stderr.isatty()
