import numpy as np
import pytest

from experiments.alignment_check import alignment_of, difference, holds, report, table
from namd.config.seeding import generator

COUNT = 60


def arm(seed, strength):
    """Latents that follow the features (strength 1) or nothing (strength 0)."""
    rng = generator("test-alignment-check", "cases")
    features = rng.standard_normal((COUNT, 4))
    noise = generator("test-alignment-check", "latents", seed).standard_normal((COUNT, 4, 2, 2))
    latents = strength * features[:, :, None, None] + 0.3 * noise
    patients = np.repeat(np.arange(COUNT // 2), 2).astype(str)
    return alignment_of(latents, features, 10 + 4 * features[:, 0], patients, num_replicates=100)


@pytest.fixture(scope="module")
def arms():
    return {
        "aligned": [arm(seed, 1.0) for seed in range(3)],
        "unaligned": [arm(seed, 0.0) for seed in range(3)],
        "uniform": [arm(seed + 10, 0.0) for seed in range(3)],
    }


def test_following_the_features_is_seen_and_noise_is_not(arms):
    aligned, unaligned = arms["aligned"][0].estimates, arms["unaligned"][0].estimates
    assert aligned["pooled_features"].value > 0.8
    assert abs(unaligned["pooled_features"].value) < 0.15
    assert aligned["pooled_diameter"].value > unaligned["pooled_diameter"].value + 0.2
    assert aligned["flat_features"].value < aligned["pooled_features"].value


def test_the_difference_holds_and_its_twin_does_not(arms):
    assert holds(difference(arms["aligned"], arms["unaligned"]))
    assert not holds(difference(arms["uniform"], arms["unaligned"]))
    assert not holds(difference(arms["unaligned"], arms["unaligned"]))


def test_differences_are_paired_by_patients(arms):
    same = difference(arms["aligned"], arms["aligned"])
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_seeds_are_paired_one_to_one(arms):
    with pytest.raises(ValueError, match="got 2 and 3"):
        difference(arms["aligned"][:2], arms["unaligned"])


def test_the_report_says_which_arm_holds(arms):
    result = report(arms)
    assert result["holds"] == {"aligned - unaligned": True, "uniform - unaligned": False}
    text = table(result)
    assert "aligned - unaligned: at least 0.10" in text
    assert "uniform - unaligned: NOT at least 0.10" in text
