"""So many trials are under way that everything that may be built is asked for."""

import pytest

from namd.distributed.driver import MAX_DRIVERS, num_drivers


@pytest.mark.parametrize(("peak", "num"), [(0, 2), (1, 2), (8, 9), (1000, MAX_DRIVERS)])
def test_without_a_wish_the_nodes_of_now_decide(peak, num):
    assert num_drivers(peak, None) == num


@pytest.mark.parametrize(
    ("peak", "concurrency", "num"), [(1, 8, 9), (0, 8, 9), (1, 1, 2), (1, 1000, MAX_DRIVERS)]
)
def test_a_cluster_that_can_grow_is_asked_for_what_the_study_file_wants(peak, concurrency, num):
    assert num_drivers(peak, concurrency) == num
