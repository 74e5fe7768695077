"""Messages between stage scheduler and stage workers: plain values, no Ray and no torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from namd.config.errors import InputError, StageError
from namd.distributed.source_identity import SourceError, SourceIdentity, own_source
from namd.methods.base import Step, World
from namd.pipeline.graph import Fingerprint, Node
from namd.pipeline.run import Tabulate, score_rows
from namd.pipeline.run_configuration import RunConfiguration
from namd.storage.errors import StoreError, storage_problem
from namd.storage.stage_names import StageName
from namd.study.spec import StageResources

Manner = Literal["alone", "worker_group", "drawing"]
"""In the stage worker's own process, by a worker group of Ray Train, or by Ray Data pools."""

Relay = Callable[[StageName, str, Step], None]


@dataclass(frozen=True)
class Parts:
    """Replaceable parts of a study; tests substitute smaller ones.

    Attributes:
        tabulate: Forms the rows of a run.
        world: Returns the world of a single stage worker; None: torch looks for a GPU.
        cohort_digest: Replaces the cohort's own fingerprint.
    """

    tabulate: Tabulate = score_rows
    world: Callable[[], World] | None = None
    cohort_digest: Fingerprint | None = None


@dataclass(frozen=True)
class Bench:
    """What the stage workers of a study share.

    Attributes:
        study: The study's name, which is recorded in manifests.
        store_url: The store.
        cohort: The cohort's folder.
        parts: See `Parts`.
        source: The namd of the driver; a worker with another one must not build.
    """

    study: str
    store_url: str
    cohort: Path
    parts: Parts
    source: SourceIdentity = field(default_factory=own_source)


@dataclass(frozen=True)
class Work:
    """One order to a stage worker.

    Attributes:
        number: The order's number; the stage worker passes it to ask whether to stop.
        nodes: The nodes to build, members of one family together.
        manner: How to build them.
        resources: What the stage's workers reserve.
    """

    number: int
    nodes: tuple[Node, ...]
    manner: Manner
    resources: StageResources


@dataclass(frozen=True)
class Outcome:
    """How an order ended.

    Attributes:
        state: `built`; `stopped` after a checkpoint; `failed` by its body; `diverged`;
            `unusable`: the store, its disk or the worker's namd, so the next order would fail too.
        reason: One line, unless built.
    """

    state: Literal["built", "stopped", "failed", "diverged", "unusable"]
    reason: str = ""


@dataclass(frozen=True)
class RunRows:
    """A run's rows as flat metrics, or why there are none.

    Attributes:
        values: Flat metrics by name, with the run's key; None: they could not be formed.
        reason: Why they could not be formed.
        state: The trial's state if they could not; see `Outcome`.
    """

    values: Mapping[str, Any] | None
    reason: str = ""
    state: Literal["failed", "unusable"] = "failed"


class StageWorkerLost(Exception):  # noqa: N818 - an event, not a mistake
    """A stage worker's process or node died."""


@runtime_checkable
class StageWorkerPort(Protocol):
    """A stage worker as the stage scheduler sees it. Every call may raise StageWorkerLost."""

    async def build(self, work: Work) -> Outcome:
        """Build and publish nodes."""

    async def evaluate(self, configuration: RunConfiguration, nodes: Sequence[Node]) -> RunRows:
        """Form the rows of a finished run and record them."""

    def stop(self) -> None:
        """End the process; allowed only while it has no order."""


def ended(error: BaseException) -> Outcome:
    """Return the outcome of an error: `unusable` if every order would meet it, else `failed`."""
    problem = storage_problem(error) or storage_problem(error.__cause__)
    if isinstance(error, SourceError):
        return Outcome("unusable", one_line(error))
    if isinstance(error, StoreError | OSError) and problem is not None:
        return Outcome("unusable", one_line(error))
    return Outcome("failed", one_line(error))


def no_rows(error: BaseException) -> RunRows:
    """Return the reason why a run's rows could not be formed, and the trial's state."""
    unusable = ended(error).state == "unusable"
    return RunRows(None, one_line(error), "unusable" if unusable else "failed")


def one_line(error: BaseException) -> str:
    """Return an error's message in one line, or its type if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    known = isinstance(error, StageError | InputError)
    return text if known and text else f"{type(error).__name__}: {text}".rstrip(": ")
