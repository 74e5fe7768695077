"""Laws of CRPS, coverage and calibration by quintile."""

import numpy as np
import pytest

from namd.config.seeding import generator
from namd.statistics.correlation import distance_spearman_interval, spearman_interval
from namd.statistics.ensembles import crps, interval_covers, mean_by_quantile


def test_exchangeable_draws_cover_their_nominal_share_and_narrow_ones_do_not():
    random = generator("test", 0)
    everything = random.normal(size=(20_000, 21))
    truth, draws = everything[:, 0], everything[:, 1:]
    assert interval_covers(draws, truth).mean() == pytest.approx(0.9, abs=0.01)
    assert interval_covers(draws, truth, 0.5).mean() == pytest.approx(0.5, abs=0.015)
    assert interval_covers(0.5 * draws, truth).mean() < 0.75
    plain = np.quantile(draws, [0.05, 0.95], axis=1)
    assert np.mean((plain[0] <= truth) & (truth <= plain[1])) < 0.88  # why Weibull's rule


def test_fair_crps_prefers_the_true_law_whatever_the_number_of_draws():
    random = generator("test", 1)
    truth = random.normal(size=20_000)
    for k in (2, 5, 20):
        honest = crps(random.normal(size=(20_000, k)), truth).mean()
        assert honest == pytest.approx(1 / np.sqrt(np.pi), abs=0.015)
        assert crps(random.normal(0, 0.3, size=(20_000, k)), truth).mean() > honest
        assert crps(random.normal(0.7, 1, size=(20_000, k)), truth).mean() > honest


def test_missing_draws_are_left_out():
    draws = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan], [2.0, np.nan, np.nan]])
    truth = np.array([2.0, 2.0, 5.0])
    expected = crps(np.array([[1.0, 3.0]]), truth[:1])[0]
    np.testing.assert_allclose(crps(draws, truth), [expected, np.nan, 3.0])
    assert interval_covers(draws, truth).tolist() == [True, False, False]


def test_quintiles_hold_a_fifth_each_and_ties_stay_together():
    random = generator("test", 2)
    p = random.random(1000)
    groups = mean_by_quantile(p, p)
    assert groups.count.tolist() == [200] * 5
    np.testing.assert_allclose(groups.mean, [0.1, 0.3, 0.5, 0.7, 0.9], atol=0.05)
    assert (groups.high[:-1] <= groups.low[1:]).all()
    tied = mean_by_quantile(np.zeros(10), np.arange(10.0))
    assert tied.count.tolist() == [10]


def test_spearman_interval_holds_the_truth_and_misses_a_wrong_one():
    random = generator("test", 3)
    x = random.normal(size=400)
    y = 0.6 * x + 0.8 * random.normal(size=400)
    patients = np.arange(400).astype(str)
    interval = spearman_interval(x, y, patients, generator("test", 4), 500)
    truth = 6 / np.pi * np.arcsin(0.3)
    assert interval.low < truth < interval.high
    assert not interval.low < 0.2 < interval.high


def test_distance_correlation_resamples_patients_not_pairs():
    random = generator("test", 5)
    points = random.normal(size=(60, 2))
    noisy = points + 0.5 * random.normal(size=(60, 2))
    distances = [np.linalg.norm(a[:, None] - a[None], axis=2) for a in (points, noisy)]
    patients = np.repeat(np.arange(30), 2).astype(str)
    estimate, replicates = distance_spearman_interval(*distances, patients, generator("t", 0), 200)
    assert estimate.low < estimate.value < estimate.high
    assert len(replicates) == 200
    shuffled = distances[1][random.permutation(60)]
    nothing, _ = distance_spearman_interval(
        distances[0], (shuffled + shuffled.T) / 2, patients, generator("t", 0), 200
    )
    assert nothing.high < estimate.low
