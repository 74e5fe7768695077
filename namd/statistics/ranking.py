"""How well scores rank cases: AUROC and average precision, plain and under case weights.

A bootstrap needs the weighted form: one sort per row of scores serves every replicate,
whereas scikit-learn would sort for each. Intervals and tests do not belong here.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num, Shaped
from scipy.sparse import csr_array
from scipy.stats import rankdata

REPLICATES_AT_A_TIME = 512  # a row's sums then stay inside the L2 cache


@dataclass(frozen=True)
class RankingReplicates:
    """AUROC and average precision of every row of scores under every column of weights.

    A replicate that holds only one class is NaN: nothing can be ranked in it.
    """

    auroc: Float[np.ndarray, "R B"]
    average_precision: Float[np.ndarray, "R B"]


def auroc(labels: Shaped[np.ndarray, " N"], scores: Num[np.ndarray, " N"]) -> float:
    """Probability that a positive case scores above a negative one; a tie counts half.

    Raises ValueError if a class is missing or a score is not finite.
    """
    positive = _checked(labels, scores)
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    rank_sum = float(rankdata(scores)[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def average_precision(labels: Shaped[np.ndarray, " N"], scores: Num[np.ndarray, " N"]) -> float:
    """Sum over thresholds of (gain in recall) times precision, scikit-learn's definition.

    Raises ValueError if a class is missing or a score is not finite.
    """
    positive = _checked(labels, scores)
    values = np.empty((2, 1))
    _RowPlan.of(positive, np.asarray(scores)).fill(np.ones((len(positive), 1)), *values)
    return float(values[1, 0])


def weighted_ranking(
    labels: Shaped[np.ndarray, " N"],
    scores: Num[np.ndarray, "R N"],
    weights: Num[np.ndarray, "N B"],
) -> RankingReplicates:
    """AUROC and average precision of each row of scores under each column of case weights.

    Raises ValueError if a class is missing altogether or a score is not finite.
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
    """One row of scores as sums over cases, per distinct score of a positive, lowest first.

    Sparse sums and a running sum over the few distinct scores cost a third of numpy's cumulative
    sum over all sorted cases.

    Attributes:
        positives: Sums the positives at each score.
        below: Sums the negatives between the score before and this one; running sums of it give
            the negatives that score lower.
        tied: Sums the negatives at each score; None if there are none.
        negatives: Sums all negatives.
    """

    positives: csr_array
    below: csr_array
    tied: csr_array | None
    negatives: csr_array

    @classmethod
    def of(cls, positive: np.ndarray, row: np.ndarray) -> "_RowPlan":
        distinct, own = np.unique(row[positive], return_inverse=True)
        cases, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
        bucket = np.searchsorted(distinct, row[negatives], side="right")
        tied = np.flatnonzero((bucket > 0) & (distinct[bucket - 1] == row[negatives]))
        beaten = bucket < len(distinct)
        shape = (len(distinct), len(row))
        return cls(
            positives=_sums(own, cases, shape),
            below=_sums(bucket[beaten], negatives[beaten], shape),
            tied=_sums(bucket[tied] - 1, negatives[tied], shape) if len(tied) else None,
            negatives=_sums(np.zeros_like(negatives), negatives, (1, len(row))),
        )

    def fill(self, weights: np.ndarray, auroc: np.ndarray, precision: np.ndarray) -> None:
        """Write this row's two metrics under each column of weights into the given arrays."""
        own = self.positives @ weights
        beaten = _accumulate(self.below @ weights)
        negative_total = (self.negatives @ weights)[0]
        from_below = _accumulate(own.copy())
        positive_total = from_below[-1]
        true_positives = positive_total - from_below + own
        called = true_positives + (negative_total - beaten)
        share = np.divide(true_positives, called, out=np.zeros_like(called), where=called > 0)
        if self.tied is not None:
            beaten = beaten + (self.tied @ weights) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            wins = np.einsum("pb,pb->b", own, beaten, dtype=np.float64)
            pairs = positive_total.astype(np.float64) * negative_total
            auroc[:] = wins / pairs
            precision[:] = np.einsum("pb,pb->b", own, share, dtype=np.float64) / positive_total
            precision[pairs == 0] = np.nan


def _sums(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> csr_array:
    """The matrix that adds up `columns` of each of `rows`."""
    return csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)


def _accumulate(values: np.ndarray) -> np.ndarray:
    """Running sum down the rows, in place; faster than cumsum along a strided axis."""
    for index in range(1, len(values)):
        values[index] += values[index - 1]
    return values


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
