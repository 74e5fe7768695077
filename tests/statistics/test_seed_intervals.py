"""The interval of a mean over training seeds alone."""

import pytest

from namd.statistics.seed_intervals import mean_over_seeds


def test_an_interval_over_seeds_ends_where_the_metric_does_and_only_there():
    whole = mean_over_seeds([0.3, 0.9])
    assert whole["low"] < 0 < 1 < whole["high"]
    auroc = mean_over_seeds([0.3, 0.9], "auroc")
    assert (auroc["mean"], auroc["low"], auroc["high"]) == (whole["mean"], 0.0, 1.0)
    distance = mean_over_seeds([0.3, 0.9], "fid_judge")
    assert (distance["low"], distance["high"]) == (0.0, whole["high"])
    assert mean_over_seeds([0.3, 0.9], "kid_judge") == whole


def test_a_mean_over_seeds():
    assert mean_over_seeds([0.5]) == {"mean": 0.5, "low": None, "high": None}
    found = mean_over_seeds([0.0, 1.0, 2.0])
    # t(0.975, 2) = 4.3027, standard error 1/sqrt(3)
    assert found["high"] == pytest.approx(1 + 4.3027 / 3**0.5, rel=1e-4)
