"""The crops source's CSV under our words, and where its files are.

What the values mean for a cohort is `namd.data.sources.crops`' to say.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from namd.config.document import read_yaml_mapping
from namd.config.errors import InputError
from namd.config.parsing import nearest
from namd.data import schema
from namd.data.sources.delimited import delimiter_name, read_delimited

REQUIRED_WORDS = ("case_id", "patient_id", "spacing_mm")

DEFAULT_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "row": "row",
        "case_id": "nodule_id",
        "patient_id": "patient_id",
        "lesion_id": "lesion_group",
        "spacing_mm": "pixel_spacing_mm",
        "followup_spacing_mm": "followup_pixel_spacing_mm",
        "months": "months",
        "label": "label",
        "split": "split",
        "readers": "n_readers",
        "side": "side",
        "z_frac": "z_frac",
        "texture": "texture",
        "spiculation": "spiculation",
        **{name: name for name in (*schema.EHR_FEATURES, *schema.FOLLOWUP_DIAMETERS)},
    }
)
"""From our words to the CSV's columns. `row` is the case's row of the npz (else: in order),
`lesion_id` joins records of one lesion, `split` is the user's own, `readers` counts who marked it,
`side` (R, L) and `z_frac` (0 lowest slice, 1 highest) place the lobe of a simulated record."""

MAX_ID_LENGTH = 200
IDENTIFIERS = ("case_id", "patient_id", "lesion_id")

MISSING = ("", "na", "n/a", "#n/a", "nan", "none", "null", "<na>")
"""What stands for a value that is not known, in any case of letters; SAS's `.`, `.A`...`.Z` too."""

