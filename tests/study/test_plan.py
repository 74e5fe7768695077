"""What the plan says is what then runs; what cannot fit is refused with the numbers."""

import json
import re

import pytest
import toy

from namd.pipeline.graph import make_plan
from namd.pipeline.store import Store, open_store
from namd.storage.artifacts import MANIFEST, METRICS
from namd.storage.errors import StoreError
from namd.study.plan import Cluster, make_study_plan
from namd.study.spec import parse_study
from namd.study.trials import Configurator, ablation_trials

CLUSTER = Cluster(cpus=8)
CALIBRATION = {"vae": 3600.0, "finetune": 1800.0, "scores": 360.0}


def spec(**more):
    design = {
        "design": "leave-one-out",
        "toggles": {"align": {"encoder.align.weight": 0}, "record": {"prompt.include": []}},
    }
    base = {"name": "toys", "base": {"method": "toy"}, "seeds": 2, "ablation": design}
    return parse_study({**base, **more})


def plan(study, **more):
    more.setdefault("calibration", CALIBRATION)
    configurator = toy.configurator(study)
    cluster = more.pop("cluster", CLUSTER)
    return make_study_plan(study, configurator, cluster, hash_source=lambda stage: "now", **more)


def publish(store: Store, node, seconds: float, source: str = "now") -> None:
    attempt = store.open_attempt(node.stage.name, node.key)
    manifest = {
        "identity": node.identity,
        "device_seconds": seconds,
        "wall_seconds": seconds,
        "source_hash": source,
    }
    (attempt.folder / MANIFEST).write_text(json.dumps(manifest))
    (attempt.folder / METRICS).write_text("")
    store.publish(attempt)


def nodes_of(trial):
    return make_plan(trial.configuration.stages(), trial.configuration.config).nodes


def test_shared_stages_are_counted_once():
    found = plan(spec())
    distinct = {stage.stage: stage.distinct for stage in found.stages}
    # Two seeds: full and no_record share their vae; every arm finetunes and scores for itself.
    assert distinct == {"vae": 2 * 2, "finetune": 3 * 2, "scores": 3 * 2}
    assert (found.trials, found.stages_total) == (6, 18)
    assert found.device_hours == pytest.approx(4 * 1 + 6 * 0.5 + 6 * 0.1)
    assert found.refused is None
    assert not found.estimated
    assert list(found.arms) == ["full", "no_align", "no_record"]


