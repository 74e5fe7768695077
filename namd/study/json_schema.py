"""The study file's JSON Schema, for editors; the parser stays the judge of what is valid.

Made from the dataclasses' annotations, so that it cannot say something else than the parser.
pydantic would also write `else` and `when`, which are no Python names, only from hand-made models.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from namd.study.comparison import CompareSpec
from namd.study.spec import StudySpec

_SCALARS: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    Any: {},
}

_RANGE = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_WHOLE_RANGE = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}

_PARAMETER = {
    "type": "object",
    "properties": {
        "uniform": _RANGE,
        "log_uniform": _RANGE,
        "int": _WHOLE_RANGE,
        "log_int": _WHOLE_RANGE,
        "choice": {"type": "array", "minItems": 1},
        "when": {
            "description": "`name`, `not name` or {name: value or [values]}",
            "type": ["string", "object"],
        },
        "else": {"description": "The value where `when` is false; without it nothing is set."},
        "points": {
            "description": "Of a range under sampler grid.",
            "type": "integer",
            "minimum": 1,
        },
    },
    "additionalProperties": False,
}


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a study file."""
    schema = _of(StudySpec)
    schema["properties"]["search"]["anyOf"][0]["properties"]["space"] = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": _PARAMETER,
    }
    evaluate = schema["properties"]["evaluate"]["properties"]
    evaluate["secondary"]["uniqueItems"] = True
    evaluate["split"]["anyOf"] = [{"enum": ["validation", "test"]}, _null()]
    schema["properties"]["compare"] = _of(CompareSpec)
    schema["required"].remove("base")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "namd study",
        **schema,
        "oneOf": [
            {"required": ["base", "ablation"]},
            {"required": ["base", "search"]},
            {"required": ["compare"]},
        ],
    }


def _of(annotation: Any) -> dict[str, Any]:  # noqa: ANN401 - annotations are dynamic
    if annotation in _SCALARS:
        return dict(_SCALARS[annotation])
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return _object(annotation)
    origin, arms = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {"enum": list(arms)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_null() if arm is type(None) else _of(arm) for arm in arms]}
    if origin is tuple:
        return {"type": "array", "items": _of(arms[0])}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _of(arms[1])}
    raise TypeError(f"no schema for {annotation}")


def _object(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    fields = dataclasses.fields(cls)
    required = [
        f.name
        for f in fields
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    described = _descriptions(cls)
    properties = {}
    for spec in fields:
        properties[spec.name] = _of(hints[spec.name])
        if spec.name in described:
            properties[spec.name]["description"] = described[spec.name]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _descriptions(cls: type) -> dict[str, str]:
    """Return the lines of the docstring's `Attributes:` by name."""
    found: dict[str, str] = {}
    name = ""
    for line in (cls.__doc__ or "").partition("Attributes:")[2].splitlines():
        indent = len(line) - len(line.lstrip())
        if indent == 8 and ":" in line:
            name, _, text = line.strip().partition(":")
            found[name] = text.strip()
        elif indent > 8 and name:
            found[name] += f" {line.strip()}"
    return found


def _null() -> dict[str, Any]:
    return {"type": "null"}
