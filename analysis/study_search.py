"""The results of a search: its proposals, its winners, and their values on fresh seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from namd.ledger.schema import CONFIRM
from namd.ledger.schema import Proposed as ProposedBody
from namd.ledger.view import StudyView, TrialView
from namd.statistics.pareto import pareto_front


@dataclass(frozen=True)
class Proposed:
    """One proposal.

    Attributes:
        number: From 0, in order of proposal.
        point: Values of the searched parameters; absent where a condition is false.
        values: Mean over its training seeds, per objective; empty unless all are completed.
        state: completed, pruned, failed, diverged, running or pending.
    """

    number: int
    point: Mapping[str, Any]
    values: Mapping[str, float]
    state: str


@dataclass(frozen=True)
class SearchSummary:
    """A search so far.

    Attributes:
        objectives: Metric to `max` or `min`.
        proposals: In order.
        best: Numbers of the winner, or of the Pareto front.
        logarithmic: Parameters that are searched on a logarithmic scale.
        winners: Per winner: number, point, overrides, search (what it was chosen by) and
            confirmed (mean, per_seed and seeds of the same metric on fresh seeds, or None).
    """

    objectives: Mapping[str, str]
    proposals: tuple[Proposed, ...]
    best: tuple[int, ...]
    logarithmic: frozenset[str]
    winners: tuple[dict[str, Any], ...]


def search_summary(view: StudyView) -> SearchSummary:
    """Return what the ledger of a search says. Raises ValueError for an ablation."""
    search = view.specification.get("search")
    if not search:
        raise ValueError(f"study {view.study} is no search")
    objective = search["objective"]
    listed = [objective] if isinstance(objective, Mapping) else list(objective)
    objectives = {entry["metric"]: entry.get("mode", "max") for entry in listed}
    proposals = tuple(
        _proposed(number, body, view, objectives) for number, body in sorted(view.proposals.items())
    )
    best = tuple(pareto(proposals, objectives))
    space = search.get("space", {})
    logarithmic = frozenset(n for n, p in space.items() if "log_uniform" in p)
    winners = tuple(_winner(proposals[number], view, objectives) for number in best)
    return SearchSummary(objectives, proposals, best, logarithmic, winners)


def pareto(proposals: Sequence[Proposed], objectives: Mapping[str, str]) -> list[int]:
    """Return the numbers of completed proposals on the Pareto front.

    With one objective: the first of the best.
    """
    signs = {metric: 1.0 if mode == "max" else -1.0 for metric, mode in objectives.items()}
    return pareto_front(
        {p.number: [sign * p.values[m] for m, sign in signs.items()] for p in proposals if p.values}
    )


def _proposed(
    number: int, body: ProposedBody, view: StudyView, objectives: Mapping[str, str]
) -> Proposed:
    trials = [view.trials[t] for t in body.trials if t in view.trials]
    states = [trial.state for trial in trials]
    state = next((s for s in ("pruned", "failed", "diverged", "running") if s in states), "pending")
    values: dict[str, float] = {}
    if trials and set(states) == {"completed"}:
        state = "completed"
        means = {metric: _mean(trials, metric) for metric in objectives}
        if all(value is not None for value in means.values()):
            values = {metric: value for metric, value in means.items() if value is not None}
    return Proposed(number, dict(body.point), values, state)


def _winner(proposal: Proposed, view: StudyView, objectives: Mapping[str, str]) -> dict[str, Any]:
    arm = f"{CONFIRM}{proposal.number}"
    fresh = [
        trial for trial in view.trials.values() if trial.arm == arm and trial.state == "completed"
    ]
    confirmed = None
    if fresh:
        confirmed = {
            metric: {
                "mean": _mean(fresh, metric),
                "per_seed": {str(t.seed): t.values.get(metric) for t in fresh},
                "seeds": len(fresh),
            }
            for metric in objectives
        }
    body = view.proposals[proposal.number]
    return {
        "proposal": proposal.number,
        "point": dict(proposal.point),
        "overrides": dict(body.overrides),
        "search": dict(proposal.values),
        "confirmed": confirmed,
    }


def _mean(trials: Sequence[TrialView], metric: str) -> float | None:
    values = [trial.values.get(metric) for trial in trials]
    known = [float(v) for v in values if isinstance(v, int | float)]
    return float(np.mean(known)) if len(known) == len(trials) else None
