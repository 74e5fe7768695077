"""Whether draws are faithful: diameters against true ones, probabilities per quintile of p.

A generator that exaggerates can win on AUROC; it cannot win here.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from namd.config.seeding import generator
from namd.evaluate.settings import EvaluateSettings
from namd.statistics.ensembles import crps, interval_covers, mean_by_quantile
from namd.statistics.resampling import patient_weights, percentile_interval

TRUE_DIAMETER = "followup_SCT_LONG_DIA"
BASELINE_DIAMETER = "SCT_LONG_DIA"
SMALL_MM = 6.0
"""Nodules whose baseline diameter lies below are small: they must neither vanish nor widen."""


@dataclass(frozen=True)
class DiameterAgreement:
    """Drawn diameters against one notion of the true one.

    Attributes:
        cases: Cases with a true diameter and at least one drawn.
        crps_mm: Mean CRPS: value, low, high. For one draw: the mean absolute error.
        coverage: Share of cases whose interval holds the truth: value, low, high; None for one
            draw.
        bias_mm: Mean of drawn minus true.
    """

    cases: int
    crps_mm: dict[str, float | None]
    coverage: dict[str, float | None] | None
    bias_mm: float | None


@dataclass(frozen=True)
class SmallNodules:
    """Draws of the nodules that measure less than SMALL_MM at baseline, by the table.

    The baseline decides: nodules chosen by their follow-up would look too large in any honest draw.

    Attributes:
        below_mm: SMALL_MM.
        cases: How many have a measurable follow-up and draw.
        bias_mm: Mean of drawn minus true by the stated rule: value, low, high.
        unmeasured: Share of their draws on which no nodule stands out.
    """

    below_mm: float
    cases: int
    bias_mm: dict[str, float | None]
    unmeasured: float


@dataclass(frozen=True)
class DiameterCalibration:
    """Calibration of a row's diameters, all measured on images by the one stated rule.

    Attributes:
        nominal_coverage: What the intervals promise.
        attainable_coverage: What K exchangeable draws can cover at most.
        unmeasured: Share of drawn images on which no nodule stands out.
        rule: Against the same rule on the real follow-up.
        table: Against the cohort's recomputed follow-up diameter, where it has one.
        small: Of small nodules alone, by the same rule; None if there are none.
    """

    nominal_coverage: float
    attainable_coverage: float
    unmeasured: float
    rule: DiameterAgreement | None
    table: DiameterAgreement | None
    small: SmallNodules | None = None


@dataclass(frozen=True)
class QuintileMean:
    """Mean judge probability of the cases in one quintile of p, and the ideal sampler's there."""

    low: float
    high: float
    cases: int
    mean: float
    ideal: float | None


def diameter_calibration(
    drawn: Float[np.ndarray, "N K"],
    measured: Float[np.ndarray, " N"],
    cases: pd.DataFrame,
    settings: EvaluateSettings,
) -> DiameterCalibration | None:
    """Compare drawn diameters with the rule's on the real follow-up and with the table's.

    None where the row has no diameters at all.
    """
    if not np.isfinite(drawn).any():
        return None
    num_draws = drawn.shape[1]
    weights = patient_weights(
        cases["patient_id"].to_numpy(),
        settings.num_bootstrap,
        generator("bootstrap-patients", settings.bootstrap_seed),
    )
    table = cases[TRUE_DIAMETER].to_numpy(float) if TRUE_DIAMETER in cases else None
    return DiameterCalibration(
        nominal_coverage=settings.coverage,
        attainable_coverage=(num_draws - 1) / (num_draws + 1),
        unmeasured=float(np.mean(~np.isfinite(drawn))),
        rule=_agreement(drawn, measured, weights, settings),
        table=None if table is None else _agreement(drawn, table, weights, settings),
        small=_small_nodules(drawn, measured, cases, weights, settings),
    )


def _small_nodules(
    drawn: np.ndarray,
    measured: np.ndarray,
    cases: pd.DataFrame,
    weights: np.ndarray,
    settings: EvaluateSettings,
) -> SmallNodules | None:
    if BASELINE_DIAMETER not in cases:
        return None
    small = cases[BASELINE_DIAMETER].to_numpy(float) < SMALL_MM
    usable = small & np.isfinite(measured) & np.isfinite(drawn).any(axis=1)
    if not usable.any():
        return None
    bias = np.nanmean(drawn[usable], axis=1) - measured[usable]
    return SmallNodules(
        below_mm=SMALL_MM,
        cases=int(usable.sum()),
        bias_mm=_mean_interval(bias, weights[usable], settings),
        unmeasured=float(np.mean(~np.isfinite(drawn[small]))),
    )


def _agreement(
    drawn: np.ndarray, truth: np.ndarray, weights: np.ndarray, settings: EvaluateSettings
) -> DiameterAgreement | None:
    usable = np.isfinite(truth) & np.isfinite(drawn).any(axis=1)
    if not usable.any():
        return None
    drawn, truth, weights = drawn[usable], truth[usable], weights[usable]
    covers = interval_covers(drawn, truth, settings.coverage).astype(float)
    return DiameterAgreement(
        cases=int(usable.sum()),
        crps_mm=_mean_interval(crps(drawn, truth), weights, settings),
        coverage=_mean_interval(covers, weights, settings) if drawn.shape[1] > 1 else None,
        bias_mm=float(np.mean(np.nanmean(drawn, axis=1) - truth)),
    )


def _mean_interval(
    values: np.ndarray, weights: np.ndarray, settings: EvaluateSettings
) -> dict[str, float | None]:
    with np.errstate(invalid="ignore", divide="ignore"):
        replicates = (values @ weights) / weights.sum(axis=0)
    return percentile_interval(float(values.mean()), replicates, settings.interval).to_mapping()


def quintile_means(
    p: Float[np.ndarray, " N"],
    probability: Float[np.ndarray, "K N"],
    ideal: Float[np.ndarray, "L N"] | None,
) -> tuple[QuintileMean, ...] | None:
    """Mean probability over draws per quintile of p; cases without p or probability left out."""
    mean = probability.mean(axis=0)
    other = None if ideal is None else ideal.mean(axis=0)
    usable = np.isfinite(p) & np.isfinite(mean)
    if other is not None:
        usable &= np.isfinite(other)
    if not usable.any():
        return None
    own = mean_by_quantile(p[usable], mean[usable])
    beside = None if other is None else mean_by_quantile(p[usable], other[usable]).mean
    return tuple(
        QuintileMean(
            low=float(own.low[group]),
            high=float(own.high[group]),
            cases=int(own.count[group]),
            mean=float(own.mean[group]),
            ideal=None if beside is None else float(beside[group]),
        )
        for group in range(len(own.mean))
    )
