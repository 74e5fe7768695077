"""The short form of a comparison of methods, and the ablation that it stands for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from namd.config.errors import ConfigError
from namd.config.parsing import parse

STARTS = ("method", "preset")


@dataclass(frozen=True)
class CompareSpec:
    """Methods side by side: an arm each, the first one the reference.

    Attributes:
        methods: Names of the registry, two or more.
        preset: What each of them starts from, by the name of its own preset.
    """

    methods: tuple[str, ...]
    preset: str = "base"

    def __post_init__(self) -> None:
        """Reject a comparison of one thing."""
        if len(self.methods) < 2:
            raise ValueError(f"methods={list(self.methods)}: name two or more")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods={list(self.methods)}: one is named twice")


def expanded(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's mapping with `compare` written out as base and arms.

    Raises ConfigError if the file also says what `compare` stands for.
    """
    found = dict(study)
    if "compare" not in found:
        return found
    for name in ("ablation", "search"):
        if name in found:
            raise ConfigError(f"compare, {name}: a study has one of them; remove the other")
    base = found.get("base") or {}
    if not isinstance(base, Mapping):
        return found  # which the parser refuses in its own words
    for name in STARTS:
        if name in base:
            raise ConfigError(f"base.{name}={base[name]!r}: compare names it; remove it from base")
    compare = parse(CompareSpec, found.pop("compare"), "compare")
    first, *others = compare.methods
    found["base"] = {**base, "method": first, "preset": compare.preset}
    found["ablation"] = {
        "design": "arms",
        "reference": first,
        "toggles": {name: {"method": name, "preset": compare.preset} for name in others},
    }
    return found
