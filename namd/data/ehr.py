"""One patient's record from a JSON file, under NLST's names and codes."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from namd.config.errors import InputError
from namd.config.parsing import nearest
from namd.data import schema


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

    Raises InputError for a name that is no feature and a value that is no code or number.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; --ehr takes a JSON object") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not JSON") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no JSON object of NLST names and values")
    values: dict[str, float] = {}
    for name, value in content.items():
        if name not in schema.EHR_FEATURES:
            raise InputError(
                f"{path}: {name} is no feature of the record{nearest(name, schema.EHR_FEATURES)}"
            )
        known = _value(name, value, path)
        if known is not None:
            values[name] = known
    missing = tuple(name for name in schema.EHR_FEATURES if name not in values)
    return PatientRecord(values, missing)


def _value(name: str, value: Any, path: Path) -> float | None:  # noqa: ANN401 - of JSON
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{path}: {name} is no number")
    codes = schema.CODES.get(name)
    if codes is not None:
        if name.startswith("SCT_") and value == schema.UNDETERMINED_CODE:
            return None
        if value not in codes:
            known = ", ".join(f"{code} {word}" for code, word in codes.items())
            raise InputError(f"{path}: {name} = {value:g} is no NLST code; known are {known}")
        return float(value)
    low, high = schema.LIMITS.of(name) or (-math.inf, math.inf)
    if not low <= value <= high:
        raise InputError(f"{path}: {name} = {value:g} is not within {low:g}...{high:g}")
    return float(value)
