"""The demo says how long it takes here: fewer, slower or busier cores take longer."""

import itertools

import pytest

from namd.cli import demo
from namd.cli.demo_estimate import QUIET_PROBE_S, demo_seconds, slowness_of
from namd.study.plan import Cluster


def test_two_quiet_cores_take_seven_to_nine_minutes():
    assert 7 * 60 <= demo_seconds(2, 1.0) <= 9 * 60


def test_fewer_or_busier_cores_take_longer_and_many_do_not_make_it_vanish():
    assert demo_seconds(1, 1.0) == 2 * demo_seconds(2, 1.0)
    assert demo_seconds(2, 3.4) == pytest.approx(3.4 * demo_seconds(2, 1.0))
    assert demo_seconds(64, 1.0) == demo_seconds(1024, 1.0) > 300
    assert demo_seconds(0.5, 1.0) == demo_seconds(1, 1.0)


def test_slowness_is_the_clock_over_a_quiet_probe(monkeypatch):
    assert slowness_of(1) >= 0.1
    probed = []
    monkeypatch.setattr("namd.cli.demo_estimate._probe", probed.append)
    clock = itertools.count(0.0, 3 * QUIET_PROBE_S)
    assert slowness_of(2, lambda: next(clock)) == pytest.approx(3.0)
    assert [len(content) for content in probed] == [1 << 20] * 2, "one probe a core"


@pytest.mark.parametrize(
    ("slowness", "words"), [(1.0, "about 8 min on 2 cores"), (3.4, "about 27 min on")]
)
def test_what_is_announced_follows_from_this_machine(slowness, words, monkeypatch):
    monkeypatch.setattr("namd.cli.study_plan.cluster_at", lambda _address: Cluster(2.0))
    monkeypatch.setattr(demo, "slowness_of", lambda cores: slowness)
    assert words in demo.first_estimate()
