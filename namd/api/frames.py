"""Tables that carry the lines a reader must see beside their numbers, and objects as HTML."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from namd.config.flattening import flat

BANNER = "banner"
_STYLE = "border-left: .4rem solid #1b1b1b; padding: .2rem .6rem; font-weight: 600"


class ResultFrame(pd.DataFrame):
    """A DataFrame that shows its banner above its numbers.

    Selections keep the banner (`attrs["banner"]`); `pd.DataFrame(frame)` is without it.
    """

    @property
    def _constructor(self) -> "type[ResultFrame]":
        return ResultFrame

    def __repr__(self) -> str:
        return "\n".join([*self.attrs.get(BANNER, ()), super().__repr__()])

    def _repr_html_(self) -> str:
        table = super()._repr_html_() or ""
        return banner_html(self.attrs.get(BANNER, ())) + table


def result_frame(
    rows: Iterable[Mapping[str, Any]], index: str, columns: Sequence[str], banner: Iterable[str]
) -> ResultFrame:
    """Return rows as a table.

    Args:
        rows: One mapping per row; nested ones become columns such as `auroc.mean`.
        index: The column that names the rows.
        columns: Columns that come first, there even if no row has them.
        banner: Lines to show above the numbers.
    """
    cells = [flat(row, empty=True) for row in rows]
    cells = [{n: None if v == {} else v for n, v in row.items()} for row in cells]
    names = dict.fromkeys([index, *columns, *(name for row in cells for name in row)])
    frame = ResultFrame(cells, columns=list(names)).set_index(index)
    frame.attrs[BANNER] = list(banner)
    return frame


def banner_html(lines: Iterable[str]) -> str:
    """Return lines that must be read before any number, as HTML."""
    return "".join(f'<p style="{_STYLE}">{escape(line)}</p>' for line in lines)


def card_html(title: str, banner: Iterable[str], facts: Mapping[str, object], *parts: str) -> str:
    """Return an object as HTML: title, banner, facts, then parts that are HTML already."""
    lines = "".join(
        f'<tr><th style="text-align: left">{escape(name)}</th>'
        f'<td style="text-align: left">{escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    head = f"<h4>{escape(title)}</h4>{banner_html(banner)}"
    return f"<div>{head}<table><tbody>{lines}</tbody></table>{''.join(parts)}</div>"
