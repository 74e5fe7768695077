"""Tests of a difference: DeLong's for two AUROCs, exact sign flips, Holm's correction.

Bootstrap intervals live in `resampling`; what is compared is decided by callers.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Num, Shaped
from scipy.stats import norm, rankdata

EXACT_SIGN_FLIPS_UP_TO = 16  # 65,536 sign patterns, a few milliseconds


@dataclass(frozen=True)
class DeLongTest:
    """Two correlated AUROCs and the test of their difference.

    For one score per independent case, without patients, draws or training seeds.
    """

    auroc_a: float
    auroc_b: float
    difference: float
    standard_error: float
    z: float
    p_value: float
    low: float
    high: float


def delong(
    labels: Shaped[np.ndarray, " N"],
    scores_a: Num[np.ndarray, " N"],
    scores_b: Num[np.ndarray, " N"],
    level: float = 0.95,
) -> DeLongTest:
    """Paired test of AUROC(a) - AUROC(b) on the same cases (DeLong 1988, by Sun and Xu's ranks).

    Raises ValueError below two cases of a class.
    """
    positive = np.asarray(labels) == 1
    if min(positive.sum(), (~positive).sum()) < 2:
        raise ValueError("DeLong's variance needs two cases of each class")
    scores = np.stack([np.asarray(scores_a, float), np.asarray(scores_b, float)])
    of_positive, of_negative = _placements(scores, positive)
    aurocs = of_positive.mean(axis=1)
    covariance = np.cov(of_positive) / positive.sum() + np.cov(of_negative) / (~positive).sum()
    difference = float(aurocs[0] - aurocs[1])
    contrast = np.array([1.0, -1.0])
    standard_error = float(np.sqrt(max(0.0, contrast @ covariance @ contrast)))
    z = difference / standard_error if standard_error > 0 else (0.0 if difference == 0 else np.inf)
    swing = float(norm.ppf((1 + level) / 2)) * standard_error
    return DeLongTest(
        auroc_a=float(aurocs[0]),
        auroc_b=float(aurocs[1]),
        difference=difference,
        standard_error=standard_error,
        z=float(z),
        p_value=float(2 * norm.sf(abs(z))),
        low=difference - swing,
        high=difference + swing,
    )


def _placements(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the other class that each case beats: (2, P) for positives, (2, Q) for negatives."""
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    together = rankdata(scores, axis=1)
    among_positive = rankdata(scores[:, positive], axis=1)
    among_negative = rankdata(scores[:, ~positive], axis=1)
    of_positive = (together[:, positive] - among_positive) / num_negative
    of_negative = 1 - (together[:, ~positive] - among_negative) / num_positive
    return of_positive, of_negative


def holm(p_values: Num[np.ndarray, " M"]) -> Float[np.ndarray, " M"]:
    """Holm's step-down adjusted p values, in the order given; each at most 1."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)
    stepped = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return adjusted


def holm_rejects(p_values: Num[np.ndarray, " M"], alpha: float = 0.05) -> Bool[np.ndarray, " M"]:
    """Which hypotheses Holm's procedure rejects at family-wise level alpha."""
    return np.asarray(holm(p_values) <= alpha)


def sign_flip(
    differences: Num[np.ndarray, " S"],
    generator: np.random.Generator,
    num_permutations: int = 10_000,
) -> float:
    """Two-sided p of mean difference 0 when each paired difference might have had either sign.

    Exact (every sign pattern) up to 16 differences, else drawn; 5 seeds cannot give less than
    0.0625. Raises ValueError without differences.
    """
    differences = np.asarray(differences, float)
    if not len(differences):
        raise ValueError("sign_flip needs at least one difference")
    if len(differences) <= EXACT_SIGN_FLIPS_UP_TO:
        return _exact_sign_flip(differences)
    observed, slack = _observed(differences)
    signs = generator.choice((-1.0, 1.0), size=(num_permutations, len(differences)))
    extreme = np.count_nonzero(np.abs(signs @ differences) >= observed - slack)
    return (extreme + 1) / (num_permutations + 1)


def sign_flip_p(differences: Num[np.ndarray, " S"]) -> float | None:
    """Two-sided exact p of `sign_flip`; None if there are too many differences to list."""
    if not 0 < len(differences) <= EXACT_SIGN_FLIPS_UP_TO:
        return None
    return _exact_sign_flip(np.asarray(differences, float))


def sign_flip_floor(num_differences: int) -> float:
    """Smallest two-sided p that sign flips of this many differences can give."""
    return float(min(1.0, 2.0 ** (1 - num_differences)))


def _exact_sign_flip(differences: np.ndarray) -> float:
    observed, slack = _observed(differences)
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(differences))))
    return float(np.mean(np.abs(signs @ differences) >= observed - slack))


def _observed(differences: np.ndarray) -> tuple[float, float]:
    """The sum, and the largest difference to a sum of the same numbers in another order."""
    return abs(float(differences.sum())), 1e-12 * float(np.abs(differences).sum())
