"""How rows rank the cases: AUROC and AUPRC under shared resamples of the patients, over judges.

With several judges every value is the mean over them. They stand to patients as training seeds do
(`namd.statistics.seeds`): the variance of the mean is that between judges over their number, plus
what resampled patients move all judges together by. Rows that no judge scores have one value for
all judges, so that their differences to judged rows are paired judge by judge.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from namd.config.seeding import generator
from namd.evaluate.ideal_share import draw_blocks
from namd.evaluate.settings import EvaluateSettings
from namd.statistics.ensembles import mean_over_draws
from namd.statistics.intervals import patient_bootstrap, patients_x_seeds
from namd.statistics.ranking import weighted_ranking
from namd.statistics.resampling import Estimate, cross, patient_weights, percentile_interval
from namd.statistics.seeds import SeedMean, class_patients, seed_mean

METRICS = ("auroc", "auprc")
Values = tuple[float, np.ndarray]
"""A value, and the same under each resample of the patients."""


@dataclass(frozen=True)
class Ranked:
    """One row: metric values per draw (K,) and of the mean, and replicates of both.

    Attributes:
        at_draws: AUROC of means over fewer draws, by their number: column 0 is the data itself, the
            others are replicates. With several judges a line for each, (J, 1 + B).
        judges: The same under each judge; empty if there is one judge.
        num_patients: Of the smaller class.
    """

    per_draw: dict[str, np.ndarray]
    crossed: dict[str, np.ndarray]
    of_mean: dict[str, float]
    of_mean_replicates: dict[str, np.ndarray]
    at_draws: dict[int, np.ndarray]
    judges: tuple["Ranked", ...] = ()
    num_patients: int = 0

    def values(self, metric: str) -> Values:
        """Return a metric of the mean over draws, or (`..._per_draw`) its mean over draws."""
        name = metric.removesuffix("_per_draw")
        if name != metric:
            return float(self.per_draw[name].mean()), self.crossed[name]
        return self.of_mean[name], self.of_mean_replicates[name]

    def interval(self, metric: str, level: float) -> Estimate:
        """Return a metric with its interval over patients, and judges if there are several."""
        if not self.judges:
            return patient_bootstrap(metric, *self.values(metric), level)
        mean = _over_judges([judge.values(metric) for judge in self.judges], self.num_patients)
        return patients_x_seeds(metric, mean, level)

    def difference(self, other: "Ranked", metric: str, level: float) -> Estimate:
        """Return the paired difference to another row with its interval."""
        if not self.judges:
            return percentile_interval(*_minus(self.values(metric), other.values(metric)), level)
        pairs = zip(self.judges, other.judges, strict=True)
        apart = [_minus(a.values(metric), b.values(metric)) for a, b in pairs]
        return _over_judges(apart, self.num_patients).interval(level)


@dataclass(frozen=True)
class Ranking:
    """Every row's AUROC and AUPRC under the same resamples of the patients."""

    rows: dict[str, Ranked]
    settings: EvaluateSettings


def rank(
    scores: Mapping[str, np.ndarray],
    cases: pd.DataFrame,
    settings: EvaluateSettings,
    further: Sequence[Mapping[str, np.ndarray]] = (),
) -> Ranking:
    """Return how rows rank cases of both classes; no row at all if one class is missing.

    Args:
        scores: (K, N) by row, the first judge's or those that need no judge.
        cases: patient_id and label of the N cases.
        settings: Resamples.
        further: The same of each further judge; rows that it does not score are the first one's.
    """
    labels = cases["label"].to_numpy()
    if len(np.unique(labels)) < 2:
        return Ranking({}, settings)
    patients = cases["patient_id"].to_numpy()
    random = generator("bootstrap-patients", settings.bootstrap_seed)
    weights = patient_weights(patients, settings.num_bootstrap, random)
    weights = np.concatenate([np.ones((len(cases), 1), np.float32), weights], axis=1)
    first = _rank_rows(scores, labels, weights, settings)
    if not further:
        return Ranking(first, settings)
    judges = [first, *(first | _rank_rows(own, labels, weights, settings) for own in further)]
    count = class_patients(patients, labels)
    rows = {name: _merged([judge[name] for judge in judges], count) for name in first}
    return Ranking(rows, settings)


def _rank_rows(
    scores: Mapping[str, np.ndarray],
    labels: np.ndarray,
    weights: np.ndarray,
    settings: EvaluateSettings,
) -> dict[str, Ranked]:
    blocks = {name: draw_blocks(values, settings.ensemble) for name, values in scores.items()}
    stacked = np.concatenate(
        [
            np.concatenate([s, mean_over_draws(s, settings.ensemble)[None], *blocks[name].values()])
            for name, s in scores.items()
        ]
    )
    result = weighted_ranking(labels, stacked, weights)
    metrics = {"auroc": result.auroc, "auprc": result.average_precision}
    rows, start = {}, 0
    for name, values in scores.items():
        stop = start + len(values)
        block = {metric: found[start : stop + 1] for metric, found in metrics.items()}
        averaged = {1: result.auroc[start:stop].mean(axis=0), len(values): result.auroc[stop]}
        start = stop + 1
        for count, means in blocks[name].items():
            averaged[count] = result.auroc[start : start + len(means)].mean(axis=0)
            start += len(means)
        rows[name] = _ranked(name, block, averaged, settings)
    return rows


def _ranked(
    name: str,
    metrics: dict[str, np.ndarray],
    at_draws: dict[int, np.ndarray],
    settings: EvaluateSettings,
) -> Ranked:
    """Split one row's block: column 0 is the data itself, the last line the mean over draws."""
    num_draws = len(metrics["auroc"]) - 1
    crossed = {}
    for metric, values in metrics.items():
        draws = values[:-1, 1:]
        random = generator("bootstrap-draws", settings.bootstrap_seed, name)
        crossed[metric] = cross(draws, random) if num_draws > 1 else draws[0]
    return Ranked(
        per_draw={m: v[:-1, 0] for m, v in metrics.items()},
        crossed=crossed,
        of_mean={m: float(v[-1, 0]) for m, v in metrics.items()},
        of_mean_replicates={m: v[-1, 1:] for m, v in metrics.items()},
        at_draws=at_draws,
    )


def _merged(judges: Sequence[Ranked], num_patients: int) -> Ranked:
    """Return the means over judges, with each judge's own beside them."""

    def mean(part: Callable[[Ranked], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {m: np.mean([part(judge)[m] for judge in judges], axis=0) for m in METRICS}

    return Ranked(
        per_draw=mean(lambda judge: judge.per_draw),
        crossed=mean(lambda judge: judge.crossed),
        of_mean={m: float(np.mean([judge.of_mean[m] for judge in judges])) for m in METRICS},
        of_mean_replicates=mean(lambda judge: judge.of_mean_replicates),
        at_draws={k: np.stack([j.at_draws[k] for j in judges]) for k in judges[0].at_draws},
        judges=tuple(judges),
        num_patients=num_patients,
    )


def _over_judges(values: Sequence[Values], num_patients: int) -> SeedMean:
    point, replicates = zip(*values, strict=True)
    return seed_mean(np.array(point), np.stack(replicates), num_patients)


def _minus(one: Values, other: Values) -> Values:
    return one[0] - other[0], one[1] - other[1]
