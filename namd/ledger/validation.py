"""Validation of records against the dataclasses of `namd.ledger.schema`.

Fields and transitions that this version does not know are accepted.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from namd.ledger import schema

Types = frozenset[type]

_TEXT: Types = frozenset({str})
_WHOLE: Types = frozenset({int})
_NUMBER: Types = frozenset({int, float})
_BOOL: Types = frozenset({bool})
_MAPPING: Types = frozenset({dict})
_LIST: Types = frozenset({list})
_NONE: Types = frozenset({type(None)})

_JSON: Mapping[Any, Types] = {
    str: _TEXT,
    int: _WHOLE,
    float: _NUMBER,
    bool: _BOOL,
    Mapping: _MAPPING,
    Sequence: _LIST,
    type(None): _NONE,
}
"""JSON types by annotation of a body's field."""

_FIELDS: tuple[tuple[str, Types], ...] = (
    ("schema", _WHOLE),
    ("epoch", _WHOLE),
    ("seq", _WHOLE),
    ("time", _NUMBER),
    ("writer", _TEXT),
    ("trial", _TEXT | _NONE),
    ("attempt", _WHOLE),
    ("transition", _TEXT),
    ("body", _MAPPING),
)
_NUMBERED = frozenset({schema.PROPOSED, schema.WARM})
"""Transitions whose name is a number."""

_SPECIFICATION: tuple[tuple[str, Types], ...] = (
    ("base", _MAPPING | _NONE),
    ("search", _MAPPING | _NONE),
    ("ablation", _MAPPING | _NONE),
    ("evaluate", _MAPPING),
    ("seeds", _WHOLE | _LIST),
)
_ABLATION: tuple[tuple[str, Types], ...] = (
    ("design", _TEXT),
    ("toggles", _MAPPING),
    ("arms", _MAPPING | _NONE),
    ("resolution", _WHOLE | _NONE),
)


class RecordDamaged(ValueError):  # noqa: N818 - says what is the case
    """These bytes are not a valid record."""


def read_json(data: bytes) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON value of bytes. Raises RecordDamaged, also for NaN and infinity."""
    if not data.strip():
        raise RecordDamaged("is empty")
    try:
        return _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RecordDamaged("is no UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        raise RecordDamaged("is no whole JSON text") from error


def check_record(record: object) -> None:
    """Check every field that a reader relies on, then the digest. Raises RecordDamaged.

    Records of earlier versions have no digest, and are believed without.
    """
    if not isinstance(record, dict):
        raise RecordDamaged("holds no JSON object")
    _require(record, _FIELDS, "")
    if record["epoch"] < 1 or record["seq"] < 1 or record["attempt"] < 0:
        raise RecordDamaged("has a negative epoch, number or attempt")
    if not math.isfinite(record["time"]):
        raise RecordDamaged("has a time that is not finite")
    kind, _, name = record["transition"].partition("/")
    of_study = record["trial"] is None
    expected = schema.BODIES.get(kind, schema.Body)
    if expected.about_study not in (None, of_study):
        raise RecordDamaged(f"is {kind} of {'no' if of_study else 'a'} trial")
    if kind in _NUMBERED and not (name.isascii() and name.isdigit()):
        raise RecordDamaged(f"has a transition without a number: {record['transition'][:40]!r}")
    _check_body(expected, record["body"])
    if kind in _MORE:
        _MORE[kind](record["body"])
    digest = record.get(schema.DIGEST)
    if digest is not None and digest != schema.record_digest(record):
        raise RecordDamaged("has changed since it was written")


def _check_body(expected: type[schema.Body], body: Mapping[str, Any]) -> None:
    needed, optional = _FIELDS_OF[expected]
    _require(body, needed, "body.")
    _require(body, [(name, types) for name, types in optional if name in body], "body.")
    for name, types in (*needed, *optional):
        if float in types and name in body:
            _require_finite(body[name], f"body.{name}")


def _json_types(hint: Any) -> Types:  # noqa: ANN401 - an annotation
    """Return the JSON types allowed by an annotation of a body's field."""
    if isinstance(hint, UnionType):
        return frozenset().union(*map(_json_types, get_args(hint)))
    return _JSON[get_origin(hint) or hint]


def _fields_of(
    expected: type[schema.Body],
) -> tuple[tuple[tuple[str, Types], ...], tuple[tuple[str, Types], ...]]:
    """Return the JSON types of a body's required fields, and of its optional ones."""
    hints = get_type_hints(expected)
    found = [
        (name, _json_types(hints[name]), must) for name, must in schema.required(expected).items()
    ]
    return (
        tuple((name, types) for name, types, must in found if must),
        tuple((name, types) for name, types, must in found if not must),
    )


_FIELDS_OF = {cls: _fields_of(cls) for cls in schema.ALL_BODIES}


def _require(mapping: Mapping[str, Any], fields: Iterable[tuple[str, Types]], path: str) -> None:
    for name, types in fields:
        if name not in mapping:
            raise RecordDamaged(f"lacks {path}{name}")
        if type(mapping[name]) not in types:
            raise RecordDamaged(f"has a {path}{name} of type {type(mapping[name]).__name__}")


def _check_specification(body: Mapping[str, Any]) -> None:
    """Check the fields of a study file that reports read; `study.spec` checks the rest."""
    specification = body.get("specification", {})
    path = "body.specification."
    _require(specification, [(n, t) for n, t in _SPECIFICATION if n in specification], path)
    ablation = specification.get("ablation") or {}
    toggles = [(n, t) for n, t in _ABLATION if n in ablation]
    _require(ablation, toggles, f"{path}ablation.")
    for name, toggle in ablation.get("toggles", {}).items():
        _require({name: toggle}, ((name, _MAPPING),), f"{path}ablation.toggles.")
    search = specification.get("search")
    if search is None:
        return
    path = f"{path}search."
    _require(search, (("num_trials", _WHOLE), ("objective", _MAPPING | _LIST)), path)
    objective = search["objective"]
    for each in objective if isinstance(objective, list) else [objective]:
        if type(each) is not dict:
            raise RecordDamaged(f"has a {path}objective of type {type(each).__name__}")
        _require(each, (("metric", _TEXT),), f"{path}objective.")


def _check_trials(body: Mapping[str, Any]) -> None:
    if not body["trials"] or not all(type(trial) is str for trial in body["trials"]):
        raise RecordDamaged("has no names of trials in body.trials")


def _check_values(body: Mapping[str, Any]) -> None:
    for name, value in body["values"].items():
        _require_finite(value, f"body.values.{name}")


def _check_warm(body: Mapping[str, Any]) -> None:
    for value in body["values"]:
        if type(value) not in _NUMBER:
            raise RecordDamaged("has body.values that are no numbers")
        _require_finite(value, "body.values")


def _require_finite(value: object, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordDamaged(f"has a {path} that is not finite")


_MORE: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    schema.OPENED: _check_specification,
    schema.PROPOSED: _check_trials,
    schema.COMPLETED: _check_values,
    schema.WARM: _check_warm,
}


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
