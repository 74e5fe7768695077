from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from namd.config.errors import ConfigError, InputError
from namd.config.parsing import apply_overrides, merge, parse, to_mapping


@dataclass(frozen=True)
class Alignment:
    weight: float = 1.0
    sigma_f: float = 1.0
    features: Literal["standardised", "raw"] = "standardised"

    def __post_init__(self):
        if self.sigma_f <= 0:
            raise ValueError(f"sigma_f must be positive, got {self.sigma_f}")


@dataclass(frozen=True)
class Trunk:
    kind: Literal["trunk"] = "trunk"
    depth: int = 2


@dataclass(frozen=True)
class Ladder:
    kind: Literal["ladder"] = "ladder"
    rungs: int = 3


@dataclass(frozen=True)
class Root:
    name: str
    num_steps: int = 10
    verbose: bool = False
    alignment: Alignment = field(default_factory=Alignment)
    channels: tuple[int, ...] = (32, 64)
    betas: tuple[float, float] = (0.5, 0.9)
    maybe: float | None = None
    size: int | str = "auto"
    terms: dict[str, float] = field(default_factory=dict)
    net: Trunk | Ladder = field(default_factory=Trunk)
    nets: Trunk | tuple[Trunk, ...] = ()
    seeds: int | tuple[int, ...] = 1
    mode: int | Literal["auto", "off"] | None = None
    angle: Literal[0, 90, "auto"] = 0


def test_a_full_mapping_becomes_the_dataclass_and_comes_back():
    mapping = {
        "name": "x",
        "num_steps": 3,
        "verbose": True,
        "alignment": {"weight": 0, "sigma_f": 2.5, "features": "raw"},
        "channels": [1, 2, 3],
        "betas": [0, 1],
        "maybe": 0.5,
        "size": 7,
        "terms": {"a": 1},
        "net": {"kind": "ladder", "rungs": 4},
        "angle": 90,
    }
    config = parse(Root, mapping)
    assert config.alignment == Alignment(0.0, 2.5, "raw")
    assert isinstance(config.alignment.weight, float)
    assert config.channels == (1, 2, 3)
    assert config.net == Ladder(rungs=4)
    assert parse(Root, to_mapping(config)) == config


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"nam": "x"}, ["nam='x'", "unknown key", "did you mean name?"]),
        (
            {"name": "x", "alignment": {"weigth": 2}},
            ["alignment.weigth=2", "did you mean alignment.weight?"],
        ),
        ({"name": "x", "zzz": 1}, ["zzz=1", "unknown key", "valid: name"]),
        ({}, ["name is missing"]),
        ({"name": 3}, ["name=3", "text"]),
        ({"name": "x", "num_steps": 1.5}, ["num_steps=1.5", "whole number"]),
        ({"name": "x", "num_steps": True}, ["num_steps=True", "whole number"]),
        ({"name": "x", "maybe": True}, ["maybe=True"]),
        ({"name": "x", "verbose": 1}, ["verbose=1", "true or false"]),
        ({"name": "x", "alignment": {"weight": float("nan")}}, ["alignment.weight", "finite"]),
        ({"name": "x", "alignment": {"weight": float("inf")}}, ["alignment.weight", "finite"]),
        ({"name": "x", "alignment": {"weight": 10**400}}, ["alignment.weight", "finite"]),
        ({"name": "x", "alignment": {"sigma_f": 0}}, ["alignment:", "sigma_f", "got 0.0"]),
        ({"name": "x", "alignment": {"features": "rew"}}, ["alignment.features='rew'", "raw?"]),
        ({"name": "x", "alignment": 3}, ["alignment=3", "mapping", "sigma_f"]),
        ({"name": "x", "channels": [1, "2"]}, ["channels[1]='2'"]),
        ({"name": "x", "channels": "12"}, ["channels='12'", "a list"]),
        ({"name": "x", "betas": [1, 2, 3]}, ["betas", "a list of 2"]),
        ({"name": "x", "terms": {"a": "b"}}, ["terms.a='b'"]),
        ({"name": "x", "net": {"kind": "tower"}}, ["net.kind='tower'"]),
        ({"name": "x", "size": 1.5}, ["size=1.5", "whole number", "text"]),
        ({"name": "x", "angle": False}, ["angle=False", "one of 0, 90, auto"]),
    ],
)
def test_a_wrong_mapping_is_refused_in_one_line_naming_path_and_value(mapping, words):
    with pytest.raises(ConfigError) as refused:
        parse(Root, mapping)
    message = str(refused.value)
    assert "\n" not in message
    assert isinstance(refused.value, InputError)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"seeds": "x"}, "seeds='x': expected a whole number or a list of whole numbers"),
        ({"seeds": {"a": 1}}, "seeds={'a': 1}: expected a whole number or a list of whole numbers"),
        ({"seeds": [1, "x"]}, "seeds[1]='x': expected a whole number"),
        ({"size": 1.5}, "size=1.5: expected a whole number or text"),
        ({"maybe": "x"}, "maybe='x': expected a number or null"),
        ({"maybe": float("inf")}, "maybe=inf: expected a finite number or null"),
        (
            {"nets": 3},
            "nets=3: expected a mapping (kind, depth) or a list of mappings (kind, depth)",
        ),
        ({"nets": {"dept": 3}}, "nets.dept=3: unknown key; did you mean nets.depth?"),
        ({"nets": [{"depth": "x"}]}, "nets[0].depth='x': expected a whole number"),
        ({"net": {"kind": "tower"}}, "net.kind='tower': expected one of trunk, ladder"),
        (
            {"net": {"kind": "ladder", "rung": 2}},
            "net.rung=2: unknown key; did you mean net.rungs?",
        ),
        (
            {"mode": "of"},
            "mode='of': expected a whole number, one of auto, off or null; did you mean off?",
        ),
    ],
)
def test_a_union_says_once_and_in_words_what_it_accepts(mapping, message):
    with pytest.raises(ConfigError) as refused:
        parse(Root, {"name": "x", **mapping})
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("seeds", 3, 3),
        ("seeds", [1, 2], (1, 2)),
        ("size", "big", "big"),
        ("size", 3, 3),
        ("maybe", None, None),
        ("maybe", 2, 2.0),
        ("nets", {"depth": 3}, Trunk(depth=3)),
        ("nets", [{"depth": 3}, {}], (Trunk(depth=3), Trunk())),
        ("net", {"rungs": 4}, Ladder(rungs=4)),
        ("mode", "off", "off"),
        ("mode", 3, 3),
    ],
)
def test_a_union_takes_each_of_its_kinds(name, value, parsed):
    assert getattr(parse(Root, {"name": "x", name: value}), name) == parsed


