"""From a study's records to tracker runs, as plain values. Nothing here writes or sends.

Every run's id is a hash of its identity, so that publishing a study again replaces its runs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from namd.config.errors import ConfigError
from namd.config.fingerprint import fingerprint
from namd.config.flattening import flat
from namd.config.parsing import set_path
from namd.ledger.schema import (
    CONFIRM,
    ENDINGS,
    INTERRUPTED,
    Body,
    Completed,
    Ended,
    Event,
    Identity,
    Place,
)
from namd.ledger.view import StageExecution, StudyView, TrialView
from namd.tracking.privacy import clean, clean_text

SEED_PATH = "train_seed"
"""Path of the training seed in a configuration."""

_BAD = ("failed", "diverged", "interrupted")
_SHORT = 12
"""Digits of a key in names."""

LIMITS = {"name": 128, "group": 128, "job_type": 64}
"""Most characters of these fields; W&B takes longer ones offline and refuses them on sync."""

TAG_LIMIT = 64
_DIGEST = 8


@dataclass(frozen=True)
class RunContent:
    """The content of one run. Fields beyond W&B's limits are shortened, see `shortened`.

    Attributes:
        run_id: A hash of the run's identity.
        name: For people.
        group: The study.
        job_type: An arm (whole in the config), `search`, `confirm`, `stage` or `study`.
        config: Its configuration.
        tags: Short words to filter by.
        history: (step, metrics) in increasing order.
        summary: Final values.
        failed: Whether it failed.
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

    A body that resumes from a checkpoint repeats steps, which replace the earlier ones. Beyond
    `limit` lines every second one is dropped, and from then on every second new one.

    Args:
        limit: Most lines that are kept.
    """

    def __init__(self, limit: int = 5000) -> None:
        self._limit = limit
        self._stride = 1
        self._count = 0
        self.lines: list[tuple[int, dict[str, float]]] = []

    def add(self, index: int, metrics: Mapping[str, Any]) -> None:
        """Add a step; one without finite metrics is skipped."""
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


class StudyRuns:
    """The runs of a study, from the records received so far.

    Receiving a record twice changes nothing.
    """

    def __init__(self) -> None:
        self._view = StudyView("")
        self._known: set[Identity] = set()

    @property
    def study(self) -> str:
        """The study's name; empty before it was opened."""
        return str(self._view.specification.get("name", ""))

    @property
    def images(self) -> bool:
        """Whether the study file asks for pictures."""
        return bool(self._view.specification.get("tracking", {}).get("images", False))

    def event(
        self, trial: str | None, attempt: int, transition: str, body: Mapping[str, Any]
    ) -> RunContent | None:
        """Apply a record; return the run of the attempt that it ended, if any."""
        identity = Identity(trial, attempt, transition)
        event = Event(Place(1, len(self._known) + 1), identity, 0.0, "", body)
        if identity not in self._known:
            self._known.add(identity)
            self._view.apply(event)
        if trial is None or identity.kind not in ENDINGS:
            return None
        known = self._view.trials[trial]
        if known.started != attempt and identity.kind == INTERRUPTED:
            return None
        return self._trial_run(known, attempt, identity.kind, event.content)

    def stage_run(self, label: str, key: str) -> RunContent:
        """Return the run of a stage, without its metrics."""
        config = {"study": self.study, "stage": label, "key": key}
        name = f"{label}-{key[:_SHORT]}"
        return RunContent(self.stage_id(key), name, self.study, "stage", config)

    def stage_id(self, key: str) -> str:
        """Return the id of a stage's run."""
        return run_id(self.study, "stage", key)

    def study_run(self) -> RunContent:
        """Return the run of the study itself."""
        summary = {
            "trials": self._view.counts(),
            "stages_built": self._view.stages_built,
            "device_seconds": self._view.device_seconds(),
            "attempts": self._view.attempt,
            "ended": self._view.ended,
            "messages": [self._text(message.text) for message in self._view.messages],
        }
        config = {
            "study": self.study,
            "question": self._question,
            "configuration": clean(self._view.configuration),
        }
        identity = run_id(self.study, "study")
        return RunContent(identity, self.study, self.study, "study", config, summary=summary)

    @property
    def _question(self) -> str:
        return self._text(self._view.specification.get("question", ""))

    def _text(self, text: object) -> str:
        return clean_text(str(text), frozenset(self._view.configuration))

    def _trial_run(self, known: TrialView, attempt: int, outcome: str, body: Body) -> RunContent:
        queued = known.queued
        proposal = None if queued is None else queued.proposal
        seed = None if queued is None else queued.seed
        stages = {s.stage.label: s for s in known.stages if s.attempt == attempt}
        config = {
            "study": self.study,
            "question": self._question,
            "trial": known.trial,
            "attempt": attempt,
            "arm": known.arm or None,
            "proposal": proposal,
            "seed": seed,
            "overrides": clean(known.overrides),
            "configuration": clean(self._resolved(known)),
            "stages": {label: self._link(stage) for label, stage in stages.items()},
        }
        values = body.values if isinstance(body, Completed) else {}
        summary: dict[str, Any] = {"outcome": outcome, **clean(dict(values))}
        if isinstance(body, Ended) and body.reason:
            summary["reason"] = self._text(body.reason)
        summary["stage_seconds"] = {label: stage.seconds for label, stage in stages.items()}
        history = [
            (number, {f"rung/{rung}/{reached.metric}": float(reached.value)})
            for number, (rung, reached) in enumerate(known.rungs.items(), start=1)
        ]
        again = f"-a{attempt}" if attempt > 1 else ""
        return RunContent(
            run_id(self.study, known.trial, attempt),
            f"{known.trial[:8]}-s{seed}{again}",
            self.study,
            _job_type(known.arm, proposal),
            config,
            (outcome,),
            history,
            summary,
            outcome in _BAD,
        )

    def _link(self, stage: StageExecution) -> dict[str, Any]:
        return {"key": stage.key, "run_id": self.stage_id(stage.key), "cached": stage.cached}

    def _resolved(self, known: TrialView) -> Mapping[str, Any]:
        """Return the base with the trial's seed and overrides applied."""
        result = dict(self._view.configuration)
        if not result or known.queued is None:
            return {}
        try:
            for path, value in known.overrides.items():
                result = set_path(result, path, value)
        except ConfigError:
            # The base was resolved by another version; the overrides are in the config anyway.
            return {}
        return {**result, SEED_PATH: known.seed}


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are finite numbers, `index` left out."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if name != "index" and isinstance(value, int | float) and math.isfinite(value)
    }


def flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's leaves by dotted name, the items of a list in one text."""
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        for name, value in flat(row).items()
    }


def shortened(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters: its beginning and a digest of the whole."""
    if len(text) <= limit:
        return text
    return f"{text[: limit - _DIGEST - 1]}-{fingerprint(text)[:_DIGEST]}"


def run_id(*identity: object) -> str:
    """Return the id of the run with an identity: letters and digits."""
    return fingerprint([str(part) for part in identity])[:20]


def _job_type(arm: str, proposal: int | None) -> str:
    if arm.startswith(CONFIRM):
        return "confirm"
    return arm or ("search" if proposal is not None else "trial")
