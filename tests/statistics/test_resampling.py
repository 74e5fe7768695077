"""Laws of the patient bootstrap: whole patients, paired rows, honest coverage."""

import numpy as np
import pytest

from namd.config.seeding import generator
from namd.statistics.ranking import auroc, average_precision, weighted_ranking
from namd.statistics.resampling import (
    cross,
    logit_bootstrap_interval,
    logit_interval,
    patient_weights,
    percentile_interval,
    sign_p_value,
)


def cases(num_patients: int, per_patient: int, seed: int):
    """Cases whose scores share a patient effect, with their patients and labels."""
    random = generator("test-cases", seed)
    patients = np.repeat([f"p{i}" for i in range(num_patients)], per_patient)
    labels = (random.random(len(patients)) < 0.3).astype(int)
    effect = np.repeat(random.normal(size=num_patients), per_patient)
    return patients, labels, labels + effect + 0.5 * random.normal(size=len(patients))


def test_cases_of_a_patient_are_drawn_together_and_the_number_of_patients_is_kept():
    patients, _, _ = cases(40, 3, 0)
    weights = patient_weights(patients, 50, generator("test", 0))
    by_patient = weights.reshape(40, 3, 50)
    assert (by_patient == by_patient[:, :1]).all()
    assert (by_patient[:, 0].sum(axis=0) == 40).all()
    by_case = patient_weights(np.arange(120).astype(str), 50, generator("test", 0))
    assert (by_case.reshape(40, 3, 50) != by_case.reshape(40, 3, 50)[:, :1]).any()


def test_strata_keep_their_number_of_patients():
    patients, labels, _ = cases(60, 1, 1)
    kept = patient_weights(patients, 40, generator("test", 0), strata=labels)
    assert (kept[labels == 1].sum(axis=0) == labels.sum()).all()
    loose = patient_weights(patients, 40, generator("test", 0))
    assert (loose[labels == 1].sum(axis=0) != labels.sum()).any()


def test_paired_difference_of_a_row_with_itself_is_exactly_zero():
    patients, labels, scores = cases(50, 2, 2)
    weights = patient_weights(patients, 200, generator("bootstrap", 0))
    rows = weighted_ranking(labels, np.stack([scores, scores]), weights).auroc
    assert (rows[0] - rows[1] == 0).all()
    assert sign_p_value(rows[0] - rows[1]) == 1.0
    others = patient_weights(patients, 200, generator("bootstrap", 1))
    unpaired = weighted_ranking(labels, scores[None], others).auroc[0]
    assert (rows[0] - unpaired != 0).any()


def test_patient_bootstrap_covers_the_truth_where_case_bootstrap_falls_short():
    """Six alike cases a patient: the interval of a mean must know that they are alike."""
    covered = {"patient": 0, "case": 0}
    for repeat in range(150):
        random = generator("test-coverage", repeat)
        values = np.repeat(random.normal(size=40), 6) + 0.1 * random.normal(size=240)
        patients = np.repeat(np.arange(40), 6).astype(str)
        for unit, ids in (("patient", patients), ("case", np.arange(240).astype(str))):
            weights = patient_weights(ids, 300, random)
            means = (weights * values[:, None]).sum(0) / weights.sum(0)
            interval = percentile_interval(values.mean(), means)
            covered[unit] += interval.low <= 0 <= interval.high
    assert covered["patient"] / 150 > 0.88
    assert covered["case"] / 150 < 0.75


def test_replicates_without_a_class_are_left_out_of_the_interval():
    labels, scores = np.array([1, 0, 0, 0]), np.array([0.9, 0.1, 0.2, 0.95])
    weights = patient_weights(np.arange(4).astype(str), 400, generator("test", 0))
    ranking = weighted_ranking(labels, scores[None], weights)
    assert np.isnan(ranking.auroc).any()
    assert np.isnan(ranking.average_precision).any()
    interval = percentile_interval(auroc(labels, scores), ranking.auroc[0])
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    nothing = percentile_interval(0.5, np.full(5, np.nan))
    assert nothing.to_mapping() == {"value": 0.5, "low": None, "high": None}


def test_crossing_with_draws_widens_an_interval_and_one_draw_leaves_it():
    random = generator("test", 5)
    patients_only = 0.01 * random.normal(size=3000)
    draws = patients_only + 0.1 * random.normal(size=(5, 1))
    crossed = cross(draws, generator("test", 6))
    assert crossed.std() > 2 * draws.mean(axis=0).std()
    np.testing.assert_array_equal(cross(draws[:1], generator("test", 6)), draws[0])


def test_logit_intervals_stay_inside_and_shrink_with_positives():
    few, many = logit_interval(0.9, 10), logit_interval(0.9, 1000)
    assert 0 < few.low < many.low < 0.9 < many.high < few.high < 1
    patients, labels, scores = cases(100, 1, 3)
    weights = patient_weights(patients, 500, generator("test", 0))
    replicates = weighted_ranking(labels, scores[None], weights).average_precision[0]
    interval = logit_bootstrap_interval(average_precision(labels, scores), replicates)
    assert 0 < interval.low < interval.value < interval.high < 1
    assert np.isnan(logit_interval(1.0, 10).low)


@pytest.mark.parametrize(
    ("labels", "scores"),
    [([1, 1], [0.1, 0.2]), ([0, 1], [np.nan, 0.2]), ([0, 2], [0.1, 0.2]), ([0, -1], [0.1, 0.2])],
)
def test_what_cannot_be_ranked_is_refused(labels, scores):
    with pytest.raises(ValueError, match=r"classes|finite|0 or 1"):
        auroc(np.array(labels), np.array(scores))
    assert auroc(np.array([0, 1]), np.array([0.1, 0.2])) == 1.0