def test_a_long_plan_says_how_far_it_is(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("namd.study.plan.SAY_EVERY_S", 0.0)
    plan(spec(), say=said.append)
    assert said == [f"planning: keys of {number} of 6" for number in range(6)]
    said.clear()
    monkeypatch.setattr("namd.study.plan.SAY_EVERY_S", 3600.0)
    plan(spec(), say=said.append)
    assert said == []


def test_what_the_store_holds_is_not_paid_for_again(tmp_path):
    store = open_store(str(tmp_path / "store"))
    study = spec()
    first = ablation_trials(study, toy.configurator(study))[0]
    for node in nodes_of(first):
        publish(store, node, 10.0)
    found = plan(study, store=store)
    held = {stage.stage: stage.in_store for stage in found.stages}
    assert held == {"vae": 1, "finetune": 1, "scores": 1}
    # Recorded costs go before the calibration.
    assert found.device_hours == pytest.approx((3 + 5 + 5) * 10 / 3600)
    assert {stage.source for stage in found.stages} == {"recorded"}
    assert found.to_mapping()["stages_in_store"] == 3


def test_a_store_of_everything_leaves_nothing_to_do(tmp_path):
    store = open_store(str(tmp_path / "store"))
    study = spec()
    for trial in ablation_trials(study, toy.configurator(study)):
        for node in nodes_of(trial):
            if store.find(node.stage.name, node.key) is None:
                publish(store, node, 10.0)
    found = plan(study, store=store)
    assert (found.device_hours, found.peak_concurrency) == (0.0, 0)
    assert all(stage.distinct == stage.in_store for stage in found.stages)


def test_the_most_alike_artifact_gives_the_cost(tmp_path):
    store = open_store(str(tmp_path / "store"))
    study = spec(seeds=3)
    full, no_align = ablation_trials(study, toy.configurator(study))[:2]
    publish(store, nodes_of(full)[0], 100.0)
    publish(store, nodes_of(no_align)[0], 20.0)
    found = {stage.stage: stage for stage in plan(study, store=store).stages}
    # Two more seeds of each arm: 100 s like the one, 20 s like the other.
    assert found["vae"].seconds_each == pytest.approx(60.0)


@pytest.mark.parametrize(("sets", "source"), [(6, "recorded"), (7, "calibration")])
def test_artifacts_of_another_order_give_no_cost(tmp_path, sets, source):
    store = open_store(str(tmp_path / "store"))
    study = spec(seeds=1)
    for trial in ablation_trials(study, toy.configurator(study)):
        publish(store, nodes_of(trial)[1], 10.0)
    larger = spec(seeds=1, base={"method": "toy", "set": {"prompt.num_sets": sets}})
    found = {stage.stage: stage for stage in plan(larger, store=store).stages}
    assert found["finetune"].source == source


def test_artifacts_of_other_source_are_flagged(tmp_path):
    store = open_store(str(tmp_path / "store"))
    study = spec()
    one, two = ablation_trials(study, toy.configurator(study))[:2]
    publish(store, nodes_of(one)[0], 10.0, source="then")
    publish(store, nodes_of(two)[0], 10.0)
    found = {stage.stage: stage for stage in plan(study, store=store).stages}
    assert (found["vae"].in_store, found["vae"].other_source) == (2, 1)


@pytest.mark.parametrize("place", ["COMMIT", "attempts/*/manifest.json"])
def test_a_damaged_artifact_is_refused_where_it_is_needed_and_gives_no_cost(tmp_path, place):
    store = open_store(str(tmp_path / "store"))
    study = spec(seeds=1)
    for trial in ablation_trials(study, toy.configurator(study)):
        publish(store, nodes_of(trial)[1], 10.0)
    for file in (tmp_path / "store" / "finetune").glob(f"*/{place}"):
        file.write_text("{")
    with pytest.raises(StoreError, match=r"finetune/.* is damaged .*namd store rm"):
        plan(study, store=store)
    others = spec(seeds=1, base={"method": "toy", "set": {"prompt.num_sets": 3}})
    found = {stage.stage: stage.source for stage in plan(others, store=store).stages}
    assert found["finetune"] == "calibration"


def test_an_unknown_cost_is_said_and_not_guessed():
    found = plan(spec(), calibration={"vae": 3600.0})
    assert found.unknown == ("finetune", "scores")
    assert found.device_hours == pytest.approx(4.0)


def test_a_budget_that_is_exceeded_is_refused_with_the_numbers():
    assert plan(spec(budget={"device_hours": 7.7})).refused is None
    refused = plan(spec(budget={"device_hours": 7.5})).refused
    assert refused is not None
    assert "7.60 device hours to go" in refused
    assert "budget of 7.5" in refused


def test_a_plan_promises_what_the_run_will_charge():
    """Workers times what each reserves, for what is trained; all else is built by one."""
    four = {"workers": 4, "cpus": 2}
    resources = {"default": {"cpus": 2}, "stages": {"finetune": four, "scores": four}}
    found = plan(spec(resources=resources), cluster=Cluster(cpus=64))
    each = {stage.stage: stage.seconds_each for stage in found.stages}
    # What one worker takes does not depend on how many share it.
    assert each == {"vae": 2 * 3600, "finetune": 2 * 1800, "scores": 2 * 360}
    wall = {stage.stage: stage.wall_seconds_each for stage in found.stages}
    assert wall == {"vae": 3600, "finetune": 1800 / 4, "scores": 360}
    assert found.wall_seconds == pytest.approx(4 * 3600 + 6 * 450 + 6 * 360)
    assert found.device_hours == pytest.approx(2 * 7.6)
    assert found.refused is None
    little = spec(resources=resources, budget={"device_hours": 15})
    assert "15.20 device hours to go" in plan(little, cluster=Cluster(cpus=64)).refused
    gpus = spec(resources={"default": {"cpus": 8, "gpus": 0.5}})
    assert plan(gpus, cluster=Cluster(cpus=64, gpus=1)).device_hours == pytest.approx(7.6 / 2)


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"stages": {"finetune": {"workers": 4, "gpus": 1}}}, "4 workers x 1 GPUs = 4, .* has 2"),
        ({"default": {"cpus": 9}}, "1 workers x 9 CPUs = 9, .* has 8"),
        ({"stages": {"vae": {"gpus": 2, "workers": 1}}}, "2 GPUs for one worker, .* has 1"),
    ],
)
def test_a_worker_group_larger_than_the_cluster_is_refused(resources, message):
    cluster = Cluster(cpus=8, gpus=2, node_gpus=1)
    refused = plan(spec(resources=resources), cluster=cluster).refused
    assert refused is not None
    assert re.search(message, refused), refused
    fitting = {"stages": {"finetune": {"workers": 4, "minimum_workers": 2, "gpus": 1}}}
    assert plan(spec(resources=fitting), cluster=cluster).refused is None


