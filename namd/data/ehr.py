"""One patient's record from a JSON file, under NLST's names and codes."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from namd.config.errors import InputError
from namd.config.parsing import nearest
from namd.data import schema

LARGEST_FILE = 64 * 1024
"""Bytes; a record of 13 features takes less than one KiB."""
LONGEST_SHOWN = 40


@dataclass(frozen=True)
class PatientRecord:
    """The 13 features of a case.

    Attributes:
        values: Those that are known, by NLST name.
        missing: The names of the others, in the schema's order.
    """

    values: dict[str, float]
    missing: tuple[str, ...]


def read_record(path: Path) -> PatientRecord:
    """Return the record of a JSON object; null, an absent name and NLST's 9 are missing.

    Raises InputError for a file that is no such object, a name that is no feature or stands twice,
    and a value that is no code or number.
    """
    values: dict[str, float] = {}
    for name, value in _pairs(path):
        if name not in schema.EHR_FEATURES:
            raise InputError(
                f"{path}: {_shown(name)} is no feature of the record"
                f"{nearest(name[:LONGEST_SHOWN], schema.EHR_FEATURES)}"
            )
        known = _value(name, value, path)
        if known is not None:
            values[name] = known
    if values.get("SCT_PERP_DIA", 0.0) > values.get("SCT_LONG_DIA", math.inf):
        raise InputError(f"{path}: SCT_PERP_DIA is above SCT_LONG_DIA, the longest diameter")
    missing = tuple(name for name in schema.EHR_FEATURES if name not in values)
    return PatientRecord(values, missing)


class _Object(list[tuple[str, Any]]):
    """The pairs of a JSON object, as they stand in the file."""


def _pairs(path: Path) -> _Object:
    """Return the pairs of the one object that a file holds. Raises InputError for anything else."""
    text = _text(path)
    try:
        content = json.loads(text, object_pairs_hook=_Object, parse_int=float)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: not JSON from line {error.lineno}, column {error.colno} on; --ehr takes one "
            "object of NLST names and values"
        ) from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply; --ehr takes one flat JSON object") from None
    if not isinstance(content, _Object):
        raise InputError(f"{path}: holds no JSON object of NLST names and values")
    seen = set()
    for name, _ in content:
        if name in seen:
            raise InputError(f"{path}: {_shown(name)} stands there twice; leave one")
        seen.add(name)
    return content


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; --ehr takes a JSON object") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > LARGEST_FILE:
        raise InputError(
            f"{path}: larger than {LARGEST_FILE // 1024} KiB; --ehr takes the record of one patient"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as JSON in UTF-8") from None


def _shown(name: str) -> str:
    """Return a name as it can stand in a line: escaped, and cut if it is long."""
    cut = name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}..."
    return cut if cut.isprintable() and cut else json.dumps(cut)


def _value(name: str, value: Any, path: Path) -> float | None:  # noqa: ANN401 - of JSON
    if value is None:
        return None
    # All numbers of the file are floats here, those of 400 digits infinite.
    if not isinstance(value, float) or not math.isfinite(value):
        raise InputError(f"{path}: {name} is no number, or none that is finite")
    codes = schema.CODES.get(name)
    if codes is not None:
        if name.startswith("SCT_") and value == schema.UNDETERMINED_CODE:
            return None
        if value not in codes:
            known = ", ".join(f"{code} {word}" for code, word in codes.items())
            raise InputError(f"{path}: {name} = {value:g} is no NLST code; known are {known}")
        return value + 0.0
    low, high = schema.LIMITS.of(name) or (-math.inf, math.inf)
    if not low <= value <= high:
        raise InputError(f"{path}: {name} = {value:g} is not within {low:g}...{high:g}")
    return value + 0.0
