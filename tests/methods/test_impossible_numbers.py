"""A section of any method refuses an impossible number in words, never with an error of its own."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from namd.methods.registry import METHODS
from namd.pipeline.run_configuration import resolve


def _sections(owner: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, owner
    for spec in dataclasses.fields(owner):
        value = getattr(owner, spec.name)
        if dataclasses.is_dataclass(value):
            yield from _sections(value, f"{path}.{spec.name}")


def _accepts(section: Any, name: str, value: Any) -> bool:
    try:
        dataclasses.replace(section, **{name: value})
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("method", METHODS)
def test_no_number_is_too_odd_to_be_refused_in_words(method: str) -> None:
    below_zero = []
    for path, section in _sections(resolve("tiny", None, [f"method={method}"]).config, method):
        for spec in dataclasses.fields(section):
            value = getattr(section, spec.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            for odd in (0, -1, 1, 7, 10**6):
                accepted = _accepts(section, spec.name, type(value)(odd))
                if accepted and odd < 0 and isinstance(value, int):
                    below_zero.append(f"{path}.{spec.name}")
    assert [name for name in below_zero if not name.endswith("seed")] == []
