"""How much of the ideal sampler's gain a row shows, at several numbers of averaged draws.

Arrays here hold an AUROC in column 0 and its replicates, under the same resamples of the patients
in all rows, behind it; with several judges a line for each. How cases are ranked is `ranking`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from namd.statistics.ensembles import Ensemble, mean_over_draws
from namd.statistics.resampling import percentile_interval
from namd.statistics.seeds import seed_mean

DRAW_COUNTS = (1, 5, 10, 20)
"""Numbers of draws at which a row is held against the ideal sampler: its share rises with them."""

Replicates = Float[np.ndarray, "*J B"]
Bounds = dict[str, float | None]


@dataclass(frozen=True)
class ShareAtDraws:
    """A row and the ideal sampler if only `num_draws` draws are averaged.

    Attributes:
        num_draws: How many; AUROCs are means over all blocks of so many consecutive draws.
        auroc: The row's.
        ideal: The ideal sampler's.
        share: Of the ideal sampler's gain over the real baseline: value, low, high.
        gap_to_predictor: Row minus ideal predictor: value, low, high; None without that row.
    """

    num_draws: int
    auroc: float
    ideal: float
    share: Bounds
    gap_to_predictor: Bounds | None


@dataclass(frozen=True)
class ShareOfIdeal:
    """(row - real baseline) / (ideal sampler - real baseline), AUROCs of the mean over draws.

    Attributes:
        value: The share.
        numerator: The row's gain: value, low, high.
        denominator: The ideal sampler's.
        low: Of the share, from the same resamples of patients above and below the line; None if
            the ideal sampler's gain is not clear of 0, so that no share is bounded.
        high: Likewise.
        by_draws: The same at fewer draws, for a row that has several.
    """

    value: float | None
    numerator: Bounds
    denominator: Bounds
    low: float | None = None
    high: float | None = None
    by_draws: tuple[ShareAtDraws, ...] = ()


def draw_blocks(
    values: Num[np.ndarray, "K N"], ensemble: Ensemble = "probability"
) -> dict[int, Float[np.ndarray, "R N"]]:
    """Return the means over blocks of consecutive draws, by the size of a block.

    Draws beyond the last whole block are left out; single draws and all of them are no blocks.
    """
    found = {}
    for count in DRAW_COUNTS:
        if 1 < count < len(values):
            whole = values[: len(values) // count * count]
            blocks = whole.reshape(-1, count, whole.shape[1])
            found[count] = np.stack([mean_over_draws(block, ensemble) for block in blocks])
    return found


def share_of_ideal(
    row: Mapping[int, Replicates],
    ideal: Mapping[int, Replicates],
    baseline: Replicates,
    predictor: Replicates | None,
    level: float,
    num_patients: int = 0,
) -> ShareOfIdeal:
    """Return the share of a row.

    Args:
        row: AUROCs by number of averaged draws; the largest is all of them.
        ideal: Likewise, of the ideal sampler.
        baseline: Of the real baseline.
        predictor: Of the ideal predictor.
        level: Central share of the intervals.
        num_patients: Of the smaller class; with several judges alone.
    """
    gain, whole = row[max(row)] - baseline, ideal[max(ideal)] - baseline
    share = _ratio(gain, whole, level, num_patients)
    counts = [k for k in sorted(row) if k in ideal] if max(row) > 1 else []

    return ShareOfIdeal(
        value=share["value"],
        numerator=_interval(gain, level, num_patients),
        denominator=_interval(whole, level, num_patients),
        low=share["low"],
        high=share["high"],
        by_draws=tuple(
            ShareAtDraws(
                num_draws=k,
                auroc=float(row[k][..., 0].mean()),
                ideal=float(ideal[k][..., 0].mean()),
                share=_ratio(row[k] - baseline, ideal[k] - baseline, level, num_patients),
                gap_to_predictor=None
                if predictor is None
                else _interval(row[k] - predictor, level, num_patients),
            )
            for k in counts
        ),
    )


def _ratio(gain: Replicates, whole: Replicates, level: float, num_patients: int) -> Bounds:
    """Return gain / whole, with bounds if the whole's own interval lies above 0.

    With several judges they are those of gain - value * whole, over whole (delta method).
    """
    bounded = (_interval(whole, level, num_patients)["low"] or 0) > 0
    if gain.ndim == 1:
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = gain / whole
        if not bounded:
            ratios[1:] = np.nan
        return _interval(ratios, level, num_patients)
    total = float(whole[:, 0].mean())
    if total == 0:
        return {"value": None, "low": None, "high": None}
    value = float(gain[:, 0].mean()) / total
    rest = _interval(gain - value * whole, level, num_patients)
    bounds = {
        side: None if not bounded or end is None else value + end / total
        for side, end in rest.items()
    }
    return bounds | {"value": value}


def _interval(values: Replicates, level: float, num_patients: int) -> Bounds:
    """Return a value with its interval over patients, and judges if there are several."""
    if values.ndim == 1:
        return percentile_interval(float(values[0]), values[1:], level).to_mapping()
    return seed_mean(values[:, 0], values[:, 1:], num_patients).interval(level).to_mapping()
