"""Whether K draws stand for what truly came: CRPS, interval coverage, calibration per quintile.

Draws are exchangeable numbers per case (a diameter, a probability); images do not belong here.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy.special import expit, logit

Ensemble = Literal["probability", "logit"]
SURE = 1e-7
"""A probability nearer to 0 or 1 is rounding: its logit would outweigh every other draw's."""


def mean_over_draws(
    scores: Num[np.ndarray, "K N"], ensemble: Ensemble = "probability"
) -> Float[np.ndarray, " N"]:
    """Return one score a case: the mean of the draws' probabilities, or of their logits.

    The mean logit is returned as a probability. One draw is its own mean, whatever its unit.
    """
    if ensemble == "probability" or len(scores) == 1:
        return np.asarray(scores, float).mean(axis=0)
    return np.asarray(expit(logit(np.clip(scores, SURE, 1 - SURE)).mean(axis=0)))


def crps(draws: Num[np.ndarray, "N K"], truth: Num[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Continuous ranked probability score per case, in the unit of the draws; lower is better.

    The fair form, E|X - y| - E|X - X'| / 2 with pairs of different draws, whose mean does not
    depend on K (Ferro 2014). NaN draws are left out; NaN if no draw or no truth is left. One
    draw gives the absolute error.
    """
    draws = np.sort(np.asarray(draws, float), axis=1)  # NaN goes last
    present = np.isfinite(draws)
    count = present.sum(axis=1)
    values = np.where(present, draws, 0.0)
    error = np.where(present, np.abs(values - np.asarray(truth, float)[:, None]), 0.0).sum(axis=1)
    # sum over i < j of x_j - x_i, from the ranks of the sorted draws
    place = np.arange(draws.shape[1])[None]
    spread = ((2 * place - count[:, None] + 1) * values).sum(axis=1)
    pairs = np.maximum(count * (count - 1), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, error / count, np.nan) - spread / pairs


def interval_covers(
    draws: Num[np.ndarray, "N K"], truth: Num[np.ndarray, " N"], level: float = 0.9
) -> Bool[np.ndarray, " N"]:
    """Whether the draws' central interval holds the truth, per case.

    Quantiles stand at (K + 1) p (Weibull's rule), so that exchangeable draws cover their nominal
    share: with K = 20 the 90% interval is close to the range. Below K = 2/(1 - level) - 1 the
    range covers (K - 1)/(K + 1) at most. NaN draws are left out; no draw covers nothing.
    """
    low, high = _quantiles(np.asarray(draws, float), level)
    truth = np.asarray(truth, float)
    return np.asarray((low <= truth) & (truth <= high))


def _quantiles(draws: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper Weibull quantile per row, NaN left out."""
    ordered = np.sort(draws, axis=1)
    count = np.isfinite(draws).sum(axis=1)

    def at(share: float) -> np.ndarray:
        place = np.clip((count + 1) * share - 1, 0, np.maximum(count - 1, 0))
        lower = np.floor(place).astype(int)
        upper = np.minimum(lower + 1, np.maximum(count - 1, 0))
        rows = np.arange(len(ordered))
        step = place - lower
        return ordered[rows, lower] * (1 - step) + ordered[rows, upper] * step

    return at((1 - level) / 2), at((1 + level) / 2)


@dataclass(frozen=True)
class GroupMeans:
    """Means of a value over groups of cases.

    Attributes:
        low: Lowest stratifying value of each group.
        high: Highest of each group.
        count: Cases of each group.
        mean: Mean of the value over each group.
    """

    low: Float[np.ndarray, " G"]
    high: Float[np.ndarray, " G"]
    count: Int[np.ndarray, " G"]
    mean: Float[np.ndarray, " G"]


def quantile_groups(stratifier: Num[np.ndarray, " N"], num_groups: int = 5) -> np.ndarray:
    """Group (0 ... num_groups - 1) of each case by rank; equal values share a group."""
    stratifier = np.asarray(stratifier, float)
    edges = np.quantile(stratifier, np.arange(1, num_groups) / num_groups)
    return np.searchsorted(edges, stratifier, side="right")


def mean_by_quantile(
    stratifier: Num[np.ndarray, " N"], values: Num[np.ndarray, " N"], num_groups: int = 5
) -> GroupMeans:
    """Mean of the values within each quantile group of the stratifier; empty groups are dropped."""
    stratifier, values = np.asarray(stratifier, float), np.asarray(values, float)
    group = quantile_groups(stratifier, num_groups)
    members = [np.flatnonzero(group == g) for g in range(num_groups)]
    members = [index for index in members if len(index)]
    return GroupMeans(
        low=np.array([stratifier[index].min() for index in members]),
        high=np.array([stratifier[index].max() for index in members]),
        count=np.array([len(index) for index in members]),
        mean=np.array([values[index].mean() for index in members]),
    )
