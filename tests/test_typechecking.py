"""Annotations are checked under test: types by beartype, and axes too wherever an array stands."""

from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, Int, TypeCheckError

from namd.config.seeding import derive_seed
from namd.losses.kl import kl_loss
from tests.typechecking import annotated, checked, may_hold_an_array

Row = Float[np.ndarray, " n"]


@annotated(typechecker=checked)
def total(first: Row, second: Row | None = None) -> float:
    return float(first.sum() if second is None else (first + second).sum())


@annotated(typechecker=checked)
def halves(numbers: list[int]) -> list[int]:
    return [number / 2 if number % 2 else number // 2 for number in numbers]


def test_types_are_checked_on_the_way_in_and_out():
    assert halves([2, 4]) == [1, 2]
    for wrong in ([3], ["2"], 2):
        with pytest.raises(BeartypeCallHintViolation):
            halves(wrong)


def test_axes_are_compared_within_a_call_and_not_across():
    three, four = np.ones(3), np.ones(4)
    assert total(three) + total(four) == 7.0
    assert total(four, four) == 8.0
    with pytest.raises(TypeCheckError):
        total(three, np.ones(1))
    with pytest.raises(TypeCheckError):
        total(three.astype(int))


@pytest.mark.parametrize(
    "annotation",
    [
        Row,
        Row | None,
        "Row",
        list["Row"],
        dict[str, tuple[int, Row]],
        Callable[[Row], int],
        Callable[[int], Row],
        Iterator[list[Row]],
        Annotated[Row, "of a crop"],
        Int[np.ndarray, ""],
    ],
    ids=str,
)
def test_an_array_is_seen_wherever_it_stands(annotation):
    assert may_hold_an_array(annotation)


@pytest.mark.parametrize(
    "annotation",
    [None, int, np.ndarray, list[int] | None, Callable[..., int], dict[str, list[float]]],
    ids=str,
)
def test_what_holds_no_array_has_no_axes_to_compare(annotation):
    assert not may_hold_an_array(annotation)


def test_the_hook_checks_namd_itself(request):
    if not request.config.getoption("jaxtyping_packages"):
        pytest.skip("needs --jaxtyping-packages, as in the Makefile")
    import torch

    assert derive_seed("purpose", 1) >= 0
    assert kl_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)) == 0
    with pytest.raises(BeartypeCallHintViolation):
        derive_seed(1)
    with pytest.raises(TypeCheckError):
        kl_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 5))
