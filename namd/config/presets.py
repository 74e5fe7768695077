"""Reading of presets: YAML files in one folder, which may extend each other."""

from pathlib import Path
from typing import Any

from namd.config.document import read_yaml_mapping
from namd.config.errors import ConfigError
from namd.config.parsing import merge, nearest


def preset_names(folder: Path) -> list[str]:
    """Return the names of the presets in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_preset(name: str, folder: Path) -> dict[str, Any]:
    """Return a preset's mapping, laid over the preset that it `extends`, if any.

    Raises ConfigError if the name is unknown or presets extend each other in a ring.
    """
    return _load(name, folder, ())


def _load(name: str, folder: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    names = preset_names(folder)
    if name not in names:
        raise ConfigError(f"preset {name!r} does not exist{nearest(name, names)}")
    if name in seen:
        raise ConfigError(f"presets extend each other in a ring: {' -> '.join((*seen, name))}")
    mapping = read_yaml_mapping(folder / f"{name}.yaml")
    parent = mapping.pop("extends", None)
    if parent is None:
        return mapping
    if not isinstance(parent, str):
        raise ConfigError(f"preset {name}: extends={parent!r}: expected the name of a preset")
    return merge(_load(parent, folder, (*seen, name)), mapping)
