"""A study while it runs: every event goes into the ledger here, every decision comes from there.

Who builds stages, and where, is not known here.

A driver asks `next_trials`, reports `start`, `stage`, `rung` and one ending per attempt, and may be
killed between any two calls: the next one takes up where the ledger ends.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

from namd.config.errors import InputError
from namd.config.parsing import to_mapping
from namd.ledger import schema
from namd.ledger.schema import CONFIRM, Body, Completed, Ended, Event, Identity
from namd.ledger.view import OVER, StudyView, TrialView
from namd.ledger.writing import Writer, open_writer
from namd.storage.base import Storage
from namd.storage.lease import LeaseTiming
from namd.storage.stage_names import StageName
from namd.study.asha import Decision
from namd.study.engine import Exhausted, NotReady, WarmTrial, best_proposals
from namd.study.spec import SearchSpec, StudySpec, require_extension
from namd.study.state import StudyState, rung_of
from namd.study.trials import (
    Configurator,
    Trial,
    ablation_trials,
    arm_combinations,
    confirmation_seeds,
    proposal_trials,
)

Listener = Callable[[Event, StudyView], None]


@dataclass
class StudyRecord:
    """The writer of a running study. Use it as a context manager.

    Attributes:
        spec: The study.
        state: View and engine.
        attempt: Number of this opening, from 1.
    """

    spec: StudySpec
    state: StudyState
    attempt: int
    _configurator: Configurator
    _writer: Writer
    _trials: dict[str, Trial] = field(default_factory=dict)
    _handed_out: set[tuple[str, int]] = field(default_factory=set)
    _arms: Sequence[Trial] | None = None

    def __enter__(self) -> "StudyRecord":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    @property
    def view(self) -> StudyView:
        """What the ledger says."""
        return self.state.view

    def next_trials(self, limit: int) -> list[Trial]:
        """Return at most `limit` trials to start now.

        An empty list means: wait for a running one to end, or (see `finished`) nothing is left.
        A trial is handed out once per opening and attempt.
        """
        for name in self.withdrawn():
            if self.view.trials[name].state == "pending":
                view, reason = self.view.trials[name], Ended(reason="its proposal was pruned")
                self._append(name, view.attempt, schema.PRUNED, reason)
        self._queue_more(limit)
        found: list[Trial] = []
        for trial in self._pending():
            if len(found) == limit:
                break
            self._handed_out.add((trial.trial, self.view.trials[trial.trial].attempt))
            found.append(trial)
        return found

    @property
    def finished(self) -> bool:
        """Whether every trial that the study asks for is over."""
        if any(trial.queued and trial.state not in OVER for trial in self.view.trials.values()):
            return False
        if self.spec.search is None:
            wanted = self._ablation()
        else:
            if len(self.state.engine.proposals) < self.state.engine.limit:
                return False
            wanted = self._confirmation()
        return all(self._is_queued(trial.trial) for trial in wanted)

    def start(self, trial: str) -> int:
        """Record that an attempt begins; return its number, from 1."""
        attempt = self.view.trials[trial].attempt + 1
        self._append(trial, attempt, schema.STARTED)
        return attempt

    def stage(
        self,
        trial: str,
        stage: StageName,
        key: str,
        *,
        cached: bool,
        seconds: float = 0.0,
        device_seconds: float = 0.0,
        **more: Any,  # noqa: ANN401 - JSON
    ) -> None:
        """Record a trial's artifact: built for it, or found; `more` see StageExecution."""
        body = schema.StageDone(
            stage=stage.label,
            **stage.to_mapping(),
            key=key,
            cached=cached,
            seconds=seconds,
            device_seconds=device_seconds,
            more=more,
        )
        self._append(trial, self._attempt(trial), f"{schema.STAGE}/{stage.label}", body)

    def rung(self, trial: str, name: str, value: float) -> Decision:
        """Record a value at a rung; return whether the trial goes on.

        Of a proposal with several training seeds the first one's trial speaks for all: its
        siblings follow it. A value already recorded keeps its decision, whatever came since.
        One that is not finite ends the trial as diverged and is answered with `stop`.
        """
        known = self.view.trials[trial].rungs.get(name)
        if known is not None:
            return cast("Decision", known.decision)
        rung = rung_of(self.spec, name)
        if rung is None or not self.state.leads(trial):
            return "stop" if trial in self.withdrawn() else "continue"
        if not math.isfinite(value):
            self.diverge(trial, f"{rung.metric} is {value} at {name}")
            return "stop"
        decision = self.state.decide_rung(trial, rung, value)
        body = schema.RungValue(metric=rung.metric, value=value, decision=decision)
        self._append(trial, self._attempt(trial), f"{schema.RUNG}/{name}", body)
        return decision

    def complete(self, trial: str, values: Mapping[str, Any]) -> None:
        """Record that a trial has its rows.

        A search's objective that is missing or not finite makes it a failed or diverged one.
        """
        for objective in self.spec.search.objectives if self.spec.search else ():
            value = values.get(objective.metric)
            if not isinstance(value, int | float):
                self.fail(trial, f"no {objective.metric} was measured on {objective.split}")
                return
            if not math.isfinite(value):
                self.diverge(trial, f"{objective.metric} is {value}")
                return
        self._append(trial, self._attempt(trial), schema.COMPLETED, Completed(values=dict(values)))

    def prune(self, trial: str, reason: str) -> None:
        """Record that a running trial was ended early: by ASHA, or since a sibling was."""
        self._append(trial, self._attempt(trial), schema.PRUNED, Ended(reason=reason))

    def fail(self, trial: str, reason: str) -> None:
        """Record that a trial raised, after its retries."""
        self._append(trial, self._attempt(trial), schema.FAILED, Ended(reason=reason))

    def diverge(self, trial: str, reason: str) -> None:
        """Record that a loss or metric was not finite."""
        self._append(trial, self._attempt(trial), schema.DIVERGED, Ended(reason=reason))

    def interrupt(self, trial: str, reason: str) -> None:
        """Record that an attempt ended without an outcome; the trial is pending again."""
        self._append(trial, self._attempt(trial), schema.INTERRUPTED, Ended(reason=reason))

    def retry_failed(self) -> list[str]:
        """Make failed trials pending again; return them."""
        failed = [trial for trial, view in self.view.trials.items() if view.state == "failed"]
        for trial in failed:
            self.interrupt_after(trial, "retried")
        return failed

    def interrupt_after(self, trial: str, reason: str) -> None:
        """Put an empty attempt behind the last one, so that the trial is pending again."""
        attempt = self.view.trials[trial].attempt + 1
        self._append(trial, attempt, schema.INTERRUPTED, Ended(reason=reason))

    def message(self, text: str, **more: Any) -> None:  # noqa: ANN401 - JSON
        """Keep a line for people."""
        number = len(self.view.messages) + 1
        body = schema.Message(text=text, more=more)
        self._append(None, self.attempt, f"{schema.MESSAGE}/{number}", body)

    def close(self) -> None:
        """Record that nothing is left to do."""
        self._append(None, self.attempt, schema.CLOSED)

    def stopped(self, reason: str) -> None:
        """Record that the study was stopped; it can be resumed."""
        self._append(None, self.attempt, schema.STOPPED, schema.Stopped(reason=reason))

    def winners(self) -> list[int]:
        """Return the proposal (several objectives: proposals) that a search ends with."""
        if self.spec.search is None:
            return []
        return best_proposals(self.state.engine.outcomes, self.spec.search)

    def withdrawn(self) -> list[str]:
        """Return unfinished trials that no proposal waits for, since the first one was pruned."""
        if self.spec.search is None:
            return []
        pruned = [n for n, o in self.state.engine.outcomes.items() if o.state == "pruned"]
        wanted = {
            trial
            for number in range(len(self.state.engine.proposals))
            if number not in pruned
            for trial in self.state.members(number)
        }
        members = {trial for number in pruned for trial in self.state.members(number)}
        return [t for t in members - wanted if self.view.trials[t].state not in OVER]

    def _append(
        self,
        trial: str | None,
        attempt: int,
        transition: str,
        body: Body | None = None,
    ) -> None:
        content = None if body is None else body.encode()
        self._writer.append(Identity(trial, attempt, transition), content)

    def _attempt(self, trial: str) -> int:
        view = self.view.trials[trial]
        if view.state != "running":
            raise ValueError(f"trial {trial} is {view.state}: start an attempt first")
        return view.attempt

    def _pending(self) -> Iterator[Trial]:
        for name, view in list(self.view.trials.items()):
            handed_out = (name, view.attempt) in self._handed_out
            if view.state == "pending" and view.queued and not handed_out:
                yield self._trial(name, view)

    def _trial(self, name: str, view: TrialView) -> Trial:
        """Return a trial of the ledger, configured."""
        if name not in self._trials:
            proposal = None if view.queued is None else view.queued.proposal
            self._trials[name] = self._configurator.trial(
                view.overrides, view.seed, view.arm, proposal
            )
            if self._trials[name].trial != name:
                raise InputError(
                    f"trial {name}: its configuration resolves differently now than when the "
                    "study was started; run the study with the version and weights it began with"
                )
        return self._trials[name]

    def _queue_more(self, limit: int) -> None:
        if self.spec.search is None:
            self._queue(self._ablation())
            return
        while sum(1 for _ in self._pending()) < limit:
            number = len(self.view.proposals)
            if number >= self.state.engine.limit:
                break
            try:
                self._propose(number)
            except (NotReady, Exhausted):
                break
        self._queue(self._confirmation())

    def _propose(self, number: int) -> None:
        """Record a proposal, then queue its trials.

        The ledger comes first; a kill in between leaves a proposal without
        queued trials, which `open_study` queues.
        """
        proposal = self.state.engine.propose(number)
        trials = proposal_trials(self.spec, self._configurator, number, proposal.overrides)
        body = schema.Proposed(**proposal.to_mapping(), trials=[trial.trial for trial in trials])
        self._append(None, 0, f"{schema.PROPOSED}/{number}", body)
        self._queue(trials)

    def _queue(self, trials: Iterable[Trial]) -> None:
        for trial in trials:
            if not self._is_queued(trial.trial):
                self._trials[trial.trial] = trial
                self._append(trial.trial, 0, schema.QUEUED, trial.queued())

    def _is_queued(self, trial: str) -> bool:
        """Whether the ledger says what a trial is; that record may be lost, and others not."""
        view = self.view.trials.get(trial)
        return view is not None and view.queued is not None

    def _ablation(self) -> Sequence[Trial]:
        if self._arms is None:
            self._arms = ablation_trials(self.spec, self._configurator)
        return self._arms

    def _confirmation(self) -> list[Trial]:
        """Return the winner's trials on fresh seeds, once every proposal is over."""
        engine = self.state.engine
        if len(engine.proposals) < engine.limit or len(engine.outcomes) < len(engine.proposals):
            return []
        return [
            self._configurator.trial(engine.proposals[n].overrides, seed, f"{CONFIRM}{n}")
            for n in self.winners()
            for seed in confirmation_seeds(self.spec)
        ]

    def _reconcile(self) -> None:
        """Put right what a killed driver left: queue what was proposed, free what was running."""
        for name, view in list(self.view.trials.items()):
            if view.state == "running":
                self._append(
                    name, view.attempt, schema.INTERRUPTED, Ended(reason="its driver was gone")
                )
        if self.spec.search is not None:
            for proposal in list(self.state.engine.proposals):
                if not all(map(self._is_queued, self.state.members(proposal.number))):
                    self._queue(
                        proposal_trials(
                            self.spec, self._configurator, proposal.number, proposal.overrides
                        )
                    )


