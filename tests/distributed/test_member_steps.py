"""How far a stage is, as its stage worker reports it: of a family, member by member."""

from types import SimpleNamespace

from namd.distributed.stage_worker import member_step
from namd.methods.base import Stage, Step
from namd.pipeline.graph import Node


def node(index: int | None) -> Node:
    return Node(Stage("draws", 1, "map", "no:body", index=index), "k", {}, {}, SimpleNamespace())


def test_members_that_are_finished_are_done_and_the_rest_is_not():
    family = [node(index) for index in (0, 2, 5, 7)]
    steps = [Step(number, 4, {}, finished=index) for number, index in ((1, 0), (2, 2), (3, 5))]
    found = [member_step(family, step) for step in steps]
    assert [member.stage.index for member, _ in found] == [0, 2, 5]
    assert sum(step.index / step.total for _, step in found) == 3
    assert [step.index for _, step in found] == [1, 2, 3]


def test_a_single_stage_is_as_far_as_it_says():
    assert member_step([node(None)], Step(3, 8)) == (node(None), Step(3, 8))
