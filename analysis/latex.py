"""Tables as LaTeX, for a paper's source. Needs the package booktabs, nothing else.

pandas writes such tables too, but escapes neither captions nor notes.
"""

from collections.abc import Sequence

from analysis.html_page import Table

SENTENCES = r"p{0.5\textwidth}"
PREAMBLE = "% needs \\usepackage{booktabs}"

SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": "$|$",
    "\u2212": "$-$",
    "\u00b1": r"$\pm$",
    "\u00d7": r"$\times$",
    "\u2193": r"$\downarrow$",
    "\u2191": r"$\uparrow$",
    "\n": " ",
}


def escaped(text: str) -> str:
    """Return text that LaTeX prints as it stands; a line break becomes a space."""
    return "".join(SPECIAL.get(character, character) for character in text)


def latex_table(
    table: Table, caption: str, label: str, notes: Sequence[str] = (), *, sentences: bool = False
) -> str:
    """Return a floating table: its first column on the left, numbers on the right, notes below.

    `sentences`: the last column is text that wraps.
    """
    columns = "l" + "r" * (len(table.header) - 1)
    if sentences:
        columns = columns[:-1] + SENTENCES
    lines = [
        r"\begin{table*}",
        r"\centering\small\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escaped(caption)}}}\label{{{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _line(table.header),
        r"\midrule",
        *(_line(row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip\raggedright\footnotesize {escaped(note)}" for note in notes),
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(_cell, cells)) + r" \\"


def _cell(text: str) -> str:
    """Return a cell, its lines one above the other."""
    lines = [escaped(line) for line in text.splitlines()]
    stacked = r"\\".join(lines)
    return stacked if len(lines) < 2 else rf"\shortstack[r]{{{stacked}}}"
