"""Finding and reading the presets that the package carries; their contents are YAML files."""

from importlib import resources
from pathlib import Path
from typing import Any

from namd.config.document import read_yaml_mapping
from namd.config.errors import ConfigError, shown
from namd.config.parsing import merge, nearest

ABOUT = "about"
"""The line of a preset's file that says what it is for; no part of the configuration."""

FOLDER = Path(str(resources.files("namd.config"))) / "presets"


def preset_names(folder: Path = FOLDER) -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def preset_description(name: str, folder: Path = FOLDER) -> str:
    """Return what a preset is for, in one line: its own `about`, never that of what it extends.

    Raises ConfigError where the name is unknown or the preset does not say it.
    """
    about = _read(name, folder).get(ABOUT)
    if not isinstance(about, str) or not about.strip() or len(about.splitlines()) > 1:
        raise ConfigError(f"preset {name}: {ABOUT}={shown(about)}: expected one line of text")
    return about


def load_preset(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Return a preset's mapping, laid over the preset that it `extends`, if any.

    Raises ConfigError where the name is unknown or presets extend each other in a ring.
    """
    return _load(name, folder, ())


def _load(name: str, folder: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    mapping = _read(name, folder)
    mapping.pop(ABOUT, None)
    if name in seen:
        raise ConfigError(f"presets extend each other in a ring: {' -> '.join((*seen, name))}")
    parent = mapping.pop("extends", None)
    if parent is None:
        return mapping
    if not isinstance(parent, str):
        raise ConfigError(f"preset {name}: extends={shown(parent)}: expected the name of a preset")
    return merge(_load(parent, folder, (*seen, name)), mapping)


def _read(name: str, folder: Path) -> dict[str, Any]:
    names = preset_names(folder)
    if name not in names:
        raise ConfigError(f"preset {shown(name)} does not exist{nearest(name, names)}")
    return read_yaml_mapping(folder / f"{name}.yaml")
