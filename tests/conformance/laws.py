"""What every registered method must keep to, as functions, so that a bad one can be tried."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from namd.config.errors import InputError
from namd.config.parsing import to_mapping
from namd.methods.base import Method
from namd.pipeline.graph import Node, make_plan
from namd.pipeline.run_configuration import RunConfiguration, from_mapping, resolve


def planned(configuration: RunConfiguration) -> tuple[Node, ...]:
    """The nodes of a run, on a cohort that stands for any and with or without weights."""
    plan = make_plan(
        configuration.stages(),
        configuration.config,
        cohort_digest=lambda cohort: f"cohort {sorted(cohort.columns)} {sorted(cohort.splits)}",
        provisional=True,
    )
    return plan.nodes


def keys(configuration: RunConfiguration) -> dict[str, str]:
    """Key by label."""
    return {node.label: node.key for node in planned(configuration)}


def leaves(mapping: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every path of a configuration at which a plain value stands."""
    for name, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name)


def changed(configuration: RunConfiguration, path: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Keys under each configuration that differs in this one value and is accepted."""
    whole = to_mapping(configuration.config)
    for value in _others(_at(whole, path)):
        mapping = copy.deepcopy(whole)
        _at(mapping, path[:-1])[path[-1]] = value
        mapping["method"] = configuration.method.name
        try:
            again = from_mapping(mapping, None, {configuration.method.name: configuration.method})
            moved = keys(again)
        except InputError:
            continue
        if to_mapping(again.config) != whole:
            yield moved


def unread(method: Method, preset: str) -> tuple[set[str], int]:
    """Return values that move no key whatever they are, and how many values could be tried."""
    few = ["evaluate.num_draws=2"]
    configuration = resolve(preset, None, few, {method.name: method})
    before, silent, tried = keys(configuration), set(), 0
    for path in leaves(to_mapping(configuration.config)):
        others = changed(configuration, path)
        first = next(others, None)
        tried += first is not None
        if first == before and all(other == before for other in others):
            silent.add(".".join(path))
    return silent, tried


def _at(mapping: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        mapping = mapping[name]
    return mapping


def _others(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value * 2, value + 4, max(1, value // 2)]
    if isinstance(value, float):
        return [value * 0.75, value * 1.5, value + 0.25]
    if isinstance(value, list | tuple):
        return [list(value)[:-1], [*value, *value[-1:]], [v * 2 for v in value]] if value else []
    return []
