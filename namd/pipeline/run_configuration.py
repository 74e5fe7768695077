"""From a preset, a file and overrides to one method's configuration, every choice made."""

import dataclasses
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from namd.config.document import read_yaml_mapping
from namd.config.errors import ConfigError, about, shown
from namd.config.parsing import apply_overrides, merge, nearest, parse
from namd.config.presets import load_preset
from namd.data.settings import CohortDemands
from namd.methods.base import Method, Stage

DEFAULT_METHOD = "namd"


@dataclass(frozen=True)
class RunConfiguration:
    """A method with a configuration in which nothing is left to be decided.

    Attributes:
        method: Which row of Table 1.
        config: An instance of the method's configuration class.
        preset: Where it started from, for people to read.
    """

    method: Method
    config: Any
    preset: str | None = None

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of the run."""
        return self.method.stages(self.config)

    def demands(self) -> CohortDemands:
        """Return what the run asks of a cohort beyond what every run does."""
        return CohortDemands() if self.method.demands is None else self.method.demands(self.config)


def resolve(
    preset: str | None = None,
    config_file: Path | None = None,
    overrides: Iterable[str] = (),
    methods: Mapping[str, Method] | None = None,
) -> RunConfiguration:
    """Lay a file over a preset and overrides over both, parse, and make the automatic choices.

    Raises InputError where a file cannot be read and ConfigError for everything inside it.
    """
    mapping = load_preset(preset) if preset is not None else {}
    if config_file is not None:
        mapping = merge(mapping, read_yaml_mapping(config_file))
    overrides = list(overrides)
    # What is wrong may as well be an override's, where there is one.
    with about(str(config_file)) if config_file and not overrides else nullcontext():
        return from_mapping(apply_overrides(mapping, overrides), preset, methods)


def from_mapping(
    mapping: Mapping[str, Any],
    preset: str | None = None,
    methods: Mapping[str, Method] | None = None,
) -> RunConfiguration:
    """Parse a whole configuration and make the automatic choices. Raises ConfigError."""
    if methods is None:
        from namd.methods.registry import METHODS

        methods = METHODS
    name = mapping.get("method", DEFAULT_METHOD)
    if not isinstance(name, str) or name not in methods:
        raise ConfigError(f"method={shown(name)} does not exist{nearest(str(name), methods)}")
    method = methods[name]
    if preset is not None and preset not in method.presets:
        fitting = ", ".join(method.presets)
        raise ConfigError(
            f"preset {shown(preset)} does not fit method {name}; those that do: {fitting}"
        )
    mapping = {key: value for key, value in mapping.items() if key != "method"}
    if any(spec.name == "method" for spec in dataclasses.fields(method.config_class)):
        mapping["method"] = name
    config: Any = parse(method.config_class, mapping)
    if method.resolve is not None:
        config = method.resolve(config)
    return RunConfiguration(method, config, preset)
