"""Rank correlation with an interval that resamples patients. Distances are the caller's."""

import numpy as np
from jaxtyping import Num, Shaped
from scipy.stats import rankdata

from namd.statistics.resampling import Estimate, patient_weights, percentile_interval


def spearman(x: Num[np.ndarray, " N"], y: Num[np.ndarray, " N"]) -> float:
    """Spearman's rank correlation, ties by midranks. NaN if either is constant."""
    return _pearson(rankdata(x), rankdata(y), np.ones((len(x), 1)))[0]


def spearman_interval(
    x: Num[np.ndarray, " N"],
    y: Num[np.ndarray, " N"],
    patient_ids: Shaped[np.ndarray, " N"],
    generator: np.random.Generator,
    num_replicates: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Spearman's correlation over cases with a patient-bootstrap interval.

    The ranks are those of the whole set in every replicate, which is what makes thousands of
    replicates cheap; ranking anew differs by terms of order 1/N.
    """
    weights = patient_weights(patient_ids, num_replicates, generator)
    ranks_x, ranks_y = rankdata(x), rankdata(y)
    return percentile_interval(spearman(x, y), _pearson(ranks_x, ranks_y, weights), level)


def distance_spearman_interval(
    distances_x: Num[np.ndarray, "N N"],
    distances_y: Num[np.ndarray, "N N"],
    patient_ids: Shaped[np.ndarray, " N"],
    generator: np.random.Generator,
    num_replicates: int = 500,
    level: float = 0.95,
) -> tuple[Estimate, np.ndarray]:
    """Spearman's correlation of two distance matrices over pairs of different patients.

    Pairs are not independent: a replicate resamples patients, and a pair counts as often as the
    product of its two cases' counts. Returns the estimate and the replicates (for paired
    differences between models measured with a generator of the same purpose and identifiers).
    """
    weights = patient_weights(patient_ids, num_replicates, generator)
    first, second = np.triu_indices(len(distances_x), k=1)
    _, patient = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
    apart = patient[first] != patient[second]
    first, second = first[apart], second[apart]
    ranks = [rankdata(d[first, second]) for d in (distances_x, distances_y)]
    value = float(_pearson(ranks[0], ranks[1], np.ones((len(first), 1)))[0])
    replicates = np.empty(num_replicates)
    for start in range(0, num_replicates, 16):
        part = weights[:, start : start + 16]
        replicates[start : start + 16] = _pearson(ranks[0], ranks[1], part[first] * part[second])
    return percentile_interval(value, replicates, level), replicates


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlation of two vectors under each column of weights."""
    x = (x - x.mean()) / max(x.std(), 1e-300)
    y = (y - y.mean()) / max(y.std(), 1e-300)
    moments = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y]) @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y, xx, yy, xy = moments[1:] / moments[0]
        scale = np.sqrt(np.maximum((xx - mean_x**2) * (yy - mean_y**2), 0.0))
        return np.asarray((xy - mean_x * mean_y) / np.where(scale > 0, scale, np.nan))
