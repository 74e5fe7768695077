"""The parts of a data card and their types; what a card says is `namd.data.card`'s."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jsonschema

from namd.config.errors import InputError

_COUNTS = {"type": "object", "additionalProperties": {"type": "integer"}}
_NAMES = {"type": "array", "items": {"type": "string"}}
_NUMBER_OR_NULL = {"type": ["number", "null"]}
CARD: Mapping[str, object] = MappingProxyType(
    {
        "type": "object",
        "properties": {
            **{name: {"type": "string"} for name in ("source", "citation", "licence", "notice")},
            **{name: {"type": "integer"} for name in ("cases", "patients", "lesions", "size")},
            **dict.fromkeys(("real", "rendered", "notes", "remarks"), _NAMES),
            "fingerprint": {"type": "string"},
            "spacing_mm": {"type": "number"},
            "split_seed": {"type": ["integer", "null"]},
            "split_column": {"type": ["string", "null"]},
            "fractions": {"type": "object", "additionalProperties": {"type": "number"}},
            "splits": {"type": "object", "additionalProperties": _COUNTS},
            "values": {"type": "object", "additionalProperties": _COUNTS},
            "excluded": _COUNTS,
            "excluded_cases": {"type": "object", "additionalProperties": _NAMES},
            "unused": {
                "type": "object",
                "properties": {
                    "columns": _NAMES,
                    "arrays": _NAMES,
                    "crops": {"type": "integer"},
                },
            },
            "simulation": {
                "type": ["object", "null"],
                "properties": {
                    "simulated": _NAMES,
                    "settings": {"type": "object"},
                    "ideal_auroc": {
                        "type": ["object", "null"],
                        "additionalProperties": _NUMBER_OR_NULL,
                    },
                },
            },
        },
    }
)
"""JSON Schema of a data card: each part may be absent, none may be of another type."""


def require_card(path: Path, card: dict[str, Any]) -> None:
    """Raise InputError if a part of a data card is not of its type."""
    error = next(jsonschema.Draft202012Validator(CARD).iter_errors(card), None)
    if error is not None:
        place = ".".join(str(part) for part in error.absolute_path)
        raise InputError(f"{path}: {place[:80]} is no {error.validator_value}; rebuild the cohort")
