"""The type checker that `--jaxtyping-packages` puts on every function of namd under test.

jaxtyping binds the arguments of every call once more, to compare the axes of arrays. Only functions
with an array in their annotations need that, and it takes more than what they compute in all the
others: beartype checks those alone.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

# PEP 484's tower: an int is welcome where a float is asked for, as type checkers have it.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
with_axes = jaxtyping.jaxtyped


def may_hold_an_array(annotation: object) -> bool:
    """Return whether jaxtyping must see it: an array anywhere in it, or a name yet to resolve."""
    if isinstance(annotation, str):
        return True
    if isinstance(annotation, list | tuple):  # a Callable's parameters
        return any(map(may_hold_an_array, annotation))
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    return any(map(may_hold_an_array, get_args(annotation)))


def annotated(function: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """Check a function or class: stands in for `jaxtyping.jaxtyped`."""
    if function is None:
        return partial(annotated, typechecker=typechecker)
    if inspect.isfunction(function):
        annotations = function.__annotations__.values()
        if not any(map(may_hold_an_array, annotations)):
            return typechecker(function)
    return with_axes(function, typechecker=typechecker)


jaxtyping.jaxtyped = annotated
