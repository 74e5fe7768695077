"""Reading YAML text into plain values belongs here; what the values mean does not.

PyYAML speaks YAML 1.1, in which `1e-6` is a string, `no` is false, `1:30` is ninety and a
repeated key silently wins. Configuration is where each of these hurts, so the loader follows
YAML 1.2's core schema for numbers and booleans and refuses repeated keys.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from namd.config.errors import ConfigError, InputError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema's scalars."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(_pattern),
        [*_first.replace("\0", ""), *([""] if "\0" in _first else [])],
    )


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"the key {key!r} is not a string; put it in quotes",
                key_node.start_mark,
            )
        if key in result:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is given twice; keep one", key_node.start_mark
            )
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse_yaml(text: str, source: str) -> Any:  # noqa: ANN401 - a document holds any value
    """Return the value of a YAML text.

    Raises ConfigError naming the source, line and problem.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}: line {mark.line + 1}" if mark is not None else source
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"{place}: {problem}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not usable as YAML ({error})") from error


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. An empty file is an empty mapping.

    Raises InputError where the file cannot be read and ConfigError where it holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: cannot be read ({reason})") from error
    value = parse_yaml(text, str(path))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, got {type(value).__name__}")
    return value
