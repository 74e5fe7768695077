"""How well scores rank cases: AUROC and average precision, plain and under case weights.

The weighted form is what a bootstrap needs: one sort per row of scores serves every replicate,
where scikit-learn would sort again for each. Intervals and tests do not belong here.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num, Shaped
from scipy.stats import rankdata

REPLICATES_AT_A_TIME = 256  # keeps one row's cumulative weights of 1,200 cases inside the L2 cache


@dataclass(frozen=True)
class RankingReplicates:
    """AUROC and average precision of every row of scores under every column of weights.

    A replicate that holds only one class is NaN: nothing can be ranked in it.
    """

    auroc: Float[np.ndarray, "R B"]
    average_precision: Float[np.ndarray, "R B"]


def auroc(labels: Shaped[np.ndarray, " N"], scores: Num[np.ndarray, " N"]) -> float:
    """Probability that a positive case scores above a negative one; a tie counts half.

    Raises ValueError where a class is missing or a score is not finite.
    """
    positive = _checked(labels, scores)
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    rank_sum = float(rankdata(scores)[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def average_precision(labels: Shaped[np.ndarray, " N"], scores: Num[np.ndarray, " N"]) -> float:
    """Sum over thresholds of (gain in recall) times precision, scikit-learn's definition.

    Raises ValueError where a class is missing or a score is not finite.
    """
    _checked(labels, scores)
    ones = np.ones((len(labels), 1))
    return float(weighted_ranking(labels, np.asarray(scores)[None], ones).average_precision[0, 0])


def weighted_ranking(
    labels: Shaped[np.ndarray, " N"],
    scores: Num[np.ndarray, "R N"],
    weights: Num[np.ndarray, "N B"],
) -> RankingReplicates:
    """AUROC and average precision of each row of scores under each column of case weights.

    Raises ValueError where a class is missing altogether or a score is not finite.
    """
    positive = _checked(labels, scores)
    weights = np.asarray(weights, np.float32)
    shape = (len(scores), weights.shape[1])
    result = RankingReplicates(np.empty(shape), np.empty(shape))
    plans = [_RowPlan.of(positive, row) for row in scores]
    for start in range(0, shape[1], REPLICATES_AT_A_TIME):
        columns = slice(start, start + REPLICATES_AT_A_TIME)
        part = np.ascontiguousarray(weights[:, columns])
        for index, plan in enumerate(plans):
            plan.fill(part, result.auroc[index, columns], result.average_precision[index, columns])
    return result


@dataclass(frozen=True)
class _RowPlan:
    """Where each case of one row of scores stands, positives from the highest score down.

    Attributes:
        positives: Case indices of the positives, highest score first.
        negatives: Case indices of the negatives, lowest score first.
        below: Per positive, how many negatives score lower.
        not_above: Per positive, how many negatives score no higher.
        tie_end: Per positive, the last position that shares its score.
    """

    positives: np.ndarray
    negatives: np.ndarray
    below: np.ndarray
    not_above: np.ndarray
    tie_end: np.ndarray

    @classmethod
    def of(cls, positive: np.ndarray, row: np.ndarray) -> "_RowPlan":
        cases = np.argsort(row, kind="stable")
        positives = cases[positive[cases]][::-1]
        negatives = cases[~positive[cases]]
        high, low = row[positives], row[negatives]
        return cls(
            positives,
            negatives,
            np.searchsorted(low, high, side="left"),
            np.searchsorted(low, high, side="right"),
            np.searchsorted(-high, -high, side="right") - 1,
        )

    def fill(self, weights: np.ndarray, auroc: np.ndarray, precision: np.ndarray) -> None:
        """Write this row's two metrics under each column of weights into the given arrays."""
        own = weights[self.positives]
        negatives_below = np.zeros((len(self.negatives) + 1, weights.shape[1]), np.float32)
        np.cumsum(weights[self.negatives], axis=0, out=negatives_below[1:])
        negative_total = negatives_below[-1].astype(np.float64)
        positive_total = own.sum(axis=0, dtype=np.float64)
        below = negatives_below[self.below]
        half_tied = below + negatives_below[self.not_above]
        true_positives = np.cumsum(own, axis=0)[self.tie_end]
        called = true_positives + (negatives_below[-1] - below)
        share = np.divide(true_positives, called, out=np.zeros_like(called), where=called > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            wins = np.einsum("pb,pb->b", own, half_tied, dtype=np.float64) / 2
            auroc[:] = wins / (positive_total * negative_total)
            precision[:] = np.einsum("pb,pb->b", own, share, dtype=np.float64) / positive_total
            precision[negative_total == 0] = np.nan


def _checked(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the labels as booleans, or say what cannot be ranked."""
    positive = np.asarray(labels) == 1
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels are 0 or 1: leave cases of unknown label out")
    if not 0 < positive.sum() < len(positive):
        raise ValueError(
            f"ranking needs both classes: {int(positive.sum())} of {len(positive)} are positive"
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    return positive
