"""Bootstrap over patients, crossed with draws or training seeds, and the intervals it gives.

Resamples are weights (how often a case counts), drawn once and used for every row, so that the
difference of two rows is paired. What is measured under the weights does not belong here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num, Shaped
from scipy.special import expit, logit
from scipy.stats import norm


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; the bounds are NaN if no interval could be formed."""

    value: float
    low: float
    high: float

    def to_mapping(self) -> dict[str, float | None]:
        """Return a JSON-able mapping with None for values that are not finite."""
        parts = {"value": self.value, "low": self.low, "high": self.high}
        return {name: float(v) if np.isfinite(v) else None for name, v in parts.items()}


def patient_weights(
    patient_ids: Shaped[np.ndarray, " N"] | Sequence[str],
    num_replicates: int,
    generator: np.random.Generator,
    strata: Shaped[np.ndarray, " N"] | None = None,
) -> Float[np.ndarray, "N B"]:
    """How often each case counts in each bootstrap replicate of the patients.

    All cases of a patient share its count. With `strata` (a number per case, e.g. its label) the
    number of patients drawn from each stratum is kept; a patient's stratum is its highest.
    """
    _, patient = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
    num_patients = int(patient.max()) + 1 if len(patient) else 0
    stratum = np.zeros(num_patients)
    if strata is not None:
        stratum = np.full(num_patients, -np.inf)
        np.maximum.at(stratum, patient, np.asarray(strata, float))
    counts = np.empty((num_patients, num_replicates), np.float32)
    for value in np.unique(stratum):
        members = np.flatnonzero(stratum == value)
        counts[members] = resample_counts(len(members), num_replicates, generator)
    return counts[patient]


def resample_counts(
    num_units: int, num_replicates: int, generator: np.random.Generator
) -> Float[np.ndarray, "U B"]:
    """How often each of `num_units` is drawn when as many are drawn with replacement."""
    drawn = generator.multinomial(num_units, np.full(num_units, 1 / num_units), num_replicates)
    return np.ascontiguousarray(drawn.T, dtype=np.float32)


def cross(
    replicates: Num[np.ndarray, "S B"], generator: np.random.Generator
) -> Float[np.ndarray, " B"]:
    """Mean over resampled draws (or training seeds) of what each gave under resampled patients.

    Row s holds draw s under replicate b of the patients. Rows that share draws or seeds stay
    paired when each is crossed with a generator of the same purpose and identifiers.
    """
    counts = resample_counts(len(replicates), replicates.shape[1], generator)
    return (counts * replicates).sum(axis=0) / len(replicates)


def percentile_interval(
    value: float, replicates: Num[np.ndarray, " B"], level: float = 0.95
) -> Estimate:
    """The central share `level` of the replicates that are defined, around the value."""
    defined = replicates[np.isfinite(replicates)]
    if not len(defined):
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(value), float(low), float(high))


def logit_bootstrap_interval(
    value: float, replicates: Num[np.ndarray, " B"], level: float = 0.95
) -> Estimate:
    """Interval of a proportion-like value: value +- z sd on the logit scale.

    Average precision is skewed near 0 and 1, which the logit corrects (Boyd 2013); its spread
    comes from the patient bootstrap, because cases of one patient are not independent.
    """
    inside = replicates[(replicates > 0) & (replicates < 1)]
    if len(inside) < 2 or not 0 < value < 1:
        return Estimate(float(value), np.nan, np.nan)
    swing = norm.ppf((1 + level) / 2) * np.std(logit(inside), ddof=1)
    centre = logit(value)
    return Estimate(float(value), float(expit(centre - swing)), float(expit(centre + swing)))


def logit_interval(value: float, num_positive: int, level: float = 0.95) -> Estimate:
    """Interval of average precision over independent cases (Boyd, Eng and Page 2013, sec. 3).

    The standard error on the logit scale is (n value (1 - value))^(-1/2), n the positives.
    """
    if num_positive < 1 or not 0 < value < 1:
        return Estimate(float(value), np.nan, np.nan)
    swing = norm.ppf((1 + level) / 2) / np.sqrt(num_positive * value * (1 - value))
    centre = logit(value)
    return Estimate(float(value), float(expit(centre - swing)), float(expit(centre + swing)))


def sign_p_value(differences: Num[np.ndarray, " B"]) -> float:
    """Two-sided p of a paired bootstrap: twice the smaller share on one side of zero.

    One is added to both counts, so that p is never 0 and identical rows give 1.
    """
    defined = differences[np.isfinite(differences)]
    below = (np.count_nonzero(defined <= 0) + 1) / (len(defined) + 1)
    above = (np.count_nonzero(defined >= 0) + 1) / (len(defined) + 1)
    return float(min(1.0, 2 * min(below, above)))
