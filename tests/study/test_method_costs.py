"""Parameters and seconds per step from two short runs, if costs are what they are said to be."""

import json

import pytest

from namd.cli.main import main
from namd.config.errors import InputError
from namd.methods.registry import METHODS
from namd.pipeline.run_configuration import resolve
from namd.study.calibration import CohortSize
from namd.study.method_costs import Built, StageCost, method_costs

SIZE = CohortSize(train=1000, evaluated=600)


def built(configuration) -> dict[str, Built]:
    """A machine on which a step of `vae` takes 0.5 s after 3 s of setting up, and so on."""
    config = configuration.config
    return {
        "vae": Built(3.0 + 0.5 * config.vae.num_steps, 50),
        "latents": Built(4.0, 10**6),
        "finetune": Built(2.0 + 1.0 * config.finetune.num_steps, 300),
        "language": Built(1.0, 7),
        "draws-test": Built(1.0 + 0.25 * config.evaluate.num_cases, 10**9),
    }


def test_seconds_each_are_free_of_what_is_done_once():
    costs = {cost.stage: cost for cost in method_costs(resolve("base"), SIZE, built)}
    assert set(costs) == {"vae", "language", "finetune", "draws-test"}
    assert costs["vae"].seconds_each == pytest.approx(0.5)
    assert costs["vae"].seconds_each != pytest.approx((3.0 + 0.5 * 10) / 10)
    assert (costs["vae"].amount, costs["vae"].unit) == (1000, "step")
    assert (costs["draws-test"].amount, costs["draws-test"].unit) == (540, "image")
    assert costs["draws-test"].seconds_each == pytest.approx(0.25)


def test_draws_have_the_parameters_of_what_they_read_and_not_of_their_images():
    costs = {cost.stage: cost for cost in method_costs(resolve("base"), SIZE, built)}
    assert costs["finetune"].parameters == 300
    assert costs["draws-test"].parameters == 50 + 300 + 7


def test_a_cost_is_never_below_nothing():
    seconds = iter((0.0, 10.0, 9.0))

    def noisy(configuration):
        return {"vae": Built(next(seconds), 1)}

    (cost,) = method_costs(resolve("base"), SIZE, noisy)
    assert cost.seconds_each == 0.0


@pytest.mark.serial
def test_the_command_counts_what_torch_counts(capsys):
    from namd.methods.regression.training import build_network

    assert main(["methods", "--measure", "tiny", "--method", "regression", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out.splitlines()[-1])["methods"]
    assert (told["name"], told["preset"]) == ("regression", "tiny")
    config = resolve("tiny", None, ["method=regression"]).config
    network = build_network(config.regression, config.image.size)
    wanted = sum(parameter.numel() for parameter in network.parameters())
    stages = {stage["stage"]: stage for stage in told["stages"]}
    assert set(stages) == {"regressor", "draws-test"}
    assert stages["regressor"]["parameters"] == stages["draws-test"]["parameters"] == wanted
    assert stages["regressor"]["seconds_each"] > 0
    assert stages["regressor"]["amount"] == config.regression.num_steps


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--method", "regression"], "--method ['regression']: it belongs to --measure PRESET"),
        (["--cohort", "C"], "--cohort 'C': it belongs to --measure PRESET"),
        (["--measure", "tinny", "--method", "regression"], "preset 'tinny' does not exist"),
        (["--measure", "tinny"], "--measure 'tinny': no method has this preset"),
        (["--measure", "tiny", "--method", "regresion"], "regression"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_line(capsys, arguments, named):
    assert main(["methods", *arguments]) == 2
    told = capsys.readouterr()
    assert named in told.err
    assert told.out == ""


def test_every_method_that_has_the_preset_is_measured(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("namd.cli.named_cohorts.find_cohort", lambda word, *_: tmp_path)
    monkeypatch.setattr("namd.pipeline.run_plan.require_weights", lambda _configuration: None)
    monkeypatch.setattr("namd.study.calibrated_plan.cohort_size", lambda *_: SIZE)
    monkeypatch.setattr("namd.study.method_costs.measure_draws", lambda _cohort: None)
    asked = []

    def costs(configuration, *_):
        asked.append(configuration.method.name)
        return [StageCost("trained", "step", 1000, 4_321_000, 0.25)]

    monkeypatch.setattr("namd.study.method_costs.method_costs", costs)
    assert main(["methods", "--measure", "base"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert asked == list(METHODS)
    assert lines[2].split() == [
        "namd",
        "trained",
        "4,321,000",
        "0.250",
        "1,000",
        "steps",
        "250",
        "s",
    ]
    assert main(["methods", "--measure", "paper-authors-code", "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["methods"]
    assert (only["name"], only["stages"][0]["parameters"]) == ("namd", 4_321_000)


def test_nothing_is_measured_while_a_later_method_lacks_its_weights(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("namd.cli.named_cohorts.find_cohort", lambda word, *_: tmp_path)
    monkeypatch.setattr("namd.study.calibrated_plan.cohort_size", lambda *_: SIZE)
    monkeypatch.setattr("namd.study.method_costs.measure_draws", lambda _cohort: None)
    measured = []
    monkeypatch.setattr(
        "namd.study.method_costs.method_costs",
        lambda configuration, *_: measured.append(configuration.method.name) or [],
    )

    def lacks(configuration):
        if configuration.method.name == "sd15":
            raise InputError("the autoencoder: not on this disk")

    monkeypatch.setattr("namd.pipeline.run_plan.require_weights", lacks)
    command = ["methods", "--measure", "paper", "--method", "regression"]
    assert main([*command, "--method", "sd15"]) == 2
    assert capsys.readouterr().err == "error: the autoencoder: not on this disk\n"
    assert measured == []
    assert main([*command, "--method", "regression"]) == 0
    assert measured == ["regression"]
