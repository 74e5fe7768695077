"""Laws of growth: a uniform number and a label in, a ratio of diameters one year on out.

A law is a quantile function, so one recorded uniform number replays it under either label.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from namd.data.simulation.settings import Law

# Real one-year ratios sqrt(w h) of NLST nodules, T0 to T1: 190 benign and 127 malignant pairs of
# NLSTx boxes (github benVZ/NLSTx @ 1e63731, MIT; Veasey et al., ISBI 2020). Cut at 1% and 99%:
# beyond lie single boxes, and pixel spacing is not in that table.
LEVELS = np.array([0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99])
NLST_BENIGN = np.array([0.722, 0.833, 0.865, 0.921, 0.979, 1.060, 1.118, 1.179, 1.311])
NLST_MALIGNANT = np.array([0.711, 0.782, 0.852, 0.980, 1.125, 1.258, 1.441, 1.610, 1.908])

# `marked`: NLST's benign ratios, and malignant ones raised to this power.
MARKED_POWER = 2.0
MARKED_SMALLEST = 0.9

DOUBLING_DAYS = 300.0
DOUBLING_LOG_SD = 0.5
STABLE_LOG_SD = 0.04
DAYS_PER_MONTH = 30.4375

Floats = NDArray[np.float64] | float


def ratio(law: Law, quantile: Floats, label: NDArray[np.integer] | int, months: Floats) -> Floats:
    """Ratio of diameters, follow-up over baseline.

    Args:
        law: `nlst`: the real ratios; `doubling-time`: malignant volume doubling times
            log-normal around 300 days, benign ones stable; `marked`: benign as `nlst`,
            malignant squared and seldom shrinking; `sober`: as `nlst`.
        quantile: Uniform numbers in 0...1.
        label: 1 malignant, 0 benign.
        months: Between the scans; only `doubling-time` reads it, NLST's ratios hold their year.
    """
    quantile = np.asarray(quantile, dtype=float)
    malignant = np.asarray(label) == 1
    if law == "doubling-time":
        return np.where(malignant, _doubling(quantile, np.asarray(months)), _stable(quantile))
    benign = _from_table(quantile, NLST_BENIGN)
    grown = _from_table(quantile, NLST_MALIGNANT)
    if law == "marked":
        grown = np.maximum(grown**MARKED_POWER, MARKED_SMALLEST)
    return np.where(malignant, grown, benign)


def _from_table(quantile: Floats, table: Floats) -> Floats:
    return np.exp(np.interp(quantile, LEVELS, np.log(table)))


def _doubling(quantile: Floats, months: Floats) -> Floats:
    days = DOUBLING_DAYS * np.exp(DOUBLING_LOG_SD * ndtri(_inner(1 - quantile)))
    return 2.0 ** (months * DAYS_PER_MONTH / (3.0 * days))


def _stable(quantile: Floats) -> Floats:
    return np.exp(STABLE_LOG_SD * ndtri(_inner(quantile)))


def _inner(quantile: Floats) -> Floats:
    return np.clip(quantile, 0.005, 0.995)
