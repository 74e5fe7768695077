"""The statistics against scikit-learn, scipy and long-hand loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from namd.config.seeding import generator
from namd.statistics.correlation import spearman
from namd.statistics.ensembles import crps
from namd.statistics.ranking import auroc, average_precision, weighted_ranking
from namd.statistics.testing import delong


@st.composite
def scored_cases(draw):
    """Labels of both classes and scores on so coarse a grid that ties abound."""
    size = draw(st.integers(2, 40))
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    labels[0], labels[1] = 0, 1
    scores = draw(st.lists(st.integers(-4, 4), min_size=size, max_size=size))
    weights = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    weights[0], weights[1] = 1, 1
    return np.array(labels), np.array(scores) / 4, np.array(weights)


@settings(max_examples=150, deadline=None)
@given(scored_cases())
def test_auroc_and_average_precision_equal_scikit_learn(cases):
    labels, scores, weights = cases
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected = average_precision_score(labels, scores)
    assert average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)
    weighted = weighted_ranking(labels, scores[None], weights[:, None])
    expected = roc_auc_score(labels, scores, sample_weight=weights)
    assert weighted.auroc[0, 0] == pytest.approx(expected, abs=1e-6)
    expected = average_precision_score(labels, scores, sample_weight=weights)
    assert weighted.average_precision[0, 0] == pytest.approx(expected, abs=1e-6)


def test_counting_ties_as_losses_would_not_equal_scikit_learn():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.0, 0.5, 0.5, 1.0])
    wins = np.mean(scores[labels == 1][:, None] > scores[labels == 0][None])
    assert auroc(labels, scores) == roc_auc_score(labels, scores)
    assert wins != roc_auc_score(labels, scores)


def test_delong_equals_its_definition_case_by_case():
    random = generator("test", 1)
    labels = (random.random(60) < 0.4).astype(int)
    a = np.round(random.normal(size=60) + labels, 1)
    b = np.round(a + 0.3 * random.normal(size=60), 1)

    def psi(x, y):
        return 1.0 if x > y else (0.5 if x == y else 0.0)

    placements = []
    for scores in (a, b):
        pos, neg = scores[labels == 1], scores[labels == 0]
        v10 = [np.mean([psi(x, y) for y in neg]) for x in pos]
        v01 = [np.mean([psi(x, y) for x in pos]) for y in neg]
        placements.append((v10, v01))
    m, n = labels.sum(), (1 - labels).sum()
    d10 = np.subtract(placements[0][0], placements[1][0])
    d01 = np.subtract(placements[0][1], placements[1][1])
    error = np.sqrt(np.var(d10, ddof=1) / m + np.var(d01, ddof=1) / n)
    test = delong(labels, a, b)
    assert test.difference == pytest.approx(d10.mean(), abs=1e-12)
    assert test.standard_error == pytest.approx(error, abs=1e-12)
    assert test.auroc_a == pytest.approx(roc_auc_score(labels, a))
    # Twin: forgetting that the two rows share cases gives another error.
    apart = np.sqrt(
        sum(np.var(v10, ddof=1) / m + np.var(v01, ddof=1) / n for v10, v01 in placements)
    )
    assert abs(apart - error) > 1e-3


def test_crps_equals_its_closed_form():
    random = generator("test", 2)
    draws, truth = random.normal(size=(30, 7)), random.normal(size=30)
    expected = [
        np.mean(np.abs(x - y)) - np.abs(x[:, None] - x[None]).sum() / (2 * 7 * 6)
        for x, y in zip(draws, truth, strict=True)
    ]
    np.testing.assert_allclose(crps(draws, truth), expected, atol=1e-12)
    # Many draws of N(0, 1) at truth 0: sqrt(2/pi) - 1/sqrt(pi).
    many = random.normal(size=(1, 200_000))
    closed = np.sqrt(2 / np.pi) - 1 / np.sqrt(np.pi)
    assert crps(many, np.zeros(1))[0] == pytest.approx(closed, abs=0.005)
    unfair = (
        np.abs(draws - truth[:, None]).mean(1)
        - np.abs(draws[:, :, None] - draws[:, None]).mean((1, 2)) / 2
    )
    assert not np.allclose(unfair, expected, atol=1e-3)


def test_spearman_equals_scipy():
    random = generator("test", 3)
    x = np.round(random.normal(size=80), 1)
    y = x + random.normal(size=80)
    assert spearman(x, y) == pytest.approx(spearmanr(x, y)[0], abs=1e-12)
    assert np.corrcoef(x, y)[0, 1] != pytest.approx(spearmanr(x, y)[0], abs=1e-6)
