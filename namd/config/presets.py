"""Reading of presets: YAML files in one folder, which may extend each other."""

from pathlib import Path
from typing import Any

from namd.config.document import read_yaml_mapping
from namd.config.errors import ConfigError, shown
from namd.config.parsing import merge, nearest

ABOUT = "about"
"""The key for a preset's one-line description; not part of the configuration."""


def preset_names(folder: Path) -> list[str]:
    """Return the names of the presets in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def preset_description(name: str, folder: Path) -> str:
    """Return what a preset is for, in one line: its own `about`, never that of what it extends.

    Raises ConfigError if the name is unknown or the preset does not say it.
    """
    about = _read(name, folder).get(ABOUT)
    if not isinstance(about, str) or not about.strip() or len(about.splitlines()) > 1:
        raise ConfigError(f"preset {name}: {ABOUT}={shown(about)}: expected one line of text")
    return about


def load_preset(name: str, folder: Path) -> dict[str, Any]:
    """Return a preset's mapping, laid over the presets that it `extends`, if any.

    `extends` names one preset or a list, each laid over those before it: the name of a preset of
    the same folder, or a path relative to that folder, such as `../../shared/presets/base`.

    Raises ConfigError if a name is unknown or presets extend each other in a ring.
    """
    return _load(name, folder, ())


def _load(name: str, folder: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    mapping = _read(name, folder)
    mapping.pop(ABOUT, None)
    place = (folder / name).resolve()
    if place in seen:
        ring = " -> ".join(known.name for known in (*seen, place))
        raise ConfigError(f"presets extend each other in a ring: {ring}")
    extended: dict[str, Any] = {}
    for parent in _parents(name, mapping.pop("extends", [])):
        *way, last = parent.split("/")
        extended = merge(extended, _load(last, folder.joinpath(*way), (*seen, place)))
    return merge(extended, mapping)


def _parents(name: str, extends: object) -> list[str]:
    parents = [extends] if isinstance(extends, str) else extends
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise ConfigError(
            f"preset {name}: extends={shown(extends)}: expected the name of a preset, or a list"
        )
    return parents


def _read(name: str, folder: Path) -> dict[str, Any]:
    names = preset_names(folder)
    if name not in names:
        raise ConfigError(f"preset {shown(name)} does not exist{nearest(name, names)}")
    return read_yaml_mapping(folder / f"{name}.yaml")
