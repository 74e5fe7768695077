"""What status, watch and best show of a study, folded from its records in memory that stays small.

How it is printed is decided in namd.cli.study_status. Neither Ray nor torch nor Optuna is needed.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from namd.cli.study_inputs import Ledger, readable
from namd.ledger import schema
from namd.ledger.reading import read_events
from namd.ledger.view import StatusFold, StudyStatus
from namd.statistics.metrics import fewer_is_better, within_range

if TYPE_CHECKING:
    from namd.ledger.schema import Event, Place

CONFIRM = "confirm_p"


@dataclass(frozen=True)
class Objective:
    """A metric that a study is about, and whether more of it is better."""

    metric: str
    more: bool = True


@dataclass
class StudyFold:
    """Folds records; ask `status` for the counts.

    Attributes:
        study: Its name.
        specification: The study file as it was last opened.
        cohort: The cohort's folder at the last opening that told it.
        overrides: Per proposal, what it sets.
        arm_overrides: Per arm, what it sets.
        names: Per trial, its arm or proposal and its training seed.
        seeds: Per proposal or arm, how many trials were queued.
        running: Per running trial, the last stage that it was told to have.
        problems: Per failed or diverged trial, how and why it ended.
        stopped: Why somebody stopped the study.
        cursor: Place of the last record.
    """

    study: str
    specification: Mapping[str, Any] = field(default_factory=dict)
    cohort: str | None = None
    overrides: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    arm_overrides: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    names: dict[str, tuple[str, int]] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)
    stopped: str = ""
    cursor: "Place | None" = None
    _status: StatusFold = field(init=False)

    def __post_init__(self) -> None:
        self._status = StatusFold(self.study)

    @property
    def status(self) -> StudyStatus:
        """Counts per state, per arm, and the values of completed trials."""
        return self._status.result()

    @property
    def is_search(self) -> bool:
        """Whether the study is a search rather than an ablation."""
        return self.specification.get("search") is not None

    @property
    def objectives(self) -> list[Objective]:
        """What the study is about: a search's objectives, an ablation's primary metric."""
        search = self.specification.get("search")
        if search is None:
            primary = str(self.specification.get("evaluate", {}).get("primary", "auroc"))
            return [Objective(primary, not fewer_is_better(primary))]
        told = search["objective"]
        several = told if isinstance(told, list | tuple) else [told]
        return [Objective(str(o["metric"]), o.get("mode", "max") == "max") for o in several]

    @property
    def metrics(self) -> list[str]:
        """Metrics worth a column, the most important first."""
        secondary = self.specification.get("evaluate", {}).get("secondary", ())
        return list(dict.fromkeys([*(o.metric for o in self.objectives), *secondary]))

    def fold(self, event: "Event") -> None:
        """Take in one record."""
        self._status.fold(event)
        self.cursor = event.place
        if event.identity.trial is None:
            self._fold_study(event)
        else:
            self._fold_trial(event, event.identity.trial)

    def _fold_study(self, event: "Event") -> None:
        kind, body = event.identity.kind, event.body
        if kind == schema.OPENED:
            self.specification = body.get("specification", {})
            self.cohort = body.get("cohort", self.cohort)
            self.stopped = ""
        elif kind == schema.STOPPED:
            self.stopped = str(body.get("reason", ""))
        elif kind == schema.PROPOSED:
            self.overrides.setdefault(int(event.identity.name), body["overrides"])

    def _fold_trial(self, event: "Event", trial: str) -> None:
        kind, body = event.identity.kind, event.body
        if kind == schema.QUEUED:
            label = str(body.get("arm") or f"p{body.get('proposal')}")
            self.names[trial] = (label, int(body.get("seed", 0)))
            self.seeds[label] = self.seeds.get(label, 0) + 1
            if body.get("arm"):
                self.arm_overrides.setdefault(label, body.get("overrides", {}))
        elif kind == schema.STARTED:
            self.running[trial] = ""
            self.problems.pop(trial, None)
        elif kind == schema.STAGE and trial in self.running:
            self.running[trial] = str(body["stage"])
        elif kind in schema.ENDINGS:
            self.running.pop(trial, None)
            self.problems.pop(trial, None)
            if kind in (schema.FAILED, schema.DIVERGED):
                self.problems[trial] = (kind, str(body.get("reason", "")))


def fold_study(ledger: Ledger) -> StudyFold:
    """Return a study's fold, read to its end. Raises InputError."""
    fold = StudyFold(ledger.name)
    read_on(ledger, fold)
    return fold


