"""The state of a study, reduced from the records of its ledger. Nothing here decides anything.

`StudyView` is the only reducer: status, watch, list, best, reports and trackers read it. The same
fact may be recorded by several attempts; the latest attempt of a trial determines its state.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from namd.ledger import schema
from namd.ledger.reading import read_events
from namd.ledger.schema import (
    Body,
    Completed,
    Ended,
    Event,
    Identity,
    Message,
    Opened,
    Place,
    Proposed,
    Queued,
    RungValue,
    StageDone,
    Stopped,
    Warm,
)
from namd.storage.base import Storage
from namd.storage.stage_names import StageName

TrialState = Literal["pending", "running", "completed", "pruned", "failed", "diverged"]

STATES: tuple[TrialState, ...] = (
    "pending",
    "running",
    "completed",
    "pruned",
    "failed",
    "diverged",
)

OVER: tuple[TrialState, ...] = ("completed", "pruned", "failed", "diverged")
"""Final states: such a trial is not retried automatically."""

_STATE_AFTER: dict[str, TrialState] = {
    schema.QUEUED: "pending",
    schema.STARTED: "running",
    schema.COMPLETED: "completed",
    schema.PRUNED: "pruned",
    schema.FAILED: "failed",
    schema.DIVERGED: "diverged",
    schema.INTERRUPTED: "pending",
}

_LASTING = ("cohort", "cohort_fingerprint")
"""Fields of an opening that stay valid for later openings without them."""


@dataclass(frozen=True)
class StageExecution:
    """One stage that a trial needed; for the fields see `schema.StageDone`.

    Attributes:
        stage: Which stage.
        attempt: The trial's attempt.
    """

    stage: StageName
    key: str
    cached: bool
    seconds: float
    device_seconds: float
    attempt: int
    reserved: float = 0.0
    artifact: str = ""

    @classmethod
    def of(cls, done: StageDone, attempt: int) -> "StageExecution":
        """Return the execution that a record describes."""
        return cls(
            done.stage_name,
            done.key,
            done.cached,
            float(done.seconds),
            float(done.device_seconds),
            attempt,
            float(done.reserved),
            done.artifact,
        )


@dataclass(slots=True)
class TrialView:
    """One trial: a resolved configuration and a training seed.

    Attributes:
        trial: Its id.
        order: Its number in order of queueing, from 0.
        queued: Its overrides and seed; None if that record is lost.
        state: State of its latest attempt.
        attempt: Number of that attempt; 0 before the first.
        started: The last attempt that started; a retry request alone starts none.
        since: Number of the study's record that led to the state.
        values: The metrics of its completion.
        rungs: By name, in the order in which they were reached.
        stages: Executions, oldest first.
        last_stage: The last stage of its running attempt; empty before the first.
        reason: Why it was pruned, failed or diverged.
    """

    trial: str
    order: int
    queued: Queued | None = None
    state: TrialState = "pending"
    attempt: int = 0
    started: int = 0
    since: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)
    rungs: dict[str, RungValue] = field(default_factory=dict)
    stages: list[StageExecution] = field(default_factory=list)
    last_stage: str = ""
    reason: str = ""

    @property
    def body(self) -> Mapping[str, Any]:
        """The JSON of `queued`: `arm`, `proposal`, `seed`, `overrides`; empty if it is lost."""
        return {} if self.queued is None else self.queued.encode()

    @property
    def arm(self) -> str:
        """Its arm; empty for a search's trial, or if `queued` is lost."""
        return "" if self.queued is None else self.queued.arm or ""

    @property
    def label(self) -> str:
        """Its arm, or `p3` for proposal 3; empty if `queued` is lost."""
        return "" if self.queued is None else self.queued.label

    @property
    def seed(self) -> int:
        """Its training seed; 0 if `queued` is lost."""
        return 0 if self.queued is None else self.queued.seed

    @property
    def overrides(self) -> Mapping[str, Any]:
        """Its overrides of the base; empty if `queued` is lost."""
        return {} if self.queued is None else self.queued.overrides

    def apply(self, event: Event) -> None:
        """Apply one record of this trial."""
        self.take(event.identity, event.content)

    def take(
        self, identity: Identity, content: Body, number: int = 0, *, detailed: bool = True
    ) -> None:
        """Apply one record's body; without details keep only what a status needs."""
        if isinstance(content, Queued):
            self.queued = content if detailed else replace(content, overrides={})
        elif isinstance(content, RungValue) and detailed:
            self.rungs.setdefault(identity.name, content)
        elif isinstance(content, StageDone):
            self.last_stage = content.stage
            if detailed:
                self.stages.append(StageExecution.of(content, identity.attempt))
        if identity.kind not in _STATE_AFTER or identity.attempt < self.attempt:
            return
        self.attempt = identity.attempt
        self.state = _STATE_AFTER[identity.kind]
        self.since = number
        self.reason = content.reason if isinstance(content, Ended) else ""
        if identity.kind == schema.STARTED:
            self.started, self.last_stage = identity.attempt, ""
        elif isinstance(content, Completed):
            self.values = content.values


