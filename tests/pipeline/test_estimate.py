"""A recorded artifact predicts another's cost only if their counts are of one order."""

from dataclasses import replace

import pytest
from toy_run import cohort_digest, configure

from namd.pipeline.estimate import nearest_cost
from namd.pipeline.graph import Node, make_plan


def node(**values) -> Node:
    configuration = configure()
    plan = make_plan(configuration.stages(), configuration.config, cohort_digest=cohort_digest)
    return replace(plan.nodes[0], identity={"slice": values})


def recorded(seconds, **values):
    return {"identity": {"slice": values}, "device_seconds": seconds, "wall_seconds": seconds + 1}


@pytest.mark.parametrize(
    ("was", "asked"),
    [
        (100, 300),
        (300, 100),
        (8, 0),  # what is switched off costs no more
        (0.001, 10.0),  # a rate is no count
        (1, 1.5),
        (False, True),
        ("none", "quarter"),
        (None, "weights/vae"),
        ([16, 16], [32, 32]),
        ([], ["age", "gender"]),
    ],
)
def test_values_of_one_order_are_alike(was, asked):
    assert nearest_cost(node(x=asked), [recorded(5.0, x=was)]) == 5.0
    assert nearest_cost(node(x=asked), [recorded(5.0, x=was)], "wall_seconds") == 6.0


@pytest.mark.parametrize(
    ("was", "asked"),
    [
        (6, 2000),
        (2000, 6),
        (0, 2000),
        (None, 2000),
        (2000, None),
        ([16, 16], [64, 64]),
        ([8, 16], [8, 16, 16]),
    ],
)
def test_values_of_another_order_are_not(was, asked):
    assert nearest_cost(node(x=asked), [recorded(5.0, x=was)]) is None
    alike = [recorded(5.0, x=was), recorded(9.0, x=asked)]
    assert nearest_cost(node(x=asked), alike) == 9.0


def test_the_median_of_the_most_alike_is_taken():
    manifests = [recorded(s, x=1.0, y="a") for s in (1.0, 2.0, 90.0)]
    manifests += [recorded(500.0, x=1.0, y="b"), {"wall_seconds": 7.0}]
    assert nearest_cost(node(x=2.0, y="a"), manifests) == 2.0
    assert nearest_cost(node(x=2.0, y="a"), []) is None