MISSING_TEXT = "an empty field, NA, N/A, #N/A, NaN, None, NULL, `.` or SAS's .A to .Z"
_SAS_MISSING = re.compile(r"\.[A-Z_]?", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+", re.ASCII)


@dataclass(frozen=True)
class CropFiles:
    """Where the crops are and what is known about their origin.

    Attributes:
        images: The npz.
        table: The CSV.
        columns: Words laid over `DEFAULT_COLUMNS`; None: the word is not read.
        source: Name of the source; case and lesion ids begin with it.
        citation: Whom to cite; empty: not stated (known for LIDC-IDRI).
        licence: Of the images; likewise.
    """

    images: Path
    table: Path
    columns: Mapping[str, str | None] | None = None
    source: str = "crops"
    citation: str = ""
    licence: str = ""


@dataclass(frozen=True)
class ReadColumns:
    """A CSV's columns under our words.

    Attributes:
        words: Strings, with None for what is not known.
        sources: The column that each word was read from.
        unused: The columns that no word was read from, in order.
        remarks: What the user should look at, one line each.
    """

    words: dict[str, pd.Series]
    sources: dict[str, str]
    unused: list[str]
    remarks: list[str]


def read_mapping(path: Path) -> dict[str, str | None]:
    """Read a YAML mapping of our words to the CSV's columns. Raises InputError."""
    mapping = read_yaml_mapping(path)
    for word, column in mapping.items():
        if isinstance(column, Mapping | list):
            raise InputError(f"{path}: {word} must be the name of one column, or null")
    return {word: None if column is None else str(column) for word, column in mapping.items()}


def read_columns(path: Path, mapping: Mapping[str, str | None] | None = None) -> ReadColumns:
    """Return the CSV's columns under our words.

    A default column that the CSV lacks is left out; one that the mapping names must be there.

    Raises:
        InputError: the file cannot be read or is no CSV, or a word or column does not exist.
    """
    chosen = _chosen_columns(mapping or {})
    file = read_delimited(path, [chosen[word] or "" for word in REQUIRED_WORDS])
    words: dict[str, pd.Series] = {}
    for word, column in chosen.items():
        if column is None:
            continue
        if column in file.table:
            values = file.table[column]
            words[word] = values.where(~values.map(_is_missing), None)
        elif word in (mapping or {}) or word in REQUIRED_WORDS:
            raise InputError(
                f"{path}: no column {column} (for {word}) among "
                f"{some(list(file.table.columns))} (delimiter {delimiter_name(file.delimiter)}); "
                f"map {word} with --columns"
            )
    _require_ids(path, words, file.lines)
    sources = {word: str(chosen[word]) for word in words}
    unused = [str(name) for name in file.table.columns if name not in sources.values()]
    _refuse_near_misses(path, unused, mapping or {})
    unused += [f"column {place} (without a name)" for place in file.unnamed]
    return ReadColumns(words, sources, unused, _about_spans(file.spans))


def numbers(words: dict[str, pd.Series], word: str, files: CropFiles) -> pd.Series:
    """Return a column as float64; a word that is not there is all NaN.

    Raises InputError naming the cases whose value is no number.
    """
    if word not in words:
        return pd.Series(np.nan, index=words["case_id"].index)
    texts = words[word]
    broken = texts.notna() & ~texts.map(lambda text: bool(_NUMBER.fullmatch(str(text))))
    if broken.any():
        ids = words["case_id"][broken].tolist()
        raise InputError(
            f"{files.table}: {word} of cases {some(ids)} is no number"
            f"{_why_no_number(word, str(texts[broken].iloc[0]))}"
        )
    return pd.to_numeric(texts, errors="coerce").astype("float64")


def whole(words: dict[str, pd.Series], word: str, files: CropFiles) -> pd.Series:
    """Return a column of whole numbers. Raises InputError if one is not."""
    values = numbers(words, word, files)
    if not (np.isfinite(values) & (values % 1 == 0) & (values.abs() < 2**53)).all():
        raise InputError(f"{files.table}: {word} must be a whole number in every line")
    return values.astype(int)


def padded(value: str) -> str:
    """Return an id that sorts as it counts."""
    return value.zfill(5) if value.isdigit() else value


def some(values: list[Any], shown: int = 10) -> str:
    """Return the first values as text, and how many more there are."""
    listed = ", ".join(str(value) for value in values[:shown])
    return listed if len(values) <= shown else f"{listed} and {len(values) - shown} more"


def _chosen_columns(mapping: Mapping[str, str | None]) -> dict[str, str | None]:
    for word, column in mapping.items():
        if word not in DEFAULT_COLUMNS:
            raise InputError(f"columns: {word} is no word{nearest(word, DEFAULT_COLUMNS)}")
        if column is None and word in REQUIRED_WORDS:
            raise InputError(f"columns: {word} cannot be null; name its column")
    return {**DEFAULT_COLUMNS, **mapping}


def _is_missing(value: str) -> bool:
    return value.casefold() in MISSING or bool(_SAS_MISSING.fullmatch(value))


def _why_no_number(word: str, value: str) -> str:
    shown = "" if word in schema.PATIENT_FEATURES else f" ({value[:40]!r})"
    if _DECIMAL_COMMA.fullmatch(value):
        return f"{shown}; write a decimal point, not a comma"
    return f"{shown}; what is not known is {MISSING_TEXT}"


def _require_ids(path: Path, words: Mapping[str, pd.Series], lines: list[int]) -> None:
    """Refuse cases and patients without an id, and ids that no message could show."""
    for word in IDENTIFIERS:
        if word not in words:
            continue
        empty = words[word].isna()
        if empty.any() and word in REQUIRED_WORDS:
            raise InputError(f"{path}: no {word} in {_in_lines(lines, empty)}")
        controlled = words[word].map(lambda text: not _is_plain(text or ""))
        if controlled.any():
            raise InputError(
                f"{path}: {word} holds a control or invisible character, or more than "
                f"{MAX_ID_LENGTH} in all, in {_in_lines(lines, controlled)}"
            )


def _in_lines(lines: list[int], chosen: pd.Series) -> str:
    numerals = np.array(lines)[chosen].tolist()
    return f"line{'s' if len(numerals) > 1 else ''} {some(numerals)}"


def _about_spans(spans: list[tuple[int, int]]) -> list[str]:
    if not spans:
        return []
    named = some([f"{first}-{last}" for first, last in spans])
    return [f"quoted fields of the table run over lines {named}; is each meant as one row?"]


def _is_plain(text: str) -> bool:
    hidden = ("Cc", "Cf", "Zl", "Zp")
    return len(text) <= MAX_ID_LENGTH and all(unicodedata.category(c) not in hidden for c in text)


def _refuse_near_misses(path: Path, unused: list[str], mapping: Mapping[str, str | None]) -> None:
    """Refuse an unused column that differs from one of ours in case, spaces or signs alone."""
    folded = {
        _folded(column): (word, column)
        for word, column in DEFAULT_COLUMNS.items()
        if word not in mapping and column is not None
    }
    for name in unused:
        if _folded(name) in folded:
            word, column = folded[_folded(name)]
            raise InputError(
                f"{path}: column {name} would not be used, although it is spelled like {column}; "
                f"rename one of them, or write `{word}: {name}` or `{word}: null` for --columns"
            )


def _folded(name: str) -> str:
    return re.sub(r"[\s_.-]+", "", unicodedata.normalize("NFKC", name).casefold())