@dataclass
class StudyView:
    """A study, reduced from its records.

    Attributes:
        study: Its name.
        specification: The study file at the last opening.
        configuration: The resolved base; a trial adds its seed and overrides.
        attempt: Number of openings.
        trials: By id, in order of queueing.
        proposals: The search's proposals, by number.
        warm: Points from earlier ledgers, in order.
        messages: Oldest first.
        rung_order: (trial, rung) in the order in which they were recorded.
        ended: `closed`, `stopped`, or empty while it is open.
        stopped: Why it was stopped.
        num_events: Records read.
        last_time: Clock time of the last record, seconds since 1970.
        about: Other fields of the last opening: cohort, host, versions, ... The cohort is the
            last that any opening named.
        arm_overrides: Overrides by arm.
        stage_seconds: Wall seconds of building, summed.
        cursor: Place of the last record.
        detailed: False keeps only what a status shows of trials and proposals, so that
            tens of thousands fit. `configuration`, `warm`, `messages`, `rung_order`, and the
            rungs, stages and overrides of trials are then empty.
    """

    study: str
    specification: Mapping[str, Any] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 0
    trials: dict[str, TrialView] = field(default_factory=dict)
    proposals: dict[int, Proposed] = field(default_factory=dict)
    warm: list[Warm] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    rung_order: list[tuple[str, str]] = field(default_factory=list)
    ended: str = ""
    stopped: str = ""
    num_events: int = 0
    last_time: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)
    arm_overrides: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    stage_seconds: float = 0.0
    cursor: Place | None = None
    detailed: bool = True
    _built: set[str] = field(default_factory=set)
    _device_seconds: float = 0.0
    _counts: Counter[str] = field(default_factory=Counter)

    def apply(self, event: Event) -> None:
        """Apply one record."""
        self.num_events += 1
        self.last_time = max(self.last_time, event.time)
        self.cursor = event.place
        if event.identity.trial is not None:
            self._apply_trial(event.identity, event.identity.trial, event.content)
        else:
            self._apply_study(event.identity, event.content)

    def counts(self) -> dict[str, int]:
        """Return the number of trials in each state, zeros included."""
        return {state: self._counts[state] for state in STATES}

    def arms(self) -> dict[str, dict[str, int]]:
        """Return per arm the number of its trials in each state, in order of queueing."""
        found: dict[str, dict[str, int]] = {}
        for trial in self.trials.values():
            if trial.arm:
                found.setdefault(trial.arm, dict.fromkeys(STATES, 0))[trial.state] += 1
        return found

    def measured(self) -> dict[str, dict[str, dict[int, float]]]:
        """Return per arm, or `p3` for proposal 3, the metrics of completed trials by seed."""
        found: dict[str, dict[str, dict[int, float]]] = {}
        for trial in self.trials.values():
            if trial.state == "completed" and trial.label:
                metrics = found.setdefault(trial.label, {})
                for name, value in trial.values.items():
                    if isinstance(value, int | float):
                        metrics.setdefault(name, {})[trial.seed] = float(value)
        return found

    def in_state(self, *states: TrialState) -> list[TrialView]:
        """Return the trials in some states, in the order in which they reached them."""
        found = [trial for trial in self.trials.values() if trial.state in states]
        return sorted(found, key=lambda trial: trial.since)

    def executions(self) -> dict[str, int]:
        """Return the number of builds per stage key."""
        return dict(Counter(s.key for t in self.trials.values() for s in t.stages if not s.cached))

    @property
    def stages_built(self) -> int:
        """Number of distinct stages that were built, not found."""
        return len(self._built)

    def device_seconds(self) -> float:
        """Return the device seconds spent on building its stages."""
        return self._device_seconds

    def _apply_trial(self, identity: Identity, trial: str, content: Body) -> None:
        view = self.trials.get(trial)
        if view is None:
            view = self.trials[trial] = TrialView(trial, len(self.trials))
            self._counts[view.state] += 1
        if isinstance(content, StageDone) and not content.cached:
            self._built.add(content.key)
            self.stage_seconds += content.seconds
            self._device_seconds += content.device_seconds
        elif isinstance(content, Queued) and content.arm:
            self.arm_overrides.setdefault(content.arm, content.overrides)
        elif isinstance(content, RungValue) and self.detailed and identity.name not in view.rungs:
            self.rung_order.append((trial, identity.name))
        before = view.state
        view.take(identity, content, self.num_events, detailed=self.detailed)
        if view.state != before:
            self._counts[before] -= 1
            self._counts[view.state] += 1

    def _apply_study(self, identity: Identity, content: Body) -> None:
        if isinstance(content, Opened):
            self._open(identity.attempt, content)
        elif isinstance(content, Proposed):
            kept = content if self.detailed else replace(content, point={}, sampler_state={})
            self.proposals.setdefault(int(identity.name), kept)
        elif isinstance(content, Message):
            # The record of the opening may be lost.
            self.attempt = max(self.attempt, identity.attempt)
            if self.detailed:
                self.messages.append(content)
        elif isinstance(content, Warm):
            if self.detailed:
                self.warm.append(content)
        elif identity.kind in (schema.CLOSED, schema.STOPPED):
            self.attempt = max(self.attempt, identity.attempt)
            self.ended = identity.kind
            self.stopped = content.reason if isinstance(content, Stopped) else ""

    def _open(self, attempt: int, opened: Opened) -> None:
        self.specification = opened.specification
        self.configuration = opened.configuration if self.detailed else {}
        named = {name: getattr(opened, name) for name in _LASTING}
        known = {name: value for name, value in named.items() if value is not None}
        self.about = lasting(self.about) | known | dict(opened.more)
        self.attempt = max(self.attempt, attempt)
        self.ended = self.stopped = ""


def lasting(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an opening's `about` that stay valid for later openings."""
    return {name: about[name] for name in _LASTING if name in about}


def read_view(storage: Storage, study: str, *, detailed: bool = True) -> StudyView:
    """Return the view of a study's ledger; one segment is in memory at a time."""
    view = StudyView(study, detailed=detailed)
    for event in read_events(storage, study):
        view.apply(event)
    return view


def reduce_events(study: str, events: Iterable[Event]) -> StudyView:
    """Return the view of a sequence of records."""
    view = StudyView(study)
    for event in events:
        view.apply(event)
    return view
