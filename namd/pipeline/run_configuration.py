"""From a preset, a file and overrides to one method's configuration, every choice made."""

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from namd.config.document import read_yaml_mapping
from namd.config.errors import ConfigError, about, shown
from namd.config.overrides import Overrides, lay_over
from namd.config.parsing import merge, nearest, parse
from namd.data.settings import CohortDemands
from namd.methods.base import Method, Stage


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
    overrides: Overrides = (),
    methods: Mapping[str, Method] | None = None,
) -> RunConfiguration:
    """Lay a file over a preset and overrides over both, parse, and make the automatic choices.

    Overrides are texts such as `vae.alignment.weight=0`, or values by dotted path.

    Raises InputError if a file cannot be read and ConfigError for everything inside it.
    """
    mapping = read_yaml_mapping(config_file) if config_file is not None else {}
    if not isinstance(overrides, Mapping):
        overrides = list(overrides)
    if preset is not None:
        # The file or an override may name the method, and the method has the presets.
        method = method_of(lay_over(mapping, overrides), methods)
        mapping = merge({**method.preset(preset), "method": method.name}, mapping)
    # What is wrong may as well be an override's, where there is one.
    with about(str(config_file)) if config_file and not overrides else nullcontext():
        return from_mapping(lay_over(mapping, overrides), preset, methods)


def from_mapping(
    mapping: Mapping[str, Any],
    preset: str | None = None,
    methods: Mapping[str, Method] | None = None,
) -> RunConfiguration:
    """Parse a whole configuration and make the automatic choices. Raises ConfigError."""
    method = method_of(mapping, methods)
    if preset is not None and preset not in method.presets:
        fitting = ", ".join(method.presets)
        raise ConfigError(
            f"preset {shown(preset)} does not fit method {method.name}; those that do: {fitting}"
        )
    mapping = {key: value for key, value in mapping.items() if key != "method"}
    if any(spec.name == "method" for spec in dataclasses.fields(method.config_class)):
        mapping["method"] = method.name
    config: Any = parse(method.config_class, mapping)
    if method.resolve is not None:
        config = method.resolve(config)
    return RunConfiguration(method, config, preset)


def method_of(mapping: Mapping[str, Any], methods: Mapping[str, Method] | None = None) -> Method:
    """Return the method that a configuration names, or the first there is. Raises ConfigError."""
    from namd.methods.registry import METHODS

    methods = METHODS if methods is None else methods
    name = mapping.get("method", next(iter(methods)))
    if not isinstance(name, str) or name not in methods:
        raise ConfigError(f"method={shown(name)} does not exist{nearest(str(name), methods)}")
    return methods[name]
