"""Means of arms and linear combinations of them, over training seeds and resampled patients.

A paired difference to the reference is the combination (1, -1), an interaction one of four arms or
more: all are computed here in the same way. `study_table` and `study_effects` choose them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.study_measures import Measured, combine
from analysis.study_scores import TrialScores
from namd.ledger.view import StudyView, TrialView
from namd.statistics.intervals import patients_x_seeds
from namd.statistics.resampling import Estimate
from namd.statistics.seeds import SeedMean, crossed_mean, seed_mean
from namd.statistics.testing import delong, holm, sign_flip_floor, sign_flip_p


@dataclass(frozen=True)
class Basis:
    """The data behind the rows of one study."""

    view: StudyView
    arms: Mapping[str, Mapping[int, TrialView]]
    measured: Mapping[str, Mapping[str, Measured]]
    num_patients: int
    level: float
    cases: pd.DataFrame | None = None
    scores: Mapping[str, Sequence[TrialScores]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    simulated: bool | None = None
    law: str | None = None
    context: tuple[dict[str, Any], ...] = ()


def arm_mean(name: str, arm: str, basis: Basis) -> dict[str, Any] | None:
    """Return an arm's mean of a metric over its seeds with interval; None if it has none."""
    measured = basis.measured.get(arm, {}).get(name)
    if measured is None or not len(measured.values):
        return None
    estimate = _estimate(measured, basis)
    return plain(patients_x_seeds(name, estimate, basis.level)) | {
        "std": float(measured.values.std(ddof=1)) if len(measured.values) > 1 else None,
        "std_draws": None if measured.over_draws is None else float(measured.over_draws.mean()),
        "per_seed": _per_seed(measured.seeds, measured.values),
    }


def contrast(name: str, weights: Mapping[str, float], basis: Basis) -> dict[str, Any] | None:
    """Return a linear combination of arms at the seeds that all of them have.

    Args:
        name: The metric.
        weights: Per arm; they sum to 0.
        basis: The measurements of the arms.

    Returns:
        Mean, interval, p and their basis, JSON-able; None if an arm lacks the metric or
        no seed is common to all.
    """
    found = {arm: basis.measured.get(arm, {}).get(name) for arm in weights}
    parts = [(weight, found[arm]) for arm, weight in weights.items()]
    known = [(weight, arm) for weight, arm in parts if arm is not None]
    measured = combine(known) if len(known) == len(parts) else None
    if measured is None:
        return None
    estimate = _estimate(measured, basis)
    p = estimate.p_value()
    result: dict[str, Any] = plain(estimate.interval(basis.level)) | {
        "p_method": _method(measured),
        "seeds": len(measured.seeds),
        "per_seed": _per_seed(measured.seeds, measured.values),
        "sign_flip": {
            "p": sign_flip_p(measured.values),
            "floor": sign_flip_floor(len(measured.seeds)),
        },
    }
    pair = _pair(weights)
    alone = len(measured.seeds) == 1 and not measured.judges
    if pair and alone and name == "auroc" and basis.cases is not None:
        p, extra = _delong(pair, measured.seeds[0], basis, p)
        result |= extra
    return result | {"p": finite(p), "p_holm": None}


def adjust(found: Sequence[dict[str, Any] | None]) -> None:
    """Write Holm's p into one family, its size all declared comparisons.

    A missing comparison counts with p = 1, so that a result of an unfinished study cannot become
    less strict later.
    """
    p = [1.0 if d is None or d["p"] is None else float(d["p"]) for d in found]
    if not p:
        return
    for difference, adjusted in zip(found, holm(np.array(p)), strict=True):
        if difference is not None and difference["p"] is not None:
            difference["p_holm"] = float(adjusted)


def plain(interval: Estimate) -> dict[str, Any]:
    """Return an interval as the rows have it."""
    found = interval.to_mapping()
    return {"mean": found["value"], "low": found["low"], "high": found["high"]}


def finite(value: float) -> float | None:
    """Return a number for JSON."""
    return float(value) if np.isfinite(value) else None


def _method(measured: Measured) -> str:
    if measured.replicates is None:
        return "t over training seeds only"
    if measured.judges:
        fixed = "not varied" if len(measured.seeds) == 1 else "as random factors"
        both = "judges as a random factor; training seeds " if len(measured.seeds) == 1 else ""
        return f"t, patients resampled, {both or 'training seeds and judges '}{fixed}"
    if len(measured.seeds) == 1:
        return "t, patients resampled; training seeds not varied"
    return "t, patients resampled, training seeds as a random factor"


def _pair(weights: Mapping[str, float]) -> tuple[str, str] | None:
    """Return the two arms of a plain difference, the first minus the second; else None."""
    ordered = sorted(weights, key=lambda arm: -weights[arm])
    if len(ordered) == 2 and [weights[arm] for arm in ordered] == [1.0, -1.0]:
        return ordered[0], ordered[1]
    return None


def _delong(
    pair: tuple[str, str], seed: int, basis: Basis, p: float
) -> tuple[float, dict[str, Any]]:
    """DeLong's test of one pair of models; its p is used if every case is another patient."""
    assert basis.cases is not None, "called only with scores"
    ours, theirs = (next(t for t in basis.scores[arm] if t.seed == seed).of_mean for arm in pair)
    labels = basis.cases["label"].to_numpy(int)
    if min((labels == 0).sum(), (labels == 1).sum()) < 2:
        return p, {}
    test = delong(labels, ours, theirs, basis.level)
    shown = {"p": test.p_value, "low": test.low, "high": test.high, "z": finite(test.z)}
    if basis.cases["patient_id"].is_unique:
        return test.p_value, {"delong": shown, "p_method": "DeLong, one pair of models"}
    return p, {"delong": shown}


def _estimate(measured: Measured, basis: Basis) -> SeedMean:
    """Return the mean over seeds; without resamples its error is over seeds only."""
    drawn = [j.replicates for j in measured.judges if j.replicates is not None]
    if drawn:
        cells = np.stack([judge.values for judge in measured.judges], axis=1)
        return crossed_mean(cells, np.stack(drawn, axis=1), basis.num_patients)
    if measured.replicates is not None:
        return seed_mean(measured.values, measured.replicates, basis.num_patients)
    if len(measured.values) < 2:
        return SeedMean(float(measured.values.mean()), measured.values, np.nan, np.nan)
    error = float(measured.values.std(ddof=1)) / np.sqrt(len(measured.values))
    freedom = float(len(measured.values) - 1)
    return SeedMean(float(measured.values.mean()), measured.values, float(error), freedom)


def _per_seed(seeds: Sequence[int], values: npt.NDArray[np.floating]) -> dict[str, float]:
    return {str(seed): float(value) for seed, value in zip(seeds, values, strict=True)}
