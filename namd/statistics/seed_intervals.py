"""The interval of a mean over training seeds only, without numpy: `study status` stays light."""

import math
from collections.abc import Sequence

from namd.statistics.metrics import within_range

SEEDS = "seeds"
"""What the interval is over, as it is shown with it."""


def mean_over_seeds(values: Sequence[float], metric: str = "") -> dict[str, float | None]:
    """Return mean and 95% interval (Student's t over seeds); no interval for one seed.

    The interval ends where the metric does (see namd.statistics.metrics).
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return {"mean": mean, "low": None, "high": None}
    from scipy.special import stdtrit

    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1))
    swing = float(stdtrit(count - 1, 0.975)) * deviation / math.sqrt(count)
    low, high = (within_range(metric, end) for end in (mean - swing, mean + swing))
    return {"mean": mean, "low": low, "high": high}
