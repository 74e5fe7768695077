"""What no other one beats."""

from namd.statistics.pareto import pareto_front


def test_of_one_part_the_first_of_the_best_is_returned():
    assert pareto_front({0: (0.1,), 1: (0.3,), 2: (0.3,)}) == [1]
    assert pareto_front({}) == []


def test_of_several_parts_all_unbeaten_ones_are_returned():
    scores = {0: (1.0, 0.0), 1: (0.0, 1.0), 2: (0.5, 0.5), 3: (0.4, 0.5), 4: (0.0, 0.0)}
    assert pareto_front(scores) == [0, 1, 2]


def test_equals_do_not_beat_one_another():
    assert pareto_front({0: (1.0, 1.0), 1: (1.0, 1.0), 2: (1.0, 0.9)}) == [0, 1]
