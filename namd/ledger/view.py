"""What a ledger says, folded from its records. Nothing here decides anything.

The record of a fact may be met in several attempts; the latest attempt of a trial is its state.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from namd.ledger import schema
from namd.ledger.reading import read_events
from namd.ledger.schema import Event
from namd.storage.base import Storage

TrialState = Literal["pending", "running", "completed", "pruned", "failed", "diverged"]

STATES: tuple[TrialState, ...] = (
    "pending",
    "running",
    "completed",
    "pruned",
    "failed",
    "diverged",
)

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
"""What one opening tells is so for the next ones that do not tell it."""

_PROPOSAL = "/p"
"""Marks what stands for an arm in a search; no arm's name begins with a slash."""


@dataclass(frozen=True)
class StageExecution:
    """One stage that a trial needed.

    Attributes:
        name: The stage's label.
        key: Its artifact's key.
        cached: Whether it was found rather than built.
        seconds: Wall seconds of the building; 0 where cached.
        device_seconds: Wall seconds times workers times what each reserves: accelerators, or
            cores where there are none.
        attempt: The trial's attempt.
        reserved: Device seconds for which its builder held its resources for it, start and waits
            included; 0 where cached.
        artifact: Which attempt at the key counts; another one was executed after a removal.
    """

    name: str
    key: str
    cached: bool
    seconds: float
    device_seconds: float
    attempt: int
    reserved: float = 0.0
    artifact: str = ""


@dataclass
class TrialView:
    """One trial: a resolved configuration and a training seed.

    Attributes:
        trial: Its id.
        body: What was told when it was queued: `arm`, `proposal`, `seed`, `overrides`, ...
        state: Where its latest attempt stands.
        attempt: That attempt; 0 before the first.
        order: Its number by time of queueing, from 0.
        values: The metrics told when it completed.
        rungs: Rung name to what was told there: `metric`, `value`, `decision`.
        stages: Executions, oldest first.
        reason: Why it was pruned, failed or diverged.
    """

    trial: str
    order: int
    body: Mapping[str, Any] = field(default_factory=dict)
    state: TrialState = "pending"
    attempt: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)
    rungs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    stages: list[StageExecution] = field(default_factory=list)
    reason: str = ""

    def fold(self, event: Event) -> None:
        """Take in one record of this trial."""
        identity, body = event.identity, event.body
        if identity.kind == schema.QUEUED:
            self.body = body
        elif identity.kind == schema.RUNG:
            self.rungs.setdefault(identity.name, body)
        elif identity.kind == schema.STAGE:
            self.stages.append(_execution(body, identity.attempt))
        if identity.kind not in _STATE_AFTER or identity.attempt < self.attempt:
            return
        self.attempt = identity.attempt
        self.state = _STATE_AFTER[identity.kind]
        self.reason = str(body.get("reason", ""))
        if identity.kind == schema.COMPLETED:
            self.values = body.get("values", {})


@dataclass
class StudyView:
    """All of a study, rebuilt from its records.

    Attributes:
        study: Its name.
        specification: The study file as it was last opened.
        configuration: The resolved base; a trial's is this with its seed and overrides.
        attempt: How often it was opened.
        trials: By id, in order of queueing.
        proposals: What the search proposed, by number.
        warm: What was taken over from earlier ledgers, in order.
        messages: Bodies of messages, oldest first.
        rung_order: (trial, rung) in the order in which they were recorded.
        ended: `closed`, `stopped`, or empty while it is open.
        num_events: Records read.
        last_time: Clock time of the last record, seconds since 1970.
        about: What else the last opening told: cohort, host, versions, ... The cohort is the
            last that any opening told.
    """

    study: str
    specification: Mapping[str, Any] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 0
    trials: dict[str, TrialView] = field(default_factory=dict)
    proposals: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    warm: list[Mapping[str, Any]] = field(default_factory=list)
    messages: list[Mapping[str, Any]] = field(default_factory=list)
    rung_order: list[tuple[str, str]] = field(default_factory=list)
    ended: str = ""
    num_events: int = 0
    last_time: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)

    def fold(self, event: Event) -> None:
        """Take in one record."""
        self.num_events += 1
        self.last_time = max(self.last_time, event.time)
        if event.identity.trial is not None:
            self._fold_trial(event, event.identity.trial)
        else:
            self._fold_study(event)

    def counts(self) -> dict[str, int]:
        """Return the number of trials in each state, all states named."""
        found = Counter(trial.state for trial in self.trials.values())
        return {state: found[state] for state in STATES}

    def executions(self) -> dict[str, int]:
        """Return, per stage key, how often it was built (not found)."""
        return dict(Counter(s.key for t in self.trials.values() for s in t.stages if not s.cached))

    def device_seconds(self) -> float:
        """Return what building its stages has cost so far."""
        return sum(s.device_seconds for t in self.trials.values() for s in t.stages if not s.cached)

    def _fold_trial(self, event: Event, trial: str) -> None:
        view = self.trials.get(trial)
        if view is None:
            view = self.trials[trial] = TrialView(trial, len(self.trials))
        if event.identity.kind == schema.RUNG and event.identity.name not in view.rungs:
            self.rung_order.append((trial, event.identity.name))
        view.fold(event)

    def _fold_study(self, event: Event) -> None:
        kind, body = event.identity.kind, event.body
        if kind == schema.OPENED:
            self.specification = body.get("specification", {})
            self.configuration = body.get("configuration", {})
            known = ("specification", "configuration", schema.WARM)
            told = {name: value for name, value in body.items() if name not in known}
            self.about = lasting(self.about) | told
            self.attempt = max(self.attempt, event.identity.attempt)
            self.ended = ""
        elif kind in (schema.CLOSED, schema.STOPPED):
            self.ended = kind
            # Its opening's record may be lost.
            self.attempt = max(self.attempt, event.identity.attempt)
        elif kind == schema.PROPOSED:
            self.proposals.setdefault(int(event.identity.name), body)
        elif kind == schema.WARM:
            self.warm.append(body)
        elif kind == schema.MESSAGE:
            self.messages.append(body)
            self.attempt = max(self.attempt, event.identity.attempt)


