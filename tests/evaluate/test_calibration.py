"""Calibration of drawn diameters and probabilities, by hand."""

import numpy as np
import pandas as pd
import pytest

from namd.evaluate.calibration import diameter_calibration, quintile_means
from namd.evaluate.settings import EvaluateSettings

SETTINGS = EvaluateSettings(num_bootstrap=20, coverage=0.5, interval=0.9)
NAN = np.nan


def cases(table=None):
    patients = pd.DataFrame({"patient_id": [f"p{n}" for n in range(4)]})
    return patients if table is None else patients.assign(followup_SCT_LONG_DIA=table)


def test_draws_are_held_against_the_rule_and_against_the_table():
    drawn = np.array([[4.0, 6, 8, 10, 12]] * 3 + [[NAN] * 5])
    found = diameter_calibration(
        drawn, np.array([7.5, 3.0, NAN, 5.0]), cases([11.8, NAN, 8.0, 9.0]), SETTINGS
    )
    assert found.nominal_coverage == 0.5
    assert found.attainable_coverage == pytest.approx(4 / 6)
    assert found.unmeasured == pytest.approx(1 / 4)
    assert found.rule.cases == 2
    assert found.rule.bias_mm == pytest.approx(np.mean([8 - 7.5, 8 - 3]))
    assert found.rule.coverage["value"] == 0.5
    assert found.table.cases == 2
    assert found.table.bias_mm == pytest.approx(np.mean([8 - 11.8, 0]))
    assert found.table.coverage["value"] == 0.5
    # The fair form: pairs of different draws.
    mean = [abs(drawn[0] - truth).mean() for truth in (7.5, 3.0)]
    spread = abs(drawn[0][:, None] - drawn[0]).sum() / (5 * 4) / 2
    assert found.rule.crps_mm["value"] == pytest.approx(np.mean(mean) - spread)


def test_one_draw_has_an_error_and_no_coverage_and_without_diameters_there_is_nothing():
    one = diameter_calibration(
        np.array([[5.0], [7], [NAN], [9]]), np.array([6.0, 6, 6, NAN]), cases(), SETTINGS
    )
    assert one.rule.coverage is None
    assert one.rule.crps_mm["value"] == pytest.approx(1.0)
    assert one.table is None
    assert diameter_calibration(np.full((4, 2), NAN), np.ones(4), cases(), SETTINGS) is None


def test_quintiles_are_of_p_and_means_are_over_draws():
    p = np.linspace(0, 1, 20)
    p[3] = NAN
    probability = np.stack([1 - p, 3 - p]) / 4
    ideal = np.stack([p, p])
    found = quintile_means(p, probability, ideal)
    assert len(found) == 5
    assert sum(group.cases for group in found) == 19
    for group in found:
        inside = np.flatnonzero((p >= group.low) & (p <= group.high))
        assert group.mean == pytest.approx(np.mean((2 - p[inside]) / 4))
        assert group.ideal == pytest.approx(p[inside].mean())
    assert found[0].mean > found[4].mean
    assert quintile_means(p, probability, None)[0].ideal is None
    assert quintile_means(np.full(20, NAN), probability, None) is None
