"""The study file: strict, checked against the method before anything starts."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import toy
import yaml

from namd.config.document import parse_yaml
from namd.config.errors import ConfigError, InputError
from namd.config.parsing import to_mapping
from namd.data.settings import CohortDemands
from namd.methods.namd.method import RUNG_METRICS
from namd.study.json_schema import json_schema
from namd.study.spec import parse_study, require_extension
from namd.study.trials import Configurator, ablation_arms, ablation_trials

ABLATION = """
name: toy-ablation
question: Does alignment help?
base: {method: toy, cohort: phantom, store: ...}
seeds: 3
ablation:
  design: leave-one-out
  toggles:
    align:   {encoder.align.weight: 0}
    predict: {encoder.predict.weight: 0}
    record:  {prompt.include: []}
evaluate: {split: test, num_draws: 5, primary: auroc, secondary: [auprc]}
budget: {device_hours: 4}
"""

SEARCH = {
    "name": "toy-search",
    "base": {"method": "toy"},
    "search": {
        "sampler": "tpe",
        "num_trials": 8,
        "objective": {"metric": "auroc", "split": "validation", "mode": "max"},
        "space": toy.SPACE,
        "stop_early": {
            "asha": {"reduction": 3, "rungs": [{"stage": "vae", "metric": "probe_auroc"}]}
        },
    },
}


def ablation(**changes):
    return parse_study({**parse_yaml(ABLATION, "test"), **changes})


def test_an_ablation_is_arms_times_the_same_seeds():
    spec = ablation()
    trials = ablation_trials(spec, toy.configurator(spec))
    assert [trial.arm for trial in trials[:4]] == ["full", "no_align", "no_predict", "no_record"]
    assert len(trials) == 4 * 3 == len({trial.trial for trial in trials})
    seeds = {arm: [t.seed for t in trials if t.arm == arm] for arm in {t.arm for t in trials}}
    assert set(map(tuple, seeds.values())) == {(0, 1, 2)}
    config = trials[1].configuration.config
    assert (config.encoder.align.weight, config.train_seed) == (0, 0)
    assert (config.evaluate.split, config.evaluate.num_draws) == ("test", 5)


def test_a_cohort_must_serve_the_most_demanding_arm_and_not_the_base_alone():
    wide = {"image.size": 64, "judge.architecture.image_size": 64}
    raw = {"features.normalisation": "raw"}
    base = {"method": "namd", "preset": "tiny", "set": raw}
    toggles = {"wide": wide, "standardised": {"features.normalisation": "standardised"}}
    spec = ablation(base=base, ablation={"design": "leave-one-out", "toggles": toggles})
    configurator = Configurator(spec)
    assert configurator.base().demands() == CohortDemands(32, diameters=False)
    assert configurator.demands() == CohortDemands(64, diameters=True)


def test_a_search_is_evaluated_on_validation():
    spec = parse_study(SEARCH)
    config = toy.configurator(spec).configure({}, 0).config
    assert config.evaluate.split == "validation"


def test_toggles_of_one_configuration_are_one_arm():
    toggles = {"align": {"encoder.align.weight": 0}, "again": {"encoder.align.weight": 0.0}}
    spec = ablation(ablation={"design": "leave-one-out", "toggles": toggles})
    arms = ablation_arms(spec, toy.configurator(spec))
    assert [(arm.name, arm.aliases) for arm in arms] == [("full", ()), ("no_align", ("no_again",))]


def test_ids_do_not_depend_on_how_a_configuration_is_said():
    spec = ablation()
    configurator = toy.configurator(spec)
    same = configurator.trial({"encoder.align.weight": 1.0}, 0)
    assert same.trial == configurator.trial({}, 0).trial
    assert same.trial != configurator.trial({"encoder.align.weight": 2.0}, 0).trial


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("encoder.align.wieght", 0, "ablation.toggles.align: encoder.align.wieght=0: unknown key"),
        ("encoder.align.weight", "none", "expected a number"),
        ("encoder.align.weight", -1, "too small"),
        ("prompt.num_sets", 1.5, "expected a whole number"),
        ("prompt.include", "age", "expected a list"),
        ("train_seed", 3, "set by the study file's own"),
        ("evaluate.split", "validation", "set by the study file's own"),
    ],
)
def test_every_toggled_path_is_checked_first(place, value, message):
    spec = ablation(ablation={"design": "arms", "toggles": {"align": {place: value}}})
    with pytest.raises(ConfigError, match=message):
        toy.configurator(spec).check()
    toy.configurator(ablation()).check()


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("encoder.align.weight", {"uniform": [-1, 1]}, "too small"),
        ("encoder.align.sclae", {"uniform": [1, 2]}, "did you mean encoder.align.scale"),
        ("prompt.num_sets", {"uniform": [1, 8]}, "whole number"),
        ("prompt.include", {"choice": ["age"]}, "expected a list"),
        ("encoder", {"choice": [1]}, "neither a path"),
    ],
)
def test_every_searched_path_and_bound_is_checked_first(name, entry, message):
    changed = copy.deepcopy(SEARCH)
    changed["search"]["space"] = {name: entry}
    with pytest.raises(ConfigError, match=message):
        toy.configurator(parse_study(changed)).check()
    toy.configurator(parse_study(SEARCH)).check()


def changed(path: str, value: object) -> dict:
    mapping = copy.deepcopy(SEARCH)
    *parents, leaf = path.split(".")
    place = mapping
    for name in parents:
        place = place.setdefault(name, {})
    place[leaf] = value
    return mapping


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("search.objective.split", "test", "validation split only"),
        ("evaluate.split", "test", "validation only"),
        ("evaluate.split", "train", "validation only"),
        ("seeds", 3, "search.seeds"),
        ("search.sampler", "tpee", "expected one of"),
        ("search.num_trials", 0, "1 or more"),
        ("search.num_trials", 10**9, r"num_trials=1000000000, seeds=1.* at most 10,000 trials"),
        ("search.confirm_seeds", 10**9, r"confirm_seeds=1000000000: .* at most 10,000 trials"),
        ("search.numtrials", 3, "did you mean search.num_trials"),
        ("search.stop_early.asha.rungs", [{"stage": "vae", "metric": "loss"}], "a loss"),
        ("ablation", {"design": "arms", "toggles": {"a": {"b.c": 1}}}, "either"),
        ("name", "../x", "study name"),
        ("name", "x" * 101, "it has 101 characters; use at most 100"),
        ("name", "-x", "a letter or digit first"),
        ("evaluate.secondary", ["auprc", "ssim", "auprc"], "secondary names 'auprc' twice"),
        ("evaluate.secondary", ["auroc"], "primary auroc is secondary too"),
        ("budget", {"device_hours": 0}, "above 0"),
    ],
)
def test_impossible_studies_are_refused(path, value, message):
    with pytest.raises(InputError, match=message):
        parse_study(changed(path, value))
    assert parse_study(SEARCH).split == "validation"
    assert parse_study(changed("name", "x" * 100)).name == "x" * 100
    assert parse_study(changed("evaluate.secondary", ["auprc", "ssim"])).evaluate.secondary


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate": {"primary": "aurocc"}}, "primary='aurocc': .* did you mean auroc"),
        ({"evaluate": {"secondary": ["auprc", "fidd"]}}, "'fidd': .* did you mean fid"),
        ({"resources": {"stages": {"finetun": {"cpus": 2}}}}, "finetun: .* did you mean finetune"),
    ],
)
def test_metrics_and_stages_that_no_trial_has_are_refused(changes, message):
    spec = ablation(**changes)
    with pytest.raises(ConfigError, match=message):
        toy.configurator(spec).check()
    known = {"resources": {"stages": {"finetune": {"cpus": 2}, "scores": {"cpus": 2}}}}
    spec = ablation(evaluate={"primary": "auroc_per_draw", "secondary": ["fid_judge"]}, **known)
    toy.configurator(spec).check()


def test_cores_are_as_many_as_threads_and_never_fewer():
    base = {"preset": "tiny", "method": "namd", "set": {"num_threads": 3}}
    toggles = {"one": {"num_threads": 4}}
    many = {"base": base, "ablation": {"design": "arms", "toggles": toggles}}
    open_cores = Configurator(ablation(**many, resources={"stages": {"vae": {"cpus": 5}}}))
    open_cores.check()
    assert open_cores.resources().of("finetune", "finetune").cores == 4
    assert open_cores.resources().of("vae", "vae").cores == 5
    few = ablation(**many, resources={"stages": {"vae": {"cpus": 2}}})
    with pytest.raises(ConfigError, match=r"stages\.vae\.cpus 2 is below num_threads 4"):
        Configurator(few).check()


def test_a_stage_of_one_thread_may_share_a_core():
    toggles = {"align": {"vae.alignment.weight": 0}}
    spec = ablation(
        base={"preset": "tiny", "method": "namd"},
        ablation={"design": "leave-one-out", "toggles": toggles},
        resources={"default": {"cpus": 0.25}},
    )
    Configurator(spec).check()
    assert Configurator(spec).resources().default.cores == 0.25


def test_a_search_improves_what_a_run_measures():
    spec = parse_study(changed("search.objective.metric", "auroc_per_drawing"))
    with pytest.raises(ConfigError, match=r"objective\.metric='auroc_per_drawing': no such metric"):
        toy.configurator(spec).check()
    for known in ("ssim", "auroc_per_draw"):
        toy.configurator(parse_study(changed("search.objective.metric", known))).check()


@pytest.mark.parametrize(
    ("metric", "mode", "better"), [("auroc_per_draw", "min", "max"), ("lpips", "max", "min")]
)
def test_a_search_for_the_worst_is_refused(metric, mode, better):
    wrong = parse_study(changed("search.objective", {"metric": metric, "mode": mode}))
    with pytest.raises(ConfigError, match=rf"mode='{mode}': the best {metric} .* mode: {better}"):
        toy.configurator(wrong).check()
    right = parse_study(changed("search.objective", {"metric": metric, "mode": better}))
    toy.configurator(right).check()


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_metric_that_no_way_makes_better_is_searched_either_way(mode):
    objective = {"metric": "mean_probability", "mode": mode}
    toy.configurator(parse_study(changed("search.objective", objective))).check()


def with_rung(method: str, **rung):
    search = {
        "space": {
            "vae.alignment.weight" if method == "namd" else "prompt.num_sets": {"int": [1, 2]}
        },
        "num_trials": 2,
        "objective": {"metric": "auroc"},
        "stop_early": {"asha": {"rungs": [rung]}},
    }
    return parse_study({"name": "rungs", "base": {"method": method}, "search": search})


@pytest.mark.parametrize(
    ("stage", "metric", "fraction", "message"),
    [
        ("probee", "probe_auroc", 1, "probee: no such stage; did you mean probe"),
        ("reconstruction", "psnr", 1, "no such stage; did you mean reconstruction-validation"),
        ("probe", "probe_aurok", 1, "did you mean probe_auroc"),
        ("finetune", "probe_auroc", 0.5, r"finetune@0\.5, .* may use drawn_diameter_crps_mm"),
        ("finetune", "drawn_diameter_crps_mm", 0.5, "'max': the best .* lowest; set mode: min"),
        ("judge", "validation_auroc", 1, r"judge reports no metric .* do: probe \(probe_auroc\)"),
    ],
)
def test_a_rung_that_no_trial_would_reach_is_refused(stage, metric, fraction, message):
    spec = with_rung("namd", stage=stage, metric=metric, fraction=fraction)
    with pytest.raises(ConfigError, match=message) as caught:
        Configurator(spec).check()
    assert "\n" not in str(caught.value)
    for known in (("probe", "probe_auroc"), ("reconstruction-validation", "psnr")):
        Configurator(with_rung("namd", stage=known[0], metric=known[1])).check()
    half = {"metric": "drawn_diameter_crps_mm", "fraction": 0.5, "mode": "min"}
    Configurator(with_rung("namd", stage="finetune", **half)).check()


def test_the_rungs_on_offer_are_what_stages_of_a_search_report():
    spec = with_rung("namd", stage="probe", metric="probe_auroc")
    stages = {s.name: s.body for s in Configurator(spec).configure({}, 0).stages()}
    for stage, metrics in RUNG_METRICS.items():
        module = Path(__file__).parents[2] / stages[stage].partition(":")[0].replace(".", "/")
        source = module.with_suffix(".py").read_text()
        if stage == "finetune":
            source += (module.parents[1] / "shared" / "quick_draws.py").read_text()
        assert all(f'"{metric}"' in source for metric in metrics)


def test_a_method_that_does_not_say_what_it_measures_has_only_its_rungs_stages_checked():
    toy.configurator(with_rung("toy", stage="finetune", metric="anything", fraction=0.5)).check()
    with pytest.raises(ConfigError, match="no such stage; did you mean finetune"):
        toy.configurator(with_rung("toy", stage="finetun", metric="anything")).check()


@pytest.mark.parametrize(
    ("metric", "setting"), [("lpips", "lpips"), ("fid", "fid"), ("kid", "fid")]
)
def test_what_a_study_is_about_must_be_switched_on(metric, setting):
    path = f"evaluate.{setting}"
    on = {"lpips": "alex", "fid": "inception"}[setting]
    message = rf"metric='{metric}': {path} is off .* set {path}: {on} in base\.set"
    search = changed("search.objective", {"metric": metric, "mode": "min"})
    for value, space in ((None, {}), ("off", {}), (on, {}), ("off", {path: {"choice": [on]}})):
        search["base"] = {"method": "toy", "set": {} if value is None else {path: value}}
        search["search"]["space"] = {**toy.SPACE, **space}
        configurator = toy.configurator(parse_study(search))
        configurator.check()
        if value == "off" and not space:
            with pytest.raises(ConfigError, match=message):
                configurator.check_measured()
        else:
            configurator.check_measured()
    search["search"]["space"][path] = {"choice": [on, "off"]}
    with pytest.raises(ConfigError, match=rf"is off under search\.space\.{path}"):
        toy.configurator(parse_study(search)).check_measured()


def test_an_ablations_primary_metric_must_be_measured_and_a_secondary_need_not():
    base = {"method": "toy", "set": {"evaluate.fid": "off"}}
    spec = ablation(base=base, evaluate={"primary": "fid"})
    with pytest.raises(ConfigError, match=r"evaluate\.primary='fid': evaluate\.fid is off"):
        toy.configurator(spec).check_measured()
    spec = ablation(base=base, evaluate={"secondary": ["fid", "fid_judge"]})
    toy.configurator(spec).check_measured()


def test_an_ablation_is_judged_on_test_or_validation_and_never_on_train():
    with pytest.raises(ConfigError, match=r"evaluate\.split='train': .* use test or validation"):
        ablation(evaluate={"split": "train"})
    for split in ("test", "validation"):
        assert ablation(evaluate={"split": split}).split == split
    assert ablation(evaluate={}).split == "test"


def test_a_study_has_at_most_ten_thousand_trials():
    with pytest.raises(ConfigError, match=r"seeds=1000000000: .* at most 10,000 trials"):
        ablation(seeds=10**9)
    with pytest.raises(ConfigError, match=r"seeds=3000: 4 arms x 3,000 training seeds, .*10,000"):
        toy.configurator(ablation(seeds=3000)).check()
    toy.configurator(ablation(seeds=2500)).check()


def test_a_resolution_belongs_to_a_fraction():
    toggles = {f"t{n}": {"encoder.align.weight": 0} for n in range(3)}
    assert ablation(ablation={"design": "fractional", "toggles": toggles, "resolution": 3})
    for wrong in ({"design": "fractional"}, {"design": "arms", "resolution": 3}):
        with pytest.raises(ConfigError, match="resolution"):
            ablation(ablation={"toggles": toggles, **wrong})


def test_a_place_left_open_is_the_command_lines():
    spec = ablation()
    assert (spec.base.given("store"), spec.base.given("cohort")) == (None, "phantom")


def test_a_finished_study_may_be_extended_but_not_changed():
    old = json.loads(json.dumps(to_mapping(parse_study(SEARCH))))
    require_extension(old, parse_study(changed("search.num_trials", 20)))
    require_extension(old, parse_study(changed("budget", {"device_hours": 3})))
    with pytest.raises(ConfigError, match="only be raised"):
        require_extension(old, parse_study(changed("search.num_trials", 4)))
    with pytest.raises(ConfigError, match=r"search\.seed"):
        require_extension(old, parse_study(changed("search.seed", 4)))
    before = to_mapping(ablation())
    require_extension(before, ablation(seeds=5))
    with pytest.raises(ConfigError, match="only be added"):
        require_extension(before, ablation(seeds=2))
    toggles = {"align": {"encoder.align.weight": 0.5}}
    other = ablation(ablation={"design": "leave-one-out", "toggles": toggles})
    with pytest.raises(ConfigError, match=r"encoder\.align\.weight"):
        require_extension(before, other)


def test_the_json_schema_accepts_what_the_parser_does_and_little_else():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(yaml.safe_load(ABLATION))
    validator.validate(SEARCH)
    for path, value in (
        ("evaluate.split", "train"),
        ("search.numtrials", 3),
        ("search.sampler", "tpee"),
        ("search.num_trials", "many"),
        ("search.space", {"a.b": {"unifrom": [0, 1]}}),
        ("search.space", {"a.b": {"uniform": [0]}}),
        ("evaluate.secondary", ["auprc", "auprc"]),
    ):
        assert not validator.is_valid(changed(path, value)), path
