"""How a study stands, for people: its arms, its best proposals, what it is about.

Everything is read from `namd.ledger.view.StudyView`, with or without details. Neither Ray nor torch
nor Optuna nor numpy is needed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from namd.ledger.schema import CONFIRM
from namd.ledger.view import StudyView
from namd.statistics.metrics import lower_is_better
from namd.statistics.pareto import pareto_front
from namd.statistics.seed_intervals import SEEDS, mean_over_seeds


@dataclass(frozen=True)
class Objective:
    """A metric that a study is about, and whether more of it is better."""

    metric: str
    more: bool = True


def is_search(view: StudyView) -> bool:
    """Return whether the study is a search rather than an ablation."""
    return view.specification.get("search") is not None


def objectives(specification: Mapping[str, Any]) -> list[Objective]:
    """Return what a study is about: a search's objectives, an ablation's primary metric."""
    search = specification.get("search")
    if search is None:
        primary = str(specification.get("evaluate", {}).get("primary", "auroc"))
        return [Objective(primary, not lower_is_better(primary))]
    named = search["objective"]
    several = named if isinstance(named, list | tuple) else [named]
    return [Objective(str(o["metric"]), o.get("mode", "max") == "max") for o in several]


def shown_metrics(specification: Mapping[str, Any]) -> list[str]:
    """Return the metrics worth a column, the most important first."""
    secondary = specification.get("evaluate", {}).get("secondary", ())
    return list(dict.fromkeys([*(o.metric for o in objectives(specification)), *secondary]))


def arm_rows(view: StudyView) -> list[dict[str, Any]]:
    """Return a row per arm of an ablation, in the order in which they were queued."""
    measured, metrics = view.measured(), shown_metrics(view.specification)
    return [
        {
            "arm": arm,
            "seeds": counts["completed"],
            "trials": counts,
            "interval": SEEDS,
            **_estimates(measured.get(arm, {}), metrics),
        }
        for arm, counts in view.arms().items()
    ]


def best(view: StudyView) -> list[dict[str, Any]]:
    """Return the best proposals of a search: one, or with several objectives all unbeaten ones.

    Only a proposal whose seeds all completed counts. The first of equals is the best.
    """
    measured, wanted = view.measured(), seeds_of(view)
    goals, metrics = objectives(view.specification), shown_metrics(view.specification)
    scores = {}
    for number in sorted(view.proposals):
        label = f"p{number}"
        score = _score(measured.get(label, {}), goals, len(wanted.get(label, ())))
        if score is not None:
            scores[number] = score
    rows = []
    for number in pareto_front(scores):
        label, fresh = f"p{number}", measured.get(f"{CONFIRM}{number}", {})
        rows.append(
            {
                "proposal": number,
                "overrides": dict(view.proposals[number].overrides),
                "seeds": len(wanted.get(label, ())),
                "interval": SEEDS,
                **_estimates(measured[label], metrics),
                "confirmed": _confirmed(fresh, metrics) if fresh else None,
            }
        )
    return rows


def seeds_of(view: StudyView) -> dict[str, list[int]]:
    """Return the training seeds of each arm, or of `p3` for proposal 3, in order of queueing."""
    found: dict[str, list[int]] = {}
    for trial in view.trials.values():
        if trial.queued is not None:
            found.setdefault(trial.label, []).append(trial.seed)
    return found


def trial_name(label: str, seed: int) -> str:
    """Return the name of a trial that people are shown and commands take: `full/0`, `p3/0`."""
    return f"{label}/{seed}"


def _confirmed(
    measured: Mapping[str, Mapping[int, float]], metrics: Sequence[str]
) -> dict[str, Any]:
    seeds = max(len(by_seed) for by_seed in measured.values())
    return {"seeds": seeds, **_estimates(measured, metrics)}


def _estimates(
    values: Mapping[str, Mapping[int, float]], names: Sequence[str]
) -> dict[str, dict[str, float | None] | None]:
    found: dict[str, dict[str, float | None] | None] = {}
    for name in names:
        finite = [v for v in values.get(name, {}).values() if math.isfinite(v)]
        found[name] = mean_over_seeds(finite, name) if finite else None
    return found


def _score(
    measured: Mapping[str, Mapping[int, float]], goals: Sequence[Objective], seeds: int
) -> tuple[float, ...] | None:
    """Return the objectives' means, more being better; None if a seed is missing."""
    score = []
    for goal in goals:
        values = list(measured.get(goal.metric, {}).values())
        if not values or len(values) < seeds:
            return None
        mean = math.fsum(values) / len(values)
        score.append(mean if goal.more else -mean)
    return tuple(score)
