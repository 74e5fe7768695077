"""Methods in the arms of a study: the short form, what an arm is checked by, what is shared."""

import jsonschema
import pytest

from namd.config.errors import ConfigError
from namd.methods.registry import METHODS
from namd.study.json_schema import json_schema
from namd.study.plan import Cluster, make_study_plan
from namd.study.spec import parse_study
from namd.study.trials import Configurator, ablation_trials
from tests import throwaway

ALL = {**METHODS, **throwaway.METHODS}
SHORT = {
    "name": "three",
    "compare": {"methods": ["mean_change", "borrowed_change", "adversarial"], "preset": "tiny"},
    "seeds": 2,
}
LONG = {
    "name": "three",
    "base": {"method": "mean_change", "preset": "tiny"},
    "ablation": {
        "design": "arms",
        "reference": "mean_change",
        "toggles": {
            "borrowed_change": {"method": "borrowed_change", "preset": "tiny"},
            "adversarial": {"method": "adversarial", "preset": "tiny"},
        },
    },
    "seeds": 2,
}


def arms(**changes):
    toggles = {**LONG["ablation"]["toggles"], **changes}
    return parse_study({**LONG, "ablation": {**LONG["ablation"], "toggles": toggles}})


def test_the_short_form_is_the_long_one():
    assert parse_study(SHORT) == parse_study(LONG)
    schema = json_schema()
    for study in (SHORT, LONG):
        jsonschema.validate(study, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**LONG, "compare": SHORT["compare"]}, schema)


def test_each_arm_is_its_method_at_the_same_seeds():
    spec = parse_study(SHORT)
    configurator = Configurator(spec, ALL)
    configurator.check()
    trials = ablation_trials(spec, configurator)
    found = [(trial.arm, trial.configuration.method.name, trial.seed) for trial in trials]
    names = ["mean_change", "borrowed_change", "adversarial"]
    assert found == [(name, name, seed) for seed in (0, 1) for name in names]


def test_what_methods_share_is_built_once():
    plan = make_study_plan(
        parse_study(SHORT),
        Configurator(parse_study(SHORT), ALL),
        Cluster(cpus=4),
        cohort_digest=repr,
    )
    distinct = {stage.stage: stage.distinct for stage in plan.stages}
    assert (distinct["judge"], distinct["reference-test"]) == (1, 1)
    assert distinct["gan"] == 2
    # Two changes, each at two seeds; deterministic methods draw once, the other twice.
    assert distinct["change"] == 4
    assert distinct["draws-test"] == distinct["scores-test"] == 2 * (1 + 2 + 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compare": {"methods": ["namd"]}}, r"compare: methods=\['namd'\]: name two or more"),
        ({"compare": {"methods": ["namd", "namd"]}}, "named twice"),
        ({"compare": {"methds": ["namd"]}}, r"compare.* did you mean .*methods"),
        ({"base": {"method": "namd"}}, r"base\.method='namd': compare names it"),
        ({"ablation": LONG["ablation"]}, "compare, ablation: a study has one of them"),
    ],
)
def test_a_comparison_that_says_two_things_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_study({**SHORT, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": {"method": "namdd"}}, r"ablation\.toggles\.x: method='namdd' .* did you mean namd"),
        (
            {"x": {"method": "namd", "preset": "tinny"}},
            r"toggles\.x: .*'tinny' does not exist .*tiny",
        ),
        (
            {"x": {"method": "adversarial", "change.share": 0.5}},
            r"ablation\.toggles\.x: change.*: unknown key",
        ),
        ({"x": {"gan.num_steps": 3}}, r"ablation\.toggles\.x: gan.*: unknown key"),
    ],
)
def test_an_arm_is_checked_against_its_own_method(changes, message):
    with pytest.raises(ConfigError, match=message):
        Configurator(arms(**changes), ALL).check()
    Configurator(arms(x={"method": "adversarial", "gan.num_steps": 3}), ALL).check()


def test_a_value_for_every_arm_must_be_one_of_every_method():
    base = {**LONG["base"], "set": {"change.share": 0.5}}
    lacking = (
        r"toggles\.adversarial: base\.set\.change\.share=0\.5: unknown key of method adversarial"
        r".* name it in arms of method mean_change instead"
    )
    with pytest.raises(ConfigError, match=lacking):
        Configurator(parse_study({**LONG, "base": base}), ALL).check()
    base = {**LONG["base"], "set": {"judge.num_steps": 4}}
    Configurator(parse_study({**LONG, "base": base}), ALL).check()


def test_only_an_arm_of_its_own_has_another_method():
    spec = parse_study({**LONG, "ablation": {**LONG["ablation"], "design": "pairwise"}})
    with pytest.raises(
        ConfigError, match=r"borrowed_change\.method='borrowed_change': only an arm"
    ):
        Configurator(spec, ALL)
    search = {
        "space": {"method": {"choice": ["namd", "adversarial"]}},
        "num_trials": 2,
        "objective": {"metric": "auroc"},
    }
    with pytest.raises(ConfigError, match=r"search\.space\.method: neither a path"):
        Configurator(parse_study({"name": "s", "base": LONG["base"], "search": search}), ALL)
