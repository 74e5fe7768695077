"""From a study's records to the runs that show it: plain values. Nothing here writes or sends.

Every run's id is a hash of what it stands for, so that showing a study again replaces its runs.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from namd.config.errors import ConfigError
from namd.config.fingerprint import fingerprint
from namd.config.parsing import set_path
from namd.tracking.privacy import clean, clean_text

SEED_PATH = "train_seed"
"""Where a configuration holds its training seed."""

CONFIRM = "confirm_p"
"""How the arm of a search winner's fresh seeds begins."""

ENDINGS = ("completed", "pruned", "failed", "diverged", "interrupted")
_BAD = ("failed", "diverged", "interrupted")
_SHORT = 12
"""Digits of a key that people are shown."""

LIMITS = {"name": 128, "group": 128, "job_type": 64}
"""Most characters of these fields; W&B takes longer ones offline and refuses them on sync."""

TAG_LIMIT = 64
_DIGEST = 8


@dataclass(frozen=True)
class RunContent:
    """All that one run shows. Fields beyond W&B's limits are shortened, see `shortened`.

    Attributes:
        run_id: The same for the same thing, whenever it is written.
        name: For people.
        group: The study.
        job_type: An arm (whole in the config), `search`, `confirm`, `stage` or `study`.
        config: What was decided before it ran.
        tags: Short words to filter by.
        history: (step, metrics) in increasing order.
        summary: Final values.
        failed: Whether it ended badly.
    """

    run_id: str
    name: str
    group: str
    job_type: str
    config: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    history: Sequence[tuple[int, Mapping[str, float]]] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    failed: bool = False

    def __post_init__(self) -> None:
        """Keep within W&B's limits."""
        for name, limit in LIMITS.items():
            object.__setattr__(self, name, shortened(getattr(self, name), limit))
        tags = tuple(shortened(tag, TAG_LIMIT) for tag in self.tags)
        object.__setattr__(self, "tags", tags)


class History:
    """Steps of a stage, oldest first, in bounded memory.

    A body that resumes from a checkpoint repeats steps: those from there on are replaced. Beyond
    `limit` lines every second one is dropped, and so is every second one that follows.

    Args:
        limit: Most lines that are kept.
    """

    def __init__(self, limit: int = 5000) -> None:
        self._limit = limit
        self._stride = 1
        self._count = 0
        self.lines: list[tuple[int, dict[str, float]]] = []

    def add(self, index: int, metrics: Mapping[str, Any]) -> None:
        """Take in a step; one without finite metrics leaves no line."""
        while self.lines and self.lines[-1][0] >= index:
            self.lines.pop()
        measured = finite(metrics)
        if not measured:
            return
        self._count += 1
        if self._count % self._stride:
            return
        self.lines.append((index, measured))
        if len(self.lines) > self._limit:
            self.lines = self.lines[1::2]
            self._stride *= 2


@dataclass
class _TrialState:
    """What is known of a trial that may still get a run."""

    queued: Mapping[str, Any] = field(default_factory=dict)
    state: str = "pending"
    started: int = 0
    stages: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    rungs: dict[str, Mapping[str, Any]] = field(default_factory=dict)


