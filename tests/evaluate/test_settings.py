"""Impossible evaluation settings are refused, possible ones kept."""

import pytest

from namd.evaluate.settings import EvaluateSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_draws": 0},
        {"num_draws": 10**9},
        {"num_cases": 0},
        {"num_bootstrap": 1},
        {"interval": 1.0},
        {"coverage": 0.0},
        {"minimum_malignant": -1},
    ],
)
def test_impossible_values_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EvaluateSettings(**wrong)
    EvaluateSettings(num_draws=1, num_cases=1, interval=0.5)
