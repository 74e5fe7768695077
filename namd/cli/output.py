"""How commands speak: results on stdout, the rest on stderr, one object last with --json."""

import argparse
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from namd.config.errors import InputError, escaped

PIPED_WIDTH = 80

NEGATIVE_NUMBER = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Declare `--json`."""
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")


def write_json(value: object) -> None:
    """Write a value as the last line of stdout. Raises ValueError for a NaN."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
    sys.stdout.flush()


def answer(arguments: argparse.Namespace, value: object, text: str) -> None:
    """Write a command's result: the value with `--json`, the text for people without."""
    if arguments.json:
        write_json(value)
    else:
        sys.stdout.write(printable(text) + "\n")


def accept_negative_numbers(parser: argparse.ArgumentParser) -> None:
    """Let a value such as `-5.25e+01,14,-120` follow its option after a space.

    argparse takes it for an option: a number, to argparse, is a minus, digits and one point. No
    option of ours begins with a digit.
    """
    parser._negative_number_matcher = NEGATIVE_NUMBER


def echo(line: str) -> None:
    """Write a line that is not the result to stderr."""
    sys.stderr.write(escaped(line) + "\n")
    sys.stderr.flush()


def printable(text: str) -> str:
    """Return a text without control characters, of characters that stdout can write.

    Names and messages in it may come from anyone's file.
    """
    encoding = sys.stdout.encoding or "utf-8"
    return escaped(text).encode(encoding, "backslashreplace").decode(encoding)


def terminal_width() -> int:
    """Return the columns that stdout has: of a terminal its own, of a file or pipe 80."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPED_WIDTH


def wrapped(text: str) -> str:
    """Return a paragraph in lines that fit the terminal."""
    return "\n".join(textwrap.wrap(text, terminal_width()))


def require_writable(option: str, path: Path) -> None:
    """Refuse a place that cannot be written, before the work whose result is to go there.

    It is tried with a file that leaves nothing behind, in the nearest folder that exists.

    Raises InputError.
    """
    import tempfile

    place = path.absolute() if path.is_dir() else path.absolute().parent
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(
            f"{option} {path}: cannot be written ({error.strerror}); name another place"
        ) from error


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in aligned columns, with a rule under the header."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True)) for r in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in text)


def score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a run's rows as text: every field that any row has, in order of first appearance."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return columns(names, [[cell(row.get(name)) for name in names] for row in rows])


def cell(value: object) -> str:
    """Return one value of a table: `0.801 ± 0.010 [0.750, 0.850]` for an estimate."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return _estimate(value)
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)


def duration(seconds: float) -> str:
    """Return seconds in words: `8 s`, `12 min 05 s`, `3 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(num_bytes: int) -> str:
    """Return bytes in words: `3.2 MiB`."""
    amount = float(num_bytes)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def _estimate(value: Mapping[str, Any]) -> str:
    point = value.get("mean", value.get("value"))
    if point is None:
        return ", ".join(f"{name} {cell(item)}" for name, item in value.items()) or "-"
    parts = [cell(float(point))]
    if value.get("std") is not None:
        parts.append(f"± {float(value['std']):.3f}")
    if value.get("low") is not None and value.get("high") is not None:
        parts.append(f"[{float(value['low']):.3f}, {float(value['high']):.3f}]")
    return " ".join(parts)
