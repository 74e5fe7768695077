"""What the records of a study come to: its view and, for a search, its engine and its rungs.

Reduced from the ledger alone, by the driver that writes it, by readers, and by tests that
check that each decision follows from the records before it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from namd.config.errors import InputError
from namd.ledger import schema
from namd.ledger.schema import Event, Proposed, RungValue, Warm
from namd.ledger.view import OVER, StudyView, TrialView
from namd.study.asha import AshaSettings, Decision, Rung, RungRecord, decide, peers_of
from namd.study.engine import Engine, Outcome, Proposal, WarmTrial
from namd.study.spec import SearchSpec, StudySpec


class ProposalLost(InputError):  # noqa: N818 - says what is the case
    """A search's ledger lacks a proposal that later ones were made after."""


class StudyState:
    """A study's view together with its engine, both folded from the same records.

    Args:
        spec: The study.
    """

    def __init__(self, spec: StudySpec) -> None:
        self.spec = spec
        self.view = StudyView(spec.name)
        self.rungs: list[RungRecord] = []
        self._engine: Engine | None = None
        self._warm: list[WarmTrial] = []
        self._members: dict[int, tuple[str, ...]] = {}
        self._proposals_of: dict[str, list[int]] = {}

    @property
    def engine(self) -> Engine:
        """The search's engine. Raises ValueError for an ablation."""
        if self._engine is None:
            self._engine = Engine(self._search, self._warm)
        return self._engine

    def apply(self, event: Event) -> None:
        """Take in one record."""
        rungs_before = len(self.view.rung_order)
        self.view.apply(event)
        identity = event.identity
        if self.spec.search is None:
            return
        content = event.content
        if isinstance(content, Warm):
            self._apply_warm(content)
        elif isinstance(content, Proposed):
            self._apply_proposal(int(identity.name), content)
        elif identity.trial is not None:
            if isinstance(content, RungValue) and len(self.view.rung_order) > rungs_before:
                self._apply_rung(identity.trial, identity.name, content)
            if identity.kind in schema.ENDINGS:
                self._settle(self._proposals_of.get(identity.trial, ()))

    def members(self, number: int) -> tuple[str, ...]:
        """Return the trials of a proposal."""
        return self._members[number]

    def leads(self, trial: str) -> bool:
        """Whether a trial is the first of a proposal: the one that ASHA looks at."""
        numbers = self._proposals_of.get(trial, ())
        return any(self._members[number][0] == trial for number in numbers)

    def decide_rung(self, trial: str, rung: Rung, value: float) -> Decision:
        """Return what ASHA says of a value, from the records alone."""
        search = self._search
        settings = search.stop_early.asha if search.stop_early else AshaSettings()
        before = None
        if search.order == "synchronous":
            before = self.engine.batch_start(self._first_proposal(trial))
        peers = peers_of(trial, rung.name, self.rungs, before)
        return decide(value, peers, rung.mode, settings)

    @property
    def _search(self) -> SearchSpec:
        if self.spec.search is None:
            raise ValueError(f"study {self.spec.name} is no search")
        return self.spec.search

    def _first_proposal(self, trial: str) -> int:
        return min(self._proposals_of[trial])

    def _apply_warm(self, warm: Warm) -> None:
        if self._engine is None:
            self._warm.append(WarmTrial(warm.point, tuple(warm.values)))

    def _apply_proposal(self, number: int, body: Proposed) -> None:
        if number > len(self.engine.proposals):
            raise ProposalLost(
                f"study {self.spec.name}: proposal {len(self.engine.proposals)} is lost from its "
                "ledger, so the search cannot go on; a new study can take over what is left with "
                f"--warm-from {self.spec.name}"
            )
        self.engine.admit(Proposal(number, body.point, body.overrides, body.sampler_state))
        self._members[number] = tuple(body.trials)
        for trial in self._members[number]:
            self._proposals_of.setdefault(trial, []).append(number)
        # Its trials may be those of an earlier proposal, and over already.
        self._settle([number])

    def _apply_rung(self, trial: str, rung: str, reported: RungValue) -> None:
        if trial in self._proposals_of:
            record = RungRecord(trial, rung, float(reported.value), self._first_proposal(trial))
            self.rungs.append(record)

    def _settle(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            known = self.engine.outcomes.get(number)
            if known is not None and known.state in ("completed", "pruned"):
                continue
            outcome = self._outcome(number)
            if outcome is not None:
                self.engine.tell(number, outcome)

    def _outcome(self, number: int) -> Outcome | None:
        """Return a proposal's outcome once its trials are over, or the first one was pruned."""
        trials = [self.view.trials.get(trial) for trial in self._members[number]]
        found = [trial for trial in trials if trial is not None]
        first = trials[0]
        rungs = () if first is None else _rung_values(first)
        if first is not None and first.state == "pruned":
            return Outcome("pruned", (), rungs)
        if len(found) < len(trials) or any(trial.state not in OVER for trial in found):
            return None
        for state in ("diverged", "failed"):
            if any(trial.state == state for trial in found):
                return Outcome(state, (), rungs)  # type: ignore[arg-type]
        metrics = [objective.metric for objective in self._search.objectives]
        for trial in found:
            lacking = [m for m in metrics if not isinstance(trial.values.get(m), int | float)]
            if lacking:
                raise InputError(
                    f"study {self.spec.name}: trial {trial.trial[:12]} is recorded as complete "
                    f"without {lacking[0]}, so the search cannot go on; another name starts over"
                )
        values = tuple(
            math.fsum(float(trial.values[metric]) for trial in found) / len(found)
            for metric in metrics
        )
        return Outcome("completed", values, rungs)


@dataclass(frozen=True)
class Mismatch:
    """A decision in the ledger that its own records do not lead to."""

    what: str
    recorded: Any
    replayed: Any


def replay(spec: StudySpec, events: Iterable[Event]) -> list[Mismatch]:
    """Take every decision again from the records before it; return where it differs."""
    state = StudyState(spec)
    found: list[Mismatch] = []
    for event in events:
        identity, content = event.identity, event.content
        if spec.search is not None and isinstance(content, Proposed):
            proposal = _proposed_again(spec.search, state, int(identity.name))
            if proposal.to_mapping()["point"] != content.point:
                found.append(Mismatch(identity.transition, content.point, dict(proposal.point)))
        elif isinstance(content, RungValue) and identity.trial is not None:
            rung = rung_of(spec, identity.name)
            if rung is not None and identity.name not in state.view.trials[identity.trial].rungs:
                decision = state.decide_rung(identity.trial, rung, float(content.value))
                if decision != content.decision:
                    found.append(Mismatch(identity.transition, content.decision, decision))
        state.apply(event)
    return found


def _proposed_again(search: SearchSpec, state: StudyState, number: int) -> Proposal:
    """Return what a fresh engine proposes from the state's proposals and outcomes."""
    engine = Engine(search, state._warm)
    for proposal in state.engine.proposals:
        engine.admit(proposal)
    for finished, outcome in state.engine.outcomes.items():
        engine.tell(finished, outcome)
    return engine.propose(number)


def rung_of(spec: StudySpec, name: str) -> Rung | None:
    """Return the rung of a search's ASHA by its name, or None if there is none."""
    if spec.search is None or spec.search.stop_early is None:
        return None
    found = [rung for rung in spec.search.stop_early.asha.rungs or () if rung.name == name]
    return found[0] if found else None


def _rung_values(trial: TrialView) -> tuple[float, ...]:
    """Return the values at the rungs that a trial passed, in its order."""
    return tuple(float(value.value) for value in trial.rungs.values())
