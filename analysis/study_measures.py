"""The metrics of one arm of a study, per training seed and under resampled patients.

From score matrices to numbers; `study_table` decides which arms are compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.study_scores import TrialScores
from namd.ledger.view import TrialView
from namd.statistics.ensembles import crps, interval_covers, mean_over_draws
from namd.statistics.metrics import DIAMETER_METRICS, IMAGE_METRICS, RANKING, SET_METRICS
from namd.statistics.ranking import weighted_ranking
from namd.statistics.seeds import weighted_mean


@dataclass(frozen=True)
class Measured:
    """One metric of one arm.

    Attributes:
        seeds: Training seeds, (S,).
        values: The metric of each seed, (S,).
        replicates: The metric under resampled patients, (S, B); None without resampling.
        judges: The same under each of several judges; the fields above are then their mean.
        over_draws: Of each seed the standard deviation over single draws, (S,); None for a metric
            of all draws together, or of a single draw.
    """

    seeds: tuple[int, ...]
    values: npt.NDArray[np.floating]
    replicates: npt.NDArray[np.floating] | None = None
    judges: tuple["Measured", ...] = ()
    over_draws: npt.NDArray[np.floating] | None = None

    def at(self, seeds: Sequence[int]) -> "Measured":
        """Return the same for some of the seeds."""
        places = [self.seeds.index(seed) for seed in seeds]
        kept = None if self.replicates is None else self.replicates[places]
        judges = tuple(judge.at(seeds) for judge in self.judges)
        return Measured(tuple(seeds), self.values[places], kept, judges)


def mean_of_judges(judges: Sequence[Measured]) -> Measured:
    """Return the mean over judges, with each one's beside it if there are several."""
    first = judges[0]
    if len(judges) == 1:
        return first
    drawn = [judge.replicates for judge in judges if judge.replicates is not None]
    replicates = np.mean(drawn, axis=0) if len(drawn) == len(judges) else None
    values = np.mean([judge.values for judge in judges], axis=0)
    spreads = [judge.over_draws for judge in judges if judge.over_draws is not None]
    spread = np.mean(spreads, axis=0) if len(spreads) == len(judges) else None
    return Measured(first.seeds, values, replicates, tuple(judges), spread)


def combine(weighted: Sequence[tuple[float, Measured]]) -> Measured | None:
    """Return a linear combination of arms at the seeds that all of them have; None without any.

    Resampled patients stay paired; they are left out if one of the arms has none.
    """
    first = weighted[0][1].seeds if weighted else ()
    seeds = [seed for seed in first if all(seed in arm.seeds for _, arm in weighted)]
    if not seeds:
        return None
    parts = [(weight, arm.at(seeds)) for weight, arm in weighted]
    numbers = {len(arm.judges) for _, arm in parts}
    if numbers != {0} and len(numbers) == 1:
        each = [[(weight, arm.judges[j]) for weight, arm in parts] for j in range(numbers.pop())]
        return mean_of_judges([_combined(seeds, one) for one in each])
    return _combined(seeds, parts)


def _combined(seeds: Sequence[int], parts: Sequence[tuple[float, Measured]]) -> Measured:
    values = _weighted_sum([(weight, arm.values) for weight, arm in parts])
    drawn = [(weight, arm.replicates) for weight, arm in parts if arm.replicates is not None]
    replicates = _weighted_sum(drawn) if len(drawn) == len(parts) else None
    return Measured(tuple(seeds), values, replicates)


def _weighted_sum(
    parts: Sequence[tuple[float, npt.NDArray[np.floating]]],
) -> npt.NDArray[np.floating]:
    """Return the sum; exactly 0 if only rounding is left, which a test would treat as an effect."""
    total, size = np.zeros_like(parts[0][1]), np.zeros_like(parts[0][1])
    for weight, values in parts:
        total += weight * values
        size += np.abs(weight * values)
    total[np.abs(total) <= 1e-12 * size] = 0.0
    return total


@dataclass(frozen=True)
class Truth:
    """What draws are held against, and how.

    Attributes:
        labels: 0 or 1, (N,).
        diameters: Of the real follow-ups, by the rule that measures the draws, (N,); NaN where
            unknown.
        coverage: Nominal coverage of the intervals of drawn diameters.
        ddof: Of standard deviations over draws: 1 of a sample, 0 of the population.
    """

    labels: npt.NDArray[np.int_]
    diameters: npt.NDArray[np.floating] | None = None
    coverage: float = 0.9
    ddof: int = 1


