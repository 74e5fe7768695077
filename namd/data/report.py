"""The sentence that gives a language model what the record knows (NAMD Fig 4).

A value that is missing leaves its clause out; nothing is said that the record does not hold.

The paper prints one example, with every feature known and every flag positive. What follows
from it and what is ours:

- A known `no` is written as `no prior diagnosis of emphysema` and `no family history of cancer`, in
  the places of the positive clauses, so that `no` and `not known` read differently [ours].
- The sentence has one clause for the five relatives: any known `yes` makes it positive; `no`
  needs all five known and included, otherwise the clause is left out [ours].
- NLST's `Other` attenuation and location have no words in the paper's table and are left out
  [ours]; age is in completed years, millimetres are rounded, as in `27 mm`.
- The perpendicular diameter is not in the paper's sentence; the option prints `27 x 20 mm`.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from namd.data.schema import ATTENUATION, CODES, EHR_FEATURES, FAMILY_FEATURES, LOCATION, MARGINS

FEATURES = EHR_FEATURES
"""What `include` may name."""

_OTHER = "other"
_ADJECTIVES = {**ATTENUATION, 4: "fluid attenuation", 6: "fat attenuation"}


def report_text(
    record: Mapping[str, Any], include: Collection[str] | None = None, perpendicular: bool = False
) -> str:
    """Return the report of one case.

    Args:
        record: Feature values by NLST name; absent, None or NaN: missing.
        include: The features that may be named; None: all thirteen.
        perpendicular: Print the perpendicular diameter too, if it may be named.

    Raises:
        ValueError: `include` names no feature, or a value is no NLST code.
    """
    told = FEATURES if include is None else include
    unknown = [name for name in told if name not in FEATURES]
    if unknown:
        raise ValueError(f"the report knows {', '.join(FEATURES)}; not {', '.join(unknown)}")
    known = {
        name: float(record[name])
        for name in FEATURES
        if name in told and not _is_missing(record.get(name))
    }
    if not perpendicular:
        known.pop("SCT_PERP_DIA", None)
    return f"{_patient_sentence(known)} {_nodule_sentence(known)}"


def _patient_sentence(known: Mapping[str, float]) -> str:
    age = f"{math.floor(known['age'])} years old" if "age" in known else ""
    person = _word(known, "gender", CODES["gender"]) or "patient"
    history = [clause for clause in (_emphysema(known), _family(known)) if clause]
    parts = (
        "Lung cancer screening with low dose computed tomography performed for this",
        age,
        person,
        f"with {' and '.join(history)}" if history else "",
    )
    return " ".join(part for part in parts if part) + "."


def _nodule_sentence(known: Mapping[str, float]) -> str:
    attenuation = _word(known, "SCT_PRE_ATT", _ADJECTIVES)
    margin = _word(known, "SCT_MARGINS", MARGINS)
    nodule = " ".join(part for part in ("A", attenuation, "nodule") if part)
    size = _size(known)
    described = f"with {margin} margin" if margin else ""
    if described and size:
        nodule = f"{nodule}, {described}, {size}"
    elif described or size:
        nodule = f"{nodule} {described or size}"
    location = _word(known, "SCT_EPI_LOC", LOCATION)
    place = f" in the {location}" if location else ""
    return f"{nodule} is present{place}."


def _size(known: Mapping[str, float]) -> str:
    long_mm, perpendicular_mm = known.get("SCT_LONG_DIA"), known.get("SCT_PERP_DIA")
    if long_mm is None and perpendicular_mm is None:
        return ""
    if long_mm is None:
        return f"{_whole(perpendicular_mm)} mm in perpendicular diameter"
    if perpendicular_mm is None:
        return f"{_whole(long_mm)} mm in size"
    return f"{_whole(long_mm)} x {_whole(perpendicular_mm)} mm in size"


def _emphysema(known: Mapping[str, float]) -> str:
    if "diagemph" not in known:
        return ""
    return (
        "prior diagnosis of emphysema"
        if _flag(known, "diagemph")
        else ("no prior diagnosis of emphysema")
    )


def _family(known: Mapping[str, float]) -> str:
    flags = [_flag(known, name) for name in FAMILY_FEATURES if name in known]
    if any(flags):
        return "family history of cancer"
    return "no family history of cancer" if len(flags) == len(FAMILY_FEATURES) else ""


def _flag(known: Mapping[str, float], name: str) -> bool:
    return _word(known, name, CODES[name]) == "yes"


def _word(known: Mapping[str, float], name: str, words: Mapping[int, str]) -> str:
    """Return the word of a code; nothing where it is missing or NLST's `Other`."""
    if name not in known:
        return ""
    value = known[name]
    if value not in words:
        raise ValueError(f"{name} = {value:g} is no NLST code; known are {sorted(words)}")
    word = words[int(value)]
    return "" if word == _OTHER else word


def _is_missing(value: object) -> bool:
    """None, NaN, and pandas' NA, which is the one value that has no truth."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:
        return True


def _whole(value: float | None) -> str:
    """Return a positive number rounded half up, as people round millimetres."""
    return str(math.floor((value or 0.0) + 0.5))
