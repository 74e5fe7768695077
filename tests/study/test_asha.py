"""Successive halving: a decision is a function of the records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from namd.study.asha import AshaSettings, Rung, RungRecord, decide, peers_of, replay

SETTINGS = AshaSettings(reduction=3, rungs=(Rung("probe", "probe_auroc"),))
VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def test_few_peers_stop_nobody_and_enough_do():
    assert decide(0.0, [0.9, 0.8], "max", SETTINGS) == "continue"
    assert decide(0.0, [0.9, 0.8, 0.7], "max", SETTINGS) == "stop"
    assert decide(1.0, [0.9, 0.8, 0.7], "max", SETTINGS) == "continue"
    assert decide(1.0, [0.9, 0.8, 0.7], "min", SETTINGS) == "stop"


@given(VALUES, st.floats(0, 1))
def test_the_best_goes_on_and_a_better_value_is_never_worse_off(peers, value):
    assert decide(max([*peers, value]), peers, "max", SETTINGS) == "continue"
    if decide(value, peers, "max", SETTINGS) == "continue":
        assert decide(value + 0.1, peers, "max", SETTINGS) == "continue"


@given(VALUES, st.randoms())
def test_the_order_of_peers_does_not_matter(peers, random):
    shuffled = list(peers)
    random.shuffle(shuffled)
    assert decide(0.5, peers, "max", SETTINGS) == decide(0.5, shuffled, "max", SETTINGS)


def test_a_value_that_is_not_finite_is_no_loser_but_divergence():
    with pytest.raises(ValueError, match="finite"):
        decide(float("nan"), [0.5] * 5, "max", SETTINGS)


def records(values: list[float]) -> list[RungRecord]:
    return [RungRecord(f"t{n}", "probe", value, n) for n, value in enumerate(values)]


@given(VALUES)
def test_asynchronous_decisions_replay_from_the_records(values):
    live, seen = [], []
    for record in records(values):
        peers = peers_of(record.trial, "probe", seen)
        live.append(decide(record.value, peers, "max", SETTINGS))
        seen.append(record)
    assert replay(SETTINGS, seen) == live


@given(VALUES, st.randoms())
def test_synchronous_decisions_do_not_depend_on_who_arrives_first(values, random):
    batch = {n: n - n % 4 for n in range(len(values))}
    ordered = records(values)
    shuffled = list(ordered)
    random.shuffle(shuffled)
    straight = dict(zip([r.trial for r in ordered], replay(SETTINGS, ordered, batch), strict=True))
    mixed = dict(zip([r.trial for r in shuffled], replay(SETTINGS, shuffled, batch), strict=True))
    assert straight == mixed


def test_asynchronous_decisions_do_depend_on_it():
    """The twin: what the synchronous order is for."""
    values = [0.9, 0.8, 0.7, 0.1]
    forward = replay(SETTINGS, records(values))
    backward = replay(SETTINGS, records(values)[::-1])
    assert forward[3] == "stop"
    assert backward[0] == "continue"


def test_rungs_know_their_names_and_when_they_are_reached():
    rung = Rung("finetune", "draw_auroc", 0.5)
    assert (Rung("vae", "probe_auroc").name, rung.name) == ("vae", "finetune@0.5")
    assert not rung.is_reached(49, 100)
    assert rung.is_reached(50, 100)


def test_a_loss_is_no_rung_metric():
    assert Rung("vae", "probe_auroc")
    with pytest.raises(ValueError, match="a loss"):
        Rung("vae", "validation_loss")


@pytest.mark.parametrize(
    "wrong",
    [{"reduction": 1}, {"minimum_peers": 0}, {"rungs": ()}, {"rungs": (Rung("vae", "a"),) * 2}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=r"reduction|minimum_peers|rungs"):
        AshaSettings(**wrong)
