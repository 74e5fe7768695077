"""A parameter whose condition is false is absent; a point is what its overrides say."""

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from namd.config.errors import ConfigError
from namd.study.space import parse_space

SPACE = {
    "align": {"choice": [True, False]},
    "vae.alignment.weight": {"log_uniform": [0.01, 10], "when": "align", "else": 0},
    "vae.alignment.sigma_f": {"log_uniform": [0.25, 8], "when": "align"},
    "finetune.report.include": {"when": "not align", "else": []},
    "finetune.soft_prompt.num_sets": {"choice": [1, 2, 4, 8]},
    "finetune.soft_prompt.num_vectors": {
        "int": [1, 16],
        "when": {"finetune.soft_prompt.num_sets": [2, 4]},
    },
}


def suggest(seed: int) -> dict:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return parse_space(SPACE).suggest(study.ask())


@given(st.integers(0, 10_000))
def test_a_parameter_is_there_exactly_if_its_condition_holds(seed):
    point = suggest(seed)
    assert ("vae.alignment.sigma_f" in point) == point["align"]
    sets = point["finetune.soft_prompt.num_sets"]
    assert ("finetune.soft_prompt.num_vectors" in point) == (sets in (2, 4))
    assert parse_space(SPACE).admits(point)


@given(st.integers(0, 10_000))
def test_overrides_set_else_values_and_leave_the_absent_alone(seed):
    point = suggest(seed)
    overrides = parse_space(SPACE).overrides(point)
    assert "align" not in overrides
    assert ("vae.alignment.sigma_f" in overrides) == point["align"]
    if point["align"]:
        assert 0.01 <= overrides["vae.alignment.weight"] <= 10
        assert overrides["finetune.report.include"] == []
    else:
        assert overrides["vae.alignment.weight"] == 0
        assert "finetune.report.include" not in overrides


def test_a_space_without_the_condition_sets_it_always():
    """The twin: drop `when`, and the parameter is never absent."""
    space = dict(SPACE)
    space["vae.alignment.sigma_f"] = {"log_uniform": [0.25, 8]}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [parse_space(space).suggest(study.ask()) for _ in range(20)]
    assert any(not point["align"] for point in points)
    assert all("vae.alignment.sigma_f" in point for point in points)


def test_a_grid_holds_each_point_once_and_conditions_cut_branches():
    space = parse_space(
        {
            "align": {"choice": [True, False]},
            "a.weight": {"log_uniform": [0.01, 1], "points": 3, "when": "align", "else": 0},
            "a.sets": {"int": [1, 2]},
        }
    )
    grid = list(space.grid())
    assert len(grid) == (3 + 1) * 2
    assert len({tuple(sorted(point.items())) for point in grid}) == len(grid)
    assert all(space.admits(point) for point in grid)
    weights = sorted({point["a.weight"] for point in grid if point["align"]})
    assert weights == pytest.approx([0.01, 0.1, 1.0])


def test_a_grid_needs_points():
    with pytest.raises(ConfigError, match="points"):
        list(parse_space({"a.b": {"uniform": [0, 1]}}).grid())


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"a.b": {"int": [0, 10**9]}}, r"1,000,000,001 points \(a\.b 1,000,000,001\)"),
        ({"a.b": {"uniform": [0, 1], "points": 10**9}}, "1,000,000,000 points"),
        ({f"a.p{n}": {"int": [1, 30]} for n in range(6)}, r"729,000,000 points \(a\.p0 30, "),
        (
            {
                "s": {"choice": [True, False]},
                **{f"a.p{n}": {"int": [1, 30], "when": "s"} for n in range(6)},
            },
            "more than 100,000 points",
        ),
    ],
)
def test_a_grid_that_explodes_is_refused_before_it_is_made(space, message):
    with pytest.raises(ConfigError, match=message):
        parse_space(space).require_grid()
    parse_space({"a.b": {"log_int": [1, 10**9], "points": 10}}).require_grid()


def test_branches_that_conditions_cut_off_count_for_nothing():
    branches = {f"b.p{n}": {"int": [1, 30], "when": {"a.which": n}} for n in range(6)}
    space = parse_space({"a.which": {"int": [0, 5]}, **branches})
    space.require_grid()
    assert len(list(space.grid())) == 6 * 30


def test_lists_may_be_choices():
    space = parse_space({"a.include": {"choice": [[], ["age"]]}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    values = [space.suggest(study.ask())["a.include"] for _ in range(20)]
    assert [] in values
    assert ["age"] in values


def test_conditions_that_agree_along_the_way_are_taken():
    space = parse_space(
        {
            "s": {"choice": [1, 2, 3]},
            "t": {"choice": [1, 2], "when": {"s": [1, 2]}},
            "a.b": {"int": [1, 2**53], "when": {"t": 1, "s": [2, 3]}},
        }
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    points = [space.suggest(study.ask()) for _ in range(60)]
    assert {point["s"] for point in points if "a.b" in point} == {2}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"a.b": {"unifrom": [0, 1]}}, "did you mean uniform"),
        ({"a.b": {"uniform": [1, 0]}}, "must be below"),
        ({"a.b": {"uniform": [0, "x"]}}, "two numbers"),
        ({"a.b": {"int": [0.5, 2]}}, "whole numbers"),
        ({"a.b": {"log_uniform": [0, 1]}}, "above 0"),
        ({"a.b": {"choice": []}}, "list of values"),
        ({"a.b": {"choice": [1, 1]}}, "stands twice"),
        ({"a.b": {"uniform": [0, 1], "int": [0, 1]}}, "exactly one"),
        ({"a.b": {"uniform": [0, 1], "else": 3}}, "no `when`"),
        ({"a.b": {"uniform": [0, 1], "when": "c"}}, "no such parameter"),
        ({"alone": {"choice": [True, False]}}, "neither a path"),
        ({"s": {"choice": [1, 2]}, "a.b": {"uniform": [0, 1], "when": "s"}, "c": 3}, "mapping"),
        ({"s": {"choice": [2, 3]}, "a.b": {"uniform": [0, 1], "when": "s"}}, "never True"),
        (
            {
                "a.b": {"choice": [1, 2], "when": {"c.d": 1}},
                "c.d": {"choice": [1, 2], "when": {"a.b": 1}},
            },
            "ring",
        ),
        ({}, "at least one"),
        ({"a.b": {"int": [1, 10**400]}}, "two whole numbers"),
        ({"a.b": {"uniform": [0, float("inf")]}}, "two numbers"),
        ({"a.b": {"uniform": [-1.7e308, 1.7e308]}}, "too wide"),
        ({"a.b": {"choice": [float("nan"), 1]}}, "must be finite"),
        ({"a.b": {"choice": [[0.5, {"c": float("inf")}], 1]}}, "must be finite"),
        (
            {"s": {"choice": [True, False]}, "a.b": {"uniform": [0, 1], "when": {"s": []}}},
            r"a\.b\.when\.s=\[\]: no value is allowed",
        ),
        (
            {
                "s": {"choice": [1, 2]},
                "t": {"choice": [1, 2], "when": {"s": 1}},
                "a.b": {"uniform": [0, 1], "when": {"t": 1, "s": 2}},
            },
            r"a\.b\.when: the conditions on s exclude each other",
        ),
    ],
)
def test_unreadable_spaces_are_refused(space, message):
    with pytest.raises(ConfigError, match=message):
        parse_space(space)
    assert parse_space(SPACE).parameters