def test_an_int_serves_as_float_but_a_bool_as_neither():
    assert parse(Alignment, {"weight": 2}).weight == 2.0
    with pytest.raises(ConfigError):
        parse(Alignment, {"weight": True})


def test_a_field_type_no_configuration_can_hold_is_the_programs_fault():
    @dataclass(frozen=True)
    class Bad:
        values: set[int] = frozenset()

    with pytest.raises(TypeError, match="values"):
        parse(Bad, {"values": [1]})


def test_overrides_reach_any_depth_and_read_yaml():
    base = {"alignment": {"weight": 1.0}, "name": "x"}
    result = apply_overrides(
        base, ["alignment.weight=1e-6", "channels=[1, 2]", "maybe=null", "name=no", "terms.a=2"]
    )
    assert result == {
        "alignment": {"weight": 1e-6},
        "name": "no",
        "channels": [1, 2],
        "maybe": None,
        "terms": {"a": 2},
    }
    assert base == {"alignment": {"weight": 1.0}, "name": "x"}


@pytest.mark.parametrize("override", ["alignment", "=3", "a..b=1", ".a=1", "name.first=1", "a=[1"])
def test_a_malformed_override_is_refused(override):
    with pytest.raises(ConfigError):
        apply_overrides({"name": "x"}, [override])


def test_merge_lays_mappings_over_mappings_and_replaces_the_rest():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}}
    layer = {"a": {"c": [3]}, "d": None}
    assert merge(base, layer) == {"a": {"b": 1, "c": [3]}, "d": None}
    assert base["a"] == {"b": 1, "c": [1, 2]}


@given(
    weight=st.floats(allow_nan=False, allow_infinity=False),
    steps=st.integers(),
    channels=st.lists(st.integers()),
    terms=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
)
def test_round_trip_through_a_plain_mapping(weight, steps, channels, terms):
    config = Root("n", steps, True, Alignment(weight), tuple(channels), terms=terms)
    assert parse(Root, to_mapping(config)) == config
