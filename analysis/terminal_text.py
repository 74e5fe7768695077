"""A study's report as text for a terminal; `study_report` has the contents."""

import re
import textwrap
from collections.abc import Iterator
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from analysis.html_page import Table
from analysis.study_cells import effect_notes
from analysis.study_report import Report, all_tables, banner_lines, note_lines

NARROWEST = 40
GAP = 2
JOINER = "\ue000"
"""Replaces a space inside a word; reports contain no private-use characters."""


def to_text(report: Report, width: int = 80) -> str:
    """Return tables and notes in lines of at most `width` characters, without any markup.

    Terminals narrower than 40 characters get lines of 40.
    """
    width = max(width, NARROWEST)
    lines = [report.view.study, *wrapped(report.table.question, width), ""]
    for line in banner_lines(report):
        lines += wrapped(line, width)
    lines += _bullets(effect_notes(report.table), width)
    for caption, table in all_tables(report):
        lines += ["", *wrapped(caption, width), "", *table_lines(table, width)]
    lines += _bullets(note_lines(report), width)
    return "\n".join(lines)


def wrapped(text: str, width: int) -> list[str]:
    """Return a paragraph's lines; none of an empty text."""
    return textwrap.wrap(text, width)


def table_lines(table: Table, width: int) -> list[str]:
    """Return a table's lines; a long cell wraps within its column.

    If the columns do not fit beside each other, each row is a paragraph with a line per column.
    """
    cells = [[_joined(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = _column_widths(cells, width - GAP * (len(table.header) - 1))
    if widths is None:
        return list(_stacked(cells, width))
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name, wide in zip(cells[0], widths, strict=True):
        shown.add_column(Text(name), width=wide)
    for row in cells[1:]:
        shown.add_row(*map(Text, row))
    return list(_printed(shown, width))


def _column_widths(cells: list[list[str]], room: int) -> list[int] | None:
    """Return the columns' widths, or None if their longest words do not fit.

    Columns that need the least beyond their longest word are served first.
    """
    columns = list(zip(*cells, strict=True))
    widths = [
        max(len(word) for cell in column for word in (*cell.split(), "")) for column in columns
    ]
    whole = [
        max(len(line) for cell in column for line in (*cell.splitlines(), "")) for column in columns
    ]
    spare = room - sum(widths)
    if spare < 0:
        return None
    for i in sorted(range(len(widths)), key=lambda i: whole[i] - widths[i]):
        grown = min(spare, whole[i] - widths[i])
        widths[i] += grown
        spare -= grown
    return widths


def _stacked(cells: list[list[str]], width: int) -> Iterator[str]:
    """Yield a paragraph per row: its first cell, and beneath it the others by their header."""
    header, *rows = cells
    for row in rows:
        yield _apart(f"{header[0]} {row[0]}")
        grid = RichTable.grid(padding=(0, GAP))
        for name, cell in zip(header[1:], row[1:], strict=True):
            if cell not in ("", "-"):
                grid.add_row(Text(name), Text(cell, overflow="fold"))
        yield from (f"  {line}" for line in _printed(grid, width - 2))


def _printed(table: RichTable, width: int) -> Iterator[str]:
    stream = StringIO()
    Console(file=stream, width=width, color_system=None, force_terminal=False).print(table)
    for line in stream.getvalue().splitlines():
        yield _apart(line.rstrip())


def _joined(cell: str) -> str:
    """Return a cell whose intervals and comparisons are single words, which are never broken."""
    return re.sub(r"\[[^]]*\]|[<>=] \S+|(?<=\w) =", lambda m: m[0].replace(" ", JOINER), cell)


def _apart(text: str) -> str:
    return text.replace(JOINER, " ")


def _bullets(notes: list[str], width: int) -> list[str]:
    lines = [""] if notes else []
    for note in notes:
        lines += textwrap.wrap(note, width, initial_indent="- ", subsequent_indent="  ")
    return lines
