"""How many arms a design has, and what a fraction can separate."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from namd.config.errors import ConfigError
from namd.study.designs import FULL, make_arms, make_fraction, merge_duplicates


def toggles(count: int) -> dict[str, dict[str, float]]:
    return {f"t{n}": {f"part{n}.weight": 0.0} for n in range(count)}


@pytest.mark.parametrize("count", range(1, 7))
def test_designs_have_the_textbook_number_of_arms(count):
    assert len(make_arms("arms", toggles(count))) == 1 + count
    assert len(make_arms("leave-one-out", toggles(count))) == 1 + count
    assert len(make_arms("pairwise", toggles(count))) == 1 + count + count * (count - 1) // 2
    assert len(make_arms("factorial", toggles(count))) == 2**count


@pytest.mark.parametrize("design", ["arms", "leave-one-out", "pairwise", "factorial"])
def test_the_reference_comes_first_and_each_arm_once(design):
    arms = make_arms(design, toggles(4))
    assert (arms[0].name, dict(arms[0].overrides)) == (FULL, {})
    assert len({arm.name for arm in arms}) == len(arms) == len({arm.applied for arm in arms})
    for arm in arms:
        assert set(arm.overrides) == {f"part{name[1:]}.weight" for name in arm.applied}


def test_arms_are_named_as_the_paper_names_them():
    names = [
        arm.name for arm in make_arms("pairwise", {"align": {"a.b": 0}, "predict": {"c.d": 0}})
    ]
    assert names == ["full", "no_align", "no_predict", "no_align_no_predict"]
    assert [a.name for a in make_arms("arms", {"authors": {"a.b": 0}})] == ["full", "authors"]


def signs(fraction) -> np.ndarray:
    return np.array(fraction.runs())


def measured_resolution(table: np.ndarray) -> int:
    """The least number of factors whose product is the same in every run, from the runs alone."""
    factors = range(table.shape[1])
    for size in range(1, table.shape[1] + 1):
        for chosen in itertools.combinations(factors, size):
            if abs(table[:, list(chosen)].prod(axis=1).sum()) == len(table):
                return size
    return table.shape[1] + 1


@pytest.mark.parametrize("count", range(3, 10))
@pytest.mark.parametrize("resolution", [3, 4, 5])
def test_a_fraction_has_its_stated_resolution(count, resolution):
    fraction = make_fraction([f"t{n}" for n in range(count)], resolution)
    table = signs(fraction)
    assert len({tuple(row) for row in table}) == 2**fraction.num_base == len(table)
    assert (table[0] == 1).all()
    assert measured_resolution(table) == fraction.resolution
    assert fraction.resolution >= resolution or not fraction.words
    assert (table.sum(axis=0) == 0).all()


@pytest.mark.parametrize(
    ("count", "resolution", "runs"),
    [(3, 3, 4), (7, 3, 8), (15, 3, 16), (4, 4, 8), (8, 4, 16), (5, 5, 16), (6, 5, 32), (7, 5, 64)],
)
def test_fractions_are_as_small_as_the_tables_say(count, resolution, runs):
    """Box, Hunter and Hunter, Statistics for Experimenters, table 6.22."""
    assert len(make_fraction([f"t{n}" for n in range(count)], resolution).runs()) == runs


@given(st.integers(3, 8), st.integers(3, 5))
def test_aliases_are_what_the_runs_cannot_separate(count, resolution):
    names = [f"t{n}" for n in range(count)]
    fraction = make_fraction(names, resolution)
    table = dict(zip(names, signs(fraction).T, strict=True))
    effects = [frozenset(c) for size in (1, 2) for c in itertools.combinations(names, size)]
    for effect in effects:
        column = np.prod([table[name] for name in effect], axis=0)
        same = {
            other
            for other in effects
            if other != effect
            and (np.prod([table[name] for name in other], axis=0) == column).all()
        }
        assert set(fraction.aliases(effect, 2)) == same
        if len(effect) == 1 and resolution >= 4:
            assert not same


def test_resolution_three_does_alias_a_main_effect_with_a_pair():
    """The twin of the law above: what a smaller resolution gives up."""
    fraction = make_fraction(["a", "b", "c"], 3)
    assert fraction.aliases(frozenset("a"), 2) == [frozenset("bc")]


def test_a_fraction_leaves_out_arms_and_a_resolution_below_three_is_refused():
    arms = make_arms("fractional", toggles(5), 5)
    assert len(arms) == 16
    assert arms[0].name == FULL
    with pytest.raises(ConfigError, match="below 3"):
        make_arms("fractional", toggles(5), 2)


def test_toggles_that_contradict_each_other_are_refused():
    clashing = {"one": {"a.b": 0}, "two": {"a.b": 1}}
    assert len(make_arms("leave-one-out", clashing)) == 3
    with pytest.raises(ConfigError, match="another toggle"):
        make_arms("pairwise", clashing)
    agreeing = {"one": {"a.b": 0}, "two": {"a.b": 0, "c.d": 1}}
    assert len(make_arms("pairwise", agreeing)) == 4


def test_a_design_that_explodes_is_refused():
    with pytest.raises(ConfigError, match="more than 1024"):
        make_arms("factorial", toggles(11))
    assert len(make_arms("factorial", toggles(10))) == 1024


def test_arms_of_one_configuration_are_merged():
    arms = make_arms("pairwise", {"one": {"a.b": 0}, "two": {"a.b": 0, "c.d": 1}})
    merged = merge_duplicates(arms, lambda arm: str(sorted(arm.overrides.items())))
    assert [arm.name for arm in merged] == ["full", "no_one", "no_two"]
    assert merged[2].aliases == ("no_one_no_two",)


def test_two_arms_of_one_name_are_refused():
    toggles = {"a": {"x": 0}, "b": {"y": 0}, "a_no_b": {"z": 0}}
    with pytest.raises(ConfigError, match=r"'no_a_no_b'.*\(a_no_b\) and \(a, b\).*rename"):
        make_arms("pairwise", toggles)
    assert len(make_arms("leave-one-out", toggles)) == 4
    assert len(make_arms("pairwise", {"a": {"x": 0}, "b": {"y": 0}, "c": {"z": 0}})) == 7


@pytest.mark.parametrize(
    ("count", "resolution", "message"),
    [
        (20, 5, "20 toggles, and no smallest fraction was found"),
        (40, 3, "40 toggles, a fraction has at most 26"),
        (25, 3, "25 toggles in 32 runs, 20 more than its 5 base factors"),
        (12, 12, "12 toggles need more than 1024 runs"),
    ],
)
def test_a_fraction_that_cannot_be_found_in_time_is_refused(count, resolution, message):
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=message):
        make_arms("fractional", toggles(count), resolution)
    assert time.monotonic() - begun < 30
    assert len(make_fraction(list(toggles(12)), 5).runs()) == 256
    assert len(make_fraction(list(toggles(21)), 3).words) == 2**16 - 1
