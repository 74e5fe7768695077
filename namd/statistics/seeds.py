"""Means over training seeds, and paired differences of arms, when patients and seeds both vary.

Seeds stand to patients as readers do in multi-reader studies, so this is the analysis of Obuchowski
and Rockette (1995) for one arm or one difference, with the degrees of freedom of Hillis (2007) and
the covariance from resampled patients. Percentiles of a bootstrap that resamples two to five seeds
as well are too narrow by construction. Which metric is measured does not belong here.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num, Shaped
from scipy.special import expit, logit
from scipy.stats import t as student

from namd.config.seeding import generator
from namd.statistics.resampling import Estimate, patient_weights


@dataclass(frozen=True)
class SeedMean:
    """A mean over training seeds, each measured on the same patients.

    Attributes:
        value: Mean over seeds.
        per_seed: The value of each seed, (S,).
        standard_error: Standard error of the mean over both patients and seeds; NaN if it cannot
            be estimated.
        degrees_of_freedom: Degrees of freedom of Student's t for `standard_error`.
    """

    value: float
    per_seed: Float[np.ndarray, " S"]
    standard_error: float
    degrees_of_freedom: float

    def interval(self, level: float = 0.95) -> Estimate:
        """The value and t standard errors around it."""
        swing = self._quantile(level) * self.standard_error
        return Estimate(self.value, self.value - swing, self.value + swing)

    def logit_interval(self, level: float = 0.95) -> Estimate:
        """The same on the logit scale, for what lies between 0 and 1 (delta method)."""
        if not 0 < self.value < 1:
            return Estimate(self.value, np.nan, np.nan)
        swing = self._quantile(level) * self.standard_error / (self.value * (1 - self.value))
        centre = logit(self.value)
        return Estimate(self.value, float(expit(centre - swing)), float(expit(centre + swing)))

    def p_value(self) -> float:
        """Two-sided p of a true mean of 0; 1 if every seed gave exactly 0.

        NaN if no standard error could be estimated, or if it is 0 and the value is not.
        """
        if not self.per_seed.any() and len(self.per_seed):
            return 1.0
        if not self.standard_error > 0:
            return float("nan")
        t = abs(self.value) / self.standard_error
        return float(2 * student.sf(t, self.degrees_of_freedom))

    def _quantile(self, level: float) -> float:
        return float(student.ppf((1 + level) / 2, self.degrees_of_freedom))


def seed_mean(
    per_seed: Num[np.ndarray, " S"], replicates: Num[np.ndarray, "S B"], num_patients: int
) -> SeedMean:
    """Return the mean over seeds and its standard error.

    The variance is s^2 / S + c: s^2 between the seeds as they are measured on these patients, and c
    the covariance of two seeds that comes from measuring both on the same resample of patients. For
    one seed it is that seed's variance over resamples, and the training seed's share is unknown.

    Args:
        per_seed: The metric of each seed, or the difference of two arms at each seed.
        replicates: The same under resampled patients; column b is one resample for all seeds.
            Columns that are not finite throughout are left out.
        num_patients: How many patients the resamples draw from; of two classes the smaller.

    Raises:
        ValueError: There is no seed.
    """
    per_seed = np.asarray(per_seed, float)
    if not len(per_seed):
        raise ValueError("a mean over seeds needs at least one seed")
    value = float(per_seed.mean())
    defined = np.asarray(replicates, float)[:, np.isfinite(replicates).all(axis=0)]
    if defined.shape[1] < 2 or num_patients < 2:
        return SeedMean(value, per_seed, float("nan"), float("nan"))
    count = len(per_seed)
    covariance = np.atleast_2d(np.cov(defined))
    if count == 1:
        patients, seeds, seed_freedom = float(covariance[0, 0]), 0.0, np.inf
    else:
        apart = covariance.sum() - np.trace(covariance)
        patients = max(0.0, float(apart) / (count * (count - 1)))
        seeds, seed_freedom = float(per_seed.var(ddof=1)) / count, count - 1
    total = patients + seeds
    spent = seeds**2 / seed_freedom + patients**2 / (num_patients - 1)
    freedom = total**2 / spent if spent > 0 else float(num_patients - 1)
    return SeedMean(value, per_seed, float(np.sqrt(total)), float(freedom))


def crossed_mean(
    cells: Num[np.ndarray, "S J"], replicates: Num[np.ndarray, "S J B"], num_patients: int
) -> SeedMean:
    """Return the mean over training seeds and judges, every judge shown every seed's images.

    Judges are drawn once and serve all seeds, so their share does not fall with more seeds. The
    variance is that of a two-way layout without replication, (MS_seeds + MS_judges - MS_rest) /
    (S J), and never below either factor's own mean square; plus c, the covariance of two cells of
    another seed and another judge that comes from measuring both on the same patients. The degrees
    of freedom are Satterthwaite's. One seed or one judge leaves `seed_mean` of the other factor.

    Args:
        cells: The metric of each seed under each judge.
        replicates: The same under resampled patients, one resample a column.
        num_patients: As for `seed_mean`.
    """
    cells, replicates = np.asarray(cells, float), np.asarray(replicates, float)
    seeds, judges = cells.shape
    if min(seeds, judges) == 1:
        return seed_mean(cells.ravel(), replicates.reshape(cells.size, -1), num_patients)
    value, per_seed = float(cells.mean()), cells.mean(axis=1)
    flat = replicates.reshape(cells.size, -1)
    flat = flat[:, np.isfinite(flat).all(axis=0)]
    if flat.shape[1] < 2 or num_patients < 2:
        return SeedMean(value, per_seed, float("nan"), float("nan"))
    of_seed, of_judge = np.divmod(np.arange(cells.size), judges)
    apart = (of_seed[:, None] != of_seed) & (of_judge[:, None] != of_judge)
    patients = max(0.0, float(np.cov(flat)[apart].mean()))
    rest = cells - per_seed[:, None] - cells.mean(axis=0) + value
    by_seeds = judges * float(per_seed.var(ddof=1))
    by_judges = seeds * float(cells.mean(axis=0).var(ddof=1))
    by_rest = float(np.square(rest).sum()) / ((seeds - 1) * (judges - 1))
    own = max(by_seeds + by_judges - by_rest, by_seeds, by_judges) / cells.size
    total = patients + own
    spent = patients**2 / (num_patients - 1) + (
        by_seeds**2 / (seeds - 1)
        + by_judges**2 / (judges - 1)
        + by_rest**2 / ((seeds - 1) * (judges - 1))
    ) / (cells.size**2)
    freedom = total**2 / spent if spent > 0 else float(num_patients - 1)
    return SeedMean(value, per_seed, float(np.sqrt(total)), float(freedom))


def arm_weights(
    patient_ids: Shaped[np.ndarray, " N"],
    labels: Num[np.ndarray, " N"],
    num_replicates: int,
    bootstrap_seed: int,
) -> Float[np.ndarray, "N B"]:
    """How often each case counts in each resample of the patients; the same for every arm.

    Malignant and benign patients are drawn apart, so that every resample ranks as many of each.
    """
    random = generator("bootstrap-arms", bootstrap_seed)
    return patient_weights(patient_ids, num_replicates, random, strata=labels)


def class_patients(patient_ids: Shaped[np.ndarray, " N"], labels: Num[np.ndarray, " N"]) -> int:
    """Return the number of patients of the smaller class; one with both counts as malignant."""
    ids = np.asarray(patient_ids, dtype=str)
    malignant = set(ids[np.asarray(labels) == 1])
    return min(len(malignant), len(set(ids) - malignant))


def weighted_mean(
    values: Num[np.ndarray, "R N"], weights: Num[np.ndarray, "N B"]
) -> Float[np.ndarray, "R B"]:
    """Mean of each row over the cases that have a value, under each column of case weights."""
    values = np.asarray(values, float)
    present = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            (np.where(present, values, 0.0) @ weights) / (present.astype(float) @ weights)
        )