def lasting(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an opening's `about` holds for later openings too: the cohort."""
    return {name: about[name] for name in _LASTING if name in about}


def read_view(storage: Storage, study: str) -> StudyView:
    """Return all that a study's ledger says."""
    return fold_events(study, read_events(storage, study))


def fold_events(study: str, events: Iterable[Event]) -> StudyView:
    """Return the view of a sequence of records."""
    view = StudyView(study)
    for event in events:
        view.fold(event)
    return view


@dataclass(frozen=True)
class StudyStatus:
    """What `study status` shows, in memory of one small tuple a trial.

    Attributes:
        study: Its name.
        attempt: How often it was opened.
        ended: `closed`, `stopped`, or empty.
        trials: Number per state.
        arms: Per arm of an ablation, the number per state.
        metrics: Per arm, or `p<number>` of a search's proposal: metric name to the values of
            completed trials, by seed.
        stages_built: Distinct stages built.
        stage_seconds: Wall seconds of building, summed.
        device_seconds: Device seconds of building, summed.
        num_events: Records read.
        last_time: Clock time of the last record.
    """

    study: str
    attempt: int
    ended: str
    trials: Mapping[str, int]
    arms: Mapping[str, Mapping[str, int]]
    metrics: Mapping[str, Mapping[str, Mapping[int, float]]]
    stages_built: int
    stage_seconds: float
    device_seconds: float
    num_events: int
    last_time: float


class StatusFold:
    """Folds records into a `StudyStatus`, keeping of each trial no more than that needs."""

    def __init__(self, study: str) -> None:
        self._study = study
        self._view = StudyView(study)
        self._trials: dict[str, tuple[TrialState, int, str, int]] = {}
        self._metrics: dict[str, dict[str, dict[int, float]]] = {}
        self._built: set[str] = set()
        self._seconds = 0.0
        self._device_seconds = 0.0

    def fold(self, event: Event) -> None:
        """Take in one record."""
        trial = event.identity.trial
        if trial is None:
            kept = event.identity.kind in (schema.OPENED, schema.CLOSED, schema.STOPPED)
            if kept:
                self._view.fold(event)
                return
        elif event.identity.kind == schema.STAGE:
            self._fold_stage(_execution(event.body, event.identity.attempt))
        elif event.identity.kind in _STATE_AFTER:
            self._fold_state(event, trial)
        self._view.num_events += 1
        self._view.last_time = max(self._view.last_time, event.time)

    def result(self) -> StudyStatus:
        """Return the status so far."""
        arms: dict[str, Counter[str]] = {}
        total: Counter[str] = Counter()
        for state, _, arm, _ in self._trials.values():
            total[state] += 1
            if arm and not arm.startswith(_PROPOSAL):
                arms.setdefault(arm, Counter())[state] += 1
        return StudyStatus(
            self._study,
            self._view.attempt,
            self._view.ended,
            {state: total[state] for state in STATES},
            {arm: {state: count[state] for state in STATES} for arm, count in arms.items()},
            self._metrics,
            len(self._built),
            self._seconds,
            self._device_seconds,
            self._view.num_events,
            self._view.last_time,
        )

    def _fold_stage(self, execution: StageExecution) -> None:
        if not execution.cached:
            self._built.add(execution.key)
            self._seconds += execution.seconds
            self._device_seconds += execution.device_seconds

    def _fold_state(self, event: Event, trial: str) -> None:
        identity, body = event.identity, event.body
        _, attempt, arm, seed = self._trials.get(trial, ("pending", 0, "", 0))
        if identity.kind == schema.QUEUED:
            arm = str(body.get("arm") or f"{_PROPOSAL}{body.get('proposal')}")
            seed = int(body.get("seed", 0))
        if identity.attempt < attempt:
            return
        state = _STATE_AFTER[identity.kind]
        self._trials[trial] = (state, identity.attempt, arm, seed)
        # Which arm it is may be lost.
        if state == "completed" and arm:
            for name, value in body.get("values", {}).items():
                if isinstance(value, int | float):
                    label = arm.removeprefix("/")
                    self._metrics.setdefault(label, {}).setdefault(name, {})[seed] = float(value)


def read_status(storage: Storage, study: str) -> StudyStatus:
    """Return the status of a study, one segment in memory at a time."""
    fold = StatusFold(study)
    for event in read_events(storage, study):
        fold.fold(event)
    return fold.result()


def _execution(body: Mapping[str, Any], attempt: int) -> StageExecution:
    return StageExecution(
        str(body["stage"]),
        str(body["key"]),
        bool(body["cached"]),
        float(body.get("seconds", 0.0)),
        float(body.get("device_seconds", 0.0)),
        attempt,
        float(body.get("reserved", 0.0)),
        str(body.get("artifact", "")),
    )
