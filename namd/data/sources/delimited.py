"""A delimited text file as strings under its header, every row as wide as the header.

Delimiter, encoding and shape belong here; what a column means does not.
"""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from namd.config.errors import InputError

DELIMITERS = (",", ";", "\t", "|")
MAX_BYTES = 2**30
"""Far above a line per nodule; a larger file, or one that unpacks to more, is no such table."""

_DECLARATION = re.compile(r'^"?sep=(.?)"?\r?(?:\n|$)', re.IGNORECASE)
_OTHER_FORMATS = {
    b"PK\x03\x04": "a workbook or zip archive; save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as CSV",
    b"PAR1": "a Parquet file; save it as CSV",
    b"BZh": "compressed; unpack it first",
    b"\xfd7zXZ": "compressed; unpack it first",
    b"(\xb5/\xfd": "compressed; unpack it first",
}


@dataclass(frozen=True)
class DelimitedFile:
    """What a file holds.

    Attributes:
        table: Every named column, as strings without surrounding white space.
        lines: The line of the file on which each row ends, from 1.
        spans: First and last line of rows that lie on several, as quoted fields may.
        unnamed: Places (from 1) of columns that hold values under an empty name.
        delimiter: What stands between the columns.
    """

    table: pd.DataFrame
    lines: list[int]
    unnamed: list[int]
    delimiter: str
    spans: list[tuple[int, int]]


def read_delimited(path: Path, needed: Collection[str]) -> DelimitedFile:
    """Return the rows of a CSV.

    The delimiter is the one that an Excel line `sep=;` declares, or else the one under which the
    header holds the needed columns. Delimiters at the end of rows, with nothing between them, are
    left out; no row is ever shifted, cut or filled.

    Args:
        path: A text file in UTF-8, or in UTF-16 with its mark; may be gzipped.
        needed: Columns by which the delimiter is recognised.

    Raises:
        InputError: the file is no such table.
    """
    text = _read_text(path)
    declared = _DECLARATION.match(text)
    skipped = 0
    if declared:
        text, skipped = text[declared.end() :], 1
        delimiter = declared[1]
        if delimiter not in DELIMITERS:
            raise InputError(
                f"{path}: line 1 declares {delimiter!r} as delimiter; use a comma, semicolon or tab"
            )
    else:
        delimiter = _find_delimiter(text, needed)
    rows, lines, spans = _split_rows(path, text, delimiter, skipped)
    if not rows or not any(name.strip() for name in rows[0]):
        raise InputError(f"{path}: holds no header; --table takes a CSV with named columns")
    header = [name.strip() for name in rows[0]]
    while header and not header[-1]:
        header.pop()
    _require_distinct(path, header)
    _refuse_swallowed(path, rows[1:], lines[1:], spans, delimiter)
    body = _fit(path, rows[1:], lines[1:], header)
    if not body:
        raise InputError(f"{path}: a header and no case below it")
    columns = list(zip(*body, strict=True))
    named = {name: values for name, values in zip(header, columns, strict=True) if name}
    unnamed = [
        place
        for place, (name, values) in enumerate(zip(header, columns, strict=True), 1)
        if not name and any(values)
    ]
    return DelimitedFile(pd.DataFrame(named, dtype=object), lines[1:], unnamed, delimiter, spans)


def delimiter_name(delimiter: str) -> str:
    """Return a delimiter in words."""
    names = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
    return names[delimiter]


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; --table takes a CSV") from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); --table takes a CSV"
        ) from error
    except ValueError as error:
        raise InputError(f"{str(path)!r}: not a path ({error})") from error
    if content.startswith(b"\x1f\x8b"):
        content = _unpack(path, content)
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: holds more than {MAX_BYTES >> 20} MiB; not a table of nodules")
    for magic, remark in _OTHER_FORMATS.items():
        if content.startswith(magic):
            raise InputError(f"{path}: not a CSV but {remark}")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not a CSV in UTF-8 (byte {error.start}); save it as CSV UTF-8"
        ) from error
    if "\0" in text:
        raise InputError(f"{path}: not a CSV (it holds NUL bytes)")
    return text


def _unpack(path: Path, content: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be unpacked ({error})") from error


def _find_delimiter(text: str, needed: Collection[str]) -> str:
    """Return the delimiter under which the header holds most of the needed columns."""
    first = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]

    def fitness(delimiter: str) -> tuple[int, int]:
        names = [name.strip().strip('"').strip() for name in first.split(delimiter)]
        return len(set(needed) & set(names)), len(names)

    return max(DELIMITERS, key=fitness)


def _split_rows(
    path: Path, text: str, delimiter: str, skipped: int
) -> tuple[list[list[str]], list[int], list[tuple[int, int]]]:
    """Return the rows, the line on which each ends, and which rows span several lines."""
    rows, lines, spans = [], [], []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    first = 1 + skipped
    try:
        for row in reader:
            last = reader.line_num + skipped
            if len(row) > 1 or (row and row[0].strip()):
                rows.append(row)
                lines.append(last)
                if last > first:
                    spans.append((first, last))
            first = last + 1
    except csv.Error as error:
        where = f"line {first}: not a CSV"
        if reader.line_num + skipped > first:
            where += f": a quoted field opens there and runs on to line {reader.line_num + skipped}"
        raise InputError(f"{path}: {where} ({error}); a stray quote?") from error
    return rows, lines, spans


def _refuse_swallowed(
    path: Path,
    rows: list[list[str]],
    lines: list[int],
    spans: list[tuple[int, int]],
    delimiter: str,
) -> None:
    """Refuse quoted fields that hold whole rows, as between two stray quotes."""
    first_lines = {last: first for first, last in spans}
    for row, line in zip(rows, lines, strict=True):
        for place, cell in enumerate(row):
            parts = cell.splitlines()
            if len(parts) < 2:
                continue
            counts = [part.count(delimiter) for part in parts]
            counts[0] += place
            counts[-1] += len(row) - 1 - place
            if line in first_lines and set(counts) == {len(row) - 1}:
                raise InputError(
                    f"{path}: a quoted field runs from line {first_lines[line]} to line {line} and "
                    "holds whole rows; remove a stray quote, or the line breaks of that field"
                )


def _require_distinct(path: Path, header: list[str]) -> None:
    doubled = [name for name, count in Counter(header).items() if name and count > 1]
    if doubled:
        places = [str(place) for place, name in enumerate(header, 1) if name == doubled[0]]
        raise InputError(
            f"{path}: column {doubled[0]} is named {len(places)} times (columns "
            f"{', '.join(places)}); rename or remove all but one"
        )


def _fit(path: Path, rows: list[list[str]], lines: list[int], header: list[str]) -> list[list[str]]:
    """Return stripped rows as wide as the header. Raises InputError for one that is not."""
    width = len(header)
    fitted = []
    for row, line in zip(rows, lines, strict=True):
        cells = [cell.strip() for cell in row]
        if len(cells) < width or any(cells[width:]):
            filled = max((place for place, cell in enumerate(cells, 1) if cell), default=0)
            raise InputError(
                f"{path}: line {line} has {max(filled, min(len(cells), width))} fields and the "
                f"header {width}; each row needs one field for each column"
            )
        fitted.append(cells[:width])
    return fitted
