"""The crops source's CSV under our words, and where its files are.

What the values mean for a cohort is `namd.data.sources.crops`' to say.
"""

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
        "readers": "n_readers",
        "side": "side",
        "z_frac": "z_frac",
        "texture": "texture",
        "spiculation": "spiculation",
        **{name: name for name in (*schema.EHR_FEATURES, *schema.FOLLOWUP_DIAMETERS)},
    }
)
"""From our words to the CSV's columns. `row` is the case's row of the npz (else: in order),
`lesion_id` joins records of one lesion, `readers` counts who marked it, `side` (R, L) and
`z_frac` (0 lowest slice, 1 highest) place the lobe of a simulated record."""

NOT_KNOWN = ("", ".N", ".M", ".S", "NA", "nan")


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


def read_mapping(path: Path) -> dict[str, str | None]:
    """Read a YAML mapping of our words to the CSV's columns. Raises InputError."""
    mapping = read_yaml_mapping(path)
    return {word: None if column is None else str(column) for word, column in mapping.items()}


def read_columns(
    path: Path, mapping: Mapping[str, str | None] | None = None
) -> dict[str, pd.Series]:
    """Return the CSV's columns under our words, as strings with None for what is not known.

    A default column that the CSV lacks is left out; one that the mapping names must be there.

    Raises:
        InputError: the file cannot be read or is no CSV, or a word or column does not exist.
    """
    mapping = mapping or {}
    for word in mapping:
        if word not in DEFAULT_COLUMNS:
            raise InputError(f"columns: {word} is no word{nearest(word, DEFAULT_COLUMNS)}")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; --table takes a CSV") from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); --table takes a CSV"
        ) from error
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: not a CSV ({str(error).splitlines()[0]})") from error
    words: dict[str, pd.Series] = {}
    for word, column in {**DEFAULT_COLUMNS, **mapping}.items():
        if column is None:
            continue
        if column in table:
            values = table[column].str.strip()
            words[word] = values.where(~values.isin(NOT_KNOWN), None)
        elif word in mapping or word in REQUIRED_WORDS:
            raise InputError(f"{path}: no column {column} (for {word}); map {word} with --columns")
    return words


def numbers(words: dict[str, pd.Series], word: str, files: CropFiles) -> pd.Series:
    """Return a column as float64; a word that is not there is all NaN.

    Raises InputError naming the cases whose value is no number.
    """
    if word not in words:
        return pd.Series(np.nan, index=words["case_id"].index)
    values = pd.to_numeric(words[word], errors="coerce").astype("float64")
    broken = values.isna() & words[word].notna()
    if broken.any():
        ids = words["case_id"][broken].tolist()
        raise InputError(
            f"{files.table}: {word} of cases {some(ids)} is no number "
            f"({words[word][broken].iloc[0]!r})"
        )
    return values


def whole(words: dict[str, pd.Series], word: str, files: CropFiles) -> pd.Series:
    """Return a column of whole numbers. Raises InputError where one is not."""
    values = numbers(words, word, files)
    if values.isna().any() or (values % 1 != 0).any():
        raise InputError(f"{files.table}: {word} must be a whole number in every line")
    return values.astype(int)


def padded(value: str) -> str:
    """Return an id that sorts as it counts."""
    return value.zfill(5) if value.isdigit() else value


def some(values: list[Any], shown: int = 10) -> str:
    """Return the first values as text, and how many more there are."""
    listed = ", ".join(str(value) for value in values[:shown])
    return listed if len(values) <= shown else f"{listed} and {len(values) - shown} more"