def open_study(
    storage: Storage,
    spec: StudySpec,
    configurator: Configurator,
    *,
    warm: Sequence[tuple[str, WarmTrial]] = (),
    timing: LeaseTiming | None = None,
    about: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
) -> StudyRecord:
    """Become the writer of a study: begin it, resume it, or extend it.

    Args:
        storage: Where the store lies.
        spec: The study file.
        configurator: Makes its configurations.
        warm: (study, trial) pairs that a new search knows from the start.
        timing: How long a silent holder is believed.
        about: What to record of this opening (host, versions, ...).
        listener: Handed each record of this opening once it is durable, with the view that
            already knows it; not those of the past.

    Raises:
        StudyBusy: Another live process runs it.
        ConfigError: The file changes what the ledger says was decided, or a path does not fit.
    """
    configurator.check()
    spec = configurator.completed(spec)
    state = StudyState(spec)
    live = False
    promised: list[Sequence[Mapping[str, Any]]] = []

    def apply(event: Event) -> None:
        state.apply(event)
        if event.identity.kind == schema.OPENED and schema.WARM in event.body:
            promised.append(event.body[schema.WARM])
        if live and listener is not None:
            listener(event, state.view)

    writer = open_writer(storage, spec.name, listener=apply, timing=timing)
    live = True
    try:
        if state.view.specification:
            require_extension(state.view.specification, spec)
        attempt = state.view.attempt + 1
        # All of them in one record: a driver killed among those below left none of them out.
        bodies = promised[0] if promised else [_warm_body(*one) for one in warm]
        first = bool(bodies) and not promised and not state.view.proposals
        body = _opening(spec, configurator, bodies if first else (), about or {})
        writer.append(Identity(None, attempt, schema.OPENED), body.encode())
        if not state.view.proposals:
            for number, one in enumerate(bodies):
                writer.append(Identity(None, 0, f"{schema.WARM}/{number}"), one)
        record = StudyRecord(spec, state, attempt, configurator, writer)
        record._reconcile()
    except BaseException as error:
        writer.__exit__(type(error), error, None)
        raise
    return record


