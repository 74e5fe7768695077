"""Laws for every registered method; a new one passes them by standing in the registry.

The three throw-away methods of `tests/throwaway` stand beside them: the laws hold for methods of
other shapes than those that are registered today.
"""

import dataclasses

import pytest

from namd.config.presets import preset_names
from namd.methods.base import Method
from namd.methods.registry import METHODS
from namd.methods.shared.settings import MethodConfig
from namd.methods.source_hash import reachable
from namd.pipeline.run_configuration import resolve
from tests import throwaway
from tests.conformance.laws import planned, unread

ALL: dict[str, Method] = {**METHODS, **throwaway.METHODS}
EVERY = [(method, preset) for method in ALL.values() for preset in method.presets]
NAMES = [f"{method.name}-{preset}" for method, preset in EVERY]
every = pytest.mark.parametrize(("method", "preset"), EVERY, ids=NAMES)
every_method = pytest.mark.parametrize("method", ALL.values(), ids=ALL)

REPORT_ONLY = {f"evaluate.{n}" for n in ("coverage", "interval", "num_bootstrap", "bootstrap_seed")}
"""Read when a table is formed from scores that are in the store: they retrain nothing."""

OWNERS = {"perceptual", "trunks"}
"""Sections whose stage or weights a preset may do without (its loss reads real weights, say)."""

SHARED = {"judge", "reference", "ideal", "train_crops"}
OWN_JUDGE = {"paper-authors-code"}
"""Presets that only one method can have: they repeat its authors' choices."""


def test_the_registry_says_what_each_method_is_called():
    assert [method.name for method in ALL.values()] == list(ALL)
    assert len({method.title for method in ALL.values()}) == len(ALL)


@every_method
def test_a_method_states_its_presets_and_what_its_rungs_measure(method):
    assert issubclass(method.config_class, MethodConfig)
    assert method.config_class().method == method.name
    assert sorted(method.presets) == preset_names(method.preset_folder)
    described = {name: method.describe_preset(name) for name in method.presets}
    assert len(set(described.values())) == len(described)
    assert all(len(f"{name:20}{about}") <= 80 for name, about in described.items())
    assert "about" not in method.preset("tiny")
    names = {stage.name for stage in resolve("tiny", None, [f"method={method.name}"], ALL).stages()}
    names |= {name.replace("-test", "-validation") for name in names}
    for stage, metric in method.default_rungs.items():
        assert metric in (method.rung_metrics or {})[stage]
    for stage, metrics in (method.rung_metrics or {}).items():
        assert stage in names
        assert set(metrics.values()) <= {"min", "max"}
        assert not {name for name in metrics if name.endswith("loss")}
        assert metrics


@pytest.mark.parametrize(
    ("method", "preset"),
    [(m, end) for m in ALL.values() for end in dict.fromkeys((m.presets[0], m.presets[-1]))],
)
def test_a_value_that_moves_no_key_is_one_that_no_stage_reads(method, preset):
    silent, tried = unread(method, preset)
    made = {stage.family for stage in resolve(preset, None, [], {method.name: method}).stages()}
    elsewhere = {path for path in silent if path.partition(".")[0] not in made | {"evaluate"}}
    assert silent - elsewhere == REPORT_ONLY
    assert {path.partition(".")[0] for path in elsewhere} <= OWNERS - made
    assert tried > 30


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
        {
            (node.label, node.key): node.stage.role
            for node in planned(
                resolve(preset, None, [f"evaluate.num_draws={num}"], {method.name: method})
            )
        }
        for num in (3, 5)
    )
    assert few.items() <= many.items()
    more = [role for node, role in many.items() if node not in few]
    differ = method.draws_differ(resolve(preset, methods={method.name: method}).config)
    for role in ("draw", "score", "copies"):
        assert more.count(role) == (2 if differ else 0)


@every
def test_another_training_seed_is_another_model_and_the_same_judge(method, preset):
    one, two = (
        planned(resolve(preset, None, [f"train_seed={seed}"], {method.name: method}))
        for seed in (1, 2)
    )
    moved = {a.stage.family for a, b in zip(one, two, strict=True) if a.key != b.key}
    assert "scores" in moved
    assert not moved & {"judge", "reference", "ideal", "train_crops"}


@every
def test_mending_a_drawer_moves_the_keys_of_its_draws_and_scores_alone(method, preset):
    def mended(config):
        return tuple(
            stage
            if stage.drawer is None
            else dataclasses.replace(
                stage,
                drawer=dataclasses.replace(
                    stage.drawer, code_version=stage.drawer.code_version + 1
                ),
            )
            for stage in method.stages(config)
        )

    other = dataclasses.replace(method, stages=mended)
    before, after = (
        planned(resolve(preset, None, [f"method={m.name}"], {m.name: m})) for m in (method, other)
    )
    moved = {a.stage.role for a, b in zip(before, after, strict=True) if a.key != b.key}
    assert moved == {"draw", "score", "copies"}


def test_methods_with_equal_settings_share_judge_and_rows():
    small = list(throwaway.METHODS.values())
    shared = [
        {
            (node.stage.name, node.key)
            for node in planned(resolve("tiny", None, [f"method={m.name}"], ALL))
            if node.stage.family in ("judge", "reference", "ideal", "train_crops")
        }
        for m in (*small, METHODS["namd"])
    ]
    assert shared[0] == shared[1] == shared[2] == shared[3]
    assert len(shared[0]) == 5


@every_method
def test_bodies_load_and_reach_neither_the_cluster_nor_the_tracker(method):
    for stage in resolve(method.presets[0], methods={method.name: method}).stages():
        assert callable(stage.load_body())
        found = reachable(stage.body.partition(":")[0])
        assert stage.body.partition(":")[0] in found
        assert not [
            name for name in found if name.startswith(("namd.distributed", "namd.tracking"))
        ]


def test_presets_of_one_name_share_the_judge_and_every_row_without_a_model():
    for preset in dict.fromkeys(name for method in METHODS.values() for name in method.presets):
        with_it = [method for method in METHODS.values() if preset in method.presets]
        found = {
            frozenset(
                (node.label, node.key)
                for node in planned(resolve(preset, methods={method.name: method}))
                if node.stage.family in SHARED
            )
            for method in with_it
            if preset not in OWN_JUDGE
        }
        assert len(found) <= 1, preset