class StudyFold:
    """A study as far as its records were told.

    Taking in a record twice changes nothing.

    Attributes:
        study: Its name; empty before it was opened.
        images: Whether the study file asks for pictures.
    """

    def __init__(self) -> None:
        self.study = ""
        self.images = False
        self._question = ""
        self._configuration: Mapping[str, Any] = {}
        self._roots: frozenset[str] = frozenset()
        self._trials: dict[str, _TrialState] = {}
        self._built: dict[str, float] = {}
        self._messages: dict[tuple[int, str], str] = {}
        self._ended = ""
        self._attempt = 0

    def event(
        self, trial: str | None, attempt: int, transition: str, body: Mapping[str, Any]
    ) -> RunContent | None:
        """Take in a record; return the run of the attempt that it ended, if it ended one."""
        kind, _, name = transition.partition("/")
        if trial is None:
            self._fold_study(attempt, kind, name, body)
            return None
        known = self._trials.setdefault(trial, _TrialState())
        if kind == "queued":
            known.queued = body
        elif kind == "started":
            known.state, known.started, known.stages = "running", attempt, {}
        elif kind == "rung":
            known.rungs[name] = body
        elif kind == "stage":
            known.stages[name] = body
            if not body.get("cached"):
                self._built[str(body["key"])] = float(body.get("device_seconds", 0.0))
        elif kind in ENDINGS:
            known.state = "pending" if kind == "interrupted" else kind
            if known.started == attempt or kind != "interrupted":
                return self._trial_run(trial, attempt, kind, body)
        return None

    def stage_run(self, label: str, key: str) -> RunContent:
        """Return the run of a stage, without what it measured."""
        config = {"study": self.study, "stage": label, "key": key}
        name = f"{label}-{key[:_SHORT]}"
        return RunContent(self.stage_id(key), name, self.study, "stage", config)

    def stage_id(self, key: str) -> str:
        """Return the id of a stage's run."""
        return run_id(self.study, "stage", key)

    def study_run(self) -> RunContent:
        """Return the run of the study itself."""
        counts = Counter(trial.state for trial in self._trials.values())
        summary = {
            "trials": {state: counts[state] for state in ("pending", "running", *ENDINGS[:-1])},
            "stages_built": len(self._built),
            "device_seconds": math.fsum(self._built.values()),
            "attempts": self._attempt,
            "ended": self._ended,
            "messages": list(self._messages.values()),
        }
        config = {
            "study": self.study,
            "question": self._question,
            "configuration": clean(self._configuration),
        }
        identity = run_id(self.study, "study")
        return RunContent(identity, self.study, self.study, "study", config, summary=summary)

    def _fold_study(self, attempt: int, kind: str, name: str, body: Mapping[str, Any]) -> None:
        if kind == "opened":
            specification = body.get("specification", {})
            self.study = str(specification.get("name", self.study))
            self._configuration = body.get("configuration", {})
            self._roots = frozenset(self._configuration)
            self._question = self._text(specification.get("question", ""))
            self.images = bool(specification.get("tracking", {}).get("images", False))
            self._attempt, self._ended = attempt, ""
        elif kind in ("closed", "stopped"):
            self._ended = kind
        elif kind == "message":
            self._messages[attempt, name] = self._text(body.get("text", ""))

    def _text(self, text: object) -> str:
        return clean_text(str(text), self._roots)

    def _trial_run(
        self, trial: str, attempt: int, outcome: str, body: Mapping[str, Any]
    ) -> RunContent:
        known = self._trials[trial]
        queued = known.queued
        arm, proposal, seed = queued.get("arm") or "", queued.get("proposal"), queued.get("seed")
        config = {
            "study": self.study,
            "question": self._question,
            "trial": trial,
            "attempt": attempt,
            "arm": arm or None,
            "proposal": proposal,
            "seed": seed,
            "overrides": clean(queued.get("overrides", {})),
            "configuration": clean(self._resolved(queued)),
            "stages": {label: self._link(told) for label, told in known.stages.items()},
        }
        summary: dict[str, Any] = {"outcome": outcome, **clean(dict(body.get("values", {})))}
        if body.get("reason"):
            summary["reason"] = self._text(body["reason"])
        summary["stage_seconds"] = {
            label: float(told.get("seconds", 0.0)) for label, told in known.stages.items()
        }
        history = [
            (number, {f"rung/{rung}/{told['metric']}": float(told["value"])})
            for number, (rung, told) in enumerate(known.rungs.items(), start=1)
        ]
        again = f"-a{attempt}" if attempt > 1 else ""
        return RunContent(
            run_id(self.study, trial, attempt),
            f"{trial[:8]}-s{seed}{again}",
            self.study,
            _job_type(arm, proposal),
            config,
            (outcome,),
            history,
            summary,
            outcome in _BAD,
        )

    def _link(self, told: Mapping[str, Any]) -> dict[str, Any]:
        key = str(told["key"])
        return {"key": key, "run_id": self.stage_id(key), "cached": bool(told["cached"])}

    def _resolved(self, queued: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the base with the trial's seed and overrides laid over it."""
        result = dict(self._configuration)
        if not result:
            return {}
        try:
            for path, value in queued.get("overrides", {}).items():
                result = set_path(result, path, value)
        except ConfigError:
            # The base was resolved by another version: the overrides stand beside it anyway.
            return {}
        return {**result, SEED_PATH: queued.get("seed")}


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are finite numbers, `index` left out."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if name != "index" and isinstance(value, int | float) and math.isfinite(value)
    }


def flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a row's leaves by dotted name: `auroc.mean`."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            found[f"{prefix}{name}"] = ", ".join(str(item) for item in value)
        else:
            found[f"{prefix}{name}"] = value
    return found


def shortened(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters: its beginning and a digest of the whole."""
    if len(text) <= limit:
        return text
    return f"{text[: limit - _DIGEST - 1]}-{fingerprint(text)[:_DIGEST]}"


def run_id(*identity: object) -> str:
    """Return the id of the run that stands for an identity: letters and digits."""
    return fingerprint([str(part) for part in identity])[:20]


def _job_type(arm: str, proposal: int | None) -> str:
    if arm.startswith(CONFIRM):
        return "confirm"
    return arm or ("search" if proposal is not None else "trial")
