"""Nested mappings as one mapping of their leaves."""

from collections.abc import Mapping
from typing import Any


def flat(
    value: Mapping[str, Any], prefix: str = "", *, lists: bool = False, empty: bool = False
) -> dict[str, Any]:
    """Return the leaves by dotted name: `auroc.mean`.

    Args:
        value: A nested mapping.
        prefix: Stands before every name.
        lists: Whether the items of a list are leaves of their own, named by number; otherwise a
            list is one leaf.
        empty: Whether a mapping without items is a leaf; otherwise it leaves none.
    """
    found: dict[str, Any] = {}
    for name, item in value.items():
        inner = item
        if lists and isinstance(item, list | tuple):
            inner = {str(number): one for number, one in enumerate(item)}
        if isinstance(inner, Mapping) and (inner or not empty):
            found |= flat(inner, f"{prefix}{name}.", lists=lists, empty=empty)
        else:
            found[f"{prefix}{name}"] = inner
    return found
