"""Two short runs show what a long one costs, if costs are what they are said to be."""

import pytest

from namd.pipeline.run_configuration import resolve
from namd.study.calibration import CalibrationLengths, CohortSize, calibrate

SIZE = CohortSize(train=1000, evaluated=600)


def cost(configuration) -> dict[str, float]:
    """A machine on which a step of `vae` takes 0.5 s after 3 s of setting up, and so on."""
    config = configuration.config
    return {
        "vae": 3.0 + 0.5 * config.vae.num_steps,
        "language": 1.0 + 0.1 * config.language.embedded.num_steps,
        "latents": 4.0,
        "finetune": 2.0 + 1.0 * config.finetune.num_steps,
        "draws-test": 1.0 + 0.25 * config.evaluate.num_cases,
        "scores-test": 0.5 + 0.01 * config.evaluate.num_cases,
    }


def test_the_full_cost_is_found_from_two_short_runs():
    whole = resolve("base")
    ran = []

    def measure(configuration):
        ran.append(configuration.config)
        return cost(configuration)

    found = calibrate(whole, SIZE, measure)
    assert found == pytest.approx(cost(whole))
    assert [config.vae.num_steps for config in ran] == [1, 4, 20]
    assert all(config.evaluate.num_draws == 1 for config in ran)


def test_epochs_are_steps_of_the_cohort_at_hand():
    whole = resolve("base", None, ["finetune.num_epochs=3", "finetune.batch_size=10"])
    found = calibrate(whole, SIZE, cost)
    assert found["finetune"] == pytest.approx(2.0 + 3 * 100)


def test_a_part_that_is_switched_off_costs_its_setting_up():
    whole = resolve("base", None, ["finetune.num_steps=0"])
    assert calibrate(whole, SIZE, cost)["finetune"] == pytest.approx(2.0)


def test_what_only_the_first_run_pays_is_not_taken_for_the_cost():
    whole = resolve("base")
    imports = iter((20.0, 0.0, 0.0))

    def measure(configuration):
        extra = next(imports)
        return {stage: seconds + extra for stage, seconds in cost(configuration).items()}

    assert calibrate(whole, SIZE, measure) == pytest.approx(cost(whole))


def test_a_cost_never_falls_with_the_length():
    noisy = iter((0.0, 10.0, 9.0))
    found = calibrate(resolve("base"), SIZE, lambda configuration: {"vae": next(noisy)})
    assert found == {"vae": 10.0}


def test_runs_of_one_length_are_refused():
    assert CalibrationLengths().steps == (4, 20)
    with pytest.raises(ValueError, match="rise"):
        CalibrationLengths(steps=(4, 4))
