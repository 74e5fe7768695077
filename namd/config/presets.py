"""Finding and reading the presets that the package carries; their contents are YAML files."""

from importlib import resources
from pathlib import Path
from typing import Any

from namd.config.document import read_yaml_mapping
from namd.config.errors import ConfigError
from namd.config.parsing import merge, nearest

FOLDER = Path(str(resources.files("namd.config"))) / "presets"


def preset_names(folder: Path = FOLDER) -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_preset(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Return a preset's mapping, laid over the preset that it `extends`, if any.

    Raises ConfigError where the name is unknown or presets extend each other in a ring.
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
