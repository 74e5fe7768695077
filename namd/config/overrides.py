"""Values laid over a configuration: texts of a command line, or values of a program."""

from collections.abc import Iterable, Mapping
from typing import Any

from namd.config.errors import ConfigError, shown
from namd.config.parsing import apply_overrides, set_path

Overrides = Iterable[str] | Mapping[str, Any]
"""Texts such as `vae.alignment.weight=0`, or values by dotted path."""


def lay_over(mapping: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    """Return the mapping with the overrides laid over it.

    Raises ConfigError if a text has no `=`, a path is no text, or leads into a plain value.
    """
    if not isinstance(overrides, Mapping):
        return apply_overrides(mapping, overrides)
    result = dict(mapping)
    for path, value in overrides.items():
        if not isinstance(path, str) or not all(path.split(".")):
            raise ConfigError(f"{shown(path)}: expected a dotted path such as vae.alignment.weight")
        result = set_path(result, path, value)
    return result
