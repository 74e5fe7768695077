"""The interval of a metric in each situation: one method each, under the name in the output.

Over training seeds alone it is `namd.statistics.seed_intervals.mean_over_seeds`.
"""

import numpy as np
from jaxtyping import Float

from namd.statistics.metrics import RANKING, within_range
from namd.statistics.resampling import Estimate, logit_bootstrap_interval, percentile_interval
from namd.statistics.seeds import SeedMean

PATIENT_BOOTSTRAP = "patient bootstrap"
PATIENTS_X_SEEDS = "patients x seeds"
PATIENTS_X_JUDGES = "patients x judges"
PATIENTS_X_SEEDS_X_JUDGES = "patients x seeds x judges"


def patient_bootstrap(
    metric: str, value: float, replicates: Float[np.ndarray, " B"], level: float
) -> Estimate:
    """Return the interval of one run's metric over resampled patients.

    Average precision is skewed near 0 and 1: its interval is formed on the logit scale.
    """
    form = logit_bootstrap_interval if metric.startswith("auprc") else percentile_interval
    return form(value, replicates, level)


def patients_x_seeds(metric: str, mean: SeedMean, level: float) -> Estimate:
    """Return the interval of a mean over training seeds or judges, patients and these drawn anew.

    It is formed on the logit scale if the metric ranks cases, and ends where the metric does.
    """
    found = mean.logit_interval(level) if metric in RANKING else mean.interval(level)
    low, high = within_range(metric, found.low), within_range(metric, found.high)
    return Estimate(found.value, low, high)
