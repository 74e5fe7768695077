"""Laws for every registered method; a new one passes them by standing in the registry."""

import dataclasses

import pytest

from namd.methods.registry import METHODS
from namd.methods.source_hash import reachable
from namd.pipeline.run_configuration import resolve
from tests.conformance.laws import keys, planned, unread

EVERY = [(method, preset) for method in METHODS.values() for preset in method.presets]
NAMES = [f"{method.name}-{preset}" for method, preset in EVERY]
every = pytest.mark.parametrize(("method", "preset"), EVERY, ids=NAMES)

REPORT_ONLY = {f"evaluate.{n}" for n in ("coverage", "interval", "num_bootstrap", "bootstrap_seed")}
"""Read when a table is formed from scores that are in the store: they retrain nothing."""


@pytest.mark.parametrize(
    ("method", "preset"),
    [(method, end) for method in METHODS.values() for end in (method.presets[0], "paper")],
)
def test_a_value_that_moves_no_key_is_one_that_no_stage_reads(method, preset):
    silent, tried = unread(method, preset)
    made = {stage.name for stage in resolve(preset, methods={method.name: method}).stages()}
    elsewhere = {path for path in silent if path.partition(".")[0] not in made | {"evaluate"}}
    assert silent - elsewhere == REPORT_ONLY
    # A section whose stage this preset does not have (its loss reads real weights instead).
    assert {path.partition(".")[0] for path in elsewhere} <= {"perceptual"} - made
    assert tried > 100


def test_a_value_that_a_stage_forgot_to_declare_is_found():
    method = METHODS["namd"]

    def forgetful(config):
        return tuple(
            dataclasses.replace(stage, reads=tuple(p for p in stage.reads if p != "pretrain"))
            for stage in method.stages(config)
        )

    silent, _ = unread(dataclasses.replace(method, stages=forgetful), "tiny")
    assert {"pretrain.learning_rate", "pretrain.batch_size"} <= silent


@every
def test_keys_are_distinct_and_every_input_is_made_before_it_is_read(method, preset):
    made: dict[tuple[str, str], str] = {}
    for node in planned(resolve(preset, methods={method.name: method})):
        assert all(place in made for place in node.inputs.values())
        made[node.stage.name, node.key] = node.label
    assert len({key for _, key in made}) == len(made)


@every
def test_more_draws_leave_every_earlier_key_alone(method, preset):
    few, many = (
        keys(resolve(preset, None, [f"evaluate.num_draws={num}"], {method.name: method}))
        for num in (3, 5)
    )
    more = {label for label in many if label not in few}
    assert few.items() <= many.items()
    assert more if method.stochastic else not more


@every
def test_another_training_seed_is_another_model_and_the_same_judge(method, preset):
    one, two = (
        keys(resolve(preset, None, [f"train_seed={seed}"], {method.name: method}))
        for seed in (1, 2)
    )
    moved = {label.partition("[")[0] for label in one if one[label] != two[label]}
    assert any(label.startswith("scores-") for label in moved)
    assert "judge" not in moved


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_bodies_load_and_reach_neither_the_cluster_nor_the_tracker(method):
    for stage in resolve(method.presets[0], methods={method.name: method}).stages():
        assert callable(stage.load_body())
        found = reachable(stage.body.partition(":")[0])
        assert stage.body.partition(":")[0] in found
        assert not [
            name for name in found if name.startswith(("namd.distributed", "namd.tracking"))
        ]
