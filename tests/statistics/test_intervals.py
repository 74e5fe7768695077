"""One interval for each situation."""

import numpy as np
import pytest

from namd.statistics.intervals import patient_bootstrap, patients_x_seeds
from namd.statistics.resampling import logit_bootstrap_interval, percentile_interval
from namd.statistics.seeds import seed_mean

REPLICATES = np.random.default_rng(0).uniform(0.6, 0.99, 500)


def bounds(estimate):
    return (estimate.value, estimate.low, estimate.high)


@pytest.mark.parametrize("metric", ["auroc", "lpips"])
def test_the_bootstrap_over_patients_takes_percentiles(metric):
    expected = percentile_interval(0.8, REPLICATES, 0.9)
    assert bounds(patient_bootstrap(metric, 0.8, REPLICATES, 0.9)) == bounds(expected)


@pytest.mark.parametrize("metric", ["auprc", "auprc_per_draw"])
def test_average_precision_is_taken_on_the_logit_scale(metric):
    expected = logit_bootstrap_interval(0.8, REPLICATES, 0.9)
    found = bounds(patient_bootstrap(metric, 0.8, REPLICATES, 0.9))
    assert found == bounds(expected)
    assert found != bounds(percentile_interval(0.8, REPLICATES, 0.9))


def test_over_patients_and_seeds_an_interval_ends_where_the_metric_does():
    mean = seed_mean(np.array([0.1, 0.9]), np.stack([REPLICATES, REPLICATES[::-1]]), 20)
    distance = patients_x_seeds("lpips", mean, 0.95)
    assert (distance.low, distance.high > 1) == (0.0, True)
    assert patients_x_seeds("psnr", mean, 0.95).low == mean.interval(0.95).low < 0
    ranking = patients_x_seeds("auroc", mean, 0.95)
    assert bounds(ranking) == bounds(mean.logit_interval(0.95))
    assert 0 < ranking.low < ranking.high < 1
