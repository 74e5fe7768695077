"""What a running study reports to the person who started it; the command line shows it."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from namd.ledger.view import StudyView
from namd.storage.stage_names import StageName
from namd.study.plan import StudyPlan


@runtime_checkable
class StudyReporter(Protocol):
    """Listens to a study's driver."""

    def planned(self, plan: StudyPlan) -> None:
        """What will be run; called once, before anything starts."""
        ...

    def event(
        self, trial: str | None, transition: str, body: Mapping[str, Any], view: StudyView
    ) -> None:
        """The ledger has one record more; `view` already knows it."""
        ...

    def step(
        self, stage: StageName, key: str, index: int, total: int, metrics: Mapping[str, float]
    ) -> None:
        """A stage that is being built is further on."""
        ...

    def note(self, line: str) -> None:
        """One line for the user: a warning, a retry, a node that died."""
        ...


class SilentStudyReporter:
    """Says nothing."""

    def planned(self, plan: StudyPlan) -> None:
        """Say nothing."""

    def event(
        self, trial: str | None, transition: str, body: Mapping[str, Any], view: StudyView
    ) -> None:
        """Say nothing."""

    def step(
        self, stage: StageName, key: str, index: int, total: int, metrics: Mapping[str, float]
    ) -> None:
        """Say nothing."""

    def note(self, line: str) -> None:
        """Say nothing."""
