"""Means over seeds: coverage by simulation, agreement with textbook cases, exactness at nothing."""

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from namd.config.seeding import generator
from namd.statistics.ranking import weighted_ranking
from namd.statistics.resampling import cross, percentile_interval
from namd.statistics.seeds import (
    arm_weights,
    class_patients,
    crossed_mean,
    seed_mean,
    weighted_mean,
)


def test_without_patients_it_is_the_t_test():
    values = np.array([0.1, 0.3, 0.2, 0.5])
    found = seed_mean(values, np.repeat(values[:, None], 50, axis=1), 30)
    expected = ttest_1samp(values, 0)
    low, high = expected.confidence_interval(0.95)
    assert found.p_value() == pytest.approx(expected.pvalue)
    assert (found.interval().low, found.interval().high) == pytest.approx((low, high))
    # Twin: patients that move all seeds alike widen it.
    moved = values[:, None] + generator("test-seeds").normal(0, 0.2, size=(1, 500))
    assert seed_mean(values, moved, 30).standard_error > found.standard_error


def test_one_seed_knows_its_patients_only():
    replicates = generator("test-seeds", 1).normal(0.3, 0.1, size=(1, 4000))
    found = seed_mean(np.array([0.3]), replicates, 10_000)
    assert found.standard_error == pytest.approx(0.1, rel=0.05)
    assert found.p_value() == pytest.approx(2 * norm.sf(0.3 / found.standard_error), rel=0.01)


def test_noise_of_a_seeds_own_is_not_counted_twice():
    """Independent noise per seed: its share is in the spread between seeds already."""
    random = generator("test-seeds", 2)
    values = random.normal(0, 1, size=400)
    replicates = values[:, None] + random.normal(0, 1, size=(400, 300))
    assert seed_mean(values, replicates, 10_000).standard_error == pytest.approx(
        values.std(ddof=1) / 20, rel=0.1
    )


def test_nothing_is_nothing_and_a_mean_needs_a_seed():
    found = seed_mean(np.zeros(3), np.zeros((3, 100)), 40)
    assert (found.value, found.p_value()) == (0.0, 1.0)
    assert (found.interval().low, found.interval().high) == (0.0, 0.0)
    assert not np.isfinite(seed_mean(np.ones(3), np.full((3, 100), np.nan), 40).standard_error)
    with pytest.raises(ValueError, match="at least one seed"):
        seed_mean(np.zeros(0), np.zeros((0, 5)), 4)


def test_a_logit_interval_stays_inside():
    replicates = generator("test-seeds", 3).normal(0.97, 0.02, size=(1, 1000))
    found = seed_mean(np.array([0.97]), replicates, 20).logit_interval()
    assert 0.8 < found.low < 0.97 < found.high < 1
    assert seed_mean(np.array([0.97]), replicates, 20).interval().high > 1


def test_resamples_keep_patients_together_and_classes_apart():
    patients = np.array(["a", "a", "b", "c", "d"])
    labels = np.array([1, 1, 1, 0, 0])
    weights = arm_weights(patients, labels, 50, 0)
    np.testing.assert_array_equal(weights[0], weights[1])
    assert set(weights[1] + weights[2]) == {2.0}
    assert set(weights[3] + weights[4]) == {2.0}
    np.testing.assert_array_equal(weights, arm_weights(patients, labels, 50, 0))
    assert not np.array_equal(weights, arm_weights(patients, labels, 50, 1))
    assert class_patients(patients, labels) == 2
    assert class_patients(patients, np.array([1, 0, 0, 0, 0])) == 1


def test_a_weighted_mean_leaves_gaps_out():
    values = np.array([[1.0, np.nan, 4.0]])
    weights = np.array([[1.0, 2, 0], [5, 5, 5], [1, 1, 0]])
    np.testing.assert_allclose(weighted_mean(values, weights), [[2.5, 2.0, np.nan]])


