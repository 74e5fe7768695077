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

_SEPARATORS = re.compile(r"([\s_.,\-\u2010-\u2015\u2212]+)")
_POINT = re.compile(r"[.,]")
_EDGES = " \t_.,-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+", re.ASCII)
_INTEGER_AS_FLOAT = re.compile(r"(\d+)\.0*", re.ASCII)
_EXPONENT = re.compile(r"\d+(\.\d+)?e\+?\d{1,2}", re.ASCII)
_PADDED = re.compile(r"(\D*)0+(\d+)", re.ASCII)


def spelling_key(identifier: str) -> str:
    """Return what stays of an id without its spelling.

    Letter case, Unicode forms, look-alike letters, invisible characters, leading zeros (`007`,
    `P-007`), and what spreadsheets make of whole numbers (`107.0`, `1.07E+02`, `1,000`) do not
    enter; nor do separators at either end (`p1.`) and between letters and the number behind them
    (`P-1`, `P1`), nor which separator stands elsewhere, except a point, which may be
    decimal.
    """
    text = unicodedata.normalize("NFKC", identifier)
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    text = text.casefold().translate(_LATIN_OF).strip()
    text = unicodedata.normalize("NFC", text)
    whole = _INTEGER_AS_FLOAT.fullmatch(text)
    if whole:
        text = whole[1]
    elif _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    elif _EXPONENT.fullmatch(text):
        text = _written_out(text)
    parts = _SEPARATORS.split(text.strip(_EDGES))
    key = _unpadded(parts[0])
    for separator, before, part in zip(parts[1::2], parts[0::2], parts[2::2], strict=False):
        if before.isalpha() and part[0].isdecimal():
            key += _unpadded(part)
        elif _POINT.search(separator):
            key += f".{part}"
        else:
            key += f"-{_unpadded(part)}"
    return key


def alike(identifiers: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of different ids that share their `spelling_key`, in order."""
    groups: dict[str, dict[str, None]] = {}
    for identifier in identifiers:
        groups.setdefault(spelling_key(identifier), {})[identifier] = None
    return [tuple(group) for group in groups.values() if len(group) > 1]


def nearly_alike(identifiers: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of ids that differ in separators beside their `spelling_key`, in order.

    Whether `P-11` and `P1-1` are one patient depends on the scheme; of ids that share their key,
    the first stands for all.
    """
    spellings: dict[str, str] = {}
    for identifier in identifiers:
        spellings.setdefault(spelling_key(identifier), identifier)
    groups: dict[str, list[str]] = {}
    for key, identifier in spellings.items():
        groups.setdefault(key.replace("-", "").replace(".", ""), []).append(identifier)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def shown(identifiers: Iterable[str]) -> str:
    """Return ids so that what does not print, or prints like another letter, can be told apart."""
    return " and ".join(ascii(identifier) for identifier in identifiers)


def _unpadded(part: str) -> str:
    return _PADDED.sub(r"\1\2", part) if _PADDED.fullmatch(part) else part


def _written_out(text: str) -> str:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    return str(int(number)) if number == number.to_integral_value() else text
