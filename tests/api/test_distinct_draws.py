"""A prediction of a method with one outcome is one draw, and says so."""

import pytest

from namd.api.predictions import distinct_draws
from namd.pipeline.run_configuration import resolve


@pytest.mark.parametrize(
    ("overrides", "differ"),
    [
        (["method=regression"], False),
        (["method=mcwgan"], False),
        (["method=corrflownet", "draws.sampler=ode"], False),
        (["method=corrflownet", "draws.sampler=sde"], True),
        (["method=copy_noise"], True),
    ],
)
def test_equal_draws_are_made_once_and_that_is_said(overrides, differ):
    configuration = resolve("tiny", None, overrides)
    count, told = distinct_draws(configuration, 20)
    assert count == (20 if differ else 1)
    assert [line.endswith("1 draw, not 20") for line in told] == ([] if differ else [True])
    assert distinct_draws(configuration, 1) == (1, ())
    assert distinct_draws(configuration, 0) == (0, ())