def coverage(seeds: int, seed_spread: float, own_spread: float, repeats: int) -> dict[str, float]:
    """How often intervals hold the truth: difference of two arms of equal true AUROC."""
    held = {"ours": 0, "percentiles": 0, "rejected": 0, "arm": 0}
    number = 90
    labels = (np.arange(number) < 30).astype(int)
    patients = np.arange(number).astype(str)
    spread = np.sqrt(2 * (1 + own_spread**2))
    draws = generator("test-coverage-truth").normal(0, seed_spread, 200_000)
    truth = norm.cdf((1 + draws) / spread).mean()
    for repeat in range(repeats):
        random = generator("test-coverage", seeds, repeat)
        shared = random.normal(size=number)
        shift = 1 + random.normal(0, seed_spread, size=(2 * seeds, 1))
        own = random.normal(0, own_spread, size=(2 * seeds, number))
        weights = arm_weights(patients, labels, 150, repeat)
        everyone = np.concatenate([np.ones((number, 1), np.float32), weights], axis=1)
        auroc = weighted_ranking(labels, labels * shift + shared + own, everyone).auroc
        arm = seed_mean(auroc[:seeds, 0], auroc[:seeds, 1:], 30).logit_interval()
        held["arm"] += arm.low <= truth <= arm.high
        difference = auroc[:seeds] - auroc[seeds:]
        found = seed_mean(difference[:, 0], difference[:, 1:], 30)
        held["ours"] += found.interval().low <= 0 <= found.interval().high
        held["rejected"] += found.p_value() < 0.05
        plain = percentile_interval(found.value, cross(difference[:, 1:], random))
        held["percentiles"] += plain.low <= 0 <= plain.high
    return {name: count / repeats for name, count in held.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("seed_spread", "own_spread"), [(0.0, 0.5), (0.3, 0.5), (0.6, 0.3)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_at_their_nominal_rate(seeds, seed_spread, own_spread):
    held = coverage(seeds, seed_spread, own_spread, 400)
    assert 0.92 <= held["ours"] <= 0.99
    assert 0.92 <= held["arm"] <= 0.99
    assert held["rejected"] <= 0.08


def test_percentiles_of_resampled_seeds_would_not():
    held = coverage(3, 0.6, 0.3, 150)
    assert held["percentiles"] < 0.85
    assert held["ours"] > 0.88


def test_one_seed_or_one_judge_leaves_the_other_factor():
    random = generator("test-crossed")
    values, replicates = random.normal(size=4), random.normal(size=(4, 50))
    alone = seed_mean(values, replicates, 20)
    for shape in ((4, 1), (1, 4)):
        found = crossed_mean(values.reshape(shape), replicates.reshape(*shape, 50), 20)
        assert found.interval() == alone.interval()


def crossed_coverage(
    seeds: int, judges: int, by_seed: float, by_judge: float, repeats: int
) -> dict[str, float]:
    """How often intervals hold a mean of 0, with and without judges as a factor of their own."""
    held = {"crossed": 0, "seeds alone": 0}
    random = generator("test-crossed-coverage", seeds, judges, str(by_judge))
    for _ in range(repeats):
        together, apart = 0.5, 0.2
        cells = (
            random.normal(0, by_seed, (seeds, 1))
            + random.normal(0, by_judge, (1, judges))
            + random.normal(0, 0.2, (seeds, judges))
            + random.normal(0, together)
            + random.normal(0, apart, (seeds, judges))
        )
        resampled = random.normal(0, together, 200) + random.normal(0, apart, (seeds, judges, 200))
        replicates = cells[..., None] + resampled
        crossed = crossed_mean(cells, replicates, 60).interval()
        held["crossed"] += crossed.low <= 0 <= crossed.high
        plain = seed_mean(cells.mean(axis=1), replicates.mean(axis=1), 60).interval()
        held["seeds alone"] += plain.low <= 0 <= plain.high
    return {name: count / repeats for name, count in held.items()}


@pytest.mark.parametrize(("seeds", "judges"), [(3, 3), (5, 3), (2, 4)])
@pytest.mark.parametrize(("by_seed", "by_judge"), [(0.3, 0.3), (0.6, 0.0), (0.0, 0.8)])
def test_intervals_over_seeds_and_judges_hold_the_truth(seeds, judges, by_seed, by_judge):
    held = crossed_coverage(seeds, judges, by_seed, by_judge, 400)
    assert held["crossed"] >= 0.92


def test_more_seeds_do_not_average_the_judges_away():
    held = crossed_coverage(8, 3, 0.0, 1.0, 400)
    assert held["seeds alone"] < 0.85 < 0.9 < held["crossed"]
