"""`ode` and `sde` are two rows of one training: no key but those of draws and scores differs."""

import pytest

from namd.methods.corrflownet.settings import FlowDrawSettings
from namd.methods.registry import METHODS
from namd.pipeline.run_configuration import resolve
from namd.study.plan import Cluster, make_study_plan
from namd.study.spec import parse_study
from namd.study.trials import Configurator
from tests.conformance.laws import keys

TRAINED = {"registration", "perceptual", "vae", "flow_latents", "flow"}


def keys_of(*overrides):
    return keys(resolve("tiny", None, ["method=corrflownet", *overrides]))


def config_of(*overrides):
    return resolve("tiny", None, ["method=corrflownet", *overrides]).config


def test_the_sampler_moves_draws_and_scores_alone():
    sde, ode = keys_of(), keys_of("draws.sampler=ode")
    assert sde.keys() >= TRAINED
    moved = {label for label in ode if ode[label] != sde[label]}
    assert moved == {"draws-test[0]", "scores-test[0]", "copies-test[0]"}
    more = {"draws-test[1]", "scores-test[1]", "copies-test[1]"}
    assert sde.keys() - ode.keys() == more
    # Twin: another training moves what it trains.
    trained = keys_of("flow.learning_rate=0.5")
    assert {"flow", "draws-test[0]"} <= {label for label in sde if sde[label] != trained[label]}


def test_the_ode_has_one_draw_that_neither_noise_nor_draw_seed_moves():
    ode = keys_of("draws.sampler=ode")
    assert ode == keys_of("draws.sampler=ode", "draws.noise=0.3", "draw_seed=7")
    assert keys_of() != keys_of("draws.noise=0.3")
    assert keys_of() != keys_of("draw_seed=7")


def test_whether_draws_differ_is_the_samplers_matter():
    method = METHODS["corrflownet"]
    assert method.draws_differ(config_of())
    assert not method.draws_differ(config_of("draws.sampler=ode"))
    assert METHODS["copy_noise"].draws_differ(None)
    assert not METHODS["regression"].draws_differ(None)


def test_a_study_of_both_trains_once():
    study = parse_study(
        {
            "name": "two-rows",
            "base": {"preset": "tiny", "method": "corrflownet"},
            "seeds": 2,
            "ablation": {
                "design": "leave-one-out",
                "toggles": {"noise": {"draws.sampler": "ode"}},
            },
        }
    )
    plan = make_study_plan(study, Configurator(study), Cluster(cpus=2), cohort_digest=repr)
    distinct = {stage.stage: stage.distinct for stage in plan.stages}
    assert plan.trials == 4
    assert (distinct["vae"], distinct["flow_latents"], distinct["flow"]) == (2, 2, 2)
    assert distinct["registration"] == 1
    # A seed: two draws by the SDE and one by the ODE.
    assert distinct["draws-test"] == distinct["scores-test"] == 2 * 3


def test_without_registration_there_is_no_such_stage():
    assert "registration" not in keys_of("registration.motion=none")


def test_noise_of_nothing_is_refused():
    with pytest.raises(ValueError, match="for none, set sampler to ode"):
        FlowDrawSettings(noise=0.0)
