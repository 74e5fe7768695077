"""Reading YAML and JSON text into plain values, independent of their meaning.

PyYAML implements YAML 1.1, in which `1e-6` is a string, `no` is false, `1:30` is ninety and a
repeated key silently wins. All of these hurt in a configuration, so the loader follows
YAML 1.2's core schema for numbers and booleans and refuses repeated keys. A document's size is
bounded, with aliases expanded, so that a few hundred bytes cannot fill the memory.
"""

import json
import re
from pathlib import Path
from typing import Any, NoReturn

import yaml

from namd.config.errors import ConfigError, InputError, escaped, plain_text, shown

MAXIMUM_BYTES = 256 * 1024
MAXIMUM_DEPTH = 40
MAXIMUM_VALUES = 20_000
"""Limits of one document: its size, the depth of values, and their number with every alias
expanded. The largest useful study, of 10,000 seeds, stays far below."""

CHARACTERS_PER_VALUE = 100
"""A long text counts as several values: an alias repeats all of it."""

MAXIMUM_WHOLE = 2**63
"""Bound of integers; Parquet, numpy and Optuna hold no larger ones."""

_CORE = "tag:yaml.org,2002:"
_PATTERNS = {
    "bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    "null": (r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    "int": (r"^[-+]?[0-9]+$", "-+0123456789"),
    "float": (
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
}
_WORDS = {"bool": "true or false", "null": "null", "int": "a whole number", "float": "a number"}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema's scalars and bounds on what is composed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._num_values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        """Compose one node; raise ComposerError once the document is too deep or too large."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        before = self._num_values
        self._depth += 1
        if self._depth > MAXIMUM_DEPTH:
            self._refuse(f"values lie more than {MAXIMUM_DEPTH} levels deep", event)
        node: yaml.Node | None = super().compose_node(parent, index)  # type: ignore[arg-type]
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                self._refuse(f"the alias *{event.anchor} lies inside what it stands for", event)
            self._num_values += self._sizes[id(node)]
        else:
            text = node.value if isinstance(node, yaml.ScalarNode) else ""
            self._num_values += 1 + len(text) // CHARACTERS_PER_VALUE
            self._sizes[id(node)] = self._num_values - before
        if self._num_values > MAXIMUM_VALUES:
            self._refuse(f"more than {MAXIMUM_VALUES:,} values, counting each alias in full", event)
        return node

    def _refuse(self, problem: str, event: yaml.Event) -> NoReturn:
        raise yaml.composer.ComposerError(
            None,
            None,
            problem,
            event.start_mark,  # type: ignore[arg-type]
        )


_Loader.yaml_implicit_resolvers = {}
for _kind, (_pattern, _first) in _PATTERNS.items():
    _Loader.add_implicit_resolver(
        f"{_CORE}{_kind}",
        re.compile(_pattern),
        [*_first.replace("\0", ""), *([""] if "\0" in _first else [])],
    )


def _problem(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _scalar(loader: yaml.SafeLoader, node: yaml.Node) -> Any:  # noqa: ANN401 - any scalar
    """Return a scalar's value; a tag that is written out (`!!bool`) must fit the text."""
    text = str(loader.construct_scalar(node))  # type: ignore[arg-type]
    kind = node.tag.removeprefix(_CORE)
    if kind == "str":
        try:
            return plain_text(text)
        except InputError as error:
            raise _problem(node, str(error)) from error
    if not re.match(_PATTERNS[kind][0], text):
        raise _problem(node, f"{shown(text)} is not {_WORDS[kind]}")
    if kind == "int":
        return _whole(text, node)
    if kind == "float":
        lowered = text.lower()
        special = lowered.endswith((".inf", ".nan"))
        return float(lowered.replace(".", "") if special else text)
    return None if kind == "null" else text.lower() == "true"


def _whole(text: str, node: yaml.Node) -> int:
    digits = text.lstrip("+-").lstrip("0")
    # int() itself refuses thousands of digits in words of its own.
    if len(digits) > len(str(MAXIMUM_WHOLE)) or abs(int(text)) >= MAXIMUM_WHOLE:
        raise _problem(node, f"{shown(text)} is too large: whole numbers lie below 2^63")
    return int(text)


def _sequence(loader: yaml.SafeLoader, node: yaml.Node) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise _problem(node, "not a list")
    return [loader.construct_object(item, deep=True) for item in node.value]


def _mapping(loader: yaml.SafeLoader, node: yaml.Node) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise _problem(node, "not a mapping")
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise _problem(key_node, f"the key {shown(key)} is not a string; put it in quotes")
        if key == "<<":
            raise _problem(key_node, "merge keys (<<) are not read; write the values out")
        if key in result:
            raise _problem(key_node, f"the key {shown(key)} is given twice; keep one")
        result[key] = loader.construct_object(value_node, deep=True)
    return result


def _foreign(_loader: yaml.SafeLoader, node: yaml.Node) -> NoReturn:
    raise _problem(node, f"the tag {shown(node.tag)} is not read here; leave it out")


_Loader.yaml_constructors = {}
for _kind in ("str", *_PATTERNS):
    _Loader.add_constructor(f"{_CORE}{_kind}", _scalar)
_Loader.add_constructor(f"{_CORE}seq", _sequence)
_Loader.add_constructor(f"{_CORE}map", _mapping)
_Loader.add_constructor(None, _foreign)


def parse_yaml(text: str, source: str) -> Any:  # noqa: ANN401 - a document holds any value
    """Return the value of a YAML text.

    Raises ConfigError naming the source, line and problem.
    """
    if len(text) > MAXIMUM_BYTES:
        raise ConfigError(f"{source}: larger than the {MAXIMUM_BYTES // 1024} KiB that are read")
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = escaped(chr(error.character)) if isinstance(error.character, int) else "?"
        raise ConfigError(
            f"{source}: line {line}: the control character {character} is not read; leave it out"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}: line {mark.line + 1}" if mark is not None else source
        problem = getattr(error, "problem", None) or "not YAML"
        if problem == "but found another document":
            problem = "another document begins here (`---`); keep one"
        raise ConfigError(f"{place}: {problem}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not usable as YAML ({error})") from error
    finally:
        if loader is not None:
            loader.dispose()  # type: ignore[no-untyped-call]


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. An empty file is an empty mapping.

    Raises InputError if the file cannot be read and ConfigError if it holds no mapping.
    """
    try:
        text = _read(path, MAXIMUM_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read (not UTF-8 text; save it as UTF-8)") from error
    value = parse_yaml(text, str(path))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, got {type(value).__name__}")
    return value


def read_json_mapping(path: Path, maximum_bytes: int = 64 * MAXIMUM_BYTES) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises InputError if the file cannot be read, is too large, is not JSON, repeats a name or
    holds something other than an object.
    """
    text = _read(path, maximum_bytes)
    try:
        value = json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
        # An escape can stand for half a character, which no file could be written with.
        json.dumps(value, ensure_ascii=False).encode()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        reason: object = error
        if isinstance(error, RecursionError):
            reason = "values lie too deep"
        elif isinstance(error, UnicodeEncodeError):
            reason = f"a text holds the lone surrogate {shown(error.object[error.start])}"
        raise InputError(f"{path}: not JSON ({reason})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an object at the top, got {type(value).__name__}")
    return value


def _refuse_constant(name: str) -> None:
    """Raise ValueError for NaN and Infinity, which Python's JSON would let pass."""
    raise ValueError(f"{name} is no JSON number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the name {shown(twice)} is given twice; keep one")
    return result


def _read(path: Path, maximum_bytes: int) -> bytes:
    """Return a file's bytes, never more than a bound: a device has no end. Raises InputError."""
    try:
        with path.open("rb") as stream:
            content = stream.read(maximum_bytes + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read ({reason})") from error
    if len(content) > maximum_bytes:
        raise InputError(f"{path}: larger than the {maximum_bytes // 1024} KiB that are read")
    return content