def _opening(
    spec: StudySpec,
    configurator: Configurator,
    warm: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> schema.Opened:
    """Return what the record of an opening says."""
    more = dict(about)
    if spec.ablation is not None:
        more["combinations"] = arm_combinations(spec, configurator)
    return schema.Opened(
        specification=to_mapping(spec),
        configuration=to_mapping(configurator.base().config),
        warm=warm,
        more=more,
    )


def _warm_body(study: str, trial: WarmTrial) -> dict[str, Any]:
    body = schema.Warm(point=dict(trial.point), values=list(trial.values), study=study)
    return body.encode()


def warm_trials(search: SearchSpec, view: StudyView) -> tuple[list[tuple[str, WarmTrial]], int]:
    """Return what a search may take over from an earlier study, and how many it may not.

    A proposal is taken over if its point, read again in this space, is whole and inside it, and
    if every objective was measured. Several objectives are taken over together.
    """
    space = search.parsed_space
    taken, left = [], 0
    for number, body in sorted(view.proposals.items()):
        trials = [view.trials[t] for t in body.trials if t in view.trials]
        values = _objective_means(search, trials)
        point = {k: v for k, v in body.point.items() if k in {p.name for p in space.parameters}}
        if values is not None and space.admits(point):
            taken.append((f"{view.study}/{number}", WarmTrial(point, values)))
        else:
            left += 1
    return taken, left


def _objective_means(search: SearchSpec, trials: Sequence[TrialView]) -> tuple[float, ...] | None:
    metrics = [objective.metric for objective in search.objectives]
    if not trials or any(trial.state != "completed" for trial in trials):
        return None
    if any(not isinstance(t.values.get(m), int | float) for t in trials for m in metrics):
        return None
    return tuple(math.fsum(t.values[m] for t in trials) / len(trials) for m in metrics)
