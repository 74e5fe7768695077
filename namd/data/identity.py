"""Ids that may be one id under two spellings: a leak that no comparison of strings can see.

Nothing is merged here: whether two spellings are one patient is the user's to say.
"""

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

_LATIN_OF = str.maketrans(
    "авекмнорстухіјѕԁɡαβεζηικμνορτυχ",
    "abekmhopctyxijsdgabezhikmnoptyx",
)
"""Cyrillic and Greek small letters that print like Latin ones, or whose capitals do."""

_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015\u2212]+")
_INTEGER_AS_FLOAT = re.compile(r"(\d+)\.0*", re.ASCII)
_EXPONENT = re.compile(r"\d+(\.\d+)?e\+?\d{1,2}", re.ASCII)
_PADDED = re.compile(r"(\D*)0+(\d+)", re.ASCII)


def spelling_key(identifier: str) -> str:
    """Return what stays of an id without its spelling.

    Letter case, Unicode forms, look-alike letters, invisible characters, which separator is used,
    leading zeros (`007`, `P-007`), and what spreadsheets make of whole numbers (`107.0`,
    `1.07E+02`) do not enter.
    """
    text = unicodedata.normalize("NFKC", identifier)
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    text = text.casefold().translate(_LATIN_OF).strip()
    text = unicodedata.normalize("NFC", text)
    whole = _INTEGER_AS_FLOAT.fullmatch(text)
    if whole:
        text = whole[1]
    elif _EXPONENT.fullmatch(text):
        text = _written_out(text)
    parts = _SEPARATORS.split(text)
    return "-".join(
        _PADDED.sub(r"\1\2", part) if _PADDED.fullmatch(part) else part for part in parts
    )


def alike(identifiers: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of different ids that share their `spelling_key`, in order."""
    groups: dict[str, dict[str, None]] = {}
    for identifier in identifiers:
        groups.setdefault(spelling_key(identifier), {})[identifier] = None
    return [tuple(group) for group in groups.values() if len(group) > 1]


def shown(identifiers: Iterable[str]) -> str:
    """Return ids so that what does not print, or prints like another letter, can be told apart."""
    return " and ".join(ascii(identifier) for identifier in identifiers)


def _written_out(text: str) -> str:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    return str(int(number)) if number == number.to_integral_value() else text
