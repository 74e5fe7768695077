"""From plain mappings to frozen dataclasses and back, strictly; files are read elsewhere.

An error names the dotted path, the value and the nearest valid key, because a misspelt key that
is silently ignored costs a training run.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from namd.config.document import parse_yaml
from namd.config.errors import MAXIMUM_VALUE, ConfigError, one_line, shown

Config = TypeVar("Config")

LATER: Mapping[str, Any] = {"later": True}
"""Metadata of a field that configurations once lacked.

At its default it is left out of identities, so that adding it moves no key of what was made before.
"""

LONGEST_WORD = 200
"""Characters of a word that are compared with others; the time grows with their square."""

_SCALARS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}
_PLURALS: dict[type, str] = {
    bool: "true or false",
    int: "whole numbers",
    float: "numbers",
    str: "texts",
}


def parse(cls: type[Config], mapping: object, path: str = "") -> Config:
    """Build a dataclass from a mapping; nested dataclasses from nested mappings.

    Args:
        cls: A dataclass whose fields are str, int, float, bool, Literal, tuples, unions,
            `dict[str, X]` or dataclasses of these.
        mapping: Its values, a mapping; absent fields take their defaults.
        path: Dotted place of the mapping in the whole, for messages.

    Raises:
        ConfigError: A key is unknown or missing, or a value is of the wrong type, not finite or
            refused by the dataclass.
    """
    if not isinstance(mapping, Mapping):
        raise _wrong(path, mapping, f"a mapping ({', '.join(_field_names(cls))})")
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            raise _unknown(_join(path, str(key)), mapping[key], str(key), list(fields))
    arguments: dict[str, Any] = {}
    for name, spec in fields.items():
        if name in mapping:
            arguments[name] = parse_value(hints[name], mapping[name], _join(path, name))
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{_join(path, name)} is missing and has no default; add it")
    try:
        return cls(**arguments)
    except ValueError as error:
        # The whole has no place of its own: there the words themselves name the paths.
        raise ConfigError(f"{path}: {error}" if path else str(error)) from error


def parse_value(annotation: Any, value: Any, path: str) -> Any:  # noqa: ANN401 - both are dynamic
    """Return a value checked against a type annotation. Raises ConfigError."""
    if annotation is Any:
        return value
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return parse(annotation, value, path)
    if annotation in _SCALARS:
        return _scalar(annotation, value, path)
    origin = get_origin(annotation)
    if origin is Literal:
        return _literal(get_args(annotation), value, path)
    if origin in (Union, types.UnionType):
        return _union(get_args(annotation), value, path)
    if origin is tuple:
        return _tuple(get_args(annotation), value, path)
    if origin in (dict, Mapping):
        return _dictionary(get_args(annotation)[1], value, path)
    raise TypeError(f"{path}: a configuration cannot hold a {annotation}")


def to_mapping(value: object) -> Any:  # noqa: ANN401 - mirrors what parse accepts
    """Return the plain mapping that `parse` would turn back into an equal value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: to_mapping(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init
        }
    if isinstance(value, Mapping):
        return {str(key): to_mapping(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_mapping(item) for item in value]
    return value


def identity_mapping(value: object) -> Any:  # noqa: ANN401 - mirrors to_mapping
    """Return what `to_mapping` returns, without the fields marked LATER at their defaults."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return to_mapping(value)
    return {
        spec.name: identity_mapping(getattr(value, spec.name))
        for spec in dataclasses.fields(value)
        if spec.init and not _unchanged(value, spec)
    }


def is_unchanged(value: object) -> bool:
    """Return whether a section has LATER fields alone, all of them at their defaults."""
    return (
        dataclasses.is_dataclass(value)
        and bool(dataclasses.fields(value))
        and identity_mapping(value) == {}
    )


def is_later_at_default(owner: object, name: str) -> bool:
    """Return whether a field of a section is marked LATER and stands at its default."""
    specs = dataclasses.fields(owner) if dataclasses.is_dataclass(owner) else ()
    return any(spec.name == name and _unchanged(owner, spec) for spec in specs)


def _unchanged(owner: object, spec: "dataclasses.Field[Any]") -> bool:
    if not LATER.items() <= spec.metadata.items():
        return False
    make = spec.default_factory
    default = spec.default if make is dataclasses.MISSING else make()
    return bool(getattr(owner, spec.name) == default)


def merge(base: Mapping[str, Any], *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with each layer laid over it; mappings merge, anything else is replaced."""
    result = dict(base)
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            if isinstance(below, Mapping) and isinstance(value, Mapping):
                result[key] = merge(below, value)
            else:
                result[key] = value
    return result


def apply_overrides(mapping: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return the mapping with each `a.b.c=VALUE` laid over it; VALUE is read as YAML.

    Raises ConfigError if an override has no `=`, no path, or leads into a plain value.
    """
    result = dict(mapping)
    for override in overrides:
        path, separator, text = override.partition("=")
        path = path.strip()
        if not separator or not path or not all(path.split(".")):
            raise ConfigError(f"{shown(override)}: an override reads a.b.c=VALUE")
        result = set_path(result, path, parse_yaml(text, f"{path}={one_line(text, MAXIMUM_VALUE)}"))
    return result


def set_path(mapping: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the mapping with the value at a dotted path replaced.

    The parents are made where absent. Raises ConfigError if a parent is a plain value.
    """
    names = path.split(".")
    result = dict(mapping)
    place = result
    for depth, name in enumerate(names[:-1], start=1):
        below = place.get(name)
        if below is not None and not isinstance(below, Mapping):
            raise ConfigError(
                f"{path}: {'.'.join(names[:depth])} is the value {shown(below)}, nothing lies "
                "under it"
            )
        place[name] = dict(below or {})
        place = place[name]
    place[names[-1]] = value
    return result


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return `; did you mean X?`, or the valid words where none is near."""
    choices = [str(choice) for choice in valid]
    word = word[:LONGEST_WORD]
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; valid: {', '.join(choices)}" if choices else ""


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _field_names(cls: type) -> list[str]:
    return [f.name for f in dataclasses.fields(cls) if f.init]


def _unknown(path: str, value: object, key: str, valid: list[str]) -> ConfigError:
    hint = nearest(key, valid)
    parent = path.rpartition(".")[0]
    if "did you mean" in hint:
        hint = f"; did you mean {_join(parent, hint.removeprefix('; did you mean ')[:-1])}?"
    return ConfigError(f"{path}={shown(value)}: unknown key{hint}")


def _wrong(path: str, value: object, expected: str) -> ConfigError:
    return ConfigError(f"{path or 'configuration'}={shown(value)}: expected {expected}")


def _scalar(kind: type, value: Any, path: str) -> Any:  # noqa: ANN401
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise _wrong(path, value, "a finite number") from error
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(path, value, _SCALARS[kind])
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(path, value, "a finite number")
    return value


def _literal(choices: tuple[Any, ...], value: Any, path: str) -> Any:  # noqa: ANN401
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    words = [str(choice) for choice in choices]
    hint = nearest(str(value), words)
    hint = hint if "did you mean" in hint else ""
    raise ConfigError(f"{path}={shown(value)}: expected one of {', '.join(words)}{hint}")


def _union(arms: tuple[Any, ...], value: Any, path: str) -> Any:  # noqa: ANN401
    """Return the value as the first arm of its shape that takes it.

    Only such arms are tried, so that a mistake deep in a mapping is reported alone, without the
    remark that the mapping is no list.
    """
    if value is None and type(None) in arms:
        return None
    fitting = [arm for arm in arms if arm is not type(None) and _shape(arm) == _shape_of(value)]
    if isinstance(value, Mapping):
        fitting = _of_one_kind(fitting, value, path)
    if not fitting:
        raise _wrong(path, value, _in_words(arms))
    exact = [arm for arm in fitting if isinstance(arm, type) and type(value) is arm]
    errors: list[str] = []
    for arm in (*exact, *(arm for arm in fitting if arm not in exact)):
        try:
            return parse_value(arm, value, path)
        except ConfigError as error:
            errors.append(str(error))
    if _shape_of(value) != "plain":
        raise ConfigError(" or ".join(dict.fromkeys(errors)))
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(path, value, _in_words(arms).replace("a number", "a finite number"))
    words = [str(choice) for arm in arms if get_origin(arm) is Literal for choice in get_args(arm)]
    hint = nearest(str(value), words)
    raise _wrong(path, value, _in_words(arms) + (hint if "did you mean" in hint else ""))


def _shape(annotation: Any) -> str:  # noqa: ANN401
    """Return what a value of an annotation looks like in a file: `mapping`, `list` or `plain`."""
    if dataclasses.is_dataclass(annotation) or get_origin(annotation) in (dict, Mapping):
        return "mapping"
    return "list" if get_origin(annotation) is tuple else "plain"


def _shape_of(value: object) -> str:
    if isinstance(value, Mapping):
        return "mapping"
    return "list" if isinstance(value, list | tuple) else "plain"


def _of_one_kind(arms: list[Any], value: Mapping[Any, Any], path: str) -> list[Any]:
    """Return the dataclasses that a mapping can mean: by its `Literal` tags, then by its keys.

    Raises ConfigError if a tag that all of them carry names none of them.
    """
    if len(arms) < 2 or not all(dataclasses.is_dataclass(arm) for arm in arms):
        return arms
    hints = [get_type_hints(arm) for arm in arms]
    for name in value:
        tags = [hint.get(name) for hint in hints]
        if all(get_origin(tag) is Literal for tag in tags):
            named = [a for a, t in zip(arms, tags, strict=True) if value[name] in get_args(t)]
            if not named:
                every = tuple(dict.fromkeys(word for tag in tags for word in get_args(tag)))
                _literal(every, value[name], _join(path, str(name)))
            arms = [arm for arm in arms if arm in named]
            hints = [get_type_hints(arm) for arm in arms]
    return [arm for arm in arms if set(value) <= set(_field_names(arm))] or arms


def _in_words(arms: tuple[Any, ...]) -> str:
    """Return what a union accepts: `a whole number, a list of whole numbers or null`."""
    kinds = [_described(arm) for arm in arms if arm is not type(None)]
    kinds = list(dict.fromkeys(kinds)) + (["null"] if type(None) in arms else [])
    return " or ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)


def _described(annotation: Any, many: bool = False) -> str:  # noqa: ANN401
    """Return what an annotation accepts, in plain words."""
    if annotation is Any:
        return "values" if many else "a value"
    if annotation in _SCALARS:
        return _PLURALS[annotation] if many else _SCALARS[annotation]
    origin, arms = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in arms)
    if origin in (Union, types.UnionType):
        return _in_words(arms)
    if origin is tuple:
        number = "" if arms[-1] is Ellipsis else f"{len(arms)} "
        return f"{'lists' if many else 'a list'} of {number}{_described(arms[0], many=True)}"
    if origin in (dict, Mapping):
        return f"{'mappings' if many else 'a mapping'} to {_described(arms[1], many=True)}"
    return f"{'mappings' if many else 'a mapping'} ({', '.join(_field_names(annotation))})"


def _tuple(arms: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:  # noqa: ANN401
    if not isinstance(value, list | tuple):
        raise _wrong(path, value, "a list")
    if len(arms) == 2 and arms[1] is Ellipsis:
        arms = (arms[0],) * len(value)
    elif len(arms) != len(value):
        raise _wrong(path, value, f"a list of {len(arms)}")
    pairs = zip(arms, value, strict=True)
    return tuple(parse_value(arm, item, f"{path}[{i}]") for i, (arm, item) in enumerate(pairs))


def _dictionary(arm: Any, value: Any, path: str) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise _wrong(path, value, "a mapping")
    for key in value:
        if not isinstance(key, str):
            raise _wrong(_join(path, str(key)), key, "a text key")
    return {key: parse_value(arm, item, _join(path, key)) for key, item in value.items()}
