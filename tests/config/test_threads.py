"""Threads of arithmetic are fixed inside a block and as before behind it."""

import pytest
import torch
from threadpoolctl import threadpool_info

from namd.config.threads import fixed_threads, spare_threads


@pytest.fixture(autouse=True)
def _as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def counts() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info()} | {torch.get_num_threads()}


@pytest.mark.parametrize("outside", [1, 2, 3])
def test_the_count_holds_whatever_it_is_outside(outside):
    torch.set_num_threads(outside)
    with fixed_threads(2):
        assert counts() == {2}
    assert torch.get_num_threads() == outside


def test_a_failure_inside_restores_the_count():
    torch.set_num_threads(3)
    with pytest.raises(ZeroDivisionError), fixed_threads(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3


def test_batches_may_share_what_the_process_began_with(monkeypatch):
    monkeypatch.setattr("namd.config.threads.available_cpus", lambda: 8)
    torch.set_num_threads(3)
    assert spare_threads() == 3
    with fixed_threads(1):
        assert spare_threads() == 3
        with fixed_threads(2):
            assert (spare_threads(), torch.get_num_threads()) == (3, 2)
        assert (spare_threads(), torch.get_num_threads()) == (3, 1)
    assert spare_threads() == 3


def test_batches_never_share_more_than_the_cores_that_a_quota_leaves(monkeypatch):
    monkeypatch.setattr("namd.config.threads.available_cpus", lambda: 2)
    torch.set_num_threads(3)
    assert spare_threads() == 2
    torch.set_num_threads(1)
    assert spare_threads() == 1


def test_sums_differ_between_counts_so_the_law_is_worth_having():
    values = torch.rand(2_000_003, generator=torch.Generator().manual_seed(0)) - 0.5
    with fixed_threads(1):
        one = values.sum()
    with fixed_threads(2):
        two = values.sum()
    assert one != two
    assert torch.isclose(one, two, atol=1e-2)