def read_on(ledger: Ledger, fold: StudyFold) -> int:
    """Take in what was recorded since; return how many records that were. Raises InputError."""
    count = 0
    with readable(ledger.url):
        for event in _events(ledger, fold):
            fold.fold(event)
            count += 1
    return count


def arms(fold: StudyFold, status: StudyStatus) -> list[dict[str, Any]]:
    """Return a row per arm of an ablation, in the order in which they were queued."""
    return [
        {
            "arm": arm,
            "seeds": counts["completed"],
            "trials": dict(counts),
            **_estimates(status.metrics.get(arm, {}), fold.metrics),
        }
        for arm, counts in status.arms.items()
    ]


def best(fold: StudyFold, status: StudyStatus) -> list[dict[str, Any]]:
    """Return the best proposals of a search: one, or with several objectives all unbeaten ones.

    Only a proposal whose seeds all completed counts. The first of equals is the best.
    """
    scores = {}
    for number in sorted(fold.overrides):
        score = _score(fold, status, number)
        if score is not None:
            scores[number] = score
    if not scores:
        return []
    if len(fold.objectives) == 1:
        chosen = [max(scores, key=lambda number: scores[number])]
    else:
        chosen = [n for n, score in scores.items() if not _is_beaten(score, scores.values())]
    return [_proposal_row(fold, status, number) for number in chosen]


def trial_name(label: str, seed: int) -> str:
    """Return the name of a trial that people are shown and commands take: `full/0`, `p3/0`."""
    return f"{label}/{seed}"


def mean_over_seeds(values: Sequence[float], metric: str = "") -> dict[str, float | None]:
    """Return mean and 95% interval (Student's t over seeds); no interval for one seed.

    The interval ends where the metric does (see namd.statistics.metrics).
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return {"mean": mean, "low": None, "high": None}
    from scipy.special import stdtrit

    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1))
    swing = float(stdtrit(count - 1, 0.975)) * deviation / math.sqrt(count)
    low, high = (within_range(metric, end) for end in (mean - swing, mean + swing))
    return {"mean": mean, "low": low, "high": high}


def _events(ledger: Ledger, fold: StudyFold) -> "Iterator[Event]":
    return read_events(ledger.storage, ledger.name, fold.cursor)


def _estimates(
    values: Mapping[str, Mapping[int, float]], names: Sequence[str]
) -> dict[str, dict[str, float | None] | None]:
    found: dict[str, dict[str, float | None] | None] = {}
    for name in names:
        finite = [v for v in values.get(name, {}).values() if math.isfinite(v)]
        found[name] = mean_over_seeds(finite, name) if finite else None
    return found


def _score(fold: StudyFold, status: StudyStatus, number: int) -> tuple[float, ...] | None:
    """Return the objectives' means, more being better, or None where a seed is missing."""
    label, score = f"p{number}", []
    for objective in fold.objectives:
        values = list(status.metrics.get(label, {}).get(objective.metric, {}).values())
        if not values or len(values) < fold.seeds.get(label, 0):
            return None
        mean = math.fsum(values) / len(values)
        score.append(mean if objective.more else -mean)
    return tuple(score)


def _is_beaten(score: tuple[float, ...], others: Iterable[tuple[float, ...]]) -> bool:
    return any(
        other != score and all(o >= s for o, s in zip(other, score, strict=True))
        for other in others
    )


def _proposal_row(fold: StudyFold, status: StudyStatus, number: int) -> dict[str, Any]:
    confirmed = status.metrics.get(f"{CONFIRM}{number}", {})
    row: dict[str, Any] = {
        "proposal": number,
        "overrides": dict(fold.overrides[number]),
        "seeds": fold.seeds.get(f"p{number}", 0),
        **_estimates(status.metrics.get(f"p{number}", {}), fold.metrics),
        "confirmed": None,
    }
    if confirmed:
        seeds = max(len(by_seed) for by_seed in confirmed.values())
        row["confirmed"] = {"seeds": seeds, **_estimates(confirmed, fold.metrics)}
    return row
