"""The metrics of a run by name: their titles, directions and ranges.

Student's t over two or three seeds ignores the range and reaches below a distance of 0 or
above an AUROC of 1. Such values are impossible, so intervals are clipped to the range: a
clipped interval covers the true value as often as the whole one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        title: Its name for people.
        low: Its smallest possible value.
        high: Its largest possible value.
        lower_is_better: Whether lower values are better; None: neither direction is.
    """

    title: str
    low: float = -math.inf
    high: float = math.inf
    lower_is_better: bool | None = False


_RANKING = {
    "auroc": Metric("AUROC", 0, 1),
    "auprc": Metric("AUPRC", 0, 1),
    "auroc_per_draw": Metric("AUROC per draw", 0, 1),
    "auprc_per_draw": Metric("AUPRC per draw", 0, 1),
}
_IMAGES = {
    "lpips": Metric("LPIPS", 0, lower_is_better=True),
    "ssim": Metric("SSIM", -1, 1),
    "psnr": Metric("PSNR, dB"),
}
# The unbiased estimate of a kernel distance may be negative.
_SETS = {
    "fid": Metric("FID", 0, lower_is_better=True),
    "kid": Metric("KID", lower_is_better=True),
    "fid_judge": Metric("Frechet distance of judge features", 0, lower_is_better=True),
    "kid_judge": Metric("kernel distance of judge features", lower_is_better=True),
}
_DIAMETERS = {
    "diameter_crps_mm": Metric("CRPS of the drawn diameter, mm", 0, lower_is_better=True),
    "diameter_coverage": Metric("coverage of the drawn diameter", 0, 1, lower_is_better=None),
}
_OTHERS = {
    "gap_recovered": Metric("share of the follow-up's gain"),
    "gap_recovered_per_draw": Metric("share of the follow-up's gain per draw"),
    "mean_probability": Metric("mean probability", 0, 1, lower_is_better=None),
    "copies": Metric("share of draws that are copies of train crops", 0, 1, lower_is_better=True),
}

RANKING = tuple(_RANKING)
"""Metrics of the probability averaged over draws, then of each draw, averaged over draws."""
IMAGE_METRICS = tuple(_IMAGES)
"""Metrics of each case and draw against the real follow-up."""
SET_METRICS = tuple(_SETS)
"""Metrics of all cases of a draw together."""
DIAMETER_METRICS = tuple(_DIAMETERS)
"""Metrics of a case's drawn diameters against that of the real follow-up, by one rule on images."""
METRICS: Mapping[str, Metric] = {**_RANKING, **_IMAGES, **_SETS, **_DIAMETERS, **_OTHERS}
"""All metrics of a completed trial, which are those that a study file may name."""


def title_of(metric: str) -> str:
    """Return a metric's title; an unknown metric's own name."""
    return METRICS[metric].title if metric in METRICS else metric


def lower_is_better(metric: str) -> bool:
    """Return whether lower values of a metric are better; False for an unknown one."""
    return metric in METRICS and bool(METRICS[metric].lower_is_better)


def within_range(metric: str, value: float) -> float:
    """Return the value, clipped to the metric's range."""
    known = METRICS.get(metric, Metric(metric))
    return value if math.isnan(value) else min(max(value, known.low), known.high)