def test_a_stage_that_one_worker_builds_is_given_the_room_of_one():
    nine = {"workers": 9, "cpus": 1}
    alone = plan(spec(resources={"stages": {"scores": nine}}), cluster=Cluster(cpus=8))
    assert alone.refused is None
    assert "9 workers" in str(
        plan(spec(resources={"stages": {"vae": nine}}), cluster=Cluster(cpus=8)).refused
    )


def planned_training(space, **finetune):
    """The plan of a real method's search over a batch size."""
    search = {"space": space, "num_trials": 4, "objective": {"metric": "auroc"}, "sampler": "grid"}
    study = parse_study(
        {
            "name": "worker_groups",
            "base": {"method": "namd", "preset": "tiny"},
            "search": search,
            "resources": {"stages": {"finetune": finetune}},
        }
    )
    cluster = Cluster(cpus=8)
    return make_study_plan(study, Configurator(study), cluster, cohort_digest=str)


def test_a_worker_group_that_cannot_share_a_batch_is_refused_with_the_numbers():
    """Each distinct training is looked at: here the second choice's."""
    space = {"finetune.batch_size": {"choice": [8, 6]}}
    refused = planned_training(space, workers=4).refused
    assert refused == (
        "stage finetune: a global batch of 6 cannot be shared equally by 4 workers; choose a "
        "number of workers that divides it"
    )
    for fitting in ({"workers": 2}, {"workers": 4, "minimum_workers": 2}):
        assert planned_training(space, **fitting).refused is None
    assert planned_training({"finetune.batch_size": {"choice": [8, 4]}}, workers=4).refused is None


@pytest.mark.parametrize(
    ("cpus", "gpus", "need", "peak"),
    [
        (64, 0, {}, 6),
        (3, 0, {}, 3),
        (64, 2, {"gpus": 1}, 2),
        (64, 2, {"gpus": 0.5}, 4),
        (64, 2, {"gpus": 0.25}, 6),
    ],
)
def test_the_peak_is_what_there_is_to_do_and_room_for(cpus, gpus, need, peak):
    found = plan(spec(resources={"default": need}), cluster=Cluster(cpus=cpus, gpus=gpus))
    assert found.peak_concurrency == peak
    limited = spec(resources={"default": need, "concurrency": 1})
    assert plan(limited, cluster=Cluster(cpus=cpus, gpus=gpus)).peak_concurrency == 1


@pytest.mark.parametrize(("sampler", "guessed"), [("random", False), ("tpe", True)])
def test_a_search_is_planned_with_its_confirmation(sampler, guessed):
    study = toy.search_spec(sampler=sampler, num_trials=6, confirm_seeds=2)
    found = plan(study)
    assert found.trials == 6 + 2
    assert found.estimated == guessed
    assert found.stages_total == 3 * 8
