"""Which values a metric can take at all.

Student's t over two or three seeds knows nothing of that and reaches below a distance of 0 or
above an AUROC of 1. What lies there is not possible, so intervals end where the metric does: an
interval cut so covers the true value as often as the whole one.
"""

import math

RANGES = {
    **dict.fromkeys(("auroc", "auprc", "auroc_per_draw", "auprc_per_draw"), (0.0, 1.0)),
    "mean_probability": (0.0, 1.0),
    "ssim": (-1.0, 1.0),
    **dict.fromkeys(("fid", "fid_judge", "lpips"), (0.0, math.inf)),
}
"""Of metrics that have one. KID is left out: its unbiased estimate may be negative."""


def within_range(metric: str, value: float) -> float:
    """Return the value, or the nearest that the metric can take."""
    low, high = RANGES.get(metric, (-math.inf, math.inf))
    return value if math.isnan(value) else min(max(value, low), high)
