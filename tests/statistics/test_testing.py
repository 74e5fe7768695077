"""DeLong, Holm and sign flips on examples worked by hand."""

import numpy as np
import pytest

from namd.config.seeding import generator
from namd.statistics.testing import delong, holm, holm_rejects, sign_flip


def test_holm_steps_down_as_in_the_textbook():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])
    assert holm_rejects(p).tolist() == [True, False, False, True]
    # Twin: without correction all four would be rejected, with Bonferroni's the adjusted differ.
    assert (p <= 0.05).all()
    assert not np.allclose(np.minimum(1, 4 * p), holm(p))


def test_sign_flip_is_exact_for_few_differences():
    random = generator("test", 0)
    assert sign_flip(np.array([1.0, 2, 3, 4, 5]), random) == 2 / 32
    assert sign_flip(np.array([1.0, -1.0]), random) == 1.0
    assert sign_flip(np.zeros(3), random) == 1.0
    with pytest.raises(ValueError, match="at least one"):
        sign_flip(np.array([]), random)


def test_sign_flip_by_drawing_agrees_with_enumeration():
    differences = generator("test", 1).normal(0.3, 1, size=20)
    drawn = sign_flip(differences, generator("test", 2), num_permutations=20_000)
    again = sign_flip(differences, generator("test", 3), num_permutations=20_000)
    assert drawn == pytest.approx(again, abs=0.02)
    assert drawn != sign_flip(differences + 0.5, generator("test", 2), num_permutations=20_000)


def test_delong_on_a_hand_computed_table():
    """Two positives, two negatives: placements a (1, 1), (1, 1); b (1, 0.5), (1, 0.5)."""
    labels = np.array([1, 1, 0, 0])
    a, b = np.array([4.0, 3, 2, 1]), np.array([4.0, 2, 3, 1])
    test = delong(labels, a, b)
    assert (test.auroc_a, test.auroc_b) == (1.0, 0.75)
    # b's placements: positives 1, 1/2; negatives 1/2, 1: variance 1/8 each, over 2 twice.
    assert test.standard_error == pytest.approx(np.sqrt(0.125 / 2 + 0.125 / 2))
    assert test.z == pytest.approx(0.25 / test.standard_error)
    same = delong(labels, b, b)
    assert (same.difference, same.z, same.p_value) == (0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="two cases"):
        delong(np.array([1, 0, 0]), a[:3], b[:3])


def test_delong_holds_its_level_and_has_power():
    rejected = {"null": 0, "shifted": 0}
    for repeat in range(300):
        random = generator("test-delong", repeat)
        labels = (random.random(150) < 0.4).astype(int)
        shared = random.normal(size=150)
        a, b = (shared + labels + random.normal(size=150) for _ in range(2))
        rejected["null"] += delong(labels, a, b).p_value < 0.05
        rejected["shifted"] += delong(labels, a + 1.5 * labels, b).p_value < 0.05
    assert 0.01 < rejected["null"] / 300 < 0.1
    assert rejected["shifted"] / 300 > 0.9