def measure(
    trials: Sequence[TrialScores], truth: Truth, weights: npt.NDArray[np.float32]
) -> dict[str, Measured]:
    """Return every metric of one arm; column 0 of a metric is the data itself."""
    if not trials:
        return {}
    labels, ddof = truth.labels, truth.ddof
    seeds = tuple(trial.seed for trial in trials)
    everyone = np.concatenate([np.ones((len(labels), 1), np.float32), weights], axis=1)
    further = min(len(trial.further) for trial in trials)
    judges = [_ranked(trials, judge, labels, everyone, ddof) for judge in range(1 + further)]
    measured = {name: mean_of_judges([judge[name] for judge in judges]) for name in RANKING}
    found: dict[str, npt.NDArray[np.floating]] = {}
    for name in IMAGE_METRICS:
        images = [trial.images[name] for trial in trials if name in trial.images]
        if len(images) == len(trials) and all(np.isfinite(image).any() for image in images):
            found[name] = weighted_mean(np.stack(images), everyone)
    for name, values in _diameter_metrics(trials, truth).items():
        found[name] = weighted_mean(values, everyone)
    for name, values in found.items():
        spread = _over_draws([trial.each_draw.get(name) for trial in trials], ddof)
        measured[name] = Measured(seeds, values[:, 0], values[:, 1:], over_draws=spread)
    for name in SET_METRICS:
        if all(name in trial.sets for trial in trials):
            spread = _over_draws([trial.each_draw.get(name) for trial in trials], ddof)
            values = np.array([trial.sets[name] for trial in trials])
            measured[name] = Measured(seeds, values, over_draws=spread)
    return measured


def _diameter_metrics(
    trials: Sequence[TrialScores], truth: Truth
) -> dict[str, npt.NDArray[np.floating]]:
    """Return per seed and case the CRPS of the drawn diameters, and whether they cover the true.

    NaN where the real follow-up or every draw shows no nodule. A single draw has no interval.
    """
    drawn = [trial.diameters for trial in trials if trial.diameters is not None]
    if truth.diameters is None or len(drawn) < len(trials):
        return {}
    found: dict[str, list[npt.NDArray[np.floating]]] = {name: [] for name in DIAMETER_METRICS}
    for each in drawn:
        unusable = ~(np.isfinite(truth.diameters) & np.isfinite(each).any(axis=0))
        covers = interval_covers(each.T, truth.diameters, truth.coverage).astype(float)
        covers[unusable] = np.nan
        found["diameter_crps_mm"].append(crps(each.T, truth.diameters))
        found["diameter_coverage"].append(covers)
    if min(len(each) for each in drawn) == 1:
        del found["diameter_coverage"]
    stacked = {name: np.stack(values) for name, values in found.items()}
    return {n: v for n, v in stacked.items() if np.isfinite(v).any(axis=1).all()}


def _over_draws(
    each: Sequence[npt.NDArray[np.floating] | None], ddof: int
) -> npt.NDArray[np.floating] | None:
    """Return each seed's standard deviation over single draws; None if a seed has but one."""
    known = [values for values in each if values is not None and len(values) > 1]
    if not known or len(known) < len(each):
        return None
    return np.array([values.std(ddof=ddof) for values in known])


def _ranked(
    trials: Sequence[TrialScores],
    judge: int,
    labels: npt.NDArray[np.int_],
    weights: npt.NDArray[np.float32],
    ddof: int,
) -> dict[str, Measured]:
    """Return AUROC and AUPRC under one judge, the first one being number 0."""
    found: dict[str, list[npt.NDArray[np.floating]]] = {name: [] for name in RANKING}
    single: dict[str, list[npt.NDArray[np.floating] | None]] = {}
    for trial in trials:
        score = (trial.score, *trial.further)[judge]
        rows = np.concatenate([mean_over_draws(score, trial.ensemble)[None], score])
        result = weighted_ranking(labels, rows, weights)
        for name, values in (("auroc", result.auroc), ("auprc", result.average_precision)):
            found[name].append(values[0])
            found[f"{name}_per_draw"].append(values[1:].mean(axis=0))
            single.setdefault(f"{name}_per_draw", []).append(values[1:, 0])
    seeds = tuple(trial.seed for trial in trials)
    spread = {name: _over_draws(values, ddof) for name, values in single.items()}
    stacked = {name: np.stack(values) for name, values in found.items()}
    return {
        name: Measured(seeds, v[:, 0], v[:, 1:], over_draws=spread.get(name))
        for name, v in stacked.items()
    }


def rank_once(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int_],
    weights: npt.NDArray[np.float32],
) -> dict[str, tuple[float, npt.NDArray[np.floating]]]:
    """Return AUROC and AUPRC of scores that no training seed changed, and their resamples (B,)."""
    everyone = np.concatenate([np.ones((len(labels), 1), np.float32), weights], axis=1)
    result = weighted_ranking(labels, scores[None], everyone)
    return {
        name: (float(values[0, 0]), values[0, 1:])
        for name, values in (("auroc", result.auroc), ("auprc", result.average_precision))
    }


def recorded(trials: Mapping[int, TrialView]) -> dict[str, Measured]:
    """Return an arm's metrics as recorded in the ledger."""
    names = dict.fromkeys(
        name
        for trial in trials.values()
        for name, value in trial.values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )
    found = {}
    for name in names:
        known = {s: t.values[name] for s, t in trials.items() if _is_number(t.values.get(name))}
        found[name] = Measured(tuple(known), np.array(list(known.values()), float))
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))
